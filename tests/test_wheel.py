"""What a built wheel holds, used outside the checkout as one installs it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from photos import write_photo

ROOT = Path(__file__).parent.parent
PARTS = ("ppcls", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "ppcls_main.py")
PARTS += ("README.md", "LICENSE", "CHANGELOG.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs the command `ppcls` of a wheel, with the packages of this environment, in a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        own = ROOT / name
        copy = shutil.copytree if own.is_dir() else shutil.copy
        copy(own, source / name)
    # Without isolation nothing is downloaded, where this environment can build wheels at all.
    builds = importlib.util.find_spec("wheel") is not None
    how = ("--no-build-isolation",) if builds else ()
    pip = [sys.executable, "-m", "pip"]
    checked([*pip, "wheel", "--no-deps", *how, "-w", folder, source], folder)
    (wheel,) = folder.glob("*.whl")
    place = folder / "env"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    lib = checked(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
    ).strip()
    # What the wheel needs comes from here; the .pth files in there, and with them an editable
    # install of this checkout, count for nothing.
    Path(lib, "needed.pth").write_text(sysconfig.get_path("purelib"))
    checked([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], folder)

    def run(*arguments):
        return checked([place / "bin" / "ppcls", *arguments], work)

    work = folder / "work"
    work.mkdir()
    where = checked([python, "-c", "import ppcls; print(ppcls.__file__)"], work).strip()
    assert Path(where).is_relative_to(place)
    run.folder = work
    return run


def checked(words, folder):
    unset = ("PYTHONPATH", "PYTHONHOME")
    own = {key: value for key, value in os.environ.items() if key not in unset}
    words = list(map(str, words))
    done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_recipes_are_found_by_name(installed):
    assert "nothing is kept" in installed("train", "-c", "digits", "--dry-run")
    said = installed("train", "-c", "configs/quick_start/digits.yaml", "--dry-run")
    assert "nothing is kept" in said


def test_a_photo_folder_is_a_classifier(installed):
    for i in range(12):
        photo = installed.folder / "photos" / ("ants" if i % 2 else "bees") / f"{i}.jpg"
        write_photo(photo, i, (64, 80, 3))
    out = installed("train", "photos", "-o", "train.epochs=1", "data.workers=0")
    assert out.splitlines()[-2].startswith("predict   ppcls predict --model-dir")
    said = installed("predict", "--model-dir", "runs/photos/exported", "photos/ants")
    assert "ants" in said or "bees" in said

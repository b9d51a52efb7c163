"""Every command of the README runs as it stands there, on a few images of one's own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from photos import write_photo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
SET_UP = [line for line in COMMANDS if line.startswith("python3 -m venv")]  # run by .ci/run
# Tests are short, on images of noise.
EASIER = {
    "tools/train.py": ("-o", "train.epochs=1"),
    "tools/quantize.py": ("--budget", "1"),
    "deploy/benchmark.py": ("--rounds", "1", "--seconds", "0.01", "--engines", "onnxruntime"),
}


def easier(words):
    """Options that make a command short."""
    side = 8 if "digits" in words[-1] else 32
    sizes = (f"preprocess.resize={side}", f"preprocess.crop={side}")
    return EASIER.get(words[1], ()) + (sizes if words[1] == "tools/train.py" else ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A clone as a user sees it, with eight images of ants and bees."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "deploy", "ppcls", "tools"):
        (folder / name).symlink_to(ROOT / name)
    for i, place in enumerate(("train/ants", "train/bees", "val/ants", "val/bees")):
        for j in range(4 if i < 2 else 2):
            write_photo(folder / "photos" / place / f"{j}.jpg", 10 * i + j, (80, 100, 3))
    return folder


def execute(folder, words):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_first_lines_set_everything_up():
    assert COMMANDS[:2] == SET_UP
    assert len(SET_UP) == 2


def test_every_command_runs_in_order(folder):
    commands = [line for line in COMMANDS if line not in SET_UP and "solar_cells" not in line]
    assert len(commands) == 16
    said = ""
    for line in commands:
        words = shlex.split(line)
        assert words[0] == "python"
        said += execute(folder, [sys.executable, *words[1:], *easier(words)])
    assert "palace" in said
    assert "daisy" in said
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 2 * 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_solar_cells_reach_what_the_readme_says(folder):
    (line,) = [line for line in COMMANDS if "solar_cells" in line]
    out = execute(folder, [sys.executable, *shlex.split(line)[1:]])
    assert float(re.findall(r"top-1 (\S+) %", out)[-1]) >= 85.5


def test_the_python_example_runs(folder):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace("exported/own_photos", "exported/lite0")
    assert "'ResNet50_vd'" in execute(folder, [sys.executable, "-c", code])


def test_the_files_the_readme_names_exist():
    for name in re.findall(r"(?:configs|tools|deploy)/[\w/]+\.(?:yaml|py)", README):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"\]\(([\w/]+\.md)\)", README):
        assert (ROOT / name).is_file(), name

"""Packages beside us: PaddleClas's of the same name, and OpenCV in several versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def paddleclas(tmp_path):
    """What a checkout of PaddleClas looks like to Python."""
    for name in ("__init__", "arch/__init__", "data/__init__", "engine/__init__", "loss/__init__"):
        path = tmp_path / "PaddleClas/ppcls" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise ImportError('PaddleClas was imported')\n")
    return tmp_path / "PaddleClas"


def python(*arguments, folder, path=""):
    found = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, map(str, [path])))},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout, found.stderr


COMMAND = "import sys; sys.path.append({root!r}); from ppcls_main import main; sys.exit(main())"


def test_the_command_names_a_checkout_in_the_path(paddleclas, tmp_path):
    command = ("-c", COMMAND.format(root=str(ROOT)), "models")
    code, _, err = python(*command, folder=tmp_path, path=paddleclas)
    assert code == 2
    assert err.splitlines() == [
        f"error: {paddleclas}/ppcls is PaddleClas's package of the name ppcls and hides this one "
        f"({ROOT}/ppcls): leave that folder, or take {paddleclas} out of PYTHONPATH"
    ]


def test_scripts_run_in_a_checkout_and_with_it_in_the_path(paddleclas):
    code, out, err = python(
        ROOT / "tools/check_data.py", "--help", folder=paddleclas, path=paddleclas
    )
    assert (code, err) == (0, "")
    assert "usage: ppcls check-data" in out


def test_a_script_that_was_copied_into_a_checkout_says_whose_package_it_finds(paddleclas):
    script = paddleclas / "tools/train.py"
    script.parent.mkdir()
    script.write_bytes((ROOT / "tools/train.py").read_bytes())
    code, _, err = python(script, "--help", folder=paddleclas, path=ROOT)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert f"{paddleclas}/ppcls is PaddleClas's package" in err


@pytest.mark.slow
def test_processes_started_from_a_checkout_are_of_this_package(paddleclas):
    script, flags = ROOT / "tools/train.py", ("--processes", "2")
    namesakes(paddleclas)
    (paddleclas / "none.yaml").write_text(
        "model: {name: ResNet18}\ntrain: {epochs: 1, batch_size: 2, schedule: {lr: 1}}\n"
    )
    code, _, err = python(script, "-c", "none.yaml", *flags, folder=paddleclas)
    assert code == 2
    assert "PaddleClas was imported" not in err
    assert "data.train is not given" in err


# ------------------------------------------------------------------------- the working folder

NAMES = ("dl", "json", "multiprocessing", "numpy", "paddle", "pickle", "queue", "random", "runpy")
NAMES += ("socket", "struct", "tempfile")
SMALL = ("-o", "model.name=ResNet18", "train.batch_size=2", "train.epochs=1", "data.workers=2")


def namesakes(folder, names=NAMES):
    """Files of a user's that have the names of modules."""
    for name in names:
        code = f"import sys; sys.exit('{name} of the working folder was imported')\n"
        (folder / f"{name}.py").write_text(code)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot be told")
def test_no_process_imports_from_the_working_folder(workdir):
    namesakes(workdir)
    train = (ROOT / "tools/train.py", "-c", "recipe.yaml", "--processes", "2", *SMALL)
    export = (ROOT / "tools/export.py", "-c", "recipe.yaml", "--output", "exported", *SMALL)
    bench = (ROOT / "deploy/benchmark.py", "--model-dir", "exported", "--batch-sizes", "1")
    commands = (train, (*export, "--format", "paddle", "onnx"), (*bench, "--output", "bench"))
    for command in commands:
        code, out, err = python(*command, folder=workdir)
        assert "of the working folder was imported" not in out + err
        assert code == 0, err


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot be told")
def test_python_m_leaves_the_working_folder_and_keeps_the_path(workdir):
    """What Python itself imports before `ppcls` runs is out of reach."""
    namesakes(workdir, ("dl", "multiprocessing", "paddle", "queue"))
    train = ("-m", "ppcls", "train", "-c", "recipe.yaml", "--processes", "2", *SMALL)
    code, out, err = python(*train, folder=workdir, path=ROOT)
    assert "of the working folder was imported" not in out + err
    assert code == 0, err


def test_a_folder_of_the_path_stays_although_it_is_the_working_folder(tmp_path):
    (tmp_path / "mine.py").write_text("print('mine')")
    code = "from ppcls.utils import environment; environment.forget_working_folder(); import mine"
    path = os.pathsep.join(map(str, (ROOT, tmp_path)))
    assert python("-c", code, folder=tmp_path, path=path)[:2] == (0, "mine\n")
    code, _, err = python("-c", code, folder=tmp_path, path=ROOT)
    assert code == 1
    assert "No module named 'mine'" in err


# ------------------------------------------------------------------------------------- OpenCV

LOADED = (
    "from ppcls.cli import main; import sys; sys.exit(main(['make-shards', 'x.tar', 'shards']))"
)


def opencv(folder, name, version, code):
    """A package `cv2` as pip leaves it: found before the real one."""
    (folder / "cv2").mkdir(exist_ok=True)
    (folder / "cv2/__init__.py").write_text(code)
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


BROKEN = {
    "cannot be loaded (numpy.core.multiarray failed to import)": (
        "import sys; print('A module that was compiled using NumPy 1.x', file=sys.stderr)\n"
        "raise ImportError('numpy.core.multiarray failed to import')\n"
    ),
    "cannot be loaded (libGL.so.1: cannot open shared object file)": (
        "raise ImportError('libGL.so.1: cannot open shared object file')\n"
    ),
    "is too old (4.7.0)": (
        "__version__ = '4.7.0'\nimdecode = cvtColor = setNumThreads = lambda *a: None\n"
    ),
    "is not whole": "",
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_opencv_that_does_not_do_is_one_line(tmp_path, what):
    opencv(tmp_path, "opencv-contrib-python", "4.6.0.66", BROKEN[what])
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    code, _, err = python("-c", LOADED, folder=tmp_path, path=path)
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"error: OpenCV {what}")
    assert "opencv-contrib-python 4.6.0.66" in err
    assert "pip uninstall -y opencv-contrib-python" in err or "uninstall -y opencv-" in err


def test_an_opencv_without_the_newer_order_of_colours_reads_the_same(tmp_path):
    """As of 4.8 to 4.10: `IMREAD_COLOR_RGB` is not there."""
    code = (
        "import sys, io, numpy as np, cv2\n"
        "del cv2.IMREAD_COLOR_RGB\n"
        "from PIL import Image\n"
        "from ppcls.data.decode import decode\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)\n"
        "file = io.BytesIO(); Image.fromarray(pixels).save(file, 'JPEG')\n"
        "wanted = np.asarray(Image.open(file).convert('RGB'))\n"
        "for channels in (3, 4):\n"
        "    found = decode(file.getvalue(), channels, 'x.jpg')[..., :3]\n"
        "    assert (found == wanted).all()\n"
        "grey = decode(file.getvalue(), 1, 'x.jpg')[..., 0].astype(int)\n"
        "assert abs(grey - np.asarray(Image.fromarray(wanted).convert('L'))).max() <= 1\n"
    )
    code, _, err = python("-c", code, folder=tmp_path, path=ROOT)
    assert (code, err) == (0, "")

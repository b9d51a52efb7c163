"""A small set of images, a small recipe, and the command line in this process."""

import gc
import os
import shutil
import sys
import traceback
from contextlib import contextmanager

import pytest

os.environ.setdefault("MKL_NUM_THREADS", "1")  # before ppcls: the cores have tests of their own
# Compiling takes longer than what most tests train; tests/kernels sets it back.
os.environ.setdefault("PPCLS_KERNELS", "0")

from small_run import furnish, said

from ppcls.cli import main  # importing ppcls before paddle sets the threads that paddle takes


def pytest_collection_modifyitems(items):
    """The file that takes longest begins, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def pytest_collection_finish():
    """What is imported stays, so that nobody need look for garbage in it again and again."""
    gc.freeze()


@pytest.fixture
def no_stacks(monkeypatch):
    """Paddle notes the Python stack with each operation of a static program: half of the time.

    Who asks for its last lines, as packages do that are imported then, gets them.
    """
    whole = traceback.extract_stack
    short = lambda frame=None, limit=None: whole(frame, limit) if limit else []  # noqa: E731
    monkeypatch.setattr(traceback, "extract_stack", short)


@pytest.fixture
def one_engine(monkeypatch):
    """A context in which Paddle's engines alone are installed: one is chosen sooner than three."""

    @contextmanager
    def one_engine():
        with monkeypatch.context() as patch:
            for other in ("onnxruntime", "openvino"):
                patch.setitem(sys.modules, other, None)
            yield

    return one_engine


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A working directory with 12 images to train on, 6 to evaluate, and `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The run of `recipe.yaml`, made once: the folder it is in, and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    furnish(folder)
    return folder, said(folder, "train", "-c", "recipe.yaml")


@pytest.fixture(scope="session")
def finished_export(finished):
    """The export of that run, made once: its folder, and what was said."""
    command = ("export", "-c", "recipe.yaml", "--output", "exported/small")
    return finished[0] / "exported", said(finished[0], *command)


@pytest.fixture
def trained(finished, workdir):
    """The finished run as `runs/small` of the working directory; what it said."""
    shutil.copytree(finished[0] / "runs", workdir / "runs")
    return finished[1]


@pytest.fixture
def exported(trained, finished_export, workdir):
    """Its export as `exported/small`, too; what that said."""
    shutil.copytree(finished_export[0], workdir / "exported")
    return finished_export[1]


@pytest.fixture
def run(capsys):
    """Run a command line in this process: `code, out, err = run("train", "-c", …)`."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

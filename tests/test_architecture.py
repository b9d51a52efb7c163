"""docs/architecture.md: its drawing is up to date, its files exist, its walks are what runs."""

import inspect
import re
import runpy
import sys
import threading
from pathlib import Path

import pytest

import ppcls

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = Path(ppcls.__file__).parent
# A file, or all of some name, as pages write them.
NAMED = re.compile(r"`((?:ppcls|tests|tools|deploy|docs|configs|benchmarks)/[\w./*<>-]*)`")


def test_the_drawing_is_what_the_script_draws():
    made = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))["drawing"]()
    drawn = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == made, "run python docs/draw_architecture.py"


@pytest.mark.parametrize("page", [Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))])
def test_files_that_pages_name_exist(page):
    named = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    lost = {name for name in named if "<" not in name and not list(ROOT.glob(name))}
    assert not lost, f"{page}: no such files: {sorted(lost)}"


def test_the_page_names_a_file_for_each_step():
    assert [len(files("batch")), len(files("prediction"))] == [16, 9]


def files(walk):
    """The files of ppcls that a walk of the page lists, in its numbered lines and its bullets."""
    (section,) = re.findall(rf"^## A {walk}\b.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^(?:\d+\.|-) `(ppcls/[^`]+)`", section, re.MULTILINE)


class Watch:
    """Notes which files of ppcls run, but for those of utils, from a call to a call.

    Attributes:
        begin, end: whether a call is the first, and the one after the last: by the files of who
            calls and who is called, and the name of the function.
    """

    def __init__(self, begin, end=lambda caller, called, name: False):
        self.begin = begin
        self.end = end
        self.seen = None
        self.over = False

    def __enter__(self):
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        return self

    def __exit__(self, *exception):
        sys.setprofile(None)
        threading.setprofile(None)

    def note(self, frame, event, argument):
        if event != "call" or self.over:
            return
        called = frame.f_code.co_filename
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if self.begin(caller, called):
            self.seen = set()
        if self.seen is None:
            return
        if self.end(caller, called, frame.f_code.co_name):
            self.over = True
        elif Path(called).is_relative_to(PACKAGE) and not is_body(frame):
            self.seen.add(str(Path("ppcls") / Path(called).relative_to(PACKAGE)))

    def found(self):
        assert self.seen
        return {file for file in self.seen if not file.startswith("ppcls/utils/")}


def is_body(frame):
    """Whether what begins is the body of a module or class, as when a file is imported."""
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED


def test_a_batch_passes_the_files_of_the_page(workdir, run):
    watch = Watch(
        lambda caller, called: (
            called.endswith("ppcls/data/sampler.py") and caller.endswith("ppcls/train/trainer.py")
        ),
        lambda caller, called, name: "paddle/optimizer" in called and name == "step",
    )
    with watch:
        code, _, err = run(
            "train", "-c", "recipe.yaml", "-o", "model.name=ResNet18", "train.epochs=1",
            "train.optimizer={kind: rmsprop}",
        )  # fmt: skip
    assert code == 0, err
    assert watch.over
    assert watch.found() == set(files("batch"))


def passed_by_a_prediction(run):
    """The files whose functions run for one image from the command line."""
    watch = Watch(
        lambda caller, called: (
            called.endswith("ppcls/inference/results.py")
            and caller.endswith("ppcls/commands/predict.py")
        )
    )
    command = ("predict", "--model-dir", "exported/small", "--engine", "paddle")
    with watch:
        code, out, err = run(*command, "photos/eval/ant/0.png")
    assert code == 0, err
    assert "ant" in out
    before = {"ppcls/cli.py", "ppcls/commands/predict.py"}  # which call the first one watched
    return watch.found() | before


def test_a_prediction_passes_the_files_of_the_page(exported, workdir, run):
    assert passed_by_a_prediction(run) == set(files("prediction"))


def test_a_calibrated_prediction_passes_one_file_more(exported, workdir, run):
    few = ("--coverage", "0.5", "--false-alarms", "0.5", "--engine", "onednn")
    code, _, err = run("calibrate", "--model-dir", "exported/small", "--data", "photos/train", *few)
    assert code == 0, err
    more = "ppcls/inference/calibration.py"
    assert f"one file more, `{more}`" in PAGE
    assert passed_by_a_prediction(run) == {*files("prediction"), more}

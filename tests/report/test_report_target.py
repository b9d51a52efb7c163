"""A report is written whole or not at all, and touches no other file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluated import SMALL, read_json, read_rows, score

from ppcls.data.datasets import Paths, Samples
from ppcls.report import page
from ppcls.train import evaluate
from ppcls.utils.errors import UserError


def test_only_the_reports_own_files_are_replaced(network, monkeypatch):
    Path("report").mkdir()
    for name in ("mine.txt", "scores.npz", "report.json"):
        Path("report", name).write_text("old")
    Path("report/.incomplete").mkdir()
    Path("report/.incomplete/scores.npz").write_text("of a killed run")
    score(network, Path("report"))
    assert {path.name for path in Path("report").iterdir()} == SMALL | {"mine.txt"}
    assert Path("report/mine.txt").read_text() == "old"
    assert read_json()["photos"] == 40
    before = {path: path.read_bytes() for path in Path("report").iterdir()}
    monkeypatch.setattr(page.page, "to_html", fail)
    for folder in ("report", "new/folder"):
        with pytest.raises(UserError, match=f"--report {folder}: cannot be written .No space left"):
            score(network, Path(folder))
    assert {path: path.read_bytes() for path in Path("report").iterdir()} == before
    assert not Path("new").exists()


def fail(*_):
    raise OSError(28, "No space left on device")


def test_a_broken_photo_leaves_nothing(network):
    Path("photos/3, a.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"list.txt:4"):
        score(network, Path("new/report"))
    assert not Path("new").exists()


def test_photos_that_are_skipped_are_not_in_the_report(network):
    Path("photos/3, a.png").write_bytes(b"broken")
    recipe = replace(network.recipe, data=replace(network.recipe.data, on_error="skip"))
    scores = score(replace(network, recipe=recipe), Path("report"))
    rows = read_rows()
    assert len(rows) == 39
    assert not any("photos/3, a.png" in row["path"] for row in rows)
    assert read_json()["scores"]["top1"] == pytest.approx(scores["top1"])
    for path in Path("photos").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"no photo of list.txt can be read: list.txt:1"):
        score(replace(network, recipe=recipe), Path("none"))


def test_a_target_that_cannot_be_written_is_said_before_the_evaluation(network, monkeypatch):
    monkeypatch.setattr(evaluate, "run", None)
    Path("file").touch()
    Path("full/report.html").mkdir(parents=True)
    mistakes = {
        "file": "--report file: exists and is no folder",
        "file/below": "--report file/below: cannot be written",
        "full": r"--report full: full/report.html is a folder",
    }
    for folder, words in mistakes.items():
        with pytest.raises(UserError, match=words):
            score(network, Path(folder))
    assert [path.name for path in Path("full").iterdir()] == ["report.html"]
    several = Samples(Paths(["a.png"]), np.ones((1, 7), np.int64), (), "list.txt")
    monkeypatch.setattr(evaluate, "open_eval", lambda *_: several)
    with pytest.raises(UserError, match=r"^list\.txt: its photos have several labels each"):
        score(network, Path("new"))
    assert not Path("new").exists()


def test_the_current_folder_may_be_the_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with page.staged(Path(), ["a"]) as folder:
        (folder / "a").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

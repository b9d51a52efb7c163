"""A report is written whole or not at all, and touches no other file."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from evaluated import NAMES, SMALL, read_json, read_rows, score
from file_limit import limited_files

from ppcls.report import multilabel_page, page
from ppcls.tasks import MultiLabel
from ppcls.train import evaluate
from ppcls.train.setup import eval_samples
from ppcls.utils.errors import UserError


def test_only_the_reports_own_files_are_replaced(network):
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
    pages = sorted(before, key=lambda path: len(before[path]))
    assert pages[-1].name == "report.html"  # written last
    limit = len(before[pages[-1]]) - 1000
    assert limit > len(before[pages[-2]])
    for folder in ("report", "new/folder"):
        words = f"--report {folder}: cannot be written .File too large"
        with limited_files(limit), pytest.raises(UserError, match=words):
            score(network, Path(folder))
    assert {path: path.read_bytes() for path in Path("report").iterdir()} == before
    assert not Path("new").exists()


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
    with pytest.raises(UserError, match=r"no image of list.txt can be read: list.txt:1"):
        score(replace(network, recipe=recipe), Path("none"))


def test_a_target_that_cannot_be_written_is_said_before_the_evaluation(network):
    Path("photos/3, a.png").write_bytes(b"broken")  # which the evaluation would say
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


def test_a_report_on_several_labels_takes_the_place_of_one_on_one(network):
    """Only where that is asked for; then nothing of the other kind stays."""
    score(network, Path("report"))
    with open("many.csv", "w", newline="") as file:
        rows = [[f"photos/{i}, a.png", *[int(i % 7 == c) for c in range(7)]] for i in range(14)]
        csv.writer(file).writerows([["path", *NAMES], *rows])
    recipe = network.recipe
    recipe = replace(recipe, task=MultiLabel(), data=replace(recipe.data, eval="many.csv"))
    several = replace(network, recipe=recipe)
    with pytest.raises(UserError, match="already holds a report on"):
        score(several, Path("report"))
    evaluate.score(several, eval_samples(several), Path("report"), overwrite=True)
    expected = set(multilabel_page.FILES) - {"scores.npz"}
    assert {path.name for path in Path("report").iterdir()} == expected
    assert read_json()["photos"] == 14


def test_the_current_folder_may_be_the_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with page.staged(Path(), ["a"]) as folder:
        (folder / "a").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

"""`ppcls train --folds`: a run for each fold, and what they come to together."""

import csv
import json
import os
import re
import signal
import statistics
from pathlib import Path

import pytest
from cut_run import at_step

from ppcls.config.load import load
from ppcls.recipe import Recipe
from ppcls.train.setup import open_datasets, open_eval
from ppcls.weights import files

OPTIONS = ("data.eval=null", "train.epochs=2", "train.batch_size=6", "train.log_every=9")
FOLDS = ("train", "-c", "recipe.yaml", "--folds", "2", "-o", *OPTIONS)


def predictions(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tensors(fold, folder="runs/small"):
    found = files.read(Path(folder) / f"fold-{fold}/latest.safetensors").tensors
    return {name: value.tobytes() for name, value in found.items()}


@pytest.mark.slow
def test_an_interrupted_fold_goes_on_and_finished_ones_stay(workdir, run, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))  # the second fold's first
        code, out, _ = run(*FOLDS)
    assert code == 130
    assert "interrupted at step 1 of 2" in out
    state = json.loads(Path("runs/small/folds.json").read_text())
    assert [fold["state"] for fold in state["folds"]] == ["done", "begun"]
    assert not Path("runs/small/folds.md").exists()
    first = tensors(1)
    code, _, err = run(*FOLDS)
    assert code == 2
    assert "already holds runs of folds: --resume" in err
    code, _, err = run(*FOLDS, "train.epochs=3", "--resume")
    assert code == 2
    assert "was made otherwise (train.epochs: 2 -> 3)" in err
    code, out, err = run(*FOLDS, "--resume")
    assert code == 0, err
    assert "fold 1 of 2: done before, top-1" in out
    assert "resuming after step 1 of 2" in out
    assert out.count("writing to runs/small/fold-") == 1
    assert tensors(1) == first
    state = json.loads(Path("runs/small/folds.json").read_text())
    for name in ("top1", "loss"):
        values = [fold["scores"][name] for fold in state["folds"]]
        assert state["mean"][name] == pytest.approx(statistics.fmean(values))
        assert state["spread"][name] == pytest.approx(statistics.stdev(values))
    rows = predictions("runs/small/predictions.csv")
    listed = {str(path) for path in Path("photos/train").rglob("*.png")}
    assert {row["path"] for row in rows} == listed
    assert len(rows) == 12
    for number, fold in enumerate(state["folds"], 1):
        own = [row for row in rows if row["fold"] == str(number)]
        assert [row["label"] for row in own].count("ant") == 3
        right = [row["label"] == row["predicted"] for row in own]
        assert sum(right) / len(own) == pytest.approx(fold["scores"]["top1"])
        assert all(0.5 <= float(row["score"]) <= 1 for row in own)
    table = Path("runs/small/folds.md").read_text()
    assert re.search(r"\| mean ± spread \| 12 \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \|", table)
    # The very images of the fold are those that its checkpoint is scored on.
    code, out, _ = run("eval", "--weights", "runs/small/fold-2/best.safetensors")
    assert code == 0
    assert f"on 6 images: top-1 {100 * state['folds'][1]['scores']['top1']:.2f} %" in out


@pytest.mark.slow
def test_a_resumed_fold_is_what_it_would_have_been(workdir, run, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(*FOLDS)[0] == 130
    assert run(*FOLDS, "--resume")[0] == 0
    assert run(*FOLDS, "output=runs/whole")[0] == 0
    for fold in (1, 2):
        assert tensors(fold) == tensors(fold, "runs/whole")
    whole = Path("runs/whole/predictions.csv").read_text()
    assert Path("runs/small/predictions.csv").read_text() == whole
    # A single one by its number is the same run.
    assert run(*FOLDS, "data.fold=2", "output=runs/alone/fold-2")[0] == 0
    assert tensors(2) == tensors(2, "runs/alone")
    # Started anew and cut before its first checkpoint, the second fold does not go on from the old.
    with monkeypatch.context() as patch:
        at_step(patch, 2, cut)
        with pytest.raises(SystemExit):
            run(*FOLDS, "train.schedule.lr=0.002", "--overwrite")
    code, out, err = run(*FOLDS, "train.schedule.lr=0.002", "--resume")
    assert code == 0, err
    assert "fold 1 of 2: done before" in out
    assert "resuming" not in out
    assert tensors(2) != tensors(2, "runs/whole")


def cut():
    raise SystemExit("cut")


@pytest.mark.slow
def test_several_labels_and_groups_of_a_column(workdir, run):
    photos = sorted(str(path) for path in Path("photos/train").rglob("*.png"))
    rows = [f"{photo},{i % 2},p{i // 2},{int(i % 3 > 0)}\n" for i, photo in enumerate(photos)]
    Path("many.csv").write_text("".join(["path,cat,patient,dog\n", *rows]))
    options = ("data.train=many.csv", "data.group_by.column=patient", "task.kind=multilabel")
    given = ("model.num_classes=null", "task.loss={kind: bce}")
    code, out, err = run(*FOLDS, *options, *given)
    assert code == 0, err
    assert "fold 1 of 2: 3 of 6 groups, 6 of 12 images (50.0%)" in out
    patients = {}
    for row in predictions("runs/small/predictions.csv"):
        patient = photos.index(row["path"]) // 2
        assert patients.setdefault(patient, row["fold"]) == row["fold"]
        assert set(row["label"].split(", ")) <= {"cat", "dog", ""}
    code, _, err = run(*FOLDS, *options, *given, "data.group_by.column=patents", "--overwrite")
    assert code == 2
    assert "many.csv:1: no column is called 'patents'; did you mean 'patient'?" in err


@pytest.mark.slow
def test_processes_and_a_dry_run(workdir, run):
    processes = ("--processes", "2")
    small = ("train.batch_size=2", "output=runs/two")
    code, _, err = run(*FOLDS, *small, "--dry-run", *processes)
    assert code == 0, err
    assert not Path("runs").exists()
    code, _, err = run(*FOLDS, *small, *processes)
    assert code == 0, err
    assert len(predictions("runs/two/predictions.csv")) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--folds", "1"), "data.folds: should be greater than or equal to 2"),
        (("--folds", "7"), "data.folds: photos/train has too few images for 7 folds"),
        (("--folds", "2", "--resume"), "folds.json does not exist: there are no folds"),
        (("-o", "data.fold=2"), "there is no fold 2 without folds"),
        (("--folds", "3", "-o", "data.holdout=0.2"), "folds and holdout both take"),
        (("--folds", "3", "-o", "data.eval=photos/eval"), "give eval or folds"),
        (("--folds", "2", "-o", "data.group_by={path: '^ant|bee'}"), "of no class are there"),
        (("--folds", "2", "-o", "data.group_by={path: photo|ng}"), "all 12 images of photos/train"),
        (("-o", "data.holdout=0.2", "data.group_by={path: '('}"), "no regular expression"),
        (("-o", "data.holdout=0.2", "data.group_by={column: a}"), "photos/train has no columns"),
        (
            ("-o", "data.holdout=0.2", "data.group_by={path: '[1-9]'}"),
            "in 2 of 12 paths",
        ),
    ],
)
def test_what_cannot_be_divided_is_said_in_a_line(workdir, run, options, words):
    if "--folds" in options and "7" in options:
        for name in ("ant", "bee"):
            for i in (1, 2, 3):
                Path(f"photos/train/{name}/{i}.png").unlink()
    given = options if "-o" in options else (*options, "-o")
    own = () if any(item.startswith("data.eval=") for item in options) else ("data.eval=null",)
    code, _, err = run("train", "-c", "recipe.yaml", *given, *own)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "chosen",
    [
        ("data.holdout=0.3", "data.group_by={path: '[0-5]'}"),
        ("data.holdout=0.3", "data.group_by={path: '[0-5]'}", "data.labeled=0.5"),
        ("data.folds=3", "data.fold=2"),
        ("data.folds=3", "data.fold=2", "data.group_by={path: '(ant|bee)/([0-5])'}"),
    ],
)
def test_evaluation_chooses_the_photos_that_training_kept(workdir, chosen, capsys):
    recipe = load(Recipe, "recipe.yaml", ("data.eval=null", *chosen))
    _, inputs = open_datasets(recipe)
    scored = open_eval(recipe, 2, ("ant", "bee"))
    assert inputs.eval.digest() == scored.digest()
    assert list(inputs.eval.paths) == list(scored.paths)
    assert set(inputs.train.paths).isdisjoint(scored.paths)
    assert scored.counts(2).tolist() == [2, 2]
    out = capsys.readouterr().out
    assert ("2 of 6 groups, 4 of 12 images (33.3%)" in out) == ("[0-5]'" in chosen[1])
    assert ("data.labeled: 2 of 4 groups, 4 of 8 images" in out) == ("data.labeled=0.5" in chosen)


def test_shares_that_whole_groups_cannot_meet_are_said(workdir, run):
    for i, name in enumerate(sorted(Path("photos/train").rglob("*.png"))):
        name.rename(name.with_name(f"{'p1' if i % 6 < 4 else 'p2'}_{i}.png"))
    Path("photos/train/cow").mkdir()
    Path("photos/train/ant/p1_0.png").rename("photos/train/cow/p1_0.png")
    chosen = ("data.holdout=0.1", "data.group_by={path: '^.*/(p[0-9])'}", "data.eval=null")
    _, out, _ = run("show-data", "-c", "recipe.yaml", "--output", "sheet.png", "-o", *chosen,
                    "model.num_classes=null")  # fmt: skip
    assert "held out for evaluation: 1 of 2 groups, 4 of 12 images (33.3%)" in out
    assert "10% was asked for and whole groups come to 33.3%; the largest, 'p1', has 66.7%" in out
    assert "note: 1 class not scored for lack of groups: cow" in out

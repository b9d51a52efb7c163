"""When runs end early, what is best, what is kept, and images that cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from cut_run import cut

from ppcls.config.node import Span
from ppcls.optim.schedules import EarlyStop
from ppcls.utils.log import read_records
from ppcls.weights import files

TRAIN = ("train", "-c", "recipe.yaml", "-o")
STILL = ("train.schedule.lr=1e-30", "train.schedule.warmup=0", "model.freeze=['*.norm.*']")


def evals(name):
    return [r for r in read_records(Path(f"runs/{name}/run.jsonl")) if r["event"] == "eval"]


def scored(*scores, every=10):
    return [{"step": every * (i + 1), "top1": s, "loss": 1 - s} for i, s in enumerate(scores)]


def test_a_run_stops_when_the_best_is_long_ago():
    stop = EarlyStop(patience=Span(20, "steps"))
    assert not stop.reached([], "top1", 20)
    assert not stop.reached(scored(0.5, 0.4), "top1", 20)
    assert stop.reached(scored(0.5, 0.4, 0.5), "top1", 20)  # as good is not better
    assert not stop.reached(scored(0.5, 0.4, 0.6), "top1", 20)
    assert EarlyStop(score="loss").reached(scored(0.5, 0.4, 0.4), "top1", 20)
    rising = [{"step": 10, "top1": 0.5, "loss": 1.0}, {"step": 30, "top1": 0.4, "loss": 0.5}]
    assert stop.reached(rising, "top1", 20)
    assert not EarlyStop(score="loss").reached(rising, "top1", 20)


def test_a_run_that_gets_no_better_stops_and_is_finished(workdir, run):
    options = (*STILL, "train.epochs=9", "train.early_stop={patience: 2 epochs}", "output=runs/s")
    code, out, _ = run(*TRAIN, *options)
    assert code == 0
    assert "stopping early at step 9: evaluations became no better for long" in out
    assert "finished: runs/s/best.safetensors" in out
    assert [r["epoch"] for r in evals("s")] == [1, 2, 3]
    code, out, _ = run(*TRAIN, *options, "--resume")
    assert code == 0
    assert len(evals("s")) == 3


@pytest.mark.parametrize("score", [pytest.param("top1", marks=pytest.mark.slow), "loss"])
def test_the_best_weights_are_those_of_the_score_asked_for(workdir, run, score):
    """All images are soon named right, and the loss goes on falling."""
    photos = [f"photos/train/ant/{i}.png 0\n" for i in range(6)]
    Path("list.txt").write_text("".join([*photos, "photos/train/bee/0.png 1\n"]))
    Path("ants.txt").write_text("".join(photos))
    options = ("data.train=list.txt", "data.eval=ants.txt", "train.schedule.lr=5e-4")
    options += ("train.epochs=4", "train.drop_last=false", "model.freeze=['*.norm.*']")
    options += ("output=runs/best",)
    assert run(*TRAIN, *options, f"eval.best={score}")[0] == 0
    best = json.loads(files.read("runs/best/best.safetensors").metadata["ppcls"])
    found = evals("best")
    surest, least = (
        max(found, key=lambda r: r["top1"]),  # the first of equal ones
        min(found, key=lambda r: r["loss"]),
    )
    assert surest["step"] < least["step"]
    wanted = {"top1": surest, "loss": least}[score]
    assert best["step"] == wanted["step"]
    assert best["scores"] == {name: wanted[name] for name in ("top1", "loss")}


def test_a_score_that_is_not_there_cannot_be_the_best(workdir, run):
    code, _, err = run(*TRAIN, "eval.best=map", "output=runs/no")
    assert code == 2
    assert "eval.best: map is not scored in classify of 2 classes: top1, loss are" in err
    code, _, err = run(*TRAIN, "data.eval=null", "eval.best=loss", "output=runs/no")
    assert code == 2
    assert "eval.best needs scores and there is nothing to evaluate" in err


def test_the_last_checkpoints_are_kept(workdir, run):
    options = ("train.save_every=2 steps", "train.keep=2", "output=runs/kept")
    assert run(*TRAIN, *options)[0] == 0
    names = sorted(path.name for path in Path("runs/kept").glob("*.safetensors"))
    assert names == [
        "best.safetensors", "latest.safetensors",
        "step-00000004.safetensors", "step-00000006.safetensors",
    ]  # fmt: skip
    steps = [
        json.loads(files.read(f"runs/kept/step-0000000{n}.safetensors").metadata["ppcls"])["step"]
        for n in (4, 6)
    ]
    assert steps == [4, 6]


def test_photos_that_cannot_be_read_are_left_out_and_listed(workdir, run, monkeypatch):
    Path("photos/train/bee/3.png").write_bytes(b"no image")
    Path("photos/eval/ant/1.png").write_bytes(b"")
    options = ("data.on_error=skip", "train.batch_transforms=[{op: mixup}]")
    code, out, _ = run(*TRAIN, *options, "output=runs/whole")
    assert code == 0
    lines = Path("runs/whole/skipped.txt").read_text().splitlines()
    assert len(lines) == 2
    assert any(line.startswith("photos/train/bee/3.png: not a JPEG") for line in lines)
    assert any(line.startswith("photos/eval/ant/1.png: empty file") for line in lines)
    assert "2 images cannot be read and are left out" in out
    # 5 images of 6 are scored: shares are fifths.
    assert all(round(5 * r["top1"], 9) == round(5 * r["top1"]) for r in evals("whole"))
    code, out, _ = run("eval", "-c", "recipe.yaml", "-o", *options, "output=runs/whole")
    assert code == 0
    assert "on 5 images" in out
    assert "1 image cannot be read" in out
    with monkeypatch.context() as patch:
        cut(patch, step=4)
        with pytest.raises(SystemExit):
            run(*TRAIN, *options, "output=runs/cut")
    assert run(*TRAIN, *options, "output=runs/cut", "--resume")[0] == 0
    whole, rest = (files.read(f"runs/{n}/latest.safetensors").tensors for n in ("whole", "cut"))
    for name, value in whole.items():
        np.testing.assert_array_equal(value, rest[name])


def test_what_a_step_that_diverges_saw_is_kept(workdir, run):
    code, _, err = run(*TRAIN, "train.schedule.lr=1e30", "train.schedule.warmup=0", "output=runs/d")
    assert code == 2
    assert "its images are listed in runs/d/not_finite.txt" in err
    places = Path("runs/d/not_finite.txt").read_text().splitlines()
    assert len(places) == 4
    assert all(Path(place).is_file() for place in places)
    with np.load("runs/d/not_finite.npz") as kept:
        assert kept["images_0"].shape == (4, 32, 32, 3)
        assert len(kept["targets_0"]) == len(kept["indices_0"]) == 4


def test_a_dry_run_does_everything_and_keeps_nothing(workdir, run):
    before = sorted(path for path in workdir.rglob("*"))
    options = ("train.schedule.warmup=1 epoch", "train.epochs=500", "eval.batch_size=1")
    code, out, _ = run(*TRAIN, *options, "--dry-run")
    assert code == 0
    assert "2 steps, evaluation, checkpoint and export went well; nothing is kept" in out
    assert "epoch 1: top-1" in out
    assert "its probabilities differ from the trained network's by" in out
    assert sorted(path for path in workdir.rglob("*")) == before
    for path in workdir.glob("photos/eval/*/0.png"):
        path.write_bytes(b"")
    code, _, err = run(*TRAIN, *options, "--dry-run")
    assert code == 2
    assert "photos/eval/ant/0.png: empty file" in err
    assert not (workdir / "runs").exists()

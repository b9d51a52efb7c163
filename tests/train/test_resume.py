"""A run that was cut and resumed is the run that was not, bit for bit."""

import json
import os
import signal

import numpy as np
import pytest

from ppcls.train.trainer import Trainer
from ppcls.weights import files

TRAIN = ("train", "-c", "recipe.yaml", "-o")


def state(folder):
    """Every tensor of a checkpoint as bytes, and its step and scores."""
    checkpoint = files.read(folder / "latest.safetensors")
    record = json.loads(checkpoint.metadata["ppcls"])
    tensors = {name: value.tobytes() for name, value in checkpoint.tensors.items()}
    return tensors, (record["step"], record["best"], record["scores"])


def records(folder):
    """The run's log without what time and speed say."""
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("time", "images_per_second")} for r in lines]


def cut(monkeypatch, step):
    """The process dies at the start of a step, without a chance to save."""
    whole = Trainer.advance

    def advance(self, batch):
        if self.step == step:
            raise SystemExit("cut")
        return whole(self, batch)

    monkeypatch.setattr(Trainer, "advance", advance)


@pytest.mark.parametrize("kind", ["momentum", "adamw", "rmsprop"])
@pytest.mark.parametrize("workers", [0, 2])
def test_six_steps_equal_three_and_three(workdir, run, monkeypatch, workers, kind):
    if workers and kind != "momentum":
        pytest.skip("the optimizer does not see the workers")
    options = [
        f"data.workers={workers}",
        f"train.optimizer.kind={kind}",
        "train.save_every=1 steps",
    ]
    assert run(*TRAIN, *options, "output=runs/whole", "data.workers=0")[0] == 0

    with monkeypatch.context() as patch:
        cut(patch, step=4)  # in the middle of the second epoch, after step 3's epoch end
        with pytest.raises(SystemExit, match="cut"):
            run(*TRAIN, *options, "train.save_every=3 steps", "output=runs/cut")
    assert state(workdir / "runs/cut")[1][0] == 3
    code, out, _ = run(*TRAIN, *options, "output=runs/cut", "--resume")
    assert code == 0
    assert "resuming after step 3 of 6" in out

    whole, resumed = state(workdir / "runs/whole"), state(workdir / "runs/cut")
    assert whole == resumed
    assert records(workdir / "runs/whole") == records(workdir / "runs/cut")
    moved = files.read(workdir / "runs/whole/best.safetensors").tensors["head.weight"]
    assert np.isfinite(moved).all()


def test_a_signal_in_mid_epoch_saves_and_says_how_to_go_on(workdir, run, monkeypatch):
    options = ["train.save_every=100 steps"]
    run(*TRAIN, *options, "output=runs/whole")
    whole = Trainer.advance

    def advance(self, batch):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", advance)
        code, out, _ = run(*TRAIN, *options, "output=runs/cut")
    assert code == 130
    assert "interrupted at step 2 of 6; saved runs/cut/latest.safetensors" in out
    assert "the same command with --resume" in out
    assert (workdir / "runs/cut/curves.png").exists()
    assert run(*TRAIN, *options, "output=runs/cut", "--resume")[0] == 0
    assert state(workdir / "runs/cut") == state(workdir / "runs/whole")


def test_resuming_a_finished_run_changes_nothing(workdir, run):
    run(*TRAIN, "train.epochs=1")
    before = state(workdir / "runs/small")
    code, out, _ = run(*TRAIN, "train.epochs=1", "--resume")
    assert code == 0
    assert "finished" in out
    assert state(workdir / "runs/small") == before


def test_a_run_is_not_overwritten_unasked(workdir, run):
    run(*TRAIN, "train.epochs=1")
    before = state(workdir / "runs/small")
    code, _, err = run(*TRAIN, "train.epochs=1")
    assert code == 2
    assert "runs/small already holds a run: --resume goes on with it" in err
    assert state(workdir / "runs/small") == before
    assert run(*TRAIN, "train.epochs=1", "seed=1", "--overwrite")[0] == 0
    assert state(workdir / "runs/small") != before

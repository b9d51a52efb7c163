"""Steps that are read only when it is time to say something: as a GPU's are, here on a CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cut_run import cut

from ppcls.train import trainer
from ppcls.train.step import TrainStep
from ppcls.utils.log import read_records
from ppcls.weights import files

TRAIN = ("train", "-c", "recipe.yaml", "-o", "train.log_every=100")
DIVERGING = ("train.schedule.lr=1e30", "train.schedule.warmup=0")


@pytest.fixture
def deferring(monkeypatch):
    """Runs whose steps wait to be read; of each reading, how many there were."""
    read = []
    whole = TrainStep.read

    def reading(self, started):
        read.append(len(started))
        return whole(self, started)

    monkeypatch.setattr(trainer, "defers", lambda scale: True)
    monkeypatch.setattr(trainer, "STALE", 1e9)
    monkeypatch.setattr(TrainStep, "read", reading)
    return read


def tensors(folder):
    found = files.read(Path(folder) / "latest.safetensors").tensors
    return {name: value.tobytes() for name, value in found.items()}


def records(folder, *events):
    timed = ("time", "images_per_second")
    found = [r for r in read_records(Path(folder) / "run.jsonl") if r["event"] in events]
    return [{k: v for k, v in r.items() if k not in timed} for r in found]


def test_a_run_is_the_same(finished, workdir, run, deferring):
    code, out, _ = run(*TRAIN, "output=runs/deferred")
    assert code == 0
    assert deferring == [1, 2, 3]  # at the first step, and at the end of each epoch
    whole = finished[0] / "runs/small"
    assert tensors("runs/deferred") == tensors(whole)
    assert records("runs/deferred", "eval") == records(whole, "eval")
    first, *others = records(whole, "train")
    found = records("runs/deferred", "train")
    assert found[0] == first
    for name in ("loss", "top1"):
        mean = sum(record[name] for record in others) / len(others)
        assert found[1][name] == pytest.approx(mean, rel=1e-15)
    lines = [line for line in finished[1].splitlines() if line.startswith("epoch ")]
    for line in lines:
        scores = line.split("; ")[0] + "; " + re.findall(r"training loss [\d.]+", line)[0]
        assert scores in out


def test_a_run_that_diverges_ends_with_the_same_words_and_images(workdir, run, monkeypatch):
    code, _, err = run(*TRAIN, *DIVERGING, "output=runs/d")
    assert code == 2
    with np.load("runs/d/not_finite.npz") as kept:
        seen = {name: kept[name] for name in kept.files}
    places = Path("runs/d/not_finite.txt").read_text()
    begun = []
    start = TrainStep.start

    def starting(self, *given):
        begun.append(1)
        return start(self, *given)

    monkeypatch.setattr(trainer, "defers", lambda scale: True)
    monkeypatch.setattr(TrainStep, "start", starting)
    code, _, late = run(*TRAIN, *DIVERGING, "output=runs/d", "--overwrite")
    assert code == 2
    assert late == err
    assert "after step 1, at learning rate 1e+30" in err
    assert len(begun) == 3  # it was found when the epoch was over
    assert Path("runs/d/not_finite.txt").read_text() == places
    with np.load("runs/d/not_finite.npz") as kept:
        assert sorted(kept.files) == sorted(seen)
        assert all((kept[name] == value).all() for name, value in seen.items())


@pytest.mark.slow
def test_nothing_is_saved_of_what_diverged(workdir, run, deferring):
    code, _, err = run(*TRAIN, *DIVERGING, "train.save_every=1 steps", "output=runs/d")
    assert code == 2
    assert "became nan after step 1" in err
    kept = files.read("runs/d/latest.safetensors").tensors
    assert all(np.isfinite(value).all() for value in kept.values())


@pytest.mark.slow
def test_cut_and_resumed(workdir, run, monkeypatch):
    """With all that changes how a step is made, against a run that is read at each step."""
    options = ["train.batch_size=3", "train.accumulate=2", "train.epochs=4", "data.workers=2"]
    options += ["train.clip_norm=0.5", "train.ema={decay: 0.9}", "train.save_every=3 steps"]
    assert run(*TRAIN, *options, "output=runs/read")[0] == 0
    monkeypatch.setattr(trainer, "defers", lambda scale: True)
    assert run(*TRAIN, *options, "output=runs/whole")[0] == 0
    with monkeypatch.context() as patch:
        cut(patch, step=5)
        with pytest.raises(SystemExit, match="cut"):
            run(*TRAIN, *options, "output=runs/cut")
    assert run(*TRAIN, *options, "output=runs/cut", "--resume")[0] == 0
    assert tensors("runs/whole") == tensors("runs/cut") == tensors("runs/read")
    assert records("runs/whole", "train", "eval") == records("runs/read", "train", "eval")


SCRIPT = """
import sys
from ppcls.cli import main
from ppcls.train import trainer

if {deferred}:
    trainer.defers = lambda scale: True
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("diverging", [False, True])
def test_two_processes(workdir, diverging):
    """They read together, and what one of them finds ends both."""
    from test_distributed import free_ports

    said = {}
    for deferred in (False, True):
        (workdir / "own.py").write_text(SCRIPT.format(deferred=deferred))
        endpoints = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
        own = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": endpoints}
        command = [sys.executable, "own.py", *TRAIN, "train.batch_size=2"]
        command += [f"output=runs/{deferred}", "train.clip_norm=1.0"]
        command += DIVERGING if diverging else ()
        ranks = [
            subprocess.Popen(
                command,
                env=os.environ | own | {"PADDLE_TRAINER_ID": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        errors = [process.communicate(timeout=200)[1] for process in ranks]
        assert {process.returncode for process in ranks} == {2 if diverging else 0}, errors
        lines = [line for line in "".join(errors).splitlines() if line.startswith("error: ")]
        said[deferred] = [line.replace(f"runs/{deferred}", "runs") for line in lines]
    if diverging:
        assert said[True] == said[False]
        assert "became nan after step 1" in said[True][0]
        return
    assert tensors("runs/True") == tensors("runs/False")
    assert records("runs/True", "train", "eval") == records("runs/False", "train", "eval")

"""A run that was cut and resumed is the run that was not, bit for bit."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from cut_run import at_step, cut

from ppcls.utils.log import read_records
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
    found, timed = read_records(folder / "run.jsonl"), ("time", "images_per_second")
    return [{k: v for k, v in r.items() if k not in timed} for r in found]


CASES = {
    "plain": [],
    "workers": ["data.workers=2"],
    "drop path": ["model.name=ResNet18_vd", "model.drop_path=0.5"],
    "for INT8": ["train.qat=true", "train.ema={decay: 0.9}"],
    "everything": [
        "train.batch_size=3",
        "train.accumulate=2",
        "train.epochs=3",
        "train.optimizer={kind: lamb, weight_decay: 0.1}",
        "train.decay_norms=false",
        "train.lr_scale={'head.*': 10}",
        "train.clip_norm=0.5",
        "train.ema={decay: 0.9}",
        "train.batch_transforms=[{op: mixup, prob: 0.5}, {op: cutmix, prob: 0.5}]",
        "train.schedule.warmup=0",
        "train.schedule.decay={kind: plateau, patience: 1 steps}",
        "task.loss={kind: focal, weights: balanced}",
    ],
    "sampled": [
        "data.workers=2",
        "train.sampler={kind: weighted, weights: [1, 2.5]}",
        "train.repeats=2",
        "train.size={kind: progressive, sizes: {0: 40, 1: 56}}",
        "train.batch_transforms=[{op: mixup, prob: 0.5}]",
        "train.recompute=true",
    ],
    "multi_scale": [
        "train.batch_size=3",
        "train.accumulate=2",
        "train.epochs=3",
        "train.sampler={kind: balanced, power: 0.5}",
        "train.size={kind: multi_scale, sizes: [40, 48, 56]}",
        "train.batch_transforms=[{op: cutmix, prob: 0.5}]",
        "train.ema={decay: 0.9}",
    ],
}
PLAINLY = ("data.workers=0", "train.recompute=false")  # which change no numbers


LONG = ("drop path", "multi_scale", "sampled")  # whose like the others try, too


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c in LONG else ()) for c in CASES]
)
def test_six_steps_equal_three_and_three(finished, workdir, run, monkeypatch, case):
    options = [*CASES[case], "train.save_every=1 steps"]
    if case in ("plain", "workers"):  # saved once an epoch, and read without workers
        shutil.copytree(finished[0] / "runs/small", workdir / "runs/whole")
    else:
        assert run(*TRAIN, *options, "output=runs/whole", *PLAINLY)[0] == 0

    with monkeypatch.context() as patch:
        cut(patch, step=4)  # after the save at step 3
        with pytest.raises(SystemExit, match="cut"):
            run(*TRAIN, *options, "train.save_every=3 steps", "output=runs/cut")
    assert state(workdir / "runs/cut")[1][0] == 3
    code, out, _ = run(*TRAIN, *options, "output=runs/cut", "--resume")
    assert code == 0
    assert "resuming after step 3 of 6" in out
    assert (", 40 to 56 px" if "train.size" in str(options) else ", 32 px") in out

    whole, resumed = state(workdir / "runs/whole"), state(workdir / "runs/cut")
    assert whole == resumed
    assert records(workdir / "runs/whole") == records(workdir / "runs/cut")
    moved = files.read(workdir / "runs/whole/best.safetensors").tensors["head.weight"]
    assert np.isfinite(moved).all()
    if case == "everything":
        check_everything(workdir / "runs/whole", run)


def check_everything(folder, run):
    """The rate was cut by what the first half had scored; what is handed on is the average."""
    rates = [r["lr"] for r in records(folder) if r["event"] == "train"]
    assert rates == pytest.approx([0.005] * 4 + [0.0005] * 2)
    latest = files.read(folder / "latest.safetensors").tensors
    trained = [name.split("/")[1] for name in latest if name.endswith("/trained")]
    assert sorted(trained) == sorted(name for name in latest if "/" not in name)
    assert np.abs(latest["head.weight"] - latest["optimizer/head.weight/trained"]).max() > 0
    code, out, _ = run("eval", "--weights", "runs/whole/latest.safetensors")
    assert code == 0
    last = [r for r in records(folder) if r["event"] == "eval"][-1]
    assert f"loss {last['loss']:.4f}" in out


def test_a_signal_in_mid_epoch_saves_and_says_how_to_go_on(finished, workdir, run, monkeypatch):
    options = ["train.save_every=100 steps"]
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        code, out, _ = run(*TRAIN, *options, "output=runs/cut")
    assert code == 130
    assert "interrupted at step 2 of 6; saved runs/cut/latest.safetensors" in out
    assert "the same command with --resume" in out
    assert (workdir / "runs/cut/curves.png").exists()
    assert run(*TRAIN, *options, "output=runs/cut", "--resume")[0] == 0
    assert state(workdir / "runs/cut") == state(finished[0] / "runs/small")


def test_resuming_a_finished_run_changes_nothing(workdir, run):
    run(*TRAIN, "train.epochs=1")
    before = state(workdir / "runs/small")
    code, out, _ = run(*TRAIN, "train.epochs=1", "--resume")
    assert code == 0
    assert "finished" in out
    assert state(workdir / "runs/small") == before
    age(workdir / "runs/small/latest.safetensors")
    assert run(*TRAIN, "train.epochs=1", "--resume")[0] == 0
    assert state(workdir / "runs/small") == before


def age(path):
    """Make a checkpoint one of a version that did not know some keys yet."""
    checkpoint = files.read(path)
    record = json.loads(checkpoint.metadata["ppcls"])
    for key in ("evaluations", "loss_scale"):
        del record[key]
    for key in (
        "accumulate",
        "clip_norm",
        "decay_norms",
        "lr_scale",
        "ema",
        "precision",
        "batch_transforms",
        "sampler",
        "repeats",
        "sync_norms",
        "recompute",
        "qat",
    ):
        del record["recipe"]["train"][key]
    del record["recipe"]["task"]["loss"]["weights"]
    record["data"] = {k: v.replace(" images (", " photos (") for k, v in record["data"].items()}
    for part, old, new in (("train", "ops", "transforms"), ("data", "labels", "class_names")):
        record["recipe"][part][old] = record["recipe"][part].pop(new)
    files.write_safetensors(path, checkpoint.tensors, {"ppcls": json.dumps(record)})


def test_a_run_is_not_overwritten_unasked(workdir, run):
    run(*TRAIN, "train.epochs=1")
    before = state(workdir / "runs/small")
    code, _, err = run(*TRAIN, "train.epochs=1")
    assert code == 2
    assert "runs/small already holds a run: --resume goes on with it" in err
    assert state(workdir / "runs/small") == before
    assert run(*TRAIN, "train.epochs=1", "seed=1", "--overwrite")[0] == 0
    assert state(workdir / "runs/small") != before

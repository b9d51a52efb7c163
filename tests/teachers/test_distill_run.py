"""Small runs with teachers: exact when resumed, teachers untouched, the student alone handed on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from cut_run import cut

from ppcls.config.load import load
from ppcls.data.loader import Batch
from ppcls.models.layers import Normalize
from ppcls.recipe import Recipe
from ppcls.train.setup import build_model, build_objective, build_trainer, open_datasets, train
from ppcls.train.step import Objective, Precision
from ppcls.weights import files

NETWORK = "{name: EfficientNetLite0, weights: runs/small/best.safetensors}"
EXPORTED = "{folder: exported/small}"
PEER = "{kind: peer, name: EfficientNetLite0}"
LATEST = "latest.safetensors"


def options(teacher, losses="[{kind: kl, temperature: 2}]", *more):
    # In one item, for a change of the kind alone would keep the labels' loss of the recipe.
    task = f"task={{kind: distill, teacher: {teacher}, losses: {losses}, labels_weight: 1}}"
    return [task, "train.save_every=1 steps", *more]


def recipe(*given):
    return load(Recipe, "recipe.yaml", given)


def state(folder):
    """Every tensor of a checkpoint as bytes, its scores, and the losses of the steps."""
    checkpoint = files.read(f"{folder}/{LATEST}")
    record = json.loads(checkpoint.metadata["ppcls"])
    lines = [json.loads(line) for line in Path(f"{folder}/run.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if line["event"] == "train"]
    tensors = {name: value.tobytes() for name, value in checkpoint.tensors.items()}
    return tensors, record["scores"], losses


ALL_LAYERS = "[{kind: mgd}, {kind: pefd}, {kind: afd, width: 8}, {kind: feature_l2, weight: 1e-3}]"
CASES = {
    "features": options(
        NETWORK, ALL_LAYERS, "train.batch_size=3", "train.accumulate=2", "train.ema={decay: 0.9}"
    ),
    "peer": options(PEER, "[{kind: kl}, {kind: pefd, projectors: 1}]", "train.clip_norm=1"),
    "several": options(f"[{NETWORK}, {NETWORK}]", "[{kind: dkd}, {kind: dist}]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_six_steps_equal_three_and_three(trained, workdir, monkeypatch, case):
    given = CASES[case]
    assert train(recipe(*given, "output=runs/whole"))
    with monkeypatch.context() as patch:
        cut(patch, step=3)
        with pytest.raises(SystemExit, match="cut"):
            train(recipe(*given, "output=runs/cut"))
    assert train(recipe(*given, "output=runs/cut"), resume=True)
    assert state("runs/whole") == state("runs/cut")
    others = {name.split("/")[1] for name in state("runs/cut")[0] if name.startswith("optimizer/")}
    assert ("beside" in others) == (case != "several")
    best = files.read("runs/cut/best.safetensors").tensors
    assert best.keys() == files.read("runs/small/best.safetensors").tensors.keys()


def first_objective(*given):
    """A run's network and objective before its first step, and images, labels and their batch."""
    made, inputs = open_datasets(recipe(*given))
    paddle.seed(0)
    net = build_model(made, None)
    whole = Normalize.before(net, made.preprocess.scale, made.preprocess.offset)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    targets = np.array([0, 1, 0, 1])
    batch = Batch(pixels, targets, np.array([0, 6, 1, 7]))
    found = build_objective(made, inputs, whole, Precision("fp32", "O1"))
    return whole, found, (paddle.to_tensor(pixels), paddle.to_tensor(targets), batch)


LOGIT_LOSSES = ["kl", "js", "dkd", "skd", "dist"]


LONG = ("js", "skd", "wsl")  # tests/losses has the numbers of each


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in LONG else ())
        for kind in [*LOGIT_LOSSES, "soft_cross_entropy", "wsl", "feature_l2", "rkd"]
    ],
)
def test_a_network_learns_nothing_from_itself(trained, kind):
    given = options(NETWORK, f"[{{kind: {kind}}}]", "task.labels_weight=0")
    whole, found, photos = first_objective(*given, "model.weights=runs/small/best.safetensors")
    whole.eval()  # in training its batch norms would see other statistics
    loss, _ = found.step(*photos)
    loss.backward()
    if kind not in ("soft_cross_entropy", "wsl"):
        assert abs(float(loss)) < 1e-6
    slopes = [p.grad.abs().max() for p in whole.parameters() if p.grad is not None]
    assert slopes
    assert max(map(float, slopes)) < 2e-4  # of a root near 0, in float32, through 50 layers


def test_a_teacher_has_its_own_normalisation_and_takes_no_part(trained, run):
    given = options(NETWORK, "[{kind: soft_cross_entropy}]", "task.labels_weight=0")
    other = "preprocess={mean: [0, 0, 0], std: [1, 1, 1]}"
    whole, found, (images, labels, batch) = first_objective(*given, other)
    (teacher,) = found.teachers
    before = teacher.digest()
    loss, logits = found.step(images, labels, batch)
    loss.backward()
    assert all(p.grad is None for p in teacher.net.parameters())
    assert any(p.grad is not None for p in whole.parameters())
    assert teacher.digest() == before
    expected, _, _ = first_objective("model.weights=runs/small/best.safetensors")
    expected.eval()
    shares = paddle.nn.functional.softmax(expected(images))
    loss_of = -(shares * paddle.nn.functional.log_softmax(logits)).sum(-1).mean()
    assert float(loss) == pytest.approx(float(loss_of), rel=1e-5)
    names = {p.name for p in teacher.net.parameters()}
    trainer = build_trainer(*open_datasets(recipe(*given, other)))
    assert not names & {p.name for p in trainer.train_step.parameters}


def test_an_exported_teacher_says_what_the_network_says(exported):
    loss = "[{kind: js}, {kind: skd}, {kind: wsl}]"
    values = []
    for teacher in (NETWORK, EXPORTED, f"[{NETWORK}, {EXPORTED}]"):
        whole, found, photos = first_objective(*options(teacher, loss), "model.weights=null")
        whole.eval()
        values.append(float(found.step(*photos)[0]))
    assert values[1:] == pytest.approx(values[:1] * 2, rel=1e-4)


def test_a_teacher_that_changed_ends_the_run(trained):
    given = recipe(*options(NETWORK), "train.epochs=1", "output=runs/other")
    Path("runs/other").mkdir()
    trainer = build_trainer(*open_datasets(given))
    statistic = trainer.objective.teachers[0].net.state_dict()["stem.norm._mean"]
    statistic.set_value(statistic + 1e-6)
    with pytest.raises(AssertionError, match=r"the teacher runs/small/best.safetensors changed"):
        trainer.run()


@pytest.mark.slow
def test_the_student_is_evaluated_exported_and_resumed_with_the_same_teacher(trained, run):
    given = ["-o", *options(NETWORK), "train.epochs=1", "output=runs/student"]
    code, out, _ = run("train", "-c", "recipe.yaml", *given)
    assert code == 0
    assert "teacher EfficientNetLite0, runs/small/best.safetensors" in out
    weights = "runs/student/best.safetensors"
    assert run("eval", "--weights", weights)[0] == 0
    code, _, err = run("train", "-c", "recipe.yaml", *given, "task.teacher=" + PEER, "--resume")
    assert code == 2
    assert "task.teacher" in err
    shutil.copy(weights, "runs/small/best.safetensors")
    code, _, err = run("train", "-c", "recipe.yaml", *given, "--resume")
    assert code == 2
    assert "runs/small/best.safetensors is not what it was when the run began" in err
    code, _, _ = run("export", "--weights", weights, "--output", "exported/student")
    assert code == 0
    assert "task: classify" in Path("exported/student/inference.yml").read_text()


MISTAKES = {
    "{name: EfficientNetLite0}": "missing key 'weights' under 'task.teacher'",
    "{name: EfficientNetLit0, weights: x}": "did you mean",
    "{name: ResNet18, weights: runs/small/best.safetensors}": "task.teacher: runs/small/best",
    "{name: EfficientNetLite0, weights: no.pdparams}": "no.pdparams: no such file",
    "{folder: away}": "away: does not exist",
    "{folder: photos}": "photos: has no inference.yml",
    f"[{NETWORK}, {PEER}]": "a peer teaches alone",
    "[]": "give at least one teacher",
}


@pytest.mark.parametrize("teacher", MISTAKES)
def test_a_teacher_that_cannot_be_had_is_one_line(trained, run, teacher):
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *options(teacher), "output=runs/other")
    assert code == 2
    assert MISTAKES[teacher] in err
    assert len(err.splitlines()) == 1, err
    assert not Path("runs/other").exists()


def test_a_teacher_of_other_classes_is_one_line(exported, run):
    Path("labels.txt").write_text("ant\nbee\ncat\n")
    command = ["train", "-c", "recipe.yaml", "-o", *options(NETWORK), "output=runs/other"]
    three = ["model.num_classes=3", "data.class_names=labels.txt"]
    code, _, err = run(*command, *three)
    assert code == 2
    assert err == (
        "error: task.teacher: runs/small/best.safetensors has 2 classes and the student 3: "
        "a teacher of the student's classes is needed\n"
    )
    given = [*options(EXPORTED), "output=runs/other", *three]
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *given)
    assert code == 2
    assert err.startswith("error: task.teacher: exported/small has 2 classes and the student 3: ")
    Path("labels.txt").write_text("bee\nant\n")
    code, _, err = run(*command, "data.class_names=labels.txt")
    assert "its class 0 is 'ant', the student's 'bee'" in err
    given = [*options(EXPORTED), "output=runs/other", "train.size=40"]
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *given)
    assert "exported/small takes images of 32 px and they are 40 px: export it with" in err
    assert not Path("runs/other").exists()


WRONG = {
    (EXPORTED, "[{kind: mgd}]"): "mgd compares features",
    (f"[{NETWORK}, {NETWORK}]", "[{kind: rkd}]"): "rkd compares features",
    (NETWORK, "[{kind: feature_l2, stage: -9}]"): "stage -9 is not there",
    (NETWORK, "[{kind: kk}]"): "task.losses.0.kind: unknown 'kk'",
    (NETWORK, "[{kind: kl, temprature: 2}]"): "did you mean 'temperature'",
    (NETWORK, "[]"): "give at least one teacher",
}


@pytest.mark.parametrize(("teacher", "losses"), WRONG)
def test_losses_that_cannot_be_had_are_one_line(exported, run, teacher, losses):
    given = [*options(teacher, losses), "output=runs/other"]
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *given)
    assert code == 2
    assert WRONG[teacher, losses] in err
    assert len(err.splitlines()) == 1, err


def test_an_objective_of_labels_alone_has_nothing_beside_it(workdir):
    _, found, photos = first_objective()
    assert isinstance(found, Objective)
    assert not found.layers.parameters()
    assert np.isfinite(float(found.step(*photos)[0]))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(trained):
    """Losses that compare no images with one another, and no dropout or statistics of parts."""
    losses = "[{kind: kl}, {kind: pefd}, {kind: feature_l2, weight: 1e-3}]"
    given = options(NETWORK, losses, "train.transforms=[{op: resize}]", "model.name=ResNet18_vd")
    given += ["model.freeze=['*.norm.*']", "train.epochs=1"]
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml"]
    for more, parts in (("one", []), ("two", ["--processes", "2"])):
        own = [f"output=runs/{more}", f"train.batch_size={2 if parts else 4}"]
        subprocess.run([*command, *parts, "-o", *given, *own], check=True)
    one, two = state("runs/one"), state("runs/two")
    assert one[0].keys() == two[0].keys()
    assert any("beside" in name for name in one[0])
    losses = [[loss for _, loss in found[2]] for found in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

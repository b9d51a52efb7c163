"""Whole runs from Python: ppcls.train, evaluate, export, load, with files and with objects."""

import os
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import paddle
import pytest
from cut_run import at_step, cut
from paddle import nn

import ppcls
from ppcls.inference.predictor import Predictor
from ppcls.weights import files


class Stripes:
    """Stripes that lie or stand, with noise."""

    class_names = ("lying", "standing")

    def __init__(self, count=12, seed=0):
        self.targets = np.arange(count) % 2
        self.seed = seed

    def __len__(self):
        return len(self.targets)

    def read(self, index):
        image = np.random.default_rng([self.seed, index]).integers(0, 80, (20, 20, 3), np.uint8)
        image[::4] += 150
        return (image.transpose(1, 0, 2) if index % 2 else image), self.targets[index]

    def __repr__(self):
        return f"Stripes({len(self)}, {self.seed})"


def tiny(classes=2, seed=0):
    paddle.seed(seed)
    return nn.Sequential(
        nn.Conv2D(3, 8, 3, 2), nn.BatchNorm2D(8), nn.ReLU(), nn.AdaptiveAvgPool2D(2),
        nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip


def mean_loss(logits, targets):
    return nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)


def keys(**changed):
    train = {"epochs": 2, "batch_size": 4, "log_every": 1, "schedule": {"lr": 0.05}}
    train["transforms"] = [{"op": "resize"}, lambda image, rng: image ^ np.uint8(rng.integers(8))]
    given = {"preprocess": {"resize": 16, "crop": 16}, "data": {"workers": 0}}
    return {**given, "output": "runs/mine", "train": {**train, **changed}}


PARTS = {"train_data": Stripes(), "eval_data": Stripes(6, 1), "loss": mean_loss}


def trained(net=None, **given):
    return ppcls.train(given.pop("keys", keys()), model=net or tiny(), **{**PARTS, **given})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_objects_are_trained_evaluated_exported_and_predicted_with(folder):
    run = trained()
    assert run.done
    assert run.checkpoint == run.best
    assert {"top1", "loss"} == set(run.scores)
    assert ppcls.evaluate(run) == pytest.approx(run.scores)
    whole = ppcls.load(run)
    assert whole.class_names == ("lying", "standing")
    assert (whole.num_classes, whole.preprocess.crop) == (2, 16)
    assert repr(whole).startswith("<Classifier runs/mine/best.safetensors: Sequential, 2 classes,")
    images = [Stripes().read(index)[0] for index in range(3)]
    assert ppcls.export(run, "exported/mine") == folder / "exported" / "mine"
    with Predictor("exported/mine", engine="onednn") as predictor:
        for own, other in zip(whole(images), predictor.predict(images), strict=True):
            assert own.labels == other.labels
            np.testing.assert_allclose(own.scores, other.scores, atol=1e-5)
    assert len(whole(images[0], topk=1)[0].labels) == 1
    with pytest.raises(ppcls.UserError, match=r"gone\.png: no such file"):
        whole.predict([images[0], "gone.png"])


def test_a_checkpoint_needs_the_network_again_and_nothing_else(folder):
    run = trained()
    image = Stripes().read(0)[0]
    expected = ppcls.load(run)(image)[0].scores
    with pytest.raises(ppcls.UserError, match=r"the network Sequential was given .*model=…"):
        ppcls.load(run.best)
    with pytest.raises(ppcls.UserError, match=r"not weights of this network: 5\.weight is"):
        ppcls.load(run.best, model=tiny(classes=3))
    assert ppcls.load("runs/mine", model=tiny(seed=1))(image)[0].scores == expected
    with pytest.raises(ppcls.UserError, match=r"data.eval: Stripes\(6, 1\) was given in Python"):
        ppcls.evaluate(run.best, model=tiny())
    assert ppcls.evaluate(run.best, Stripes(6, 1), model=tiny()) == pytest.approx(run.scores)


def test_a_run_goes_on_bit_for_bit_with_the_same_objects(folder, monkeypatch):
    trained(keys={**keys(), "output": "runs/whole"})
    with monkeypatch.context() as patch:
        cut(patch, step=4)
        with pytest.raises(SystemExit):
            trained()
    with pytest.raises(ppcls.UserError, match="already holds a run"):
        trained()
    with pytest.raises(
        ppcls.UserError, match=r"latest.safetensors was made otherwise \(data.train"
    ):
        trained(train_data=Stripes(12, 5), resume=True)
    assert trained(tiny(seed=3), resume=True).done
    one, other = (files.read(folder / "runs" / name / "latest.safetensors").tensors
                  for name in ("whole", "mine"))  # fmt: skip
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)


def test_a_signal_ends_a_run_with_its_state_saved(monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        run = trained()
    assert not run.done
    assert run.latest
    assert not run.best
    assert trained(resume=True).done


def test_a_run_works_in_another_thread(capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(trained()))
    thread.start()
    thread.join()
    assert found[0].done
    assert "epoch 2: top-1" in capsys.readouterr().out


KINDS = """
import numpy as np
from paddle.optimizer import AdamW


def roll(images, targets, rng, by: int = 1):
    return np.roll(images, by, axis=1), targets


class Backwards:
    def __init__(self, odd: bool = False):
        self.odd = odd

    def __call__(self, targets, total, rng):
        chosen = np.flatnonzero(targets % 2 == self.odd)
        return np.resize(chosen[::-1], total)


def decay(at, low: float = 0.1):
    return max(low, 1 - at.step / at.total_steps)


def adamw(parameters, weight_decay: float = 0.5):
    return AdamW(1.0, parameters=parameters)


def far(student, teacher, power: float = 2.0):
    return (student - teacher).abs().pow(power).mean()
"""


def test_images_need_not_be_square(folder):
    made = {**keys(), "preprocess": {"resize": [16, 12], "crop": [16, 12]}}
    run = trained(keys=made)
    image = Stripes().read(0)[0]
    ppcls.export(run, "exported/mine")
    with Predictor("exported/mine", engine="onednn") as predictor:
        other = predictor.predict(image)[0].scores
    np.testing.assert_allclose(ppcls.load(run)(image)[0].scores, other, atol=1e-5)


@pytest.fixture
def kinds(folder):
    (folder / "kinds_run.py").write_text(KINDS)
    ppcls.use("kinds_run")


def test_every_kind_of_part_does_its_work(kinds):
    changed = keys(
        batch_transforms=[{"op": "kinds_run.roll", "by": 3, "prob": 0.5}],
        sampler={"kind": "kinds_run.Backwards", "odd": True},
        schedule={"lr": 0.05, "decay": {"kind": "kinds_run.decay", "low": 0.5}},
        optimizer={"kind": "kinds_run.adamw", "weight_decay": 0.25},
    )
    told = []

    class Hears(ppcls.Callback):
        def record(self, event, step, values):
            told.append((event, step, values.get("lr")))

        def saved(self, path, step):
            told.append((path.name, step, None))

    run = trained(keys=changed, callbacks=[Hears()])
    rates = [rate for event, _, rate in told if event == "train"]
    np.testing.assert_allclose(rates, [0.05 * max(0.5, 1 - step / 6) for step in range(6)])
    assert ("latest.safetensors", 6, None) in told
    slots = files.read(run.latest).tensors
    assert any(name.endswith("moment1_0") for name in slots)
    classes = ppcls.load(run)([Stripes().read(index)[0] for index in range(4)], topk=1)
    assert {one.labels[0] for one in classes} == {"standing"}  # no other was shown


@pytest.mark.slow
def test_a_loss_of_ones_own_compares_student_and_teacher(kinds, workdir):
    (workdir / "kinds_run.py").write_text(KINDS)
    loss = {"kind": "kinds_run.far", "power": 1.5, "weight": 0.5}
    teacher = {"kind": "peer", "name": "ResNet18"}
    task = {"kind": "distill", "teacher": teacher, "losses": [loss], "labels_weight": 1}
    train = {"epochs": 1, "batch_size": 4, "schedule": {"lr": 0.01}}
    data = {"train": "photos/train", "eval": "photos/eval", "workers": 0}
    made = {"model": {"name": "ResNet18"}, "data": data, "task": task, "train": train}
    run = ppcls.train({**made, "preprocess": {"resize": 36, "crop": 32}})
    assert run.recipe.task.losses[0].weight == 0.5
    assert run.done


BAD_KINDS = {
    "batch_transforms": [{"op": "kinds_bad.mix"}],
    "sampler": {"kind": "kinds_bad.sampler"},
    "schedule": {"lr": 0.1, "decay": {"kind": "kinds_bad.decay"}},
    "optimizer": {"kind": "kinds_bad.optimizer"},
    "transforms": [{"op": "kinds_bad.transform"}],
}
BAD = """
def mix(images, targets, rng):
    return images

def sampler(targets, total, rng):
    return [len(targets)] * total

def decay(at):
    return -1.0

def optimizer(parameters):
    raise KeyError("no such rule")

def transform(image, rng):
    return image * 1.0
"""


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_what_a_part_must_not_give_is_one_line(kind, folder):
    (folder / "kinds_bad.py").write_text(BAD)
    ppcls.use("kinds_bad")
    with pytest.raises(ppcls.UserError, match=r"kinds_bad\.") as error:
        trained(keys=keys(**{kind: BAD_KINDS[kind]}))
    assert len(error.value.lines) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keys": 3}, "a recipe is a file, a ppcls.Recipe or its keys as a dict, not 3"),
        ({"keys": "gone.yaml"}, "gone.yaml: cannot be read"),
        ({"keys": keys(epoch=3)}, "ppcls.train: unknown key 'train.epoch'; did you mean 'epochs'"),
        ({"net": 3}, "model should be a paddle.nn.Layer, not 3"),
        ({"net": tiny(3)}, r"Sequential: gives \[1, 3\] for one image, and there are 2 classes"),
        ({"net": nn.Linear(5, 2)}, r"Linear: cannot take images \[1, 3, 16, 16\]: "),
        ({"train_data": 3}, "train_data: 3 should be a dataset with __len__ and read"),
        ({"train_data": Stripes}, "Stripes is a class: give an object of it"),
        ({"train_data": Stripes(0)}, r"data.train: Stripes\(0, 0\) is empty"),
        ({"eval_data": "gone"}, "data.eval: gone does not exist"),
        ({"loss": "bce"}, "loss: 'bce' should be a loss, called as loss"),
        ({"loss": lambda logits, targets: logits}, "a loss is one number, the mean over the"),
        ({"loss": lambda logits: 1 / 0}, r"TypeError: .* takes 1 positional argument but 2"),
        ({"resume": True}, "latest.safetensors does not exist"),
        ({"keys": {**keys(), "model": {"weights": "x"}}}, "Sequential was given in Python with"),
    ],
)
def test_mistakes_are_user_errors(given, words):
    with pytest.raises(ppcls.UserError, match=words):
        trained(**given)


def test_a_recipe_s_file_trains_as_the_command_does(workdir, finished):
    run = ppcls.train("recipe.yaml")
    one, other = (
        files.read(place / "runs/small/best.safetensors").tensors
        for place in (workdir, finished[0])
    )
    assert all((one[name] == other[name]).all() for name in one)
    assert ppcls.evaluate("runs/small") == pytest.approx(run.scores)
    assert ppcls.evaluate(run, "photos/eval", report="rep") == pytest.approx(run.scores)
    assert (workdir / "rep" / "report.html").exists()
    with pytest.raises(ppcls.UserError, match="unknown argument 'dynamic'"):
        ppcls.export(run, "exported", dynamic=True)
    with pytest.raises(ppcls.UserError, match=r"a folder without best\.safetensors"):
        ppcls.load(workdir)


@pytest.mark.slow
def test_images_alone_are_trained_on_by_a_recipe_chosen_for_them(folder, capsys):
    rng = np.random.default_rng(0)
    for index in range(24):
        place = folder / "stripes" / ("lying", "standing")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        image, _ = Stripes(24).read(index)
        cv2.imwrite(str(place / f"{index}.png"), image.mean(2).astype(np.uint8) + rng.integers(9))
    run = ppcls.train("stripes")
    assert run.done
    assert run.recipe.model.num_classes is None
    assert run.recipe.model.in_channels == 1
    assert "chose" in capsys.readouterr().out
    assert ppcls.load(run).class_names == ("lying", "standing")


SCRIPT = """
import sys
from pathlib import Path
import ppcls
Path("runs.txt").open("a").write("x")
run = ppcls.train({
    "model": {"name": "ResNet18"},
    "data": {"train": "photos/train", "eval": "photos/eval", "workers": 1},
    "preprocess": {"resize": 36, "crop": 32},
    "train": {"epochs": 1, "batch_size": 4, "schedule": {"lr": 0.01}},
})
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once_although_workers_are_started(workdir):
    (workdir / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (workdir / "runs.txt").read_text() == "x"

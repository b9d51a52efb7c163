"""Parts of one's own in a recipe: checked against their annotations, kept as their path."""

import pytest

import ppcls
from ppcls.config.load import to_plain, to_yaml
from ppcls.recipe import Recipe

PARTS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from ppcls.config.node import Share, node


class Loss:
    def __init__(
        self,
        alpha: float,
        count: int | None = None,
        names: tuple[str, ...] = (),
        how: Literal["sum", "mean"] = "mean",
        free=None,
    ):
        if alpha < 0:
            raise ValueError("alpha is below 0")
        self.alpha = alpha
        self.free = free

    def __call__(self, logits, targets):
        return logits.mean() * self.alpha


@dataclass
class Plain:
    alpha: float = 1.0
    flag: bool = False

    def __call__(self, logits, targets):
        return logits.mean()


@node
class Node:
    share: Share = 0.5

    def __post_init__(self):
        if not self.share:
            raise ValueError("share=0 leaves nothing")

    def __call__(self, logits, targets):
        return logits.mean()


def function(logits, targets, gamma: float = 1):
    return logits.mean() * gamma


class Fails(Plain):
    def __init__(self, flag: bool):
        self.nothing.there


class NotCalled:
    pass


class Odd:
    def __init__(self, x: NoSuchName):
        pass

    def __call__(self, logits, targets):
        pass


@dataclass
class Transform:
    share: float = 0.5

    def __call__(self, image, rng):
        return image


class Mix:
    def __call__(self, images, targets, rng):
        return images, targets


def sampler(targets, total, rng, first: int = 0):
    return [first] * total


def decay(at, low: float = 0.0):
    return low


def optimizer(parameters, weight_decay: float = 0.0):
    from paddle.optimizer import SGD

    return SGD(1.0, parameters)


class Data:
    def __init__(self, root: str, count: int = 4):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, index):
        return root, index
"""
RECIPE = """
model: {name: ResNet18}
data: {train: photos}
task:
  loss:
    kind: %s
    %s
train: {epochs: 1, batch_size: 4, schedule: {lr: 0.1}}
"""


@pytest.fixture(scope="module", autouse=True)
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "kinds_own.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ppcls.use("kinds_own")


def loaded(folder, kind, keys, *overrides):
    (folder / "r.yaml").write_text(RECIPE % (kind, keys))
    return Recipe.load(folder / "r.yaml", overrides)


@pytest.mark.parametrize(
    ("kind", "keys", "lines"),
    [
        ("Loss", "alpha: two", ["7: task.loss.alpha: should be a valid number (got 'two')"]),
        ("Loss", "alpha: true", ["7: task.loss.alpha: should be a valid number (got true)"]),
        ("Loss", "alhpa: 2", [
            "5: missing key 'alpha' under 'task.loss'",
            "7: unknown key 'task.loss.alhpa'; did you mean 'alpha'?",
        ]),
        ("Loss", "smoothing: 2\n    alpha: 1", [
            "7: unknown key 'task.loss.smoothing'; known: alpha, count, names, how, free"
        ]),
        ("Loss", "alpha: -1", ["5: task.loss: kinds_own.Loss: alpha is below 0"]),
        ("Loss", "alpha: 1\n    count: 2.5\n    how: max", [
            "8: task.loss.count: should be a valid integer (got 2.5)",
            "9: task.loss.how: should be 'sum' or 'mean' (got 'max')",
        ]),
        ("Plain", "flag: 1", ["7: task.loss.flag: should be a valid boolean (got 1)"]),
        ("Node", "share: 2", ["7: task.loss.share: should be less than or equal to 1 (got 2)"]),
        ("Node", "share: 0", ["5: task.loss: share=0 leaves nothing"]),
        ("function", "logits: 1", ["7: unknown key 'task.loss.logits'; known: gamma"]),
        ("NotCalled", "x: 1", [
            "6: task.loss.kind: kinds_own.NotCalled should be a loss, called as "
            "loss(logits, targets); it has no __call__"
        ]),
        ("Lost", "x: 1", ["6: task.loss.kind: kinds_own has no Lost; it has "]),
        ("Odd", "x: 1", ["6: task.loss.kind: kinds_own.Odd: its annotations cannot be read: "]),
        ("Fails", "flag: true", ["5: task.loss: kinds_own.Fails: AttributeError: "]),
    ],
)  # fmt: skip
def test_mistakes_have_their_line(kind, keys, lines, tmp_path):
    with pytest.raises(ppcls.UserError) as error:
        loaded(tmp_path, f"kinds_own.{kind}", keys)
    assert len(error.value.lines) == len(lines)
    for line, expected in zip(error.value.lines, lines, strict=True):
        assert line.startswith(f"{tmp_path}/r.yaml:{expected}")


def test_overrides_reach_a_part_and_its_kind(tmp_path):
    recipe = loaded(tmp_path, "kinds_own.Loss", "alpha: 1", "task.loss.alpha=3")
    assert recipe.task.loss.part.alpha == 3
    given = ("task.loss.alpha=3", "task.loss.kind=kinds_own.Plain")
    assert loaded(tmp_path, "bce", "smoothing: 0.1", *given).task.loss.part.alpha == 3
    assert loaded(tmp_path, "kinds_own.Plain", "flag: on", "task.loss.kind=focal")


KINDS = {
    "task.loss": "{kind: kinds_own.Loss, alpha: 2, names: [a]}",
    "task": "{kind: multilabel, loss: {kind: kinds_own.Plain}}",
    "train.transforms": "[{op: resize}, {op: random_apply, prob: 0.5, "
    "ops: [{op: kinds_own.Transform, share: 1}]}]",
    "train.batch_transforms": "[{op: kinds_own.Mix, prob: 0.25}, {op: mixup, prob: 0.75}]",
    "train.sampler": "{kind: kinds_own.sampler, first: 1}",
    "train.optimizer": "{kind: kinds_own.optimizer, weight_decay: 0.1}",
    "train.schedule.decay": "{kind: kinds_own.decay, low: 0.5}",
    "data.train": "{kind: kinds_own.Data, root: ~/x}",
    "data.eval": "{kind: kinds_own.Data, root: x, count: 2}",
}


@pytest.mark.parametrize("key", KINDS)
def test_a_part_stands_wherever_kinds_do_and_is_kept_as_its_path(key, tmp_path):
    recipe = loaded(tmp_path, "focal", "gamma: 1", f"{key}={KINDS[key]}")
    assert "kinds_own." in str(to_plain(recipe))
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert Recipe.load(tmp_path / "again.yaml") == recipe
    assert Recipe.of(to_plain(recipe)) == recipe


def test_what_is_kept_has_the_defaults(tmp_path):
    recipe = loaded(tmp_path, "kinds_own.Loss", "alpha: 1")
    kept = to_plain(recipe)["task"]["loss"]
    assert kept == {
        "kind": "kinds_own.Loss", "alpha": 1.0, "count": None, "names": [], "how": "mean",
        "free": None,
    }  # fmt: skip


def test_the_chances_of_batch_transforms_still_sum_to_at_most_1(tmp_path):
    given = "train.batch_transforms=[{op: kinds_own.Mix}, {op: mixup, prob: 0.5}]"
    with pytest.raises(ppcls.UserError, match="sum to at most 1"):
        loaded(tmp_path, "focal", "gamma: 1", given)


def test_objects_stand_in_nested_keys_and_are_only_named_in_what_is_written(tmp_path):
    keys = {
        "model": {"name": "ResNet18"},
        "data": {"train": tmp_path / "photos"},
        "task": {"loss": lambda logits, targets: logits.mean()},
        "train": {
            "epochs": 1,
            "batch_size": 4,
            "schedule": {"lr": 0.1},
            "transforms": ({"op": "resize"}, lambda image, rng: image),
        },
    }
    recipe = Recipe.of(keys)
    assert recipe.train.transforms[1].part
    assert recipe.task.loss.part
    recipe.save(tmp_path / "r.yaml")
    again = Recipe.load(tmp_path / "r.yaml")
    assert again == recipe
    assert again.task.loss.kind == "given"
    with pytest.raises(ppcls.UserError, match="was given in Python: give it again: loss=…"):
        again.task.loss.build()


def test_an_object_may_be_what_a_part_is_made_of(tmp_path):
    thing = object()
    keys = {
        "model": {"name": "ResNet18"},
        "task": {"loss": {"kind": "kinds_own.Loss", "alpha": 1, "free": [thing]}},
        "train": {"epochs": 1, "batch_size": 4, "schedule": {"lr": 0.1}},
    }
    recipe = Recipe.of(keys)
    assert recipe.task.loss.part.free == [thing]
    assert to_plain(recipe)["task"]["loss"]["free"] != [thing]
    recipe.save(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train": {"epoch": 3}}, "mine: unknown key 'train.epoch'; did you mean 'epochs'?"),
        ({"task": {"loss": 3}}, "mine: task.loss: should be a mapping, with kind among its keys"),
        (
            {"task": {"loss": dict}},
            "mine: task.loss: builtins.dict is a class: give an object of it",
        ),
        ({"seed": object()}, "mine: seed: should be a valid integer (got object)"),
    ],
)
def test_mistakes_in_nested_keys_are_those_of_a_file(change, line):
    keys = {
        "model": {"name": "ResNet18"},
        "train": {"epochs": 1, "batch_size": 4, "schedule": {"lr": 0.1}},
    }
    for key, value in change.items():
        keys[key] = {**keys.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(ppcls.UserError) as error:
        Recipe.of(keys, "mine")
    assert error.value.lines[0].startswith(line)

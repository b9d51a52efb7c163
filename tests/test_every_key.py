"""Nothing that a recipe may say is ignored: every key of it changes something that can be seen.

For each key of the schema a table holds two values and what differs between two tiny runs that
differ in it alone: the weights, the learning rates, the pixels that `ppcls show-data` draws, the
scores … Keys of transforms, losses and schedules are seen in what these return. A key that is
added to the schema fails here until it has an entry.
"""

import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import paddle
import pytest
import tiny_run
from tiny_run import Seen, changed

from ppcls.config.load import node_classes
from ppcls.config.node import Span
from ppcls.recipe import Recipe
from ppcls.train.setup import trackers_of

TAGS = ("kind", "op")

# --------------------------------------------------------------------------- the keys there are


def tag(cls: type) -> tuple[str, str]:
    """The field that tells a node from others that may stand in its place, and its value there."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for name in TAGS:
        if name in hints:
            return name, typing.get_args(hints[name])[0]
    return "", ""


def nodes(cls: type = Recipe, at: str = "", seen: set[type] | None = None) -> Iterator[Any]:
    """Every node class under a class, under its tag or, where it stands alone, its place."""
    seen = set() if seen is None else seen
    if cls in seen or cls is Span:
        return
    seen.add(cls)
    yield tag(cls)[1] or at, cls
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        for inner in node_classes(hints[field.name]):
            yield from nodes(inner, f"{at}.{field.name}".strip("."), seen)


NODES: dict[str, type] = {}
for _name, _cls in nodes():
    assert _name not in NODES, f"two nodes are called {_name}"
    NODES[_name] = _cls


def keys() -> Iterator[str]:
    """`train.epochs`, `momentum.nesterov`: what a table has to have an entry for."""
    for name, cls in NODES.items():
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            hint = hints[field.name]
            container = isinstance(hint, type) and is_dataclass(hint)
            if field.name != tag(cls)[0] and not container:
                yield f"{name}.{field.name}".strip(".")


def kinds(place: str, cls: type = Recipe) -> list[str]:
    """The tags of the nodes that may stand at a dotted place."""
    name, _, rest = place.partition(".")
    found = node_classes(typing.get_type_hints(cls, include_extras=True)[name])
    if not rest:
        return [tag(inner)[1] for inner in found]
    inside = rest.partition(".")[0]
    return kinds(rest, next(c for c in found if inside in {f.name for f in fields(c)}))


# --------------------------------------------------------------------------- by tiny runs


@dataclass(frozen=True)
class Runs:
    """Two runs that differ in one key, and in what it shows.

    Attributes:
        before, after: the values as `-o` takes them.
        shows: the attribute of `Seen` that differs.
        given: overrides that both have.
        also: overrides that only the second has, without which its value is refused.
        same: attributes that are equal.
        at: the key in a recipe, where it is not what the entry is called.
    """

    before: str
    after: str
    shows: str
    given: Sequence[str] = ()
    also: Sequence[str] = ()
    same: Sequence[str] = ()
    at: str = ""
    see: Callable[..., Seen] = tiny_run.train
    slow: bool = False

    def overrides(self, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        at = self.at or key
        return (*self.given, f"{at}={self.before}"), (*self.given, *self.also, f"{at}={self.after}")


def Shown(before: str, after: str, given: Sequence[str] = (), **more: Any) -> Runs:  # noqa: N802
    """Two sheets of what training sees."""
    return Runs(before, after, "pixels", given, see=tiny_run.show, **more)


def Scored(before: str, after: str, *given: str) -> Runs:  # noqa: N802
    """Two sheets of what evaluation sees."""
    return Runs(before, after, "pixels", given, see=tiny_run.show_eval)


LONGER = ("data.train=fewer.txt", "train.epochs=4")  # an epoch is one step
STILL = ("data.train=fewer.txt", "train.epochs=4", "train.schedule.lr=1e-9")  # nothing moves
KEPT = "kept/latest.safetensors"
NETWORK = f"{{name: EfficientNetLite0, weights: {KEPT}}}"
DISTILL = f"task={{kind: distill, teacher: {NETWORK}, losses: [{{kind: kl}}], labels_weight: 0}}"
UNLABELED = (DISTILL, "data.unlabeled={images: unlabeled.txt, share: 0.5}")
DECAYED = ("train.optimizer={kind: momentum, weight_decay: 0.5}",)
SKEWED = ("data.train=skewed.txt",)
NAMED = ("data.train=named.txt", "data.eval=null")
MANY = ("data.train=many.txt", "data.eval=null")
NOWHERE = "data.train=http://127.0.0.1:1/a//train.tar"
FOLDED = ("data.eval=null", "data.fold=1")
GROUPED = ("data.train=grouped.csv", "data.eval=null", "data.holdout=0.4")
GREY = ("preprocess.mean=[0.5]", "preprocess.std=[0.5]")
FLIPPED = "[{op: resize}, {op: vertical_flip, prob: 1.0}]"
LARGE_EVAL = ("preprocess.resize=330", "preprocess.crop=320", "train.size=32")
LARGE = ("train.size=96", "train.batch_size=8")

RUNS = {
    "task": Runs("{kind: classify}", "{kind: multilabel}", "code", MANY),
    "device": Runs("cpu", "gpu", "said"),
    "seed": Runs("0", "1", "weights"),
    "model.name": Runs("EfficientNetLite0", "ResNet18", "weights"),
    "model.num_classes": Runs("null", "5", "weights"),
    "model.in_channels": Runs("3", "1", "weights", also=GREY),
    "model.weights": Runs("null", KEPT, "weights"),
    "model.new_head": Runs(
        "false", "true", "code", (f"model.weights={KEPT}", "model.num_classes=5")
    ),
    "model.drop_path": Runs("null", "0.6", "weights"),
    "model.freeze": Runs("[]", "[50%]", "slots", (f"model.weights={KEPT}",)),
    "data.builtin": Shown("null", "digits", also=("data.train=null", "data.eval=null")),
    "data.train": Shown("train.txt", "eval.txt"),
    "data.eval": Runs("eval.txt", "other_eval.txt", "said", see=tiny_run.evaluate),
    "data.root": Shown("null", "others"),
    "data.class_names": Shown("null", "names.txt"),
    "data.number_labels": Runs("false", "true", "code", NAMED, see=tiny_run.show),
    # An address that no file can have: reading there sees it, a download meets nobody.
    "data.fetch": Runs("false", "true", "said", (NOWHERE,), see=tiny_run.show, slow=True),
    "data.fixes": Shown("null", "fixes.csv"),
    "data.holdout": Runs("0.0", "0.4", "code", ("data.eval=null",), see=tiny_run.show_eval),
    "data.folds": Runs("2", "4", "said", FOLDED, see=tiny_run.show_eval),
    "data.fold": Runs("1", "2", "pixels", (*FOLDED, "data.folds=2"), see=tiny_run.show_eval),
    "data.group_by": Runs(
        "null",
        "{path: '[0-3]'}",
        "code",
        ("data.eval=null", "data.holdout=0.4"),
        see=tiny_run.show_eval,
    ),
    "data.group_by.column": Runs("patient", "side", "pixels", GROUPED, see=tiny_run.show_eval),
    "data.group_by.path": Runs(
        "'[0-9]'",
        "'[01]|g$'",
        "said",
        ("data.eval=null", "data.holdout=0.4"),
        see=tiny_run.show_eval,
    ),
    "data.labeled": Shown("1.0", "0.5"),
    "data.unlabeled": Runs(
        "null", "{images: unlabeled.txt, share: 0.5}", "weights", (DISTILL,), slow=True
    ),
    "data.unlabeled.images": Runs("unlabeled.txt", "more.txt", "weights", UNLABELED, slow=True),
    "data.unlabeled.share": Runs("0.5", "0.25", "weights", UNLABELED, slow=True),
    "data.on_error": Runs("stop", "skip", "code", ("data.train=broken.txt",)),
    "data.workers": Runs("0", "1", "children", same=("weights", "slots", "scores"), slow=True),
    "preprocess.fit": Scored("crop", "letterbox"),
    "preprocess.resize": Scored("36", "50"),
    "preprocess.crop": Scored("32", "24"),
    "preprocess.fill": Scored("114", "0", "preprocess.fit=letterbox"),
    "preprocess.interpolation": Scored("bilinear", "bicubic", "preprocess.resize=50"),
    "preprocess.backend": Scored("cv2", "pil", "preprocess.resize=50"),
    "preprocess.mean": Runs("[0.5, 0.5, 0.5]", "[0.4, 0.5, 0.5]", "weights"),
    "preprocess.std": Runs("[0.2, 0.2, 0.2]", "[0.3, 0.2, 0.2]", "said", see=tiny_run.evaluate),
    "train.epochs": Runs("1", "2", "steps"),
    "train.batch_size": Runs("4", "8", "steps"),
    "train.drop_last": Runs("true", "false", "steps", ("train.batch_size=5",)),
    "train.sampler": Runs("{kind: shuffle}", "{kind: balanced}", "weights", SKEWED),
    "train.repeats": Runs("1", "2", "weights"),
    "train.size": Shown("null", "40"),
    "train.transforms": Shown("[{op: resize}]", FLIPPED),
    "train.batch_transforms": Runs("[]", "[{op: mixup}]", "weights"),
    "train.optimizer": Runs("{kind: momentum}", "{kind: lion}", "slots"),
    "train.accumulate": Runs("1", "2", "steps"),
    "train.clip_norm": Runs("null", "0.01", "weights"),
    "train.decay_norms": Runs("true", "false", "weights", DECAYED),
    "train.decay_biases": Runs("null", "false", "weights", DECAYED),
    "train.lr_scale": Runs("{}", '{"head.*": 10}', "weights"),
    "train.ema": Runs("null", "{decay: 0.5}", "best"),
    "log": Runs("[]", "[tensorboard]", "files"),
    "train.precision": Runs("fp32", "bf16", "said"),
    "train.qat": Runs("false", "true", "weights"),
    "train.qat.weight_bits": Runs("7", "8", "weights", slow=True),
    "train.recompute": Runs("false", "true", "memory", LARGE, same=("weights", "slots"), slow=True),
    "train.frozen_engine": Runs("auto", "paddle", "said"),  # that nothing is frozen
    "train.without": Runs("[]", "[something]", "said"),
    "train.early_stop": Runs("null", "{patience: 1}", "steps", STILL, slow=True),
    "train.early_stop.patience": Runs("1", "2", "steps", STILL, slow=True),
    "train.early_stop.score": Runs(
        "top1", "loss", "steps", (*STILL, "train.early_stop={patience: 1}"), slow=True
    ),
    "train.keep": Runs("0", "2", "files"),
    "train.log_every": Runs("1", "2", "steps", LONGER),
    "train.save_every": Runs("1 epochs", "1 steps", "files", ("train.keep=9",)),
    "train.ema.decay": Runs("0.5", "0.9", "best", ("train.ema.warmup=false",)),
    "train.ema.warmup": Runs("true", "false", "best", ("train.ema.decay=0.9",)),
    "eval.batch_size": Runs("5", "1", "memory", LARGE_EVAL, same=("weights",), slow=True),
    "eval.every": Runs("1", "2", "evaluated", LONGER),
    "eval.best": Runs("top1", "loss", "best", STILL, slow=True),
    "balanced.power": Runs(
        "0.0",
        "1.0",
        "weights",
        ("train.sampler.kind=balanced", *SKEWED),
        at="train.sampler.power",
    ),
    "weighted.weights": Runs(
        "[1, 1, 1]",
        "[1, 0, 1]",
        "weights",
        ("train.sampler.kind=weighted",),
        at="train.sampler.weights",
    ),
    "progressive.sizes": Shown(
        "{0: 32}", "{0: 32, 1: 40}", ("train.size.kind=progressive",), at="train.size.sizes"
    ),
    "multi_scale.sizes": Shown(
        "[32]", "[32, 40]", ("train.size.kind=multi_scale",), at="train.size.sizes"
    ),
    "classify.loss": Runs(
        "{kind: cross_entropy}",
        "{kind: cross_entropy, weights: balanced}",
        "losses",
        at="task.loss",
    ),
    "multilabel.loss": Runs(
        "{kind: bce}",
        "{kind: asymmetric}",
        "losses",
        ("task.kind=multilabel", *MANY),
        at="task.loss",
    ),
}

SLOWER = ("train.ema.decay", "train.ema.warmup", "train.decay_biases", "eval.every")
SLOWER += ("train.log_every", "balanced.power", "weighted.weights", "classify.loss")
SLOWER += ("multilabel.loss", "train.without", "train.precision", "data.on_error")
SLOWER += ("model.new_head", "model.in_channels")
# What other tests of the default suite see, too.
SLOWER += ("train.epochs", "model.name", "train.batch_transforms", "train.repeats", "train.keep")
SLOWER += ("preprocess.mean", "train.batch_size", "model.drop_path", "train.sampler")
SLOWER += ("model.num_classes", "model.weights", "train.save_every", "model.freeze")
SLOWER += ("data.builtin", "train.drop_last", "train.accumulate", "train.clip_norm")
SLOWER += ("device", "data.root", "data.class_names", "data.number_labels", "data.holdout")
SLOWER += ("data.labeled", "preprocess.resize", "preprocess.interpolation", "preprocess.backend")
SLOWER += ("preprocess.std", "train.size", "train.decay_norms", "train.lr_scale", "train.ema")
SLOWER += ("progressive.sizes", "multi_scale.sizes")
RUNS |= {_key: replace(RUNS[_key], slow=True) for _key in SLOWER}

# Of each optimizer two values of each key.
OPTIMIZERS = {
    "sgd": {"weight_decay": (0.0, 0.5)},
    "momentum": {"momentum": (0.9, 0.5), "nesterov": ("false", "true"), "weight_decay": (0.0, 0.5)},
    "adam": {"beta1": (0.9, 0.5), "beta2": (0.999, 0.9), "epsilon": (1e-8, 0.01)},
    "adamw": {"beta1": (0.9, 0.5), "beta2": (0.999, 0.9), "epsilon": (1e-8, 0.01)},
    "rmsprop": {"rho": (0.9, 0.5), "epsilon": (1e-3, 0.1), "momentum": (0.9, 0.5)},
    "lamb": {"beta1": (0.9, 0.5), "beta2": (0.999, 0.9), "epsilon": (1e-6, 0.01)},
    "lars": {"momentum": (0.9, 0.5), "trust": (0.001, 0.1), "weight_decay": (0.0, 0.5)},
    "lion": {"beta1": (0.9, 0.5), "beta2": (0.99, 0.5), "weight_decay": (0.0, 0.5)},
}
OPTIMIZERS["adam"] |= {"weight_decay": (0.0, 0.5)}
OPTIMIZERS["adamw"] |= {"weight_decay": (0.0, 0.5)}
OPTIMIZERS["lamb"] |= {"weight_decay": (0.01, 0.5)}
OPTIMIZERS["rmsprop"] |= {"mean_square": (1.0, 0.0), "weight_decay": (0.0, 0.5)}
for _kind, _values in OPTIMIZERS.items():
    for _field, (_before, _after) in _values.items():
        RUNS[f"{_kind}.{_field}"] = Runs(
            str(_before),
            str(_after),
            "slots" if _field in ("beta2", "rho") else "weights",
            (f"train.optimizer.kind={_kind}",),
            at=f"train.optimizer.{_field}",
            slow=True,
        )

for _op in ("mixup", "cutmix", "fmix"):
    RUNS[f"{_op}.prob"] = Runs(
        f"[{{op: {_op}, prob: 1.0}}]",
        f"[{{op: {_op}, prob: 0.0}}]",
        "weights",
        at="train.batch_transforms",
        slow=True,
    )

# Of each loss between two networks, the keys and their values.
TWO_NETWORKS = {
    "soft_cross_entropy": {"weight": (1.0, 2.0), "temperature": (1.0, 2.0)},
    "kl": {"weight": (1.0, 2.0), "temperature": (1.0, 2.0)},
    "js": {"weight": (1.0, 2.0)},
    "symmetric_kl": {"weight": (1.0, 2.0), "act": ("softmax", "sigmoid")},
    "dkd": {"weight": (1.0, 2.0), "temperature": (1.0, 2.0), "target": (1.0, 2.0)},
    "wsl": {"weight": (1.0, 2.0), "temperature": (2.0, 1.0)},
    "skd": {"weight": (1.0, 2.0), "temperature": (4.0, 1.0), "length": ("null", 4.0)},
    "dist": {"weight": (1.0, 2.0), "temperature": (1.0, 2.0), "inter": (2.0, 1.0)},
    "rkd": {"weight": (1.0, 2.0), "distance": (1.0, 2.0), "angle": (2.0, 1.0)},
    "feature_l2": {"weight": (0.001, 0.002), "stage": (-2, -1)},
    "mgd": {"weight": (7e-5, 1e-4), "stage": (-1, -2), "masked": (0.15, 0.5)},
    "pefd": {"weight": (25.0, 2.0), "projectors": (3, 1)},
    "afd": {"weight": (1.0, 2.0), "width": (128, 8)},
}
TWO_NETWORKS["dkd"] |= {"others": (0.5, 2.0)}
TWO_NETWORKS["dist"] |= {"intra": (2.0, 1.0)}
LAYERED = ("feature_l2", "mgd", "pefd", "afd")


def distilled(loss: str) -> tuple[str, ...]:
    rate = "train.schedule.lr=1e-4"
    return (f"task={{kind: distill, teacher: {NETWORK}, losses: [{{kind: {loss}}}]}}", rate)


for _kind, _values in TWO_NETWORKS.items():
    for _field, (_before, _after) in _values.items():
        RUNS[f"{_kind}.{_field}"] = Runs(
            str(_before),
            str(_after),
            "losses",
            distilled(_kind),
            at=f"task.losses.0.{_field}",
            slow=True,
        )

RESIZED = "train.transforms=[{op: resize}]"  # for answers are kept of images that never change
PEER = "{kind: peer, name: EfficientNetLite0}"
TEACHERS = {
    "network.name": (NETWORK, "{name: ResNet18, weights: kept18/latest.safetensors}"),
    "network.weights": (NETWORK, "{name: EfficientNetLite0, weights: other/latest.safetensors}"),
    "network.cache": (NETWORK, f"{NETWORK[:-1]}, cache: teacher.answers}}"),
    "exported.folder": ("{folder: exported/kept}", "{folder: exported/other}"),
    "exported.engine": ("{folder: exported/kept}", "{folder: exported/kept, engine: onnxruntime}"),
    "exported.cache": ("{folder: exported/kept}", "{folder: exported/kept, cache: folder.answers}"),
    "peer.name": (PEER, "{kind: peer, name: ResNet18}"),
    "peer.weights": (PEER, f"{PEER[:-1]}, weights: {KEPT}}}"),
}
for _key, (_before, _after) in TEACHERS.items():  # in lists, which are replaced whole
    _given = (DISTILL.replace("labels_weight: 0", "labels_weight: 1"), RESIZED)
    RUNS[_key] = Runs(f"[{_before}]", f"[{_after}]", "losses", _given, at="task.teacher", slow=True)

KINDS_OF_DISTILL = {
    "distill": (NETWORK, "focal", ()),
    "distill_multilabel": (PEER, "asymmetric", MANY),
}
for _kind, (_teacher, _loss, _data) in KINDS_OF_DISTILL.items():
    _given = (f"task={{kind: {_kind}, teacher: {_teacher}, labels_weight: 1}}", *_data)
    RUNS |= {
        f"{_kind}.teacher": Runs(
            f"[{_teacher}]",
            "[{kind: peer, name: ResNet18}]",
            "losses",
            _given,
            at="task.teacher",
            slow=True,
        ),
        f"{_kind}.losses": Runs(
            "[{kind: kl}]", "[{kind: js}]", "losses", _given, at="task.losses", slow=True
        ),
        f"{_kind}.loss": Runs(
            "{}", f"{{kind: {_loss}}}", "losses", _given, at="task.loss", slow=True
        ),
        f"{_kind}.labels_weight": Runs(
            "1.0", "2.0", "losses", _given, at="task.labels_weight", slow=True
        ),
    }

# --------------------------------------------------------------------------- by calls

# What a node needs beside its tag, for the other values to matter.
BASE: dict[str, dict[str, Any]] = {
    "pad": {"pixels": 2},
    "hide_and_seek": {"sides": (8,)},
    "grid_mask": {"unit": (8, 16)},
    "random_apply": {"ops": ({"op": "vertical_flip"},)},
    "one_of": {"ops": ({"op": "horizontal_flip"}, {"op": "grayscale"})},
    "train.schedule": {"lr": 0.1, "warmup": "3 steps"},
    "exponential": {"gamma": 0.5},
    "step": {"milestones": (1,)},
    "piecewise": {"milestones": (1,), "values": (0.01,)},
    "plateau": {"patience": "1 epochs"},
    "asymmetric": {"gamma_positive": 1.0},
}
# Of each key another value than the base's or the default, or two that are neither.
OTHER: dict[str, Any] = {
    "random_resized_crop.scale": (0.2, 0.3),
    "random_resized_crop.ratio": (0.5, 0.6),
    "random_resized_crop.interpolation": "random",
    "random_resized_crop.backend": "pil",
    "horizontal_flip.prob": 1.0,
    "vertical_flip.prob": 1.0,
    "resize.interpolation": "bicubic",
    "resize.backend": "pil",
    "resize_short.pixels": 20,
    "resize_short.interpolation": "bicubic",
    "resize_short.backend": "pil",
    "random_crop.pad": 4,
    "pad.pixels": (1, 2, 3, 4),
    "pad.fill": 9,
    "pad.mode": "edge",
    "rotation.degrees": (20, 30),
    "rotation.fill": 9,
    "color_jitter.brightness": 0.4,
    "color_jitter.contrast": 0.4,
    "color_jitter.saturation": 0.4,
    "color_jitter.hue": 0.4,
    "grayscale.prob": 1.0,
    "gaussian_blur.sigma": (1.0, 2.0),
    "lighting.std": 0.5,
    "rand_augment.num_ops": 3,
    "rand_augment.magnitude": 5.0,
    "rand_augment.magnitude_std": 0.5,
    "augmix.severity": 8.0,
    "augmix.width": 2,
    "augmix.depth": 1,
    "augmix.alpha": 0.3,
    "random_erasing.prob": 1.0,
    "random_erasing.scale": (0.2, 0.3),
    "random_erasing.ratio": (1.0, 2.0),
    "random_erasing.mode": "mean",
    "cutout.holes": 2,
    "cutout.length": 5,
    "cutout.mode": "constant",
    "hide_and_seek.sides": (16,),
    "hide_and_seek.prob": 1.0,
    "hide_and_seek.mode": "constant",
    "grid_mask.prob": 0.1,
    "grid_mask.unit": (20, 30),
    "grid_mask.ratio": 0.3,
    "grid_mask.rotate": 45,
    "grid_mask.mode": "constant",
    "random_apply.prob": 1.0,
    "random_apply.ops": ({"op": "grayscale", "prob": 1.0},),
    "one_of.ops": ({"op": "vertical_flip"}, {"op": "grayscale"}),
    "one_of.weights": (0, 1),
    "mixup.alpha": 1.0,
    "cutmix.alpha": 0.2,
    "fmix.alpha": 0.2,
    "fmix.decay_power": 1.0,
    "cross_entropy.smoothing": 0.1,
    "cross_entropy.weights": (1, 2, 3),
    "focal.gamma": 1.0,
    "focal.smoothing": 0.1,
    "focal.weights": (1, 2, 3),
    "bce.smoothing": 0.1,
    "bce.threshold": 0.2,
    "bce.frequencies": (0.1, 0.5, 0.9),
    "bce.reduction": "sum",
    "asymmetric.gamma_positive": 2.0,
    "asymmetric.gamma_negative": 2.0,
    "asymmetric.clip": 0.0,
    "asymmetric.reduction": "mean",
    "asymmetric.focal_gradient": True,
    "train.schedule.lr": 0.2,
    "train.schedule.for_batch": 16,
    "train.schedule.warmup": "4 steps",
    "train.schedule.warmup_start": 0.01,
    "train.schedule.per": "epoch",
    "train.schedule.decay": {"kind": "constant"},
    "cosine.end": 0.1,
    "polynomial.power": 2.0,
    "polynomial.end": 0.1,
    "one_cycle.rise": "50%",
    "one_cycle.start": 0.1,
    "one_cycle.end": 0.1,
    "exponential.gamma": 0.9,
    "exponential.every": "2 epochs",
    "step.milestones": (2,),
    "step.after_warmup": True,
    "step.gamma": 0.5,
    "piecewise.milestones": (2,),
    "piecewise.values": (0.02,),
    "plateau.score": "loss",
    "plateau.gamma": 0.5,
    "plateau.patience": "2 epochs",
    # What comes of these at their servers: tests/train/test_trackers.py.
    "mlflow.uri": "http://127.0.0.1:5000",
    "mlflow.experiment": "ants",
    "mlflow.name": "first",
    "wandb.project": "ants",
    "wandb.entity": "us",
    "wandb.name": "first",
    "wandb.mode": "offline",
}
WHOLE = {"step.every": ({"every": "1 epochs"}, {"every": "2 epochs"})}

EXEMPT = {
    "output": "where a run writes: every run here is found there, and one test has two places",
    "train.amp_level": "a CPU has nothing narrow: tests/train/test_precision.py looks at casts",
    "train.sync_norms": "one process has nothing to share: tests/train/test_setup.py",
}


def applied(op: Any) -> Any:
    """What becomes of one image with the numbers of several seeds."""
    found = [op(tiny_run.image(), np.random.default_rng(seed), 32) for seed in range(12)]
    return [(image.shape, image.tobytes()) for image in found]


def mixed(op: Any) -> Any:
    """What becomes of a batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    parts = [op(images, np.eye(4, dtype=np.float32), np.random.default_rng(s)) for s in range(8)]
    return [part.tobytes() for both in parts for part in both]


def lost(loss: Any) -> Any:
    """The loss of one batch, and its slope."""
    logits = paddle.to_tensor([[2.0, -1, 0.5], [0, 1, -2]], stop_gradient=False)
    value = loss(logits, paddle.to_tensor([[1.0, 0, 0], [0.3, 0.7, 0]]))
    value.backward()
    return value.numpy().tobytes(), logits.grad.numpy().tobytes()


def rates(decay: Any) -> Any:
    """The learning rates of a schedule with this decay."""
    warmup = "0 epochs" if decay.kind == "one_cycle" else "3 steps"
    return planned(NODES["train.schedule"](lr=0.1, warmup=warmup, decay=decay))


def planned(schedule: Any) -> Any:
    """The learning rates of four epochs of five steps."""
    scores = [{"step": step, "top1": 0.5, "loss": 9.0 - step} for step in (5, 10, 15)]
    return [
        schedule.over(5, 20, 8, "top1")(step, [s for s in scores if s["step"] <= step])
        for step in range(20)
    ]


def tracked(node: Any) -> Any:
    """What a tracker is made with."""
    (made,) = trackers_of([node])
    return type(made), vars(made)


CALLS = {
    "log": tracked,
    "train.transforms": applied,
    "train.batch_transforms": mixed,
    "task.loss": lost,
    "train.schedule.decay": rates,
}
CALL_OF = {kind: call for place, call in CALLS.items() for kind in kinds(place)}
CALL_OF["train.schedule"] = planned


def result(kind: str, **values: Any) -> Any:
    return CALL_OF[kind](NODES[kind](**values))


# --------------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working directory of all runs, with the run `kept`; no pictures are drawn."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("matplotlib.figure.Figure.savefig", lambda *given, **named: None)
        tiny_run.train((), keep="kept")
        yield folder


@pytest.fixture(scope="module")
def teachers(folder):
    """More runs, exports and answers to learn from."""
    tiny_run.train(["model.name=ResNet18"], keep="kept18")
    tiny_run.train(["seed=1"], keep="other")
    for name in ("kept", "other"):
        weights, to = f"{name}/best.safetensors", f"exported/{name}"
        form = ("--format", "paddle", "onnx")
        assert not tiny_run.command("export", "--weights", weights, "--output", to, *form).code
    given = {"teacher": NETWORK, "folder": "{folder: exported/kept}"}
    for name, teacher in given.items():
        task = f"task={{kind: distill, teacher: {teacher}}}"
        options = ("--output", f"{name}.answers", "--top", "2")
        assert not tiny_run.command(
            "teach", "-c", "recipe.yaml", "-o", task, RESIZED, *options
        ).code


@cache
def once(see: Callable[..., Seen], given: tuple[str, ...]) -> Seen:
    return see(given)


def judge(key: str) -> None:
    case = RUNS[key]
    before, after = case.overrides(key)
    at, also = case.at or key, {item.partition("=")[0] for item in case.also}
    for found in changed(before, after) - also:
        assert f"{found}.".startswith(f"{at}.") or f"{at}.".startswith(f"{found}."), found
    first, second = once(case.see, before), once(case.see, after)
    one, two = (getattr(seen, case.shows) for seen in (first, second))
    if case.shows == "memory":
        assert one > 1.1 * two, f"{one} is not more than {two} bytes"
    else:
        assert one != two, f"{case.shows} are the same: {first.said}\n{second.said}"
    if case.shows not in ("code", "said"):
        assert (first.code, second.code) == (0, 0), f"{first.said}\n{second.said}"
    for name in case.same:
        assert getattr(first, name) == getattr(second, name), name


def test_every_key_has_an_entry():
    tables = [set(RUNS), set(OTHER), set(WHOLE), set(EXEMPT)]
    assert set(keys()) == set().union(*tables)
    assert not [one & two for one, two in combinations(tables, 2) if one & two]


@pytest.mark.parametrize("key", [key for key, case in RUNS.items() if not case.slow])
def test_a_run_shows_the_key(key, folder):
    judge(key)


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key, case in RUNS.items() if case.slow])
def test_a_long_run_shows_the_key(key, teachers):
    judge(key)


@pytest.mark.parametrize("key", OTHER)
def test_a_call_shows_the_key(key):
    kind, _, field = key.rpartition(".")
    given = BASE.get(kind, {})
    assert result(kind, **given) != result(kind, **{**given, field: OTHER[key]})


@pytest.mark.parametrize("key", WHOLE)
def test_calls_show_the_key(key):
    before, after = WHOLE[key]
    assert result(key.partition(".")[0], **before) != result(key.partition(".")[0], **after)


def test_a_run_is_the_same_twice(folder):
    """What differs above does so for the key."""
    first, second = once(tiny_run.train, ()), tiny_run.train(())
    parts = ("code", "said", "files", "rates", "losses", "scores", "weights", "slots", "best")
    assert [part for part in parts if getattr(first, part) != getattr(second, part)] == []


def test_a_run_is_where_it_is_asked_for(folder):
    seen = tiny_run.train(["output=elsewhere/run"], keep="moved")
    assert "latest.safetensors" in seen.files


# --------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("place", CALLS)
def test_kinds_differ_in_what_they_return(place):
    results = {kind: result(kind, **BASE.get(kind, {})) for kind in kinds(place)}
    alike = [pair for pair in combinations(results, 2) if results[pair[0]] == results[pair[1]]]
    assert alike == []


KINDS = {
    "train.optimizer": {kind: (f"train.optimizer.kind={kind}",) for kind in OPTIMIZERS},
    "train.sampler": {
        "shuffle": (),
        "balanced": ("train.sampler.kind=balanced",),
        "weighted": ("train.sampler={kind: weighted, weights: [1, 0, 1]}",),
    },
    "task.losses": {kind: distilled(kind) for kind in TWO_NETWORKS},
}


@pytest.mark.slow
@pytest.mark.parametrize("place", KINDS)
def test_kinds_differ_in_what_they_train(place, folder):
    where = KINDS[place]
    runs = {kind: once(tiny_run.train, given) for kind, given in where.items()}
    assert [kind for kind, seen in runs.items() if seen.code] == []
    alike = [(a, b) for a, b in combinations(runs, 2) if runs[a].weights == runs[b].weights]
    assert alike == []


def test_every_kind_is_told_apart():
    """Those of sizes, tasks and teachers are, by the entries of these keys above."""
    for place in KINDS:
        assert set(KINDS[place]) == set(kinds(place)), place

"""Networks' tensors under the names and in the layouts of several projects, and back.

A project's module says how its networks are built (`built`) and what it calls a layer of ours
(`layer`). Tensors are matched by name, in whatever order they come; every shape is checked.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ppcls.errors import UserError
from ppcls.models.residual_specs import BUILT, ResidualSpec
from ppcls.utils.text import plural
from ppcls.weights import efficientnet_pytorch, paddleclas, timm
from ppcls.weights.blocks import Spec

Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"  # of PyTorch's batch norm, which has no use for it
STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
SHOWN = 4  # tensors of a kind named in an error


@dataclass(frozen=True)
class Dialect:
    """A project's names.

    Attributes:
        title: what messages call it.
        layer: the path of a layer of ours, split at its dots, to the project's name.
        built: a spec to that of the project's network; a UserError where it has none.
        block: what a block's tensors start with; the group: its stage.
        torch: written by PyTorch: leaves, counters, fully connected weights [out, in].
        squeeze_bias: ResNeSt's squeeze has a bias, which the norm that follows takes out again.
    """

    title: str
    layer: Callable[[list[str], Spec], str]
    built: Callable[[Spec], Spec]
    block: re.Pattern
    torch: bool = False
    squeeze_bias: bool = False


@dataclass(frozen=True)
class Place:
    """Where a tensor of a dialect goes: `ours` is the name here, `shape` the one there."""

    ours: str
    shape: tuple[int, ...]
    layout: Literal["same", "transposed", "matrix", "folded"] = "same"


# A tensor there to ours, and back; what is folded into another one is subtracted from it.
INWARD = {
    "same": lambda value: value,
    "transposed": lambda value: value.T,
    "matrix": lambda value: value.T[:, :, None, None],
}
OUTWARD = {**INWARD, "matrix": lambda value: value[:, :, 0, 0].T, "folded": np.zeros_like}

NATIVE = "native"
DIALECTS = {
    NATIVE: Dialect(
        "ppcls",
        layer=lambda path, spec: ".".join(path),
        built=lambda spec: spec,
        block=re.compile(r"stages\.(\d)\.\d+\."),
    ),
    "paddleclas": Dialect("PaddleClas", paddleclas.layer, paddleclas.built, paddleclas.BLOCK),
    "timm": Dialect(
        "timm/torchvision", timm.layer, timm.built, timm.BLOCK, torch=True, squeeze_bias=True
    ),
    "efficientnet-pytorch": Dialect(
        "efficientnet-pytorch",
        efficientnet_pytorch.layer,
        efficientnet_pytorch.built,
        efficientnet_pytorch.BLOCK,
        torch=True,
    ),
}


def recognise(names: Iterable[str]) -> str:
    """The key in `DIALECTS` of the project that gives such names.

    Raises:
        UserError: none of them does.
    """
    names = list(names)
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    if "_variance" in leaves:
        return NATIVE if any(name.endswith(".norm._variance") for name in names) else "paddleclas"
    if "running_var" in leaves:
        return "efficientnet-pytorch" if any(n.startswith("_bn0.") for n in names) else "timm"
    raise UserError(
        f"its names ({some(names)}) are not those of ppcls, PaddleClas, timm, torchvision or "
        "efficientnet-pytorch"
    )


def structure(names: Iterable[str], spec: Spec) -> Spec:
    """The spec to build for tensors of these names, which may be built otherwise than `spec`.

    Raises:
        UserError: no dialect has the names, or their project no such network.
    """
    dialect = recognise(names)
    if dialect == NATIVE and isinstance(spec, ResidualSpec):
        otherwise = [name for name in BUILT if name in names]
        return replace(spec, **{name: not getattr(ResidualSpec, name) for name in otherwise})
    return DIALECTS[dialect].built(spec)


def places(dialect: Dialect, spec: Spec, native: Shapes) -> dict[str, Place]:
    """Every tensor of a network in a dialect, in its order.

    Args:
        native: name → shape of the network's own state, in its order.
    """
    found = {}
    for ours, shape in native.items():
        if ours in BUILT:
            if dialect is DIALECTS[NATIVE]:
                found[ours] = Place(ours, shape)
            continue
        path, leaf = ours.rsplit(".", 1)
        layer = dialect.layer(path.split("."), spec)
        if dialect.torch:
            leaf = STATISTICS.get(leaf, leaf)
        layout = "same"
        if dialect.torch and ours == "head.weight":
            layout = "transposed"
        elif layer.endswith((".scale.squeeze", ".scale.excitation")) and leaf == "weight":
            layout = "matrix"
        there = OUTWARD[layout](np.broadcast_to(0, shape))
        found[f"{layer}.{leaf}"] = Place(ours, there.shape, layout)
        if dialect.squeeze_bias and path.endswith(".squeeze.conv"):
            mean = path.removesuffix("conv") + "norm._mean"
            found[f"{layer}.bias"] = Place(mean, native[mean], "folded")
    return {name: found[name] for name in timm.in_order(found)}


def to_native(tensors: Tensors, spec: Spec, native: Shapes) -> dict[str, np.ndarray]:
    """The tensors under our names and in our layouts; a head of another size keeps its size.

    Args:
        spec: what `structure` gave for these tensors.
        native: name → shape of the network's own state, in its order.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each kind counted, some named.
    """
    dialect = DIALECTS[recognise(tensors)]
    there = places(dialect, spec, native)
    given = {k: v for k, v in tensors.items() if not (dialect.torch and k.endswith(COUNTER))}
    problems = misfits(given, there, dialect)
    if problems:
        raise UserError(f"with {dialect.title}'s names, {'; '.join(problems)}")
    result = {name: np.full(1, getattr(spec, name), np.float32) for name in native if name in BUILT}
    for name, place in there.items():
        if place.layout != "folded":
            result[place.ours] = INWARD[place.layout](given[name])
    for name, place in there.items():
        if place.layout == "folded":
            result[place.ours] = result[place.ours] - given[name]
    return {name: result[name] for name in native}


def misfits(given: Tensors, there: Mapping[str, Place], dialect: Dialect) -> list[str]:
    """All that keeps the tensors from a network, but for a classifier of another size."""
    missing = [name for name in there if name not in given]
    unexpected = [name for name in given if name not in there]
    both = [name for name in there if name in given]
    wrong = [name for name in both if given[name].shape != there[name].shape]
    shapes = [f"{n} {list(given[n].shape)} for {list(there[n].shape)}" for n in wrong]
    others = [f"{n} ({given[n].dtype})" for n in both if given[n].dtype.kind != "f"]
    if another_head(wrong, given, there):
        shapes = []
    found = {
        f"of {plural(len(there), 'tensor')} are missing": missing,
        "are unexpected": unexpected,
        "have another shape": shapes,
        "hold no floats": others,
    }
    problems = [f"{len(names)} {what}: {some(names)}" for what, names in found.items() if names]
    theirs, ours = (blocks(dialect.block, names) for names in (given, there))
    if theirs != ours:
        problems.insert(0, f"it has {theirs} blocks, this network {ours}")
    return problems


def another_head(wrong: list[str], given: Tensors, there: Mapping[str, Place]) -> bool:
    """Whether all that is wrong is a classifier's number of classes."""
    if [there[name].ours for name in wrong] != ["head.weight", "head.bias"]:
        return False
    inward = INWARD[there[wrong[0]].layout]
    weight, bias = (given[name] for name in wrong)
    features = inward(np.broadcast_to(0, there[wrong[0]].shape)).shape[0]
    return bias.ndim == 1 and inward(weight).shape == (features, *bias.shape)


def blocks(pattern: re.Pattern, names: Iterable[str]) -> str:
    """How many there are in each stage, or in all where the names tell no stage."""
    found = {match[0]: match[1] or "" for match in map(pattern.match, names) if match}
    return ", ".join(str(count) for _, count in sorted(Counter(found.values()).items())) or "no"


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def as_built(spec: Spec, names: Iterable[str]) -> str:
    """What fields of `BUILT` say: "without a projection in stage 1's first block"."""
    words = (f"{'with' if getattr(spec, name) else 'without'} {BUILT[name]}" for name in names)
    return " and ".join(words)


def from_native(weights: Tensors, spec: Spec, to: str) -> dict[str, np.ndarray]:
    """A network's whole state under the names and in the layouts and order of another dialect.

    Raises:
        UserError: the project builds the network otherwise, so that it would compute other logits.
    """
    dialect = DIALECTS[to]
    target = dialect.built(spec)
    if target != spec:
        differing = [name for name in BUILT if getattr(spec, name) != getattr(target, name)]
        raise UserError(
            f"{dialect.title} builds this network {as_built(target, differing)}, unlike this one: "
            "its logits would be others there"
        )
    result = {}
    for name, place in places(dialect, spec, {k: v.shape for k, v in weights.items()}).items():
        result[name] = np.ascontiguousarray(OUTWARD[place.layout](weights[place.ours]))
        if name.endswith(".running_var"):
            result[name.removesuffix("running_var") + COUNTER] = np.zeros((), np.int64)
    return result

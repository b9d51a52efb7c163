"""Networks' tensors under the names and in the layouts of several projects, and back.

What a project calls the layers of a family is said in the family's file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ppcls.models import registry
from ppcls.models.spec import Names, Spec, StagedSpec, Tensors
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

Shapes = Mapping[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"  # of PyTorch's batch norm, which has no use for it
STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
SHOWN = 4  # tensors of a kind named in an error


@dataclass(frozen=True)
class Dialect:
    """A project's names.

    Attributes:
        title: what messages call it.
        torch: written by PyTorch: leaves, counters, fully connected weights [out, in].
        lacks: what messages say where it has no networks of a family.
    """

    title: str
    torch: bool = False
    lacks: str = ""


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
    NATIVE: Dialect("ppcls"),
    "paddleclas": Dialect("PaddleClas", lacks="PaddleClas has no such network"),
    "timm": Dialect("timm/torchvision", torch=True, lacks="timm has no such network"),
    "efficientnet-pytorch": Dialect(
        "efficientnet-pytorch", torch=True, lacks="efficientnet-pytorch has EfficientNets alone"
    ),
}
OWN_NAMES = Names(layer=lambda path, spec: ".".join(path), block=r"stages\.(\d)\.\d+\.")


def names_of(dialect: str, spec: Spec) -> Names:
    """How a project, by its key in `DIALECTS`, names the layers of a network.

    Raises:
        UserError: it has no such network.
    """
    if dialect == NATIVE:
        return OWN_NAMES
    family = registry.family_of(spec)
    if family is None:
        raise UserError(f"{DIALECTS[dialect].title} has no names for a network of one's own")
    if dialect not in family.projects:
        raise UserError(DIALECTS[dialect].lacks)
    return family.projects[dialect]


def built(dialect: str, spec: Spec) -> Spec:
    """The spec as a project builds it; a UserError where it has no such network."""
    return names_of(dialect, spec).built(spec)


def layer_name(dialect: str, path: str, spec: Spec) -> str:
    """A project's name of the layer that stands at a dotted path of ours."""
    return names_of(dialect, spec).layer(path.split("."), spec)


def marks_of(spec: Spec) -> Mapping[str, str]:
    """The spec's fields that tensors say by a mark of their own, and what they are in words."""
    return spec.marks if isinstance(spec, StagedSpec) else {}


def otherwise(spec: Spec) -> list[str]:
    """Those of them that are not as by default."""
    return spec.built_otherwise() if isinstance(spec, StagedSpec) else []


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


def dialect_of(names: Iterable[str], spec: Spec) -> str:
    """As `recognise`, of the tensors for a network; one of one's own has its own names alone."""
    return recognise(names) if registry.family_of(spec) else NATIVE


def structure(names: Iterable[str], spec: Spec) -> Spec:
    """The spec to build for tensors of these names, which may be built otherwise than `spec`.

    Raises:
        UserError: no dialect has the names, or their project no such network.
    """
    dialect = dialect_of(names, spec)
    if dialect != NATIVE:
        return built(dialect, spec)
    found = [name for name in marks_of(spec) if name in names]
    return replace(spec, **{name: not getattr(type(spec), name) for name in found})


def places(dialect: str, spec: Spec, native: Shapes) -> dict[str, Place]:
    """Every tensor of a network in a dialect, by its key, in the order of its project.

    Args:
        native: name → shape of the network's own state, in its order.
    """
    if dialect == NATIVE:
        return {name: Place(name, shape) for name, shape in native.items()}
    found = {}
    names = names_of(dialect, spec)
    torch = DIALECTS[dialect].torch
    for ours, shape in native.items():
        if ours in marks_of(spec):
            continue
        path, leaf = ours.rsplit(".", 1)
        layer = names.layer(path.split("."), spec)
        if torch:
            leaf = STATISTICS.get(leaf, leaf)
        layout = "same"
        if torch and ours == "head.weight":
            layout = "transposed"
        elif layer.endswith(names.matrices) and leaf == "weight":
            layout = "matrix"
        there = OUTWARD[layout](np.broadcast_to(0, shape))
        found[f"{layer}.{leaf}"] = Place(ours, there.shape, layout)
        if names.biased and path.endswith(names.biased):
            mean = path.removesuffix("conv") + "norm._mean"
            found[f"{layer}.bias"] = Place(mean, native[mean], "folded")
    return {name: found[name] for name in names.order(found)}


def to_native(
    tensors: Tensors, spec: Spec, native: Shapes, head: str | None = "head"
) -> dict[str, np.ndarray]:
    """The tensors under our names and in our layouts; a head of another size keeps its size.

    Args:
        spec: what `structure` gave for these tensors.
        native: name → shape of the network's own state, in its order.
        head: the classifier's path in the network; None: it has none.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each kind counted, some named.
    """
    key = dialect_of(tensors, spec)
    dialect = DIALECTS[key]
    there = places(key, spec, native)
    given = {k: v for k, v in tensors.items() if not (dialect.torch and k.endswith(COUNTER))}
    ours = registry.family_of(spec) is not None
    problems = misfits(given, there, key, head, "f" if ours else "fiub")
    if problems:
        whose = f"with {dialect.title}'s names, " if ours else ""
        raise UserError(f"{whose}{'; '.join(problems)}")
    result = {
        name: np.full(1, getattr(spec, name), np.float32)
        for name in native
        if name in marks_of(spec)
    }
    for name, place in there.items():
        if place.layout != "folded":
            result[place.ours] = INWARD[place.layout](given[name])
    for name, place in there.items():
        if place.layout == "folded":
            result[place.ours] = result[place.ours] - given[name]
    return {name: result[name] for name in native}


def misfits(
    given: Tensors,
    there: Mapping[str, Place],
    dialect: str,
    head: str | None = "head",
    kinds: str = "f",
) -> list[str]:
    """All that keeps the tensors from a network, but for a classifier of another size.

    Args:
        kinds: of numbers that tensors may hold, as NumPy calls them.
    """
    missing = [name for name in there if name not in given]
    unexpected = [name for name in given if name not in there]
    both = [name for name in there if name in given]
    wrong = [name for name in both if given[name].shape != there[name].shape]
    shapes = [f"{n} {list(given[n].shape)} for {list(there[n].shape)}" for n in wrong]
    others = [f"{n} ({given[n].dtype})" for n in both if given[n].dtype.kind not in kinds]
    if another_head(wrong, given, there, head):
        shapes = []
    found = {
        f"of {plural(len(there), 'tensor')} are missing": missing,
        "are unexpected": unexpected,
        "have another shape": shapes,
        "hold no floats": others,
    }
    problems = [f"{len(names)} {what}: {some(names)}" for what, names in found.items() if names]
    theirs, ours = (blocks(dialect, names) for names in (given, there))
    if theirs != ours:
        problems.insert(0, f"it has {theirs} blocks, this network {ours}")
    return problems


def another_head(
    wrong: list[str], given: Tensors, there: Mapping[str, Place], head: str | None
) -> bool:
    """Whether all that is wrong is a classifier's number of classes."""
    parts = [f"{head}.weight", f"{head}.bias"]
    own = [place.ours for place in there.values() if place.ours in parts]
    if not wrong or [there[name].ours for name in wrong] != own:
        return False
    inward = INWARD[there[wrong[0]].layout]
    weight, *biases = (given[name] for name in wrong)
    features = inward(np.broadcast_to(0, there[wrong[0]].shape)).shape[0]
    if weight.ndim != 2 or inward(weight).shape[0] != features:
        return False
    return all(bias.shape == inward(weight).shape[1:] for bias in biases)


def blocks(dialect: str, names: Iterable[str]) -> str:
    """How many there are in each stage, or in all where the names tell no stage."""
    told = (family.projects.get(dialect) for family in registry.FAMILIES)
    patterns = [OWN_NAMES.block] if dialect == NATIVE else [each.block for each in told if each]

    def block(name: str) -> re.Match | None:
        return next(filter(None, (re.match(pattern, name) for pattern in patterns)), None)

    matches = map(block, names)
    found = {match[0]: match[1] or "" for match in matches if match}
    return ", ".join(str(count) for _, count in sorted(Counter(found.values()).items())) or "no"


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def as_built(spec: Spec, names: Iterable[str]) -> str:
    """What marked fields say: "without a projection in stage 1's first block"."""
    marks = marks_of(spec)
    words = (f"{'with' if getattr(spec, name) else 'without'} {marks[name]}" for name in names)
    return " and ".join(words)


def from_native(weights: Tensors, spec: Spec, to: str) -> dict[str, np.ndarray]:
    """A network's whole state under the names and in the layouts and order of another dialect.

    Raises:
        UserError: the project builds the network otherwise, so that it would compute other logits.
    """
    dialect = DIALECTS[to]
    target = built(to, spec)
    bridged = weights if target == spec else names_of(to, spec).bridge(weights, spec)
    if bridged is None:
        marks = marks_of(spec)
        differing = [name for name in marks if getattr(spec, name) != getattr(target, name)]
        raise UserError(
            f"{dialect.title} builds this network {as_built(target, differing)}, unlike this one: "
            "its logits would be others there"
        )
    result = {}
    for name, place in places(to, target, {k: v.shape for k, v in bridged.items()}).items():
        result[name] = np.ascontiguousarray(OUTWARD[place.layout](bridged[place.ours]))
        if name.endswith(".running_var"):
            result[name.removesuffix("running_var") + COUNTER] = np.zeros((), np.int64)
    return result

"""Networks' tensors under the names and in the layouts of several projects, and back."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np

from ppcls.models.efficientnet_specs import STAGES, EfficientNetSpec, scaled
from ppcls.models.residual_specs import BUILT, ResidualSpec
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

Spec = ResidualSpec | EfficientNetSpec


def number(spec: Spec, stage: str, block: str) -> int:
    """The block's number when all stages' blocks are counted through."""
    return sum(spec.depths[: int(stage)]) + int(block)


def roles(spec: EfficientNetSpec, stage: str) -> list[str]:
    """What the layers in the branch of an EfficientNet's blocks are, in their order."""
    expand = ["expand"] if STAGES[int(stage)].expand > 1 else []
    return [*expand, "depthwise", *(["gate"] if spec.se else []), "project"]


# --------------------------------------------------------------------------
# The layers of PaddleClas's networks by its names; it lists them in our order

# A block's name; the group: its stage, where the name tells it.
PADDLECLAS_BLOCK = re.compile(
    r"(?:bb_|_conv|s|layer\d\.layer)(\d)_(?:b|bottleneck_)?\d+\.|blocks\.\d+\.|_ef\._?blocks?\.\d+"
)


@dataclass(frozen=True)
class Style:
    """How a family writes its layers: i, s, b, n count layers of the stem, stages, blocks, all."""

    stem: str
    block: str
    conv: str = "conv{}"
    shortcut: str = "short"
    kinds: tuple[str, str] = ("_conv", "_batch_norm")
    head: str = "out"


RESNET = Style("stem.{i}", "blocks.{n}", kinds=("conv", "bn"), head="fc")
DEEP = Style("conv1_{i1}", "bb_{s}_{b}")
PLAIN = replace(DEEP, stem="conv")
PLAIN_RES2NET = replace(DEEP, stem="conv1")
REGNET = Style("conv", "s{s1}_b{b1}")
WSL = Style("_conv_stem", "_conv{s1}_{b}", "_conv{}", "_short._conv", ("_conv", "_bn"), "_out")
RESNEST = Style("stem.conv{i1}", "layer{s1}.layer{s1}_bottleneck_{b}")


def built_by_paddleclas(spec: Spec) -> Spec:
    """The spec as PaddleClas builds it.

    Raises:
        UserError: it has no such network.
    """
    if isinstance(spec, ResidualSpec):
        return replace(spec, **{name: getattr(ResidualSpec, name) for name in BUILT})
    if spec.act != "silu":
        raise UserError("PaddleClas has no EfficientNet-Lite")
    return spec


def paddleclas_layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    if isinstance(spec, EfficientNetSpec):
        return paddleclas_efficientnet(path, spec)
    style = style_of(spec)
    kind = style.kinds[path[-1] == "norm"]
    match path:
        case ["stem", i, _]:
            return f"{style.stem.format(i=i, i1=int(i) + 1)}.{kind}"
        case ["stages", s, b, *inside]:
            s1 = int(s) + 1
            b1 = int(b) + 1
            block = style.block.format(s=s, b=b, s1=s1, b1=b1, n=number(spec, s, b))
            if spec.radix:
                return f"{block}.{paddleclas_in_resnest(inside, kind)}"
            if "convs" in inside:
                part = f"res{s1 + 1}{letter(spec, int(s), int(b))}_branch2b_{int(inside[3]) + 1}"
                return f"{block}.{part}.{kind}"
            return f"{block}.{paddleclas_in_block(inside, style, kind)}"
    return style.head


def style_of(spec: ResidualSpec) -> Style:
    if not spec.stem.pool:
        return REGNET
    if spec.radix:
        return RESNEST
    deep = len(spec.stem.widths) > 1
    vb_or_vd = deep == (spec.shortcut == "avg") and spec.groups[0] == 1
    if vb_or_vd and spec.scales == 1 and not spec.se:
        return RESNET
    if spec.mids and spec.groups[0] > 1 and spec.mids[0] // spec.groups[0] > 4:
        return WSL
    if deep:
        return DEEP
    return PLAIN_RES2NET if spec.scales > 1 else PLAIN


def paddleclas_in_block(inside: list[str], style: Style, kind: str) -> str:
    match inside:
        case ["branch", _, "gate", k]:
            return "scale.squeeze" if k == "1" else "scale.excitation"
        case ["branch", k, _]:
            return f"{style.conv.format(k)}.{kind}"
    return f"{style.shortcut}.{kind}"


def paddleclas_in_resnest(inside: list[str], kind: str) -> str:
    match inside:
        case ["branch", _, "conv", _]:
            return f"conv2.conv1.{kind}"
        case ["branch", _, "squeeze", _]:
            return f"conv2.conv2.{kind}"
        case ["branch", _, "excite"]:
            return "conv2.conv3"
        case ["branch", k, _]:
            return f"conv1.{kind}" if k == "0" else f"conv3.{kind}"
    return "conv4" if kind == "_conv" else kind


def letter(spec: ResidualSpec, stage: int, block: int) -> str:
    """How Res2Net's convolutions count blocks: a, b, c …; deep ones' third stage a, b1, b2 …"""
    if stage == 2 and sum(spec.depths) > 16 and block:
        return f"b{block}"
    return chr(ord("a") + block)


def paddleclas_efficientnet(path: list[str], spec: EfficientNetSpec) -> str:
    kind = "_bn" if path[-1] == "norm" else "_conv._conv"
    match path:
        case ["stem", _]:
            return f"_ef._conv_stem._conv.{kind}"
        case ["stages", stage, b, "branch", k, *inside]:
            block = f"_ef.{'_blocks' if b == '0' else 'block'}.{number(spec, stage, b)}."
            if inside[0] == "gate":
                return f"{block}._se.{'_conv1' if inside[1] == '1' else '_conv2'}._conv"
            part = {"expand": "_ecn", "depthwise": "_dcn", "project": "_pcn"}
            return f"{block}.{part[roles(spec, stage)[int(k)]]}._conv.{kind}"
        case ["expand", _]:
            return f"_conv.{kind}"
    return "_fc"


# --------------------------------------------------------------------------
# The layers of timm's networks by its names; torchvision's ResNet and ResNeXt have the same

TIMM_BLOCK = re.compile(
    r"(?:layer|s|blocks\.)(\d)\.b?\d+\."
)  # a block's name; the group: its stage


def built_by_timm(spec: Spec) -> Spec:
    """The spec as timm builds it.

    Raises:
        UserError: it rounds this network's squeeze-excite to other widths.
    """
    if isinstance(spec, EfficientNetSpec):
        return spec
    ours = [width // spec.se for width in spec.widths] if spec.se else []
    rounded = [scaled(width, 1 / spec.se) for width in spec.widths] if spec.se else []
    if ours != rounded:
        raise UserError(
            "timm rounds the channels of squeeze-excite to multiples of 8, a stage "
            f"{listing(rounded)}; this network has {listing(ours)}"
        )
    return replace(
        spec,
        first_projects=spec.mids is not None or spec.stem.widths[-1] != spec.widths[0],
        first_chains=spec.scales == 1,
        padding_counts=spec.scales > 1 or spec.radix > 0,
    )


def listing(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def timm_layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    if isinstance(spec, EfficientNetSpec):
        return timm_efficientnet(path, spec)
    if not spec.stem.pool:
        return timm_regnet(path)
    norm = path[-1] == "norm"
    last = len(spec.stem.widths) - 1
    match path:
        case ["stem", i, _] if norm and int(i) == last:
            return "bn1"
        case ["stem", i, _]:
            return f"conv1.{3 * int(i) + norm}" if last else "conv1"
        case ["stages", s, b, "shortcut", *_]:
            return f"layer{int(s) + 1}.{b}.downsample.{(spec.shortcut == 'avg') + norm}"
        case ["stages", s, b, "branch", k, *inside]:
            return f"layer{int(s) + 1}.{b}.{timm_in_branch(min(int(k) + 1, 3), inside)}"
    return "fc"


def timm_in_branch(k: int, inside: list[str]) -> str:
    match inside:
        case ["gate", gate]:
            return "se.fc1" if gate == "1" else "se.fc2"
        case ["convs", part, kind]:
            return f"convs.{part}" if kind == "conv" else f"bns.{part}"
        case ["conv", kind]:
            return "conv2.conv" if kind == "conv" else "conv2.bn0"
        case ["squeeze", kind]:
            return "conv2.fc1" if kind == "conv" else "conv2.bn1"
        case ["excite"]:
            return "conv2.fc2"
    return f"conv{k}" if inside == ["conv"] else f"bn{k}"


def timm_regnet(path: list[str]) -> str:
    kind = "bn" if path[-1] == "norm" else "conv"
    match path:
        case ["stem", _, _]:
            return f"stem.{kind}"
        case ["stages", s, b, "branch", k, _]:
            return f"s{int(s) + 1}.b{int(b) + 1}.conv{int(k) + 1}.{kind}"
        case ["stages", s, b, "shortcut", *_]:
            return f"s{int(s) + 1}.b{int(b) + 1}.downsample.{kind}"
    return "head.fc"


def timm_efficientnet(path: list[str], spec: EfficientNetSpec) -> str:
    match path:
        case ["stem", kind]:
            return "conv_stem" if kind == "conv" else "bn1"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"blocks.{s}.{b}.se.{'conv_reduce' if gate == '1' else 'conv_expand'}"
        case ["stages", s, b, "branch", k, kind]:
            role = roles(spec, s)[int(k)]
            parts = [part for part in roles(spec, s) if part != "gate"]
            convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
            if len(parts) == 2:  # where nothing is expanded, the one 1x1 is plain
                convs["project"] = "conv_pw"
            own = convs[role] if kind == "conv" else f"bn{parts.index(role) + 1}"
            return f"blocks.{s}.{b}.{own}"
        case ["expand", kind]:
            return "conv_head" if kind == "conv" else "bn2"
    return "classifier"


def in_order_of_timm(names: Iterable[str]) -> list[str]:
    """Names in the order of ours to timm's, which has Res2Net's convolutions before their norms."""
    blocks = groupby(names, key=lambda name: re.sub(r"\.(convs|bns)\..*", ".", name))
    return [name for _, block in blocks for name in sorted(block, key=lambda n: ".bns." in n)]


# --------------------------------------------------------------------------
# The layers of efficientnet-pytorch's networks by its names; the Lite packages have the same

EFFICIENTNET_PYTORCH_BLOCK = re.compile(
    r"_blocks\.\d+()\."
)  # a block's name; the group: it tells no stage

PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def built_by_efficientnet_pytorch(spec: Spec) -> Spec:
    """The spec itself, or UserError: it is no EfficientNet."""
    if isinstance(spec, EfficientNetSpec):
        return spec
    raise UserError("efficientnet-pytorch has EfficientNets alone")


def efficientnet_pytorch_layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    assert isinstance(spec, EfficientNetSpec)
    norm = path[-1] == "norm"
    match path:
        case ["stem", _]:
            return "_bn0" if norm else "_conv_stem"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"_blocks.{number(spec, s, b)}.{'_se_reduce' if gate == '1' else '_se_expand'}"
        case ["stages", s, b, "branch", k, _]:
            return f"_blocks.{number(spec, s, b)}.{PARTS[roles(spec, s)[int(k)]][norm]}"
        case ["expand", _]:
            return "_bn1" if norm else "_conv_head"
    return "_fc"


# --------------------------------------------------------------------------
# Networks' tensors under the names and in the layouts of several projects, and back

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
    "paddleclas": Dialect("PaddleClas", paddleclas_layer, built_by_paddleclas, PADDLECLAS_BLOCK),
    "timm": Dialect(
        "timm/torchvision", timm_layer, built_by_timm, TIMM_BLOCK, torch=True, squeeze_bias=True
    ),
    "efficientnet-pytorch": Dialect(
        "efficientnet-pytorch",
        efficientnet_pytorch_layer,
        built_by_efficientnet_pytorch,
        EFFICIENTNET_PYTORCH_BLOCK,
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
    return {name: found[name] for name in in_order_of_timm(found)}


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

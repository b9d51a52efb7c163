"""The layers of PaddleClas's networks by its names; it lists them in our order."""

import re
from dataclasses import dataclass, replace

from ppcls.errors import UserError
from ppcls.models.efficientnet_specs import EfficientNetSpec
from ppcls.models.residual_specs import BUILT, ResidualSpec
from ppcls.weights.blocks import Spec, number, roles

# A block's name; the group: its stage, where the name tells it.
BLOCK = re.compile(
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


def built(spec: Spec) -> Spec:
    """The spec as PaddleClas builds it.

    Raises:
        UserError: it has no such network.
    """
    if isinstance(spec, ResidualSpec):
        return replace(spec, **{name: getattr(ResidualSpec, name) for name in BUILT})
    if spec.act != "silu":
        raise UserError("PaddleClas has no EfficientNet-Lite")
    return spec


def layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    if isinstance(spec, EfficientNetSpec):
        return efficientnet(path, spec)
    style = style_of(spec)
    kind = style.kinds[path[-1] == "norm"]
    match path:
        case ["stem", i, _]:
            return f"{style.stem.format(i=i, i1=int(i) + 1)}.{kind}"
        case ["stages", s, b, *inside]:
            s1, b1 = int(s) + 1, int(b) + 1
            block = style.block.format(s=s, b=b, s1=s1, b1=b1, n=number(spec, s, b))
            if spec.radix:
                return f"{block}.{in_resnest(inside, kind)}"
            if "convs" in inside:
                part = f"res{s1 + 1}{letter(spec, int(s), int(b))}_branch2b_{int(inside[3]) + 1}"
                return f"{block}.{part}.{kind}"
            return f"{block}.{in_block(inside, style, kind)}"
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


def in_block(inside: list[str], style: Style, kind: str) -> str:
    match inside:
        case ["branch", _, "gate", k]:
            return "scale.squeeze" if k == "1" else "scale.excitation"
        case ["branch", k, _]:
            return f"{style.conv.format(k)}.{kind}"
    return f"{style.shortcut}.{kind}"


def in_resnest(inside: list[str], kind: str) -> str:
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


def efficientnet(path: list[str], spec: EfficientNetSpec) -> str:
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

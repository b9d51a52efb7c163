"""Residual networks: ResNet (vb, vc, vd), ResNeXt, WSL, SE, Res2Net, ResNeSt and RegNet.

All are a stem and four stages of residual blocks (arXiv:1512.03385). What sets them apart is
written in `ResidualSpec`; `SPECS` gives every published network as one line.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ppcls.models.spec import Family, Names, StagedSpec, scaled
from ppcls.utils.errors import UserError

if TYPE_CHECKING:
    from paddle import nn


@dataclass(frozen=True)
class Stem:
    """3x3 (or `kernel`) convolutions, the first of which strides."""

    widths: tuple[int, ...]
    kernel: int = 3
    pool: bool = True  # a strided max-pool follows; without it, stage 1 strides instead


@dataclass(frozen=True, kw_only=True)
class ResidualSpec(StagedSpec):
    """Shape of a residual network. Tuples give one entry per stage."""

    mids: tuple[int, ...] | None = None  # channels inside a bottleneck; None: basic blocks
    groups: tuple[int, ...] = (1, 1, 1, 1)  # of the 3x3 convolution
    stem: Stem = Stem((64,), kernel=7)
    shortcut: Literal["conv", "avg"] = "conv"  # strided 1x1, or 2x2 mean then 1x1
    se: int = 0  # squeeze-excite reduction; 0: none
    scales: int = 1  # Res2Net's parts of the 3x3; 1: plain
    radix: int = 0  # ResNeSt's splits of the 3x3; 0: plain
    pool_first: bool = False  # ResNeSt-fast averages before its 3x3 rather than after
    first_projects: bool = True  # the first block of stage 1 projects its shortcut
    first_chains: bool = True  # Res2Net's first block of stage 1 chains its convolutions
    padding_counts: bool = False  # 3x3 means take in the zeros around the image

    marks: ClassVar = {  # PaddleClas's networks are built as by default
        "first_projects": "a projection in stage 1's first block",
        "first_chains": "a chain of convolutions in stage 1's first block",
        "padding_counts": "the padding counted in 3x3 means",
    }

    @property
    def strides(self) -> tuple[int, ...]:
        return (1 if self.stem.pool else 2, 2, 2, 2)

    @property
    def stem_stride(self) -> int:
        return 4 if self.stem.pool else 2

    @property
    def grouped(self) -> bool:
        return self.groups[0] > 1

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        from paddle import nn

        from ppcls.models.blocks import StagedNetwork, conv_stem

        stem = conv_stem(in_channels, self.stem.widths, self.stem.kernel, self.stem.pool)
        stages = []
        cin = self.stem.widths[-1]
        index = 0
        last = max(1, sum(self.depths) - 1)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(self.block(stage, cin, i == 0, self.drop_path * index / last))
                cin = width
                index = index + 1
            stages.append(nn.Sequential(*blocks))
        return StagedNetwork(self, stem, stages, cin, num_classes)

    def block(self, stage: int, cin: int, first: bool, drop_path: float) -> "nn.Layer":
        """A block of a stage."""
        from ppcls.models.blocks import ResidualBlock

        cout = self.widths[stage]
        stride = self.strides[stage] if first else 1
        return ResidualBlock(
            cin,
            cout,
            stride,
            mid=self.mids[stage] if self.mids else None,
            groups=self.groups[stage],
            scales=self.scales,
            chained=stride == 1 and (self.first_chains or not first),
            radix=self.radix,
            pool_first=self.pool_first,
            padding_counts=self.padding_counts,
            squeezed=cout // self.se if self.se else 0,
            projects=first and (stage > 0 or self.first_projects),
            averages=self.shortcut == "avg",
            drop_path=drop_path,
        )


# --------------------------------------------------------------------------
# The published networks' rules

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
DEEP = Stem((32, 32, 64))
WIDE = Stem((64, 64, 128))
VD = {"stem": DEEP, "shortcut": "avg"}  # the "d" tweaks of arXiv:1812.01187


def resnet(depth, cardinality=1, width=64, scales=1, **options):
    """Stage i puts out 256*2^i channels around `cardinality * scales` parts of `width * 2^i`."""
    octaves = (1, 2, 4, 8)
    if depth < 50:
        return ResidualSpec(depths=DEPTHS[depth], widths=tuple(64 * o for o in octaves), **options)
    return ResidualSpec(
        depths=DEPTHS[depth],
        widths=tuple(256 * o for o in octaves),
        mids=tuple(cardinality * scales * width * o for o in octaves),
        groups=(cardinality,) * 4,
        scales=scales,
        **options,
    )


def resnest(depths, stem, resolution=224):
    """ResNet50_vd's widths around two splits."""
    base = resnet(50, stem=stem, shortcut="avg", radix=2)
    return replace(base, depths=depths, resolution=resolution)


def regnet(w0, wa, wm, depth, group_width):
    """Block j is w0 + wa*j wide, rounded to w0 * wm^k and a multiple of 8 (arXiv:2003.13678)."""
    exponents = (round(math.log((w0 + wa * j) / w0, wm)) for j in range(depth))
    ladder = sorted(Counter(round(w0 * wm**k / 8) * 8 for k in exponents).items())
    group_widths = [min(group_width, width) for width, _ in ladder]
    widths = tuple(
        round(width / group) * group for (width, _), group in zip(ladder, group_widths, strict=True)
    )
    return ResidualSpec(
        depths=tuple(count for _, count in ladder),
        widths=widths,
        mids=widths,
        groups=tuple(w // g for w, g in zip(widths, group_widths, strict=True)),
        stem=Stem((32,), pool=False),
    )


# --------------------------------------------------------------------------
# The published networks

SPECS = {
    # arXiv:1512.03385; vc, vd: arXiv:1812.01187; v2 and ssld were trained otherwise
    "ResNet18": resnet(18),
    "ResNet34": resnet(34),
    "ResNet50": resnet(50),
    "ResNet101": resnet(101),
    "ResNet152": resnet(152),
    "ResNet50_vc": resnet(50, stem=DEEP),
    "ResNet18_vd": resnet(18, **VD),
    "ResNet34_vd": resnet(34, **VD),
    "ResNet50_vd": resnet(50, **VD),
    "ResNet50_vd_v2": resnet(50, **VD),
    "ResNet50_vd_ssld": resnet(50, **VD),
    "ResNet101_vd": resnet(101, **VD),
    "ResNet152_vd": resnet(152, **VD),
    "ResNet200_vd": resnet(200, **VD),
    # arXiv:1611.05431
    "ResNeXt50_32x4d": resnet(50, 32, 4),
    "ResNeXt50_64x4d": resnet(50, 64, 4),
    "ResNeXt101_32x4d": resnet(101, 32, 4),
    "ResNeXt101_64x4d": resnet(101, 64, 4),
    "ResNeXt152_32x4d": resnet(152, 32, 4),
    "ResNeXt152_64x4d": resnet(152, 64, 4),
    "ResNeXt50_vd_32x4d": resnet(50, 32, 4, **VD),
    "ResNeXt50_vd_64x4d": resnet(50, 64, 4, **VD),
    "ResNeXt101_vd_32x4d": resnet(101, 32, 4, **VD),
    "ResNeXt101_vd_64x4d": resnet(101, 64, 4, **VD),
    "ResNeXt152_vd_32x4d": resnet(152, 32, 4, **VD),
    "ResNeXt152_vd_64x4d": resnet(152, 64, 4, **VD),
    # arXiv:1805.00932; Fix: arXiv:1906.06423
    "ResNeXt101_32x8d_wsl": resnet(101, 32, 8),
    "ResNeXt101_32x16d_wsl": resnet(101, 32, 16),
    "ResNeXt101_32x32d_wsl": resnet(101, 32, 32),
    "ResNeXt101_32x48d_wsl": resnet(101, 32, 48),
    "Fix_ResNeXt101_32x48d_wsl": resnet(101, 32, 48, resolution=320, margin=0),
    # arXiv:1709.01507
    "SE_ResNet18_vd": resnet(18, se=16, **VD),
    "SE_ResNet34_vd": resnet(34, se=16, **VD),
    "SE_ResNet50_vd": resnet(50, se=16, **VD),
    "SE_ResNeXt50_32x4d": resnet(50, 32, 4, se=16),
    "SE_ResNeXt101_32x4d": resnet(101, 32, 4, se=16),
    "SE_ResNeXt152_64x4d": resnet(152, 64, 4, se=16, stem=WIDE),
    "SE_ResNeXt50_vd_32x4d": resnet(50, 32, 4, se=16, stem=WIDE, shortcut="avg"),
    "SENet154_vd": resnet(152, 64, 4, se=16, stem=WIDE, shortcut="avg"),
    # arXiv:1904.01169
    "Res2Net50_26w_4s": resnet(50, width=26, scales=4),
    "Res2Net50_14w_8s": resnet(50, width=14, scales=8),
    "Res2Net50_vd_26w_4s": resnet(50, width=26, scales=4, **VD),
    "Res2Net101_vd_26w_4s": resnet(101, width=26, scales=4, **VD),
    "Res2Net200_vd_26w_4s": resnet(200, width=26, scales=4, **VD),
    # arXiv:2004.08955
    "ResNeSt50_fast_1s1x64d": replace(resnest((3, 4, 6, 3), DEEP), radix=1, pool_first=True),
    "ResNeSt50": resnest((3, 4, 6, 3), DEEP),
    "ResNeSt101": resnest((3, 4, 23, 3), WIDE, resolution=256),
    "ResNeSt200": resnest((3, 24, 36, 3), WIDE, resolution=320),
    "ResNeSt269": resnest((3, 30, 48, 8), WIDE, resolution=416),
    # arXiv:2003.13678
    "RegNetX_200MF": regnet(24, 36.44, 2.49, 13, 8),
    "RegNetX_400MF": regnet(24, 24.48, 2.54, 22, 16),
    "RegNetX_600MF": regnet(48, 36.97, 2.24, 16, 24),
    "RegNetX_800MF": regnet(56, 35.73, 2.28, 16, 16),
    "RegNetX_1600MF": regnet(80, 34.01, 2.25, 18, 24),
    "RegNetX_3200MF": regnet(88, 26.31, 2.25, 25, 48),
    "RegNetX_4GF": regnet(96, 38.65, 2.43, 23, 40),
    "RegNetX_6400MF": regnet(184, 60.83, 2.07, 17, 56),
    "RegNetX_8GF": regnet(80, 49.56, 2.88, 23, 120),
    "RegNetX_12GF": regnet(168, 73.36, 2.37, 19, 112),
    "RegNetX_16GF": regnet(216, 55.59, 2.1, 22, 128),
    "RegNetX_32GF": regnet(320, 69.86, 2.0, 23, 168),
}

# --------------------------------------------------------------------------
# PaddleClas's names of the layers


class Style(NamedTuple):
    """How a family writes its layers: i, s, b, n count layers of the stem, stages, blocks, all."""

    stem: str
    block: str
    conv: str = "conv{}"
    shortcut: str = "short"
    kinds: tuple[str, str] = ("_conv", "_batch_norm")
    head: str = "out"


RESNET_STYLE = Style("stem.{i}", "blocks.{n}", kinds=("conv", "bn"), head="fc")
DEEP_STYLE = Style("conv1_{i1}", "bb_{s}_{b}")
PLAIN_STYLE = DEEP_STYLE._replace(stem="conv")
PLAIN_RES2NET_STYLE = DEEP_STYLE._replace(stem="conv1")
REGNET_STYLE = Style("conv", "s{s1}_b{b1}")
WSL_STYLE = Style(
    "_conv_stem", "_conv{s1}_{b}", "_conv{}", "_short._conv", ("_conv", "_bn"), "_out"
)
RESNEST_STYLE = Style("stem.conv{i1}", "layer{s1}.layer{s1}_bottleneck_{b}")


def built_by_paddleclas(spec: ResidualSpec) -> ResidualSpec:
    return replace(spec, **{name: getattr(ResidualSpec, name) for name in ResidualSpec.marks})


def paddleclas_layer(path: list[str], spec: ResidualSpec) -> str:
    style = style_of(spec)
    kind = style.kinds[path[-1] == "norm"]
    match path:
        case ["stem", i, _]:
            return f"{style.stem.format(i=i, i1=int(i) + 1)}.{kind}"
        case ["stages", s, b, *inside]:
            s1 = int(s) + 1
            b1 = int(b) + 1
            block = style.block.format(s=s, b=b, s1=s1, b1=b1, n=spec.number(s, b))
            if spec.radix:
                return f"{block}.{paddleclas_in_resnest(inside, kind)}"
            if "convs" in inside:
                part = f"res{s1 + 1}{letter(spec, int(s), int(b))}_branch2b_{int(inside[3]) + 1}"
                return f"{block}.{part}.{kind}"
            return f"{block}.{paddleclas_in_block(inside, style, kind)}"
    return style.head


def style_of(spec: ResidualSpec) -> Style:
    if not spec.stem.pool:
        return REGNET_STYLE
    if spec.radix:
        return RESNEST_STYLE
    deep = len(spec.stem.widths) > 1
    vb_or_vd = deep == (spec.shortcut == "avg") and spec.groups[0] == 1
    if vb_or_vd and spec.scales == 1 and not spec.se:
        return RESNET_STYLE
    if spec.mids and spec.groups[0] > 1 and spec.mids[0] // spec.groups[0] > 4:
        return WSL_STYLE
    if deep:
        return DEEP_STYLE
    return PLAIN_RES2NET_STYLE if spec.scales > 1 else PLAIN_STYLE


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


def paddleclas_stage(key: str, spec: ResidualSpec) -> int | None:
    """The stage that a block ends, for its ResNet counts blocks: -1 is the last."""
    match = re.fullmatch(r"blocks\[(\d+)\]", key)
    if not match:
        return None
    ends = list(accumulate(spec.depths))
    blocks = int(match[1]) + 1
    return ends.index(blocks) - len(ends) if blocks in ends else None


# --------------------------------------------------------------------------
# timm's names of the layers; torchvision's ResNet and ResNeXt have the same


def built_by_timm(spec: ResidualSpec) -> ResidualSpec:
    """UserError: timm rounds this network's squeeze-excite to other widths."""
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


def timm_layer(path: list[str], spec: ResidualSpec) -> str:
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


def in_order_of_timm(names: Iterable[str]) -> list[str]:
    """Names in the order of ours to timm's, which has Res2Net's convolutions before their norms."""
    blocks = groupby(names, key=lambda name: re.sub(r"\.(convs|bns)\..*", ".", name))
    return [name for _, block in blocks for name in sorted(block, key=lambda n: ".bns." in n)]


FAMILY = Family(
    titles=("ResNet", "SE_ResNet", "ResNeXt", "Res2Net", "ResNeSt", "RegNetX"),
    words="the residual networks",
    paper="1512.03385",
    specs=SPECS,
    groups={
        "ResNeXt WSL": r".*_wsl",
        "with SSLD": r".*_ssld",
        "SE": r"SE",
        "ResNeXt": r"ResNeXt\d+_\d",
        "ResNeXt_vd": r"ResNeXt\d+_vd",
        "ResNet": r"ResNet\d+(_vc)?$",
        "ResNet_vd": r"ResNet\d+_vd",
        "Res2Net": r"Res2Net",
        "ResNeSt": r"ResNeSt",
        "RegNetX": r"RegNetX",
    },
    series=(r"^((?:SE_)?(?:ResNet|ResNeXt|Res2Net|SENet|ResNeSt)|RegNetX_)\d+", r"\1"),
    projects={
        "paddleclas": Names(
            paddleclas_layer,
            r"(?:bb_|_conv|s|layer\d\.layer)(\d)_(?:b|bottleneck_)?\d+\.|blocks\.\d+\.",
            built_by_paddleclas,
            matrices=(".scale.squeeze", ".scale.excitation"),
            rates=("stem.*", "stages.0.*", "stages.1.*", "stages.2.*", "stages.3.*"),
            stage=paddleclas_stage,
            spares_norms=lambda spec: bool(spec.radix),
        ),
        "timm": Names(
            timm_layer,
            r"(?:layer|s)(\d)\.b?\d+\.",
            built_by_timm,
            biased=(".squeeze.conv",),
            order=in_order_of_timm,
        ),
    },
    convs=("stem.0", "stages.1.0.branch.0", "stages.2.1.branch.0"),
    paddlex={
        name: name
        for name in (
            *(f"ResNet{depth}" for depth in (18, 34, 50, 101, 152)),
            *(f"ResNet{depth}_vd" for depth in (18, 34, 50, 101, 152, 200)),
        )
    },
    elsewhere=(
        (r"resnet(\d+)(?:d|vd|d\w*in1k)", r"resnet\1vd"),
        (r"resnet(\d+)c", r"resnet\1vc"),
        (r"resnet(\d+)(?:s|b)?(?:v1|v15|a1in1k|tvin1k|in1k|imagenet)", r"resnet\1"),
        (r"(?:legacy)?seresnet(\d+)(?:d|vd)?", r"seresnet\1vd"),
        (r"(?:legacy)?seresnext(\d+32x4d)", r"seresnext\1"),
        (r"(?:legacy)?senet154", "senet154vd"),
        (r"resnext(\d+)d?(32x4d|64x4d)d", r"resnext\1vd\2"),
        (r"resnext(\d+)(32x4d|64x4d)\w*", r"resnext\1\2"),
        (r"(?:ig)?resnext10132x(\d+)d(?:wsl|fbwsl\w*)?", r"resnext10132x\1dwsl"),
        (r"resnest(\d+)[de]\w*", r"resnest\1"),
        (r"res2net(\d+)(\d\dw\ds)\w*", r"res2net\1\2"),
        (r"res2net(\d+)d", r"res2net\1vd26w4s"),
        (r"regnetx00(\d)", r"regnetx\g<1>00mf"),  # timm counts in tenths of a billion
        (r"regnetx0(16|32|64)", r"regnetx\g<1>00mf"),
        (r"regnetx0?(\d+)0", r"regnetx\1gf"),
    ),
)

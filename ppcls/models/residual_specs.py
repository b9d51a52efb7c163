"""Residual networks as data: ResNet (vb, vc, vd), ResNeXt, WSL, SE, Res2Net, ResNeSt and RegNet.

All are a stem and four stages of residual blocks. What sets the families apart is written in
`ResidualSpec`; `SPECS` gives every published network as one line. Imports no Paddle.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Stem:
    """3x3 (or `kernel`) convolutions, the first of which strides."""

    widths: tuple[int, ...]
    kernel: int = 3
    pool: bool = True  # a strided max-pool follows; without it, stage 1 strides instead


@dataclass(frozen=True)
class ResidualSpec:
    """Shape of a residual network. Tuples give one entry per stage."""

    depths: tuple[int, ...]  # blocks
    widths: tuple[int, ...]  # channels put out
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
    resolution: int = 224  # side of the images the published figures were counted at, pixels
    drop_path: float = 0.0  # of the last block; grows linearly with depth from 0 at the first


# What projects build with or without in a network of the same name. The tensors' shapes need not
# tell it: a network built otherwise than PaddleClas's has a buffer named like the field, so that
# its weights do, in whatever file they are kept.
BUILT = {
    "first_projects": "a projection in stage 1's first block",
    "first_chains": "a chain of convolutions in stage 1's first block",
    "padding_counts": "the padding counted in 3x3 means",
}


def built_otherwise(spec: ResidualSpec) -> list[str]:
    """The fields of `BUILT` that differ from PaddleClas's."""
    return [name for name in BUILT if getattr(spec, name) != getattr(ResidualSpec, name)]


# --------------------------------------------------------------------------- the families' rules

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
        return ResidualSpec(DEPTHS[depth], tuple(64 * o for o in octaves), **options)
    return ResidualSpec(
        DEPTHS[depth],
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


# --------------------------------------------------------------------------- the networks

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
    "Fix_ResNeXt101_32x48d_wsl": resnet(101, 32, 48, resolution=320),
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

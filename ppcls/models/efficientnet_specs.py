"""EfficientNet B0-B7 (arXiv:1905.11946) and EfficientNet-Lite as data. Imports no Paddle."""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class EfficientNetSpec:
    """Shape of an EfficientNet. Tuples give one entry per stage of `STAGES`."""

    depths: tuple[int, ...]  # blocks
    widths: tuple[int, ...]  # channels put out
    stem: int  # channels
    head: int  # channels of the 1x1 convolution before the pooling
    resolution: int  # side of the images the published figures were counted at, pixels
    dropout: float  # before the classifier
    drop_path: float = 0.2  # of the last block; grows linearly with depth from 0
    se: bool = True
    act: Literal["silu", "relu6"] = "silu"
    padding: Literal["SAME"] | None = "SAME"  # TensorFlow's; None: symmetric


@dataclass(frozen=True)
class Stage:
    """What all EfficientNets share of a stage, and what B0 has and the others scale."""

    expand: int  # channels inside a block, as a multiple of those that come in
    kernel: int
    stride: int  # of its first block
    width: int
    depth: int


STAGES = (
    Stage(expand=1, kernel=3, stride=1, width=16, depth=1),
    Stage(expand=6, kernel=3, stride=2, width=24, depth=2),
    Stage(expand=6, kernel=5, stride=2, width=40, depth=2),
    Stage(expand=6, kernel=3, stride=2, width=80, depth=3),
    Stage(expand=6, kernel=5, stride=1, width=112, depth=3),
    Stage(expand=6, kernel=5, stride=2, width=192, depth=4),
    Stage(expand=6, kernel=3, stride=1, width=320, depth=1),
)


def scaled(channels, factor):
    """`channels * factor` rounded to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels * factor + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * factor else rounded


def efficientnet(width, depth, resolution, dropout):
    """B0 with `width` times the channels and `depth` times the blocks."""
    return EfficientNetSpec(
        depths=tuple(math.ceil(stage.depth * depth) for stage in STAGES),
        widths=tuple(scaled(stage.width, width) for stage in STAGES),
        stem=scaled(32, width),
        head=scaled(1280, width),
        resolution=resolution,
        dropout=dropout,
    )


def lite(width, depth, resolution, dropout):
    """ReLU6, no squeeze-excite; stem, head and the outer stages' depths are not scaled."""
    spec = efficientnet(width, depth, resolution, dropout)
    depths = (STAGES[0].depth, *spec.depths[1:-1], STAGES[-1].depth)
    return replace(spec, depths=depths, stem=32, head=1280, se=False, act="relu6")


SPECS = {
    "EfficientNetB0_small": replace(efficientnet(1.0, 1.0, 224, 0.2), se=False, padding=None),
    "EfficientNetB0": efficientnet(1.0, 1.0, 224, 0.2),
    "EfficientNetB1": efficientnet(1.0, 1.1, 240, 0.2),
    "EfficientNetB2": efficientnet(1.1, 1.2, 260, 0.3),
    "EfficientNetB3": efficientnet(1.2, 1.4, 300, 0.3),
    "EfficientNetB4": efficientnet(1.4, 1.8, 380, 0.4),
    "EfficientNetB5": efficientnet(1.6, 2.2, 456, 0.4),
    "EfficientNetB6": efficientnet(1.8, 2.6, 528, 0.5),
    "EfficientNetB7": efficientnet(2.0, 3.1, 600, 0.5),
    "EfficientNetLite0": lite(1.0, 1.0, 224, 0.2),
    "EfficientNetLite1": lite(1.0, 1.1, 240, 0.2),
    "EfficientNetLite2": lite(1.1, 1.2, 260, 0.3),
    "EfficientNetLite3": lite(1.2, 1.4, 280, 0.3),
    "EfficientNetLite4": lite(1.4, 1.8, 300, 0.3),
}

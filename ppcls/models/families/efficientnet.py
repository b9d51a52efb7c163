"""EfficientNet B0-B7 (arXiv:1905.11946) and EfficientNet-Lite."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from ppcls.models.spec import Family, Names, StagedSpec, scaled, timm_in_branch
from ppcls.utils.errors import UserError

if TYPE_CHECKING:
    from paddle import nn


@dataclass(frozen=True, kw_only=True)
class EfficientNetSpec(StagedSpec):
    """Shape of an EfficientNet. Tuples give one entry per stage of `STAGES`."""

    stem: int  # channels
    head: int  # channels of the 1x1 convolution before the pooling
    dropout: float  # before the classifier
    drop_path: float = 0.2  # type: ignore[assignment]
    se: bool = True
    act: Literal["silu", "relu6"] = "silu"
    padding: Literal["SAME"] | None = "SAME"  # TensorFlow's; None: symmetric

    interpolation: ClassVar[str] = "bicubic"
    kept_statistics: ClassVar[float] = 0.003

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(stage.stride for stage in STAGES)

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        from functools import partial

        from paddle import nn

        from ppcls.models.blocks import InvertedResidual, StagedNetwork
        from ppcls.models.layers import ACTIVATIONS, ConvNorm, SqueezeExcite

        act = ACTIVATIONS[self.act]
        # With TensorFlow's constants.
        conv = partial(ConvNorm, act=act, padding=self.padding, momentum=0.99, epsilon=1e-3)
        stem = conv(in_channels, self.stem, 3, 2)
        stages = []
        cin = self.stem
        total = sum(self.depths)
        drop_paths = (self.drop_path * index / total for index in range(total))
        for stage, depth, width in zip(STAGES, self.depths, self.widths, strict=True):
            blocks = []
            for i in range(depth):
                block = InvertedResidual(
                    conv,
                    cin,
                    cin * stage.expand,
                    width,
                    stage.kernel,
                    stage.stride if i == 0 else 1,
                    gate=partial(SqueezeExcite, squeezed=cin // 4, act=act) if self.se else None,
                    drop_path=next(drop_paths),
                )
                blocks.append(block)
                cin = width
            stages.append(nn.Sequential(*blocks))
        expand = conv(cin, self.head, 1)
        return StagedNetwork(
            self, stem, stages, self.head, num_classes, expand=expand, dropout=self.dropout
        )


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


# --------------------------------------------------------------------------
# Other projects' names of the layers; the Lite packages have those of efficientnet-pytorch


def roles(spec: EfficientNetSpec, stage: str) -> list[str]:
    """What the layers in the branch of an EfficientNet's blocks are, in their order."""
    expand = ["expand"] if STAGES[int(stage)].expand > 1 else []
    return [*expand, "depthwise", *(["gate"] if spec.se else []), "project"]


def built_by_paddleclas(spec: EfficientNetSpec) -> EfficientNetSpec:
    if spec.act != "silu":
        raise UserError("PaddleClas has no EfficientNet-Lite")
    return spec


def paddleclas_layer(path: list[str], spec: EfficientNetSpec) -> str:
    kind = "_bn" if path[-1] == "norm" else "_conv._conv"
    match path:
        case ["stem", _]:
            return f"_ef._conv_stem._conv.{kind}"
        case ["stages", stage, b, "branch", k, *inside]:
            block = f"_ef.{'_blocks' if b == '0' else 'block'}.{spec.number(stage, b)}."
            if inside[0] == "gate":
                return f"{block}._se.{'_conv1' if inside[1] == '1' else '_conv2'}._conv"
            part = {"expand": "_ecn", "depthwise": "_dcn", "project": "_pcn"}
            return f"{block}.{part[roles(spec, stage)[int(k)]]}._conv.{kind}"
        case ["expand", _]:
            return f"_conv.{kind}"
    return "_fc"


def timm_layer(path: list[str], spec: EfficientNetSpec) -> str:
    match path:
        case ["stem", kind]:
            return "conv_stem" if kind == "conv" else "bn1"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"blocks.{s}.{b}.se.{'conv_reduce' if gate == '1' else 'conv_expand'}"
        case ["stages", s, b, "branch", k, kind]:
            return f"blocks.{s}.{b}.{timm_in_branch(roles(spec, s), int(k), kind)}"
        case ["expand", kind]:
            return "conv_head" if kind == "conv" else "bn2"
    return "classifier"


PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def efficientnet_pytorch_layer(path: list[str], spec: EfficientNetSpec) -> str:
    norm = path[-1] == "norm"
    match path:
        case ["stem", _]:
            return "_bn0" if norm else "_conv_stem"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"_blocks.{spec.number(s, b)}.{'_se_reduce' if gate == '1' else '_se_expand'}"
        case ["stages", s, b, "branch", k, _]:
            return f"_blocks.{spec.number(s, b)}.{PARTS[roles(spec, s)[int(k)]][norm]}"
        case ["expand", _]:
            return "_bn1" if norm else "_conv_head"
    return "_fc"


FAMILY = Family(
    titles=("EfficientNet",),
    words="the EfficientNets",
    paper="1905.11946",
    specs=SPECS,
    groups={"EfficientNet-Lite": r"EfficientNetLite", "EfficientNet": r"EfficientNet"},
    series=(r"^(EfficientNetB|EfficientNetLite)\d+", r"\1"),
    projects={
        "paddleclas": Names(paddleclas_layer, r"_ef\._?blocks?\.\d+()", built_by_paddleclas),
        "timm": Names(timm_layer, r"blocks\.(\d)\.\d+\."),
        "efficientnet-pytorch": Names(efficientnet_pytorch_layer, r"_blocks\.\d+()\."),
    },
    convs=("stem", "stages.1.0.branch.0", "stages.2.1.branch.0"),
    elsewhere=((r"(?:tf)?(efficientnet(?:b\d|lite\d))(?:ns|ap|aa|in1k|noisystudent)*", r"\1"),),
)

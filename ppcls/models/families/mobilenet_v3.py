"""MobileNetV3 small and large (arXiv:1905.02244): inverted residuals, hard swish, few gates."""

import re
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Literal

from ppcls.models.spec import (
    Family,
    Names,
    StagedSpec,
    released_by_paddleclas,
    scaled,
    timm_in_branch,
)
from ppcls.utils.errors import UserError

if TYPE_CHECKING:
    from paddle import nn


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Spec(StagedSpec):
    """Shape of a MobileNetV3. Tuples give one entry per stage of `TABLES[kind]`.

    PaddleClas's and the paper's, which timm's and torchvision's are, differ in much that is small.
    """

    kind: Literal["small", "large"]
    width: float  # what the paper's widths are multiplied by
    dropout: float = 0.2  # before the classifier
    as_in_paper: bool = False

    marks: ClassVar = {"as_in_paper": "the paper's gates, widths, first block and last layers"}
    alike: ClassVar[bool] = False
    kept_statistics: ClassVar[float] = 0.01

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(stage.stride for stage in TABLES[self.kind])

    @property
    def stem(self) -> int:
        """Channels."""
        whole = self.as_in_paper and self.width < 0.75  # narrow ones keep the stem
        return 16 if whole else scaled(16, self.width)

    def inside(self, stage: int, block: int, cin: int) -> int:
        """Channels inside a block that takes in `cin`."""
        table = TABLES[self.kind]
        mid = table[stage].mids[block]
        if not self.as_in_paper:
            return scaled(mid, self.width)
        whole = table[stage].width if block else (16, *(row.width for row in table))[stage]
        return scaled(cin * round(mid / whole, 2), 1)  # the paper's factors: of 88 and 24 3.67

    @property
    def last(self) -> int:
        """Channels of the 1x1 convolution after the pooling."""
        return 1024 if self.as_in_paper and self.kind == "small" else 1280

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        from functools import partial

        from paddle import nn

        from ppcls.models.blocks import InvertedResidual, StagedNetwork
        from ppcls.models.layers import (
            ACTIVATIONS,
            ConvNorm,
            DownscalingDropout,
            HardSigmoid,
            SqueezeExcite,
            conv2d,
        )

        hard = partial(HardSigmoid, 1 / 6 if self.as_in_paper else 0.2)
        stages = []
        cin = self.stem
        total = sum(self.depths)
        drop_paths = (self.drop_path * index / max(1, total - 1) for index in range(total))
        rows = zip(TABLES[self.kind], self.depths, self.widths, strict=True)
        for number, (stage, depth, width) in enumerate(rows):
            conv = partial(ConvNorm, act=ACTIVATIONS[stage.act])
            blocks = []
            for i in range(depth):
                mid = self.inside(number, i, cin)
                squeezed = scaled(mid, 1 / 4) if self.as_in_paper else mid // 4
                block = InvertedResidual(
                    conv,
                    cin,
                    mid,
                    width,
                    stage.kernel,
                    1 if i else stage.stride,
                    gate=partial(SqueezeExcite, squeezed=squeezed, gate=hard) if stage.se else None,
                    expand=None if self.as_in_paper else True,
                    drop_path=next(drop_paths),
                )
                blocks.append(block)
                cin = width
            stages.append(nn.Sequential(*blocks))
        conv = partial(ConvNorm, act=nn.Hardswish)
        mid = scaled(cin * 6, 1) if self.as_in_paper else scaled(LAST_MIDS[self.kind], self.width)
        neck = nn.Sequential(conv2d(mid, self.last, 1, bias=self.as_in_paper), nn.Hardswish())
        dropout = self.dropout if self.as_in_paper else DownscalingDropout(self.dropout)
        return StagedNetwork(
            self,
            conv(in_channels, self.stem, 3, 2),
            stages,
            self.last,
            num_classes,
            expand=conv(cin, mid, 1),
            neck=neck,
            dropout=dropout,
        )


@dataclass(frozen=True)
class Stage:
    """A stage as in the paper: of width 1."""

    width: int
    kernel: int
    stride: int  # of its first block
    mids: tuple[int, ...]  # channels inside each block
    se: bool
    act: Literal["relu", "hardswish"]


TABLES = {
    "large": (
        Stage(16, 3, 1, (16,), False, "relu"),
        Stage(24, 3, 2, (64, 72), False, "relu"),
        Stage(40, 5, 2, (72, 120, 120), True, "relu"),
        Stage(80, 3, 2, (240, 200, 184, 184), False, "hardswish"),
        Stage(112, 3, 1, (480, 672), True, "hardswish"),
        Stage(160, 5, 2, (672, 960, 960), True, "hardswish"),
    ),
    "small": (
        Stage(16, 3, 2, (16,), True, "relu"),
        Stage(24, 3, 2, (72, 88), False, "relu"),
        Stage(40, 5, 2, (96, 240, 240), True, "hardswish"),
        Stage(48, 5, 1, (120, 144), True, "hardswish"),
        Stage(96, 5, 2, (288, 576, 576), True, "hardswish"),
    ),
}
LAST_MIDS = {"large": 960, "small": 576}  # channels of the 1x1 convolution before the pooling


def mobilenet(kind, width):
    return MobileNetV3Spec(
        depths=tuple(len(stage.mids) for stage in TABLES[kind]),
        widths=tuple(scaled(stage.width, width) for stage in TABLES[kind]),
        kind=kind,
        width=width,
    )


SPECS = {
    "MobileNetV3_small_x0_35": mobilenet("small", 0.35),
    "MobileNetV3_small_x0_5": mobilenet("small", 0.5),
    "MobileNetV3_small_x0_75": mobilenet("small", 0.75),
    "MobileNetV3_small_x1_0": mobilenet("small", 1.0),
    "MobileNetV3_small_x1_25": mobilenet("small", 1.25),
    "MobileNetV3_large_x0_35": mobilenet("large", 0.35),
    "MobileNetV3_large_x0_5": mobilenet("large", 0.5),
    "MobileNetV3_large_x0_75": mobilenet("large", 0.75),
    "MobileNetV3_large_x1_0": mobilenet("large", 1.0),
    "MobileNetV3_large_x1_25": mobilenet("large", 1.25),
}

# Published top-1 and top-5; of SSLD's weights, too.
ACCURACIES = {
    "MobileNetV3_small_x0_35": {"imagenet": (0.5303, 0.7637), "ssld": (0.5555, 0.7771)},
    "MobileNetV3_small_x0_5": {"imagenet": (0.5921, 0.8152)},
    "MobileNetV3_small_x0_75": {"imagenet": (0.6602, 0.8633)},
    "MobileNetV3_small_x1_0": {"imagenet": (0.6824, 0.8806), "ssld": (0.7129, 0.901)},
    "MobileNetV3_small_x1_25": {"imagenet": (0.7067, 0.8951)},
    "MobileNetV3_large_x0_35": {"imagenet": (0.6432, 0.8546)},
    "MobileNetV3_large_x0_5": {"imagenet": (0.6924, 0.8852)},
    "MobileNetV3_large_x0_75": {"imagenet": (0.7314, 0.9108)},
    "MobileNetV3_large_x1_0": {"imagenet": (0.7532, 0.9231), "ssld": (0.7896, 0.9448)},
    "MobileNetV3_large_x1_25": {"imagenet": (0.7641, 0.9295)},
}
COUNTED = {
    "MobileNetV3_small_x0_35": (1665954, 13161528),
    "MobileNetV3_small_x0_5": (1902536, 20759280),
    "MobileNetV3_small_x0_75": (2375106, 43048536),
    "MobileNetV3_small_x1_0": (2939958, 60119520),
    "MobileNetV3_small_x1_25": (3627370, 95364424),
    "MobileNetV3_large_x0_35": (2104328, 37188872),
    "MobileNetV3_large_x0_5": (2673422, 66704432),
    "MobileNetV3_large_x0_75": (3912248, 143780440),
    "MobileNetV3_large_x1_0": (5480206, 219799200),
    "MobileNetV3_large_x1_25": (7443308, 349965896),
}


# --------------------------------------------------------------------------
# Other projects' names of the layers


def roles(spec: MobileNetV3Spec, stage: str) -> list[str]:
    """What the layers in the branch of a stage's blocks are, in their order."""
    plain = spec.as_in_paper and stage == "0"  # as wide inside as what comes in
    gate = ["gate"] if TABLES[spec.kind][int(stage)].se else []
    return [*([] if plain else ["expand"]), "depthwise", *gate, "project"]


def built_by_paddleclas(spec: MobileNetV3Spec) -> MobileNetV3Spec:
    return replace(spec, as_in_paper=False)


def paddleclas_layer(path: list[str], spec: MobileNetV3Spec) -> str:
    kind = "bn" if path[-1] == "norm" else "conv"
    match path:
        case ["stem", _]:
            return f"conv.{kind}"
        case ["stages", s, b, "branch", k, *inside]:
            block = f"blocks.{spec.number(s, b)}"
            if inside[0] == "gate":
                return f"{block}.mid_se.{'conv1' if inside[1] == '1' else 'conv2'}"
            part = {"expand": "expand", "depthwise": "bottleneck", "project": "linear"}
            return f"{block}.{part[roles(spec, s)[int(k)]]}_conv.{kind}"
        case ["expand", _]:
            return f"last_second_conv.{kind}"
        case ["neck", _]:
            return "last_conv"
    return "fc"


def paddleclas_stage(key: str, spec: MobileNetV3Spec) -> int | None:
    """The stage that a block ends, for its blocks are counted through: -1 is the last."""
    match = re.fullmatch(r"blocks\[(\d+)\]", key)
    if not match:
        return None
    ends = [blocks for blocks, last in zip(accumulate(spec.depths), spec.ends, strict=True) if last]
    blocks = int(match[1]) + 1
    return ends.index(blocks) - len(ends) if blocks in ends else None


TIMM_WIDTHS = {"small": (0.5, 0.75, 1.0), "large": (0.75, 1.0)}


def built_by_timm(spec: MobileNetV3Spec) -> MobileNetV3Spec:
    if spec.width not in TIMM_WIDTHS[spec.kind]:
        raise UserError(f"timm has no MobileNetV3 {spec.kind} of {spec.width:g} times the width")
    return replace(spec, as_in_paper=True)


def timm_layer(path: list[str], spec: MobileNetV3Spec) -> str:
    match path:
        case ["stem", kind]:
            return "conv_stem" if kind == "conv" else "bn1"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"blocks.{s}.{b}.se.{'conv_reduce' if gate == '1' else 'conv_expand'}"
        case ["stages", s, b, "branch", k, kind]:
            return f"blocks.{s}.{b}.{timm_in_branch(roles(spec, s), int(k), kind)}"
        case ["expand", kind]:
            return f"blocks.{len(spec.depths)}.0.{'conv' if kind == 'conv' else 'bn1'}"
        case ["neck", _]:
            return "conv_head"
    return "classifier"


FAMILY = Family(
    titles=("MobileNetV3",),
    words="the MobileNetV3s",
    paper="1905.02244",
    specs=SPECS,
    groups={"MobileNetV3 small": r"MobileNetV3_small", "MobileNetV3 large": r"MobileNetV3_large"},
    series=(r"^(MobileNetV3_(?:small|large))_x\d+_\d+", r"\1"),
    projects={
        "paddleclas": Names(
            paddleclas_layer,
            r"blocks\.\d+()\.",
            built_by_paddleclas,
            stage=paddleclas_stage,
            arguments={"class_expand": 1280, "dropout_prob": 0.2},
            spares_norms=lambda spec: True,
        ),
        "timm": Names(timm_layer, r"blocks\.(\d)\.\d+\.", built_by_timm),
    },
    convs=("stem", "stages.1.0.branch.0", "stages.2.1.branch.0"),
    elsewhere=(
        (r"(?:tf)?mobilenetv3(small|large)0(75)\w*", r"mobilenetv3\1x0\2"),
        (r"(?:tf)?mobilenetv3small050\w*", "mobilenetv3smallx05"),
        (r"(?:tf)?mobilenetv3(small|large)(?:100\w*)?", r"mobilenetv3\1x10"),
    ),
    paddlex={name: name for name in SPECS},
    weights=released_by_paddleclas(ACCURACIES),
    counted=COUNTED,
)

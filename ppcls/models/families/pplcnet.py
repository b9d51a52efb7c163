"""PP-LCNet (arXiv:2109.15099): depthwise-separable blocks without shortcuts, for CPUs."""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ppcls.models.spec import Family, Names, StagedSpec, Tensors, released_by_paddleclas, scaled
from ppcls.utils.errors import UserError

if TYPE_CHECKING:
    from paddle import nn


@dataclass(frozen=True, kw_only=True)
class PPLCNetSpec(StagedSpec):
    """Shape of a PP-LCNet. Tuples give one entry per stage of `STAGES`."""

    stem: int  # channels
    last: int = 1280  # channels of the 1x1 convolution after the pooling
    dropout: float = 0.2  # before the classifier
    as_in_timm: bool = False

    marks: ClassVar = {
        "as_in_timm": "a bias in the last convolution and a dropout that keeps the mean"
    }
    kept_statistics: ClassVar[float] = 0.01

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(stage.stride for stage in STAGES)

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        from functools import partial

        from paddle import nn

        from ppcls.models.blocks import DepthwiseSeparable, StagedNetwork
        from ppcls.models.layers import (
            ConvNorm,
            DownscalingDropout,
            HardSigmoid,
            SqueezeExcite,
            conv2d,
        )

        if self.drop_path:
            raise UserError("PP-LCNet has no branches to leave out: it takes no drop_path")
        conv = partial(ConvNorm, act=nn.Hardswish)
        stages = []
        cin = self.stem
        for stage, depth, width in zip(STAGES, self.depths, self.widths, strict=True):
            blocks = []
            for i in range(depth):
                kernel = stage.kernel if i else stage.first_kernel
                stride = 1 if i else stage.stride
                gate = partial(SqueezeExcite, squeezed=cin // 4, gate=HardSigmoid)
                block = DepthwiseSeparable(
                    conv, cin, width, kernel, stride, gate=gate if stage.se else None
                )
                blocks.append(block)
                cin = width
            stages.append(nn.Sequential(*blocks))
        neck = nn.Sequential(conv2d(cin, self.last, 1, bias=self.as_in_timm), nn.Hardswish())
        dropout = self.dropout if self.as_in_timm else DownscalingDropout(self.dropout)
        return StagedNetwork(
            self,
            conv(in_channels, self.stem, 3, 2),
            stages,
            self.last,
            num_classes,
            neck=neck,
            dropout=dropout,
        )


@dataclass(frozen=True)
class Stage:
    """What all PP-LCNets share of a stage, and the width that they scale."""

    width: int
    depth: int
    stride: int = 2  # of its first block
    first_kernel: int = 3
    kernel: int = 3
    se: bool = False


STAGES = (
    Stage(width=32, depth=1, stride=1),
    Stage(width=64, depth=2),
    Stage(width=128, depth=2),
    Stage(width=256, depth=6, kernel=5),
    Stage(width=512, depth=2, first_kernel=5, kernel=5, se=True),
)


def pplcnet(width):
    return PPLCNetSpec(
        depths=tuple(stage.depth for stage in STAGES),
        widths=tuple(scaled(stage.width, width) for stage in STAGES),
        stem=scaled(16, width),
    )


SPECS = {
    "PPLCNet_x0_25": pplcnet(0.25),
    "PPLCNet_x0_35": pplcnet(0.35),
    "PPLCNet_x0_5": pplcnet(0.5),
    "PPLCNet_x0_75": pplcnet(0.75),
    "PPLCNet_x1_0": pplcnet(1.0),
    "PPLCNet_x1_5": pplcnet(1.5),
    "PPLCNet_x2_0": pplcnet(2.0),
    "PPLCNet_x2_5": pplcnet(2.5),
}

# Published top-1 and top-5; of SSLD's weights, too.
ACCURACIES = {
    "PPLCNet_x0_25": {"imagenet": (0.5186, 0.7565), "ssld": (0.5343,)},
    "PPLCNet_x0_35": {"imagenet": (0.5809, 0.8083)},
    "PPLCNet_x0_5": {"imagenet": (0.6314, 0.8466), "ssld": (0.661, 0.8646)},
    "PPLCNet_x0_75": {"imagenet": (0.6818, 0.883)},
    "PPLCNet_x1_0": {"imagenet": (0.7132, 0.9003), "ssld": (0.7439, 0.9209)},
    "PPLCNet_x1_5": {"imagenet": (0.7371, 0.9153)},
    "PPLCNet_x2_0": {"imagenet": (0.7518, 0.9227)},
    "PPLCNet_x2_5": {"imagenet": (0.766, 0.93), "ssld": (0.8082, 0.9533)},
}
COUNTED = {
    "PPLCNet_x0_25": (1521184, 16773440),
    "PPLCNet_x0_35": (1643090, 27357832),
    "PPLCNet_x0_5": (1879576, 44731008),
    "PPLCNet_x0_75": (2357008, 94786496),
    "PPLCNet_x1_0": (2952520, 155700480),
    "PPLCNet_x1_5": (4499832, 334188416),
    "PPLCNet_x2_0": (6521512, 580194816),
    "PPLCNet_x2_5": (9017560, 893719680),
}


# --------------------------------------------------------------------------
# Other projects' names of the layers


def roles(stage: str) -> list[str]:
    """What the layers in the branch of a stage's blocks are, in their order."""
    return ["depthwise", *(["gate"] if STAGES[int(stage)].se else []), "pointwise"]


def built_by_paddleclas(spec: PPLCNetSpec) -> PPLCNetSpec:
    return replace(spec, as_in_timm=False)


def paddleclas_layer(path: list[str], spec: PPLCNetSpec) -> str:
    kind = "bn" if path[-1] == "norm" else "conv"
    match path:
        case ["stem", _]:
            return f"conv1.{kind}"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"blocks{int(s) + 2}.{b}.se.{'conv1' if gate == '1' else 'conv2'}"
        case ["stages", s, b, "branch", k, _]:
            conv = {"depthwise": "dw_conv", "pointwise": "pw_conv"}[roles(s)[int(k)]]
            return f"blocks{int(s) + 2}.{b}.{conv}.{kind}"
        case ["neck", _]:
            return "last_conv"
    return "fc"


def paddleclas_stage(key: str, spec: PPLCNetSpec) -> int | None:
    """Its `blocks2` to `blocks6` are the stages: -1 is the last."""
    match = re.fullmatch(r"blocks([2-6])(?:\[(\d+)\])?", key)
    if not match:
        return None
    stage = int(match[1]) - 2
    last = match[2] is None or int(match[2]) + 1 == spec.depths[stage]
    return stage - len(spec.depths) if last else None


def built_by_timm(spec: PPLCNetSpec) -> PPLCNetSpec:
    return replace(spec, as_in_timm=True)


def as_timm_has_it(weights: Tensors, spec: PPLCNetSpec) -> Tensors:
    """Weights with a bias of zeros, and evaluation's scaling of the dropout in the classifier."""
    result = {}
    for name, value in weights.items():
        result[name] = value
        if name == "neck.0.weight":
            result["neck.0.bias"] = np.zeros(len(value), value.dtype)
        elif name == "head.weight":
            result[name] = value * np.float32(1 - spec.dropout)
    return result


def timm_layer(path: list[str], spec: PPLCNetSpec) -> str:
    match path:
        case ["stem", kind]:
            return "conv_stem" if kind == "conv" else "bn1"
        case ["stages", s, b, "branch", k, *inside]:
            block = f"blocks.{timm_block(int(s), int(b))}"
            if inside[0] == "gate":
                return f"{block}.se.{'conv_reduce' if inside[1] == '1' else 'conv_expand'}"
            depthwise = roles(s)[int(k)] == "depthwise"
            if inside == ["conv"]:
                return f"{block}.{'conv_dw' if depthwise else 'conv_pw'}"
            return f"{block}.{'bn1' if depthwise else 'bn2'}"
        case ["neck", _]:
            return "conv_head"
    return "classifier"


def timm_block(stage: int, block: int) -> str:
    """timm has the stage of six blocks as one of two and one of four."""
    if stage < 3:
        return f"{stage}.{block}"
    if stage == 3:
        return f"3.{block}" if block < 2 else f"4.{block - 2}"
    return f"5.{block}"


FAMILY = Family(
    titles=("PP-LCNet",),
    words="the PP-LCNets",
    paper="2109.15099",
    specs=SPECS,
    groups={"PP-LCNet": r"PPLCNet"},
    series=(r"^(PPLCNet)_x\d+_\d+", r"\1"),
    projects={
        "paddleclas": Names(
            paddleclas_layer,
            r"blocks(\d)\.\d+\.",
            built_by_paddleclas,
            rates=("stem.*", "stages.0.*", "stages.1.*", "stages.2.*", "stages.3.*", "stages.4.*"),
            stage=paddleclas_stage,
            arguments={
                "stride_list": [2, 2, 2, 2, 2],
                "class_expand": 1280,
                "use_last_conv": True,
                "dropout_prob": 0.2,
            },
            spares_norms=lambda spec: True,
        ),
        "timm": Names(
            timm_layer,
            r"blocks\.(\d)\.\d+\.",
            built_by_timm,
            bridge=as_timm_has_it,
        ),
    },
    convs=("stem", "stages.1.0.branch.0", "stages.3.1.branch.0"),
    elsewhere=(
        (r"(?:pp)?lcnet0(25|35|5|75)\w*", r"pplcnetx0\1"),
        (r"(?:pp)?lcnet050\w*", "pplcnetx05"),
        (r"(?:pp)?lcnet(\d)(\d)0\w*", r"pplcnetx\1\2"),
        (r"(?:pp)?lcnetx?(\d\d+?)(?:ssld)?", r"pplcnetx\1"),
    ),
    paddlex={name.replace("PPLCNet", "PP-LCNet"): name for name in SPECS},
    weights=released_by_paddleclas(ACCURACIES),
    counted=COUNTED,
)

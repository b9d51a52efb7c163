"""Losses between the features of networks, which PaddleClas names layer by layer."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ppcls.models import zoo
from ppcls.models.residual_specs import ResidualSpec
from ppcls.paddleclas_config.page import Section

Nodes = list[dict[str, Any]]
BLOCK = re.compile(r"blocks\[(\d+)\]")  # as PaddleClas's ResNet names its blocks


@dataclass
class Scene:
    """Who is compared; `labels` gathers what losses between networks ask of the labels."""

    student: str  # their names in the config
    teachers: tuple[str, ...]
    models: tuple[str, str]  # the networks of the student and of the first teacher
    peer: bool
    classes: int
    side: int  # of the images in training, pixels
    many: bool = False  # labels of a photo
    labels: float = 0.0


def rkd(loss: Section, weight: float, scene: Scene) -> Nodes:
    for key in ("target_size", "avgpool", "student_keepkeys", "teacher_keepkeys"):
        loss.get(key)
    text = "the last stages are compared here, as means over the pixels, and distances are divided "
    loss.matters("weight", text + "by their mean over pairs; there a photo is a pair with itself")
    return [{"kind": "rkd", "weight": weight, "distance": 1.0, "angle": 1.0}]


def feature_l2(loss: Section, weight: float, scene: Scene) -> Nodes:
    mode, act, key = loss.get("mode", "l2"), loss.get("act"), loss.get("key")
    if mode != "l2" or act:
        loss.lose(f"not carried over: {act or mode} distances are not known here")
        return []
    stage = same_stage(loss, key, key, scene)
    if not stage:
        return []
    ours = rounded(weight * 2 / values(stage, scene))
    text = f"half the sum over channels and pixels here, their mean there: {weight:g} is {ours:g}"
    loss.matters("weight", text)
    return [{"kind": "feature_l2", "weight": ours, "stage": stage}]


def pair(loss: Section, weight: float, scene: Scene) -> Nodes:
    base = str(loss.get("base_loss_name"))
    if base not in PAIRS:
        loss.lose(f"{base} is not known here: not carried over", base)
        return []
    for network in ("student", "teacher"):
        loss.get(f"{network}_channel")
        loss.get(f"{network}_channels")
    return PAIRS[base](loss, weight, scene)


def mgd(loss: Section, weight: float, scene: Scene) -> Nodes:
    own, other = layers(loss, "s"), layers(loss, "t")
    if not own or len(own) != len(other):
        loss.lose("not carried over: s_keys and t_keys should name as many layers", "MGDLoss")
        return []
    stages = [same_stage(loss, *names, scene) for names in zip(own, other, strict=True)]
    factor, masked = loss.number("alpha_mgd", 1.756), float(loss.number("lambda_mgd", 0.15))
    weights = [rounded(weight * factor / values(stage, scene)) for stage in stages if stage]
    if len(weights) != len(stages):
        return []
    text = "pixels are masked here, channels there; the sum over channels and pixels here, "
    text += f"{factor} times their mean there: {weight:g} is {', '.join(f'{w:g}' for w in weights)}"
    loss.matters("weight", text)
    both = zip(weights, stages, strict=True)
    return [{"kind": "mgd", "weight": w, "stage": stage, "masked": masked} for w, stage in both]


def pefd(loss: Section, weight: float, scene: Scene) -> Nodes:
    if {*layers(loss, "s"), *layers(loss, "t")} != {"avg_pool"}:
        loss.matters("weight", "the last stages are compared here, as means over the pixels")
    return [{"kind": "pefd", "weight": weight, "projectors": loss.get("num_projectors", 3)}]


def afd(loss: Section, weight: float, scene: Scene) -> Nodes:
    """There a mean over the pixels for each block of the teacher, here a sum for each stage."""
    for key in ("student_keys", "teacher_keys", "s_shapes"):
        loss.get(key)
    try:
        shares = [1 / (height * width) for _, height, width in loss.get("t_shapes")]
    except (TypeError, ValueError, ZeroDivisionError):
        loss.lose("not carried over: t_shapes should list [channels, height, width] of blocks")
        return []
    stages = 4 if isinstance(zoo.spec_of(scene.models[1]), ResidualSpec) else 5
    ours = rounded(weight * sum(shares) / stages)
    text = "stages are compared here, blocks there; the sum over the pixels here, their mean there"
    loss.matters("weight", f"{text}: {weight:g} is about {ours:g}")
    return [{"kind": "afd", "weight": ours, "width": loss.get("qk_dim", 128)}]


def layers(loss: Section, network: str) -> list[str]:
    """The layers a loss of pairs names, in its older form or its newer one."""
    found = loss.get(f"{network}_keys", loss.get(f"{network}_key", []))
    return [str(key) for key in found] if isinstance(found, list) else [str(found)]


def same_stage(loss: Section, own: Any, other: Any, scene: Scene) -> int | None:
    """The stage that ends with these layers; None, which is listed, where there is no such one."""
    ends = [stage(str(key), model) for key, model in zip((own, other), scene.models, strict=True)]
    if ends[0] and ends[0] == ends[1]:
        return ends[0]
    names = own if own == other else f"{own} and {other}"
    loss.lose(f"not carried over: {names} is not where a stage of both networks ends")
    return None


def stage(key: str, model: str) -> int | None:
    """The stage that a layer ends, as `task.losses` counts: -1 is the last."""
    match, spec = BLOCK.fullmatch(key), zoo.spec_of(model)
    if not match or not isinstance(spec, ResidualSpec):
        return None
    ends, blocks = list(accumulate(spec.depths)), int(match[1]) + 1
    return ends.index(blocks) - len(ends) if blocks in ends else None


def values(stage: int, scene: Scene) -> int:
    """How many numbers a stage of the teacher gives for a photo."""
    spec = zoo.spec_of(scene.models[1])
    return spec.widths[stage] * math.ceil(scene.side / 2 ** (6 + stage)) ** 2


def rounded(number: float) -> float:
    return float(f"{number:.6g}")


PAIRS: dict[str, Callable[[Section, float, Scene], Nodes]] = {"MGDLoss": mgd, "PEFDLoss": pefd}

"""Losses between networks: `task.losses`, and those that compare logits.

A converter gets the loss, its weight and who is compared; it gives nodes of the recipe, or lists
why there are none. Where the same weight would mean another number, the weight is converted.
"""

import math
from collections.abc import Callable

from ppcls.paddleclas_config import features
from ppcls.paddleclas_config.features import Nodes, Scene, rounded
from ppcls.paddleclas_config.page import Section

LOGITS = (None, "logits", "output")


def soft_cross_entropy(loss: Section, weight: float, scene: Scene) -> Nodes:
    if 0 < loss.number("epsilon", 0) < 1:  # others mean none there
        loss.matters("epsilon", "not carried over: a teacher's answers are not smoothed")
    if loss.get("use_hard_label"):
        text = "not carried over: the teacher's probabilities teach, not its likeliest class"
        loss.matters("use_hard_label", text)
        loss.page.lost.append("use_hard_label")
    return [{"kind": "soft_cross_entropy", "weight": weight}]


def symmetric_kl(loss: Section, weight: float, scene: Scene) -> Nodes:
    """There the mean over classes of what is multiplied by their number: the sum, as here."""
    act = loss.values.get("act", "softmax")
    loss.get("act")
    if act not in ("softmax", "sigmoid"):
        loss.lose(f"act {act} is not known here: not carried over")
        return []
    if loss.get("sum_across_class_dim"):
        weight = rounded(weight * scene.classes)
        text = f"a sum of what counts {scene.classes} fold already: the weight is {weight:g} here"
        loss.remark("sum_across_class_dim", text)
    node = {"kind": "symmetric_kl", "weight": weight}
    return [node if act == "softmax" else node | {"act": act}]


def kl(loss: Section, weight: float, scene: Scene) -> Nodes:
    temperature = float(loss.positive("temperature", 4))
    return [{"kind": "kl", "weight": weight, "temperature": temperature}]


def dkd(loss: Section, weight: float, scene: Scene) -> Nodes:
    labels_are_labels(loss)
    numbers = {"temperature": float(loss.positive("temperature", 1))}
    numbers |= {"target": float(loss.number("alpha", 1)), "others": float(loss.number("beta", 1))}
    return [{"kind": "dkd", "weight": weight, **numbers}]


def wsl(loss: Section, weight: float, scene: Scene) -> Nodes:
    labels_are_labels(loss)
    temperature = float(loss.positive("temperature", 2))
    return [{"kind": "wsl", "weight": weight, "temperature": temperature}]


def skd(loss: Section, weight: float, scene: Scene) -> Nodes:
    """There logits have the length multiplier * sqrt(classes), and labels a part in the loss."""
    labels_are_labels(loss)
    share, multiplier = loss.number("alpha", 0.9), loss.positive("multiplier", 2)
    scene.labels += weight * (1 - share)
    text = "the other share is task.labels_weight: the cross entropy of the logits as they are, "
    loss.matters("alpha", text + "there of the normalised ones")
    numbers = {"temperature": float(loss.positive("temperature", 1))}
    numbers |= {"length": rounded(multiplier * math.sqrt(scene.classes))}
    return [{"kind": "skd", "weight": rounded(weight * share), **numbers}]


def dist(loss: Section, weight: float, scene: Scene) -> Nodes:
    inter, intra = float(loss.number("beta", 1)), float(loss.number("gamma", 1))
    return [{"kind": "dist", "weight": weight, "inter": inter, "intra": intra}]


def labels_are_labels(loss: Section) -> None:
    if loss.get("use_target_as_gt"):
        text = "not carried over: labels are those of the list, not the teacher's likeliest class"
        loss.matters("use_target_as_gt", text)


OF_FEATURES: dict[str, Callable[[Section, float, Scene], Nodes]] = {
    "DistillationRKDLoss": features.rkd,
    "DistillationDistanceLoss": features.feature_l2,
    "DistillationPairLoss": features.pair,
    "AFDLoss": features.afd,
}
BETWEEN = OF_FEATURES | {
    "DistillationCELoss": soft_cross_entropy,
    "DistillationDMLLoss": symmetric_kl,
    "DistillationKLDivLoss": kl,
    "DistillationDKDLoss": dkd,
    "DistillationWSLLoss": wsl,
    "DistillationSKDLoss": skd,
    "DistillationDISTLoss": dist,
}
BOTH_WAYS = ("DistillationDMLLoss", "DistillationDistanceLoss")  # the same whoever comes first


def problem(loss: Section, name: str, scene: Scene) -> str:
    """Why a loss cannot be converted; "" if it can."""
    given = loss.get("model_name_pair", loss.get("model_name_pairs"))
    pairs = given if isinstance(given, list) else [[scene.student, scene.teachers[0]]]
    pairs = [pairs] if pairs and isinstance(pairs[0], str) else pairs
    wanted = [[scene.student, teacher] for teacher in scene.teachers]
    if scene.peer or name in BOTH_WAYS:
        wanted += [found[::-1] for found in wanted]
    if not any(found in wanted for found in pairs):
        return "it compares others than the student and its teacher"
    if scene.many and name in ("DistillationDKDLoss", "DistillationWSLLoss"):
        return "it needs one label a photo"
    if name in OF_FEATURES:
        return "features of one teacher alone are compared here" if len(scene.teachers) > 1 else ""
    key = loss.get("key")
    return "" if key in LOGITS else f"{key} is not the logits of a network"


def convert(root: Section, scene: Scene) -> tuple[Nodes, list[Section]]:
    """The recipe's `task.losses`, and what each comes from."""
    found: Nodes = []
    sources: list[Section] = []
    entries = root.section("Loss").entries("Train")
    for name, loss in entries:
        if name not in BETWEEN:
            continue
        why = problem(loss, name, scene)
        if why:
            loss.lose(f"not carried over: {why}")
            continue
        loss.get("name")  # in PaddleClas's log
        weight = float(loss.number("weight", 1))
        if len(entries) == 1 and weight != 1:
            loss.remark("weight", "1: PaddleClas leaves out the weight of a loss that is alone")
            weight = 1.0
        nodes = BETWEEN[name](loss, weight, scene)
        found, sources = found + nodes, sources + [loss] * len(nodes)
    return found, sources


def lose(root: Section, name: str) -> None:
    """List every loss between networks, for there is no teacher."""
    for kind, loss in root.section("Loss").entries("Train"):
        if kind in BETWEEN:
            loss.lose("a loss between networks: not carried over", name)

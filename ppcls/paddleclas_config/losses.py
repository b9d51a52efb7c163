"""`Loss`: PaddleClas's losses against the labels, and what of ours says the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ppcls.paddleclas_config.between import BETWEEN, LOGITS
from ppcls.paddleclas_config.page import Section

GROUND_TRUTH = "DistillationGTCELoss"  # of the networks of a distillation


def epsilon(loss: Section) -> float:
    """The smoothing; PaddleClas takes none for what is not between 0 and 1."""
    value = loss.number("epsilon", 0)
    if 0 <= value < 1:
        return value
    loss.remark("epsilon", f"{value:g} means none in PaddleClas: none here")
    return 0


def cross_entropy(loss: Section, classes: int) -> dict[str, Any]:
    smoothing = epsilon(loss)
    return {"kind": "cross_entropy", **({"smoothing": float(smoothing)} if smoothing else {})}


def binary(loss: Section, classes: int) -> dict[str, Any]:
    """PaddleClas smooths first and then says yes above a threshold, which undoes the smoothing."""
    smoothing, threshold = epsilon(loss), loss.number("target_threshold", 0.2)
    ours = (threshold - smoothing / classes) / (1 - smoothing)
    if smoothing:
        text = f"undone by the threshold {threshold} after it: as threshold {ours:.6g} alone"
        loss.remark("epsilon", text)
    return {"kind": "bce", "threshold": round(min(1.0, max(0.0, ours)), 6)}


def many_labels(loss: Section, classes: int) -> dict[str, Any]:
    smoothing = epsilon(loss)
    return {"kind": "bce", **({"smoothing": float(smoothing)} if smoothing else {})}


def asymmetric(loss: Section, classes: int) -> dict[str, Any]:
    reduction = loss.get("reduction", "sum")
    if reduction != "sum":
        text = f"the sum over the {classes} classes here, there the mean over them, too"
        loss.matters("reduction", text)
    flowing = not loss.get("disable_focal_loss_grad", True)
    return {
        "kind": "asymmetric",
        "gamma_positive": float(loss.number("gamma_pos", 1)),
        "gamma_negative": float(loss.number("gamma_neg", 4)),
        "clip": float(loss.number("clip", 0 if "clip" in loss else 0.05)),  # null: none
        "reduction": "sum" if reduction == "sum" else "mean",
        **({"focal_gradient": True} if flowing else {}),
    }


LOSSES: dict[str, Callable[[Section, int], dict[str, Any]]] = {
    "CELoss": cross_entropy,
    "SoftTargetCrossEntropy": cross_entropy,
    GROUND_TRUTH: cross_entropy,
    "BCELoss": binary,
    "MultiLabelLoss": many_labels,
    "DistillationMultiLabelLoss": many_labels,
    "MultiLabelAsymmetricLoss": asymmetric,
}


@dataclass
class Labels:
    """What is learnt from the labels: the first loss of the student that there is here."""

    many: bool  # labels of a photo
    loss: dict[str, Any] = field(default_factory=dict)  # {}: none
    weight: float = 0.0
    source: Section | None = None
    apart: list[Section] = field(default_factory=list)  # the same losses of other networks

    def others(self, peers: bool) -> None:
        """List the losses of other networks, but for those that peers have in common."""
        for loss in self.apart:
            weight, smoothing = loss.number("weight", 1), epsilon(loss)
            same = (weight, smoothing) == (self.weight, self.loss.get("smoothing", 0))
            if not peers:
                loss.remark("model_names", "of a network that does not learn here: left out")
            elif not same:
                loss.matters("weight", "both students learn by the loss of the first here")


def evaluated(root: Section, many: bool) -> None:
    """`Loss.Eval`, which is always the same here."""
    known, scores = ("CELoss", GROUND_TRUTH), "top-1, top-5 and the cross entropy"
    if many:
        known, scores = ("MultiLabelLoss",), "mAP, F1 and the binary cross entropy"
    for name, loss in root.section("Loss").entries("Eval"):
        root.page.used.add(loss.at)
        if name not in known:
            loss.remark(None, f"evaluation gives {scores}")


def convert(root: Section, classes: int, many: bool, student: str) -> Labels:
    """What the labels teach; `student` is its name in a distillation, else ""."""
    found = Labels(many)
    for name, loss in root.section("Loss").entries("Train"):
        if name in BETWEEN:
            continue
        if name not in LOSSES:
            loss.lose("this loss is not known here: not carried over")
            continue
        names, key = loss.get("model_names"), loss.get("key")
        names = names if isinstance(names, list) and names else [student]
        if student and student not in names:
            found.apart.append(loss)
        elif key not in LOGITS:
            loss.lose(f"not carried over: {key} is not the logits of a network")
        elif found.loss:
            loss.lose("a second loss is not carried over", f"{name} beside another loss")
        else:
            found.loss, found.source = LOSSES[name](loss, classes), loss
            found.weight = float(loss.number("weight", 1))
            if many and found.loss["kind"] not in ("bce", "asymmetric"):
                loss.matters(None, "with several labels a photo: the binary cross entropy")
                found.loss = {"kind": "bce"}
    return found


def alone(labels: Labels) -> dict[str, Any]:
    """The recipe's `task` of learning from the labels alone."""
    if labels.source and labels.weight != 1:
        text = "a loss counts 1 here, and so it does alone in PaddleClas"
        labels.source.remark("weight", text)
    default = {"kind": "bce" if labels.many else "cross_entropy"}
    return ({"kind": "multilabel"} if labels.many else {}) | {"loss": labels.loss or default}

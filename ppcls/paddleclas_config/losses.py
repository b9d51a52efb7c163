"""`Loss`: PaddleClas's losses of classification, and what of ours says the same."""

from collections.abc import Callable
from typing import Any

from ppcls.paddleclas_config import distillation
from ppcls.paddleclas_config.page import Section


def cross_entropy(loss: Section, classes: int) -> dict[str, Any]:
    smoothing = loss.number("epsilon", 0)
    return {"kind": "cross_entropy", **({"smoothing": float(smoothing)} if smoothing else {})}


def binary(loss: Section, classes: int) -> dict[str, Any]:
    """PaddleClas smooths first and then says yes above a threshold, which undoes the smoothing."""
    smoothing, threshold = loss.number("epsilon", 0), loss.number("target_threshold", 0.2)
    ours = (threshold - smoothing / classes) / (1 - smoothing)
    if smoothing:
        text = f"undone by the threshold {threshold} after it: as threshold {ours:.6g} alone"
        loss.remark("epsilon", text)
    return {"kind": "bce", "threshold": round(min(1.0, max(0.0, ours)), 6)}


def many_labels(loss: Section, classes: int) -> dict[str, Any]:
    smoothing = loss.number("epsilon", 0)
    return {"kind": "bce", **({"smoothing": float(smoothing)} if smoothing else {})}


def asymmetric(loss: Section, classes: int) -> dict[str, Any]:
    return {
        "kind": "asymmetric",
        "gamma_positive": float(loss.number("gamma_pos", 1)),
        "gamma_negative": float(loss.number("gamma_neg", 4)),
        "clip": float(loss.number("clip", 0.05)),
    }


LOSSES: dict[str, Callable[[Section, int], dict[str, Any]]] = {
    "CELoss": cross_entropy,
    "SoftTargetCrossEntropy": cross_entropy,
    distillation.GROUND_TRUTH: cross_entropy,
    "BCELoss": binary,
    "MultiLabelLoss": many_labels,
    "MultiLabelAsymmetricLoss": asymmetric,
}


def convert(root: Section, classes: int, many: bool) -> dict[str, Any]:
    """The recipe's `task.loss`: the first loss of `Loss.Train` that there is here."""
    found: dict[str, Any] = {}
    for name, loss in root.section("Loss").entries("Eval"):
        root.page.used.add(loss.at)
        if name not in ("CELoss", distillation.GROUND_TRUTH):
            loss.remark(None, "evaluation gives top-1, top-5 and the cross entropy")
    for name, loss in root.section("Loss").entries("Train"):
        if name in LOSSES and not found:
            found = LOSSES[name](loss, classes)
            if many and found["kind"] not in ("bce", "asymmetric"):
                loss.remark(None, "with several labels a photo: the binary cross entropy")
                found = {"kind": "bce"}
            weight = loss.get("weight", 1)
            if weight != 1:
                loss.remark("weight", "a loss counts 1 here, and so it does alone in PaddleClas")
            for key in ("model_names", "key"):  # of distillation: which network's logits
                loss.get(key)
        elif name in LOSSES:
            loss.lose("a second loss is not carried over", f"{name} beside another loss")
        elif distillation.is_loss(name):
            distillation.lose(loss)
        else:
            loss.lose("this loss is not known here: not carried over")
    return found or {"kind": "bce" if many else "cross_entropy"}

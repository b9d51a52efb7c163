"""`batch_transform_ops`: photos of a batch mixed with one another."""

from collections.abc import Callable
from typing import Any

from ppcls.config.tree import dotted_name
from ppcls.errors import UserError
from ppcls.paddleclas_config.page import Section

Ops = list[dict[str, Any]]


def with_prob(op: dict[str, Any], prob: float) -> dict[str, Any]:
    return op | ({"prob": round(float(prob), 6)} if prob != 1 else {})


def mixup(op: Section, prob: float = 1) -> Ops:
    return [with_prob({"op": "mixup", "alpha": float(op.number("alpha", 1))}, prob)]


def cutmix(op: Section, prob: float = 1) -> Ops:
    return [with_prob({"op": "cutmix", "alpha": float(op.number("alpha", 0.2))}, prob)]


def fmix(op: Section, prob: float = 1) -> Ops:
    for key in ("max_soft", "reformulate"):
        if op.get(key):
            op.matters(key, "not carried over: the mask has hard edges")
    alpha, power = float(op.number("alpha", 1)), float(op.number("decay_power", 3))
    return [with_prob({"op": "fmix", "alpha": alpha, "decay_power": power}, prob)]


def sampler(op: Section, prob: float = 1) -> Ops:
    """One of several, each with its `prob`; PaddleClas takes 0 where it is left out."""
    found: Ops = []
    op.get("class_num")  # as many as the network has
    total = 0
    for name in [key for key in op.values if key != "class_num"]:
        inner = op.section(name)
        if name in MIXING:
            share = inner.number("prob", 0)
            total += share
            found += MIXING[name](inner, share) if share else []
        else:
            inner.lose("this op is not known here: not carried over", name)
    if total > 1:
        place, name = op.page.place(op.at), dotted_name(op.at)
        raise UserError(f"{place}: {name}: the probs sum to {total:g}: they may sum to 1 at most")
    return found


def hybrid(op: Section, prob: float = 1) -> Ops:
    """timm's mixup or cutmix."""
    prob, switch = op.number("prob", 1), op.number("switch_prob", 0.5)
    alphas = {"mixup": op.number("mixup_alpha", 1), "cutmix": op.number("cutmix_alpha", 0)}
    if op.get("cutmix_minmax"):
        op.matters(
            "cutmix_minmax", "not carried over: the box is drawn as cutmix_alpha: 1 draws it"
        )
        alphas["cutmix"] = 1
    if op.get("mode", "batch") != "batch":
        op.matters("mode", "one draw for each batch here")
    if not op.get("correct_lam", True):
        op.matters("correct_lam", "targets are mixed by the area that is left")
    op.get("num_classes")
    shares = {"mixup": prob * (1 - switch), "cutmix": prob * switch}
    used = [kind for kind in alphas if alphas[kind]]
    if len(used) == 1:
        shares[used[0]] = prob
    return [with_prob({"op": kind, "alpha": float(alphas[kind])}, shares[kind]) for kind in used]


MIXING: dict[str, Callable[[Section, float], Ops]] = {
    "MixupOperator": mixup,
    "CutmixOperator": cutmix,
    "FmixOperator": fmix,
    "OpSampler": sampler,
    "MixupCutmixHybrid": hybrid,
}


def convert(dataset: Section) -> tuple[Ops, float]:
    """The recipe's `train.batch_ops`, and the label smoothing that a hybrid has of its own."""
    found: Ops = []
    smoothing = 0.0
    for name, op in dataset.entries("batch_transform_ops"):
        if name not in MIXING:
            op.lose("this op is not known here: not carried over", name)
        elif found:
            op.lose("a second op on the same batch: one at most is applied here", name)
        else:
            found = MIXING[name](op, 1)
            if name == "MixupCutmixHybrid":
                smoothing = float(op.number("label_smoothing", 0.1))
    return found, smoothing

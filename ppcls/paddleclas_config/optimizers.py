"""`Optimizer`: its kind and numbers; the learning rate is `schedules.py`'s."""

from typing import Any, NamedTuple

from ppcls.errors import UserError
from ppcls.paddleclas_config.page import Section

# PaddleClas's name of a number → ours, and what PaddleClas takes where it is left out.
BETAS = {"beta1": ("beta1", 0.9), "beta2": ("beta2", 0.999)}


class Ours(NamedTuple):
    kind: str
    numbers: dict[str, tuple[str, Any]]
    more: dict[str, Any] = {}  # noqa: RUF012  # read only


OPTIMIZERS = {
    "SGD": Ours("sgd", {}),
    "Momentum": Ours(
        "momentum", {"momentum": ("momentum", 0.9), "use_nesterov": ("nesterov", False)}
    ),
    "Adam": Ours("adam", {**BETAS, "epsilon": ("epsilon", 1e-8)}),
    "AdamW": Ours("adamw", {**BETAS, "epsilon": ("epsilon", 1e-8)}),
    "AdamWDL": Ours("adamw", {**BETAS, "epsilon": ("epsilon", 1e-8)}),
    "Lamb": Ours("lamb", {**BETAS, "epsilon": ("epsilon", 1e-6)}),
    "RMSProp": Ours(
        "rmsprop",
        {"momentum": ("momentum", 0.0), "rho": ("rho", 0.95), "epsilon": ("epsilon", 1e-6)},
        {"mean_square": 0.0},  # where Paddle starts
    ),
}
NORMS = {"bn", "bias", ".bias", "norm", "bn.bias", ".bn."}  # names of one dimension


def find(root: Section) -> Section:
    """The optimizer of the network, of which newer configs may have one for each part."""
    entries = root.values["Optimizer"]
    if isinstance(entries, dict):
        return root.section("Optimizer")
    (_, first), *others = root.entries("Optimizer")
    for name, other in others:
        other.lose(f"one optimizer trains all parameters here: {name} is not carried over")
    if first.get("scope", "all") != "all":
        first.remark("scope", "all parameters are trained")
    return first


def convert(section: Section) -> dict[str, Any]:
    """The recipe's `train.optimizer`."""
    listed = isinstance(section.at[-1], str) and section.at[-1] in OPTIMIZERS
    name = str(section.at[-1] if listed else section.get("name"))
    if name not in OPTIMIZERS:
        raise UserError(
            f"{section.place('name')}: {section.name('name')}: unknown optimizer {name!r}; "
            f"known: {', '.join(OPTIMIZERS)}"
        )
    ours = OPTIMIZERS[name]
    optimizer: dict[str, Any] = {"kind": ours.kind}
    for theirs, (key, default) in ours.numbers.items():
        if theirs in section or theirs in ("momentum", "rho", "epsilon"):
            optimizer[key] = section.get(theirs, default)
    optimizer |= ours.more
    return {**optimizer, "weight_decay": float(decay(section))}


def decay(section: Section) -> float:
    """The weight decay: a regularizer comes before `weight_decay`."""
    regularizer = section.section("regularizer")
    own = section.number("weight_decay", 0)
    if not regularizer.values:
        return own
    if own:
        section.remark("weight_decay", "the regularizer counts, as in PaddleClas")
    kind, coefficient = regularizer.get("name", "L2"), regularizer.number("coeff", 0)
    if kind != "L2":
        regularizer.lose("only L2 decays weights here: not carried over", f"{kind} weight decay")
        return 0
    return coefficient


def other_keys(section: Section) -> dict[str, Any]:
    """What the recipe says beside the optimizer: `train.decay_norms` and `train.clip_norm`."""
    train: dict[str, Any] = {}
    names = str(section.get("no_weight_decay_name", "")).split()
    if section.get("one_dim_param_no_weight_decay") or set(names) & NORMS:
        train["decay_norms"] = False
    others = [name for name in names if name not in NORMS]
    if others:
        text = f"{', '.join(others)}: decayed here; what is spared is biases and norms"
        section.remark("no_weight_decay_name", text)
    if "clip_norm" in section:
        train["clip_norm"] = float(section.number("clip_norm"))
        section.remark("clip_norm", "bounds all gradients together here, not each by itself")
    return train

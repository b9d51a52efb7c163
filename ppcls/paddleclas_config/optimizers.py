"""`Optimizer`: its kind and numbers; the learning rate is `schedules.py`'s."""

from typing import Any, NamedTuple

from ppcls.errors import UserError
from ppcls.models import zoo
from ppcls.models.residual_specs import ResidualSpec
from ppcls.paddleclas_config.page import Section
from ppcls.weights import paddleclas

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
L2 = ("sgd", "momentum", "adam", "rmsprop")  # whose decay a layer of PaddleClas can forbid itself


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


def other_keys(section: Section, optimizer: str, model: str) -> dict[str, Any]:
    """What the recipe says beside the optimizer: what is not decayed, and `train.clip_norm`."""
    norms, biases = spared(section, model)
    if is_resnest(model) and optimizer in L2 and not norms:
        norms = True  # built so that no regularizer decays them
    train: dict[str, Any] = {"decay_norms": False} if norms else {}
    if norms != biases:
        train["decay_biases"] = not biases
    if "clip_norm" in section:
        train["clip_norm"] = float(section.number("clip_norm"))
        section.matters("clip_norm", "bounds all gradients together here, not each by itself")
    return train


def is_resnest(model: str) -> bool:
    spec = zoo.spec_of(model)
    return isinstance(spec, ResidualSpec) and bool(spec.radix)


def spared(section: Section, model: str) -> tuple[bool, bool]:
    """Whether parameters of norms, and other biases, are left out of the weight decay."""
    names = str(section.get("no_weight_decay_name", "")).split()
    flat = bool(section.get("one_dim_param_no_weight_decay"))
    kind = section.at[-1] if section.at[-1] in OPTIMIZERS else section.get("name")
    if kind == "AdamWDL" and section.get("filter_bias_and_bn", True):
        return True, True
    if flat and not names and kind == "Momentum":
        text = "passed over by PaddleClas's Momentum without no_weight_decay_name: all is decayed"
        section.remark("one_dim_param_no_weight_decay", f"{text}, and so it is here")
        flat = False
    if flat:
        return True, True
    scales, shifts, biases, kernels = (matched(names, group) for group in parameters(model))
    if kernels or scales != shifts:
        text = "spares some parameters there and others here, where norms and biases can be spared"
        section.matters("no_weight_decay_name", text)
    others = [name for name in names if not any(matched([name], g) for g in parameters(model))]
    if others:
        text = f"{', '.join(others)}: no norm and no bias of {model} is named so: not carried over"
        section.remark("no_weight_decay_name", text)
    return scales and shifts, biases


def matched(names: list[str], group: list[str]) -> bool:
    """Whether one of the names is part of every one of the group."""
    return bool(group) and all(any(name in parameter for name in names) for parameter in group)


def parameters(model: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """PaddleClas's names of some norms' scales, their shifts, other biases and kernels."""
    spec = zoo.spec_of(model)
    stem = ["stem"] if not isinstance(spec, ResidualSpec) else ["stem", "0"]
    blocks = [["stages", "1", "0", "branch", "0"], ["stages", "2", "1", "branch", "0"]]
    norms = [paddleclas.layer([*path, "norm"], spec) for path in (stem, *blocks)]
    kernels = [paddleclas.layer([*path, "conv"], spec) for path in (stem, *blocks)]
    head = paddleclas.layer(["head"], spec)
    return (
        [f"{norm}.weight" for norm in norms],
        [f"{norm}.bias" for norm in norms],
        [f"{head}.bias"],
        [f"{kernel}.weight" for kernel in kernels],
    )

"""PaddleClas's schedules, optimizers and losses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ppcls.migrate import model
from ppcls.migrate.model import Nodes, Scene, rounded
from ppcls.migrate.sections import Section
from ppcls.models import registry
from ppcls.utils.errors import UserError
from ppcls.weights import dialects


@dataclass(frozen=True)
class Run:
    """What a schedule depends on; PaddleClas counts milestones from the end of warm-up."""

    epochs: float
    warmup: float
    eval_every: float  # epochs

    def milestones(self, epochs: list[float]) -> list[float]:
        return [short(self.warmup + epoch) for epoch in epochs]


Decay = tuple[float, dict[str, Any]]  # the peak and the recipe's `decay`


def short(number: float) -> float:
    """2 for 2.0."""
    return int(number) if number == int(number) else number


def share(lr: Section, key: str, peak: float) -> dict[str, float]:
    """`end` of a decay down to the learning rate under `key`."""
    end = lr.number(key, 0)
    return {"end": round(end / peak, 12)} if end else {}


def constant(lr: Section, run: Run) -> Decay:
    return lr.positive("learning_rate"), {"kind": "constant"}


def cosine(lr: Section, run: Run) -> Decay:
    peak = lr.positive("learning_rate")
    return peak, {"kind": "cosine", **share(lr, "eta_min", peak)}


def linear(lr: Section, run: Run) -> Decay:
    peak = lr.positive("learning_rate")
    power = lr.number("power", 1)
    if lr.get("cycle"):
        lr.matters("cycle", "not carried over: it decays once")
    bent = {"power": float(power)} if power != 1 else {}
    return peak, {"kind": "polynomial", **bent, **share(lr, "end_lr", peak)}


def step(lr: Section, run: Run) -> Decay:
    every = lr.positive("step_size")
    gamma = lr.number("gamma", 0.1)
    decay: dict[str, Any] = {"kind": "step", "every": short(every)}
    decay |= {"after_warmup": True} if run.warmup else {}
    return lr.positive("learning_rate"), decay | ({"gamma": gamma} if gamma != 0.1 else {})


def multi_step(lr: Section, run: Run) -> Decay:
    gamma = lr.number("gamma", 0.1)
    at = run.milestones(lr.numbers("milestones"))
    if "step_each_epoch" in lr:
        lr.get("step_each_epoch")  # PaddleClas puts its own in its place
    decay = {"kind": "step", "milestones": at, **({"gamma": gamma} if gamma != 0.1 else {})}
    return lr.positive("learning_rate"), decay


def piecewise(lr: Section, run: Run) -> Decay:
    epochs = lr.numbers("decay_epochs")
    values = lr.numbers("values")
    if len(values) != len(epochs) + 1:
        raise UserError(f"{lr.place('values')}: {lr.name('values')}: {len(epochs) + 1} are needed")
    peak = lr.get("learning_rate")
    tenths = [values[0] * 0.1**index for index in range(len(values))]
    if isinstance(peak, int | float):
        rule = list(range(30, int(run.epochs), 30))
        if epochs != rule or not close(values, [peak * 0.1**index for index in range(len(values))]):
            text = (
                "decay_epochs and values are carried over; PaddleClas 2.5 and later pass them over "
                f"and take a tenth every 30 epochs from {peak}"
            )
            lr.matters("learning_rate", text)
    if close(values, tenths):
        return values[0], {"kind": "step", "milestones": run.milestones(epochs)}
    at = run.milestones(epochs)
    return values[0], {"kind": "piecewise", "milestones": at, "values": values[1:]}


def close(values: list[float], others: list[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(values, others, strict=True))


def one_cycle(lr: Section, run: Run) -> Decay:
    peak = lr.positive("max_learning_rate")
    end = lr.number("end_learning_rate", 1e-10)
    for key, own in (("anneal_strategy", "cos"), ("three_phase", False)):
        if lr.get(key, own) != own:
            lr.matters(key, f"{own} here")
    return peak, {
        "kind": "one_cycle",
        "rise": f"{short(round(100 * lr.number('phase_pct', 0.3), 6))}%",
        "start": round(1 / lr.positive("divide_factor", 25), 12),
        "end": round(end / peak, 12),
    }


def plateau(lr: Section, run: Run) -> Decay:
    """PaddleClas cuts at the first evaluation after `patience` bad ones, and looks at the score."""
    patience = (lr.number("patience", 10) + 1) * run.eval_every
    for key in ("threshold", "cooldown", "min_lr", "threshold_mode", "epsilon"):
        if lr.get(key, 0):
            lr.matters(key, "not carried over: any better score counts, and each cut is the same")
    if lr.get("mode", "min") == "min":
        lr.remark("mode", "PaddleClas gives it the top-1, which max fits: so it is here")
    return lr.positive("learning_rate"), {
        "kind": "plateau",
        "score": "top1",
        "gamma": float(lr.number("factor", 0.1)),
        "patience": short(patience),
    }


SCHEDULES: dict[str, Callable[[Section, Run], Decay]] = {
    "Constant": constant,
    "ConstLR": constant,
    "Cosine": cosine,
    "Linear": linear,
    "Step": step,
    "MultiStepDecay": multi_step,
    "Piecewise": piecewise,
    "OneCycleLR": one_cycle,
    "ReduceOnPlateau": plateau,
}


def convert_schedule(lr: Section, epochs: float, eval_every: float) -> dict[str, Any]:
    """The recipe's `train.schedule`, without the batch the learning rate is for."""
    name = str(lr.get("name", "Constant"))
    warmup = min(lr.number("warmup_epoch", 0), epochs)
    if warmup and name == "Constant":
        lr.remark("warmup_epoch", "passed over by PaddleClas's Constant, and so it is here")
        warmup = 0
    run = Run(epochs, warmup, eval_every)
    if name in SCHEDULES:
        peak, decay = SCHEDULES[name](lr, run)
    else:
        keys = [key for key in ("learning_rate", "base_learning_rate") if key in lr]
        peak = lr.number(keys[0] if keys else "learning_rate")
        decay = {"kind": "constant"}
        lr.lose(f"{name} is not known here: its learning rate stays constant", f"schedule {name}")
    schedule: dict[str, Any] = {"lr": float(peak), "warmup_start": lr.number("warmup_start_lr", 0)}
    if warmup and decay["kind"] != "one_cycle":
        schedule["warmup"] = f"{short(warmup)} epochs"
    elif warmup:
        lr.matters("warmup_epoch", "one_cycle rises by itself: not carried over")
    if not (warmup and schedule["warmup_start"]):
        del schedule["warmup_start"]
    if lr.get("by_epoch"):
        schedule |= by_epoch(lr, decay, warmup)
    if warmup and decay["kind"] == "plateau":
        text = "PaddleClas then counts epochs in the place of the score; it is looked at here"
        lr.matters("warmup_epoch", text)
    return {**schedule, "decay": decay}


def by_epoch(lr: Section, decay: dict[str, Any], warmup: float) -> dict[str, Any]:
    """`per: epoch` where the rate would else change within an epoch."""
    if decay["kind"] == "one_cycle":
        text = "the cycle's steps are counted as epochs there, so that it hardly rises; steps here"
        lr.matters("by_epoch", text)
        return {}
    if warmup and decay["kind"] == "polynomial":
        text = "the warm-up's steps are counted as epochs there and it does not end; epochs here"
        lr.matters("by_epoch", text)
    whole = [decay.get("every", 1), *decay.get("milestones", [])]
    stepped = decay["kind"] in ("cosine", "polynomial") or any(n != int(n) for n in whole)
    return {"per": "epoch"} if warmup or stepped else {}


# --------------------------------------------------------------------------
# `Optimizer`: its kind and numbers; the learning rate is `schedules.py`'s

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


def convert_optimizer(section: Section) -> dict[str, Any]:
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
    kind = regularizer.get("name", "L2")
    coefficient = regularizer.number("coeff", 0)
    if kind != "L2":
        regularizer.lose("only L2 decays weights here: not carried over", f"{kind} weight decay")
        return 0
    return coefficient


def other_keys(section: Section, optimizer: str, model: str) -> dict[str, Any]:
    """What the recipe says beside the optimizer: what is not decayed, and `train.clip_norm`."""
    norms, biases = spared(section, model)
    if spares_norms(model) and optimizer in L2 and not norms:
        norms = True
    train: dict[str, Any] = {"decay_norms": False} if norms else {}
    if norms != biases:
        train["decay_biases"] = not biases
    if "clip_norm" in section:
        train["clip_norm"] = float(section.number("clip_norm"))
        section.matters("clip_norm", "bounds all gradients together here, not each by itself")
    return train


def spares_norms(model: str) -> bool:
    """Whether PaddleClas builds the network so that no regularizer decays its norms."""
    spec = registry.spec_of(model)
    family = registry.family_of(spec)
    names = family.projects.get("paddleclas") if family else None
    return bool(names and names.spares_norms(spec))


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
    spec = registry.spec_of(model)
    family = registry.family_of(spec)
    assert family
    named = partial(dialects.layer_name, "paddleclas", spec=spec)
    norms = [named(f"{path}.norm") for path in family.convs]
    kernels = [named(f"{path}.conv") for path in family.convs]
    head = named("head")
    return (
        [f"{norm}.weight" for norm in norms],
        [f"{norm}.bias" for norm in norms],
        [f"{head}.bias"],
        [f"{kernel}.weight" for kernel in kernels],
    )


# --------------------------------------------------------------------------
# Losses between networks: `task.losses`, and those that compare logits

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
    share = loss.number("alpha", 0.9)
    multiplier = loss.positive("multiplier", 2)
    scene.labels += weight * (1 - share)
    text = "the other share is task.labels_weight: the cross entropy of the logits as they are, "
    loss.matters("alpha", text + "there of the normalised ones")
    numbers = {"temperature": float(loss.positive("temperature", 1))}
    numbers |= {"length": rounded(multiplier * math.sqrt(scene.classes))}
    return [{"kind": "skd", "weight": rounded(weight * share), **numbers}]


def dist(loss: Section, weight: float, scene: Scene) -> Nodes:
    inter = float(loss.number("beta", 1))
    intra = float(loss.number("gamma", 1))
    return [{"kind": "dist", "weight": weight, "inter": inter, "intra": intra}]


def labels_are_labels(loss: Section) -> None:
    if loss.get("use_target_as_gt"):
        text = "not carried over: labels are those of the list, not the teacher's likeliest class"
        loss.matters("use_target_as_gt", text)


OF_FEATURES: dict[str, Callable[[Section, float, Scene], Nodes]] = {
    "DistillationRKDLoss": model.rkd,
    "DistillationDistanceLoss": model.feature_l2,
    "DistillationPairLoss": model.pair,
    "AFDLoss": model.afd,
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
        return "it needs one label an image"
    if name in OF_FEATURES:
        return "features of one teacher alone are compared here" if len(scene.teachers) > 1 else ""
    key = loss.get("key")
    return "" if key in LOGITS else f"{key} is not the logits of a network"


def convert_distill_losses(root: Section, scene: Scene) -> tuple[Nodes, list[Section]]:
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
        found = found + nodes
        sources = sources + [loss] * len(nodes)
    return found, sources


def lose_distill_losses(root: Section, name: str) -> None:
    """List every loss between networks, for there is no teacher."""
    for kind, loss in root.section("Loss").entries("Train"):
        if kind in BETWEEN:
            loss.lose("a loss between networks: not carried over", name)


# --------------------------------------------------------------------------
# `Loss`: PaddleClas's losses against the labels, and what of ours says the same

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
    smoothing = epsilon(loss)
    threshold = loss.number("target_threshold", 0.2)
    ours = (threshold - smoothing / classes) / (1 - smoothing)
    if smoothing:
        text = f"undone by the threshold {threshold} after it: as threshold {ours:.6g} alone"
        loss.remark("epsilon", text)
    return {"kind": "bce", "threshold": round(min(1.0, max(0.0, ours)), 6)}


def many_labels(loss: Section, classes: int) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "bce"}
    if smoothing := epsilon(loss):
        found["smoothing"] = float(smoothing)
    if loss.get("weight_ratio"):
        found["frequencies"] = "counted"
    if loss.get("size_sum"):
        found["reduction"] = "sum"
    return found


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

    many: bool  # labels of an image
    loss: dict[str, Any] = field(default_factory=dict)  # {}: none
    weight: float = 0.0
    source: Section | None = None
    apart: list[Section] = field(default_factory=list)  # the same losses of other networks

    def others(self, peers: bool) -> None:
        """List the losses of other networks, but for those that peers have in common."""
        for loss in self.apart:
            weight = loss.number("weight", 1)
            smoothing = epsilon(loss)
            same = (weight, smoothing) == (self.weight, self.loss.get("smoothing", 0))
            if not peers:
                loss.remark("model_names", "of a network that does not learn here: left out")
            elif not same:
                loss.matters("weight", "both students learn by the loss of the first here")


def evaluated(root: Section, many: bool) -> None:
    """`Loss.Eval`, which is always the same here."""
    known = ("CELoss", GROUND_TRUTH)
    scores = "top-1, top-5 and the cross entropy"
    if many:
        known = ("MultiLabelLoss",)
        scores = "mAP, F1 and the binary cross entropy"
    for name, loss in root.section("Loss").entries("Eval"):
        root.page.used.add(loss.at)
        if name not in known:
            loss.remark(None, f"evaluation gives {scores}")


def convert_losses(root: Section, classes: int, many: bool, student: str) -> Labels:
    """What the labels teach; `student` is its name in a distillation, else ""."""
    found = Labels(many)
    for name, loss in root.section("Loss").entries("Train"):
        if name in BETWEEN:
            continue
        if name not in LOSSES:
            loss.lose("this loss is not known here: not carried over")
            continue
        names = loss.get("model_names")
        key = loss.get("key")
        names = names if isinstance(names, list) and names else [student]
        if student and student not in names:
            found.apart.append(loss)
        elif key not in LOGITS:
            loss.lose(f"not carried over: {key} is not the logits of a network")
        elif found.loss:
            loss.lose("a second loss is not carried over", f"{name} beside another loss")
        else:
            found.loss = LOSSES[name](loss, classes)
            found.source = loss
            found.weight = float(loss.number("weight", 1))
            if many and found.loss["kind"] not in ("bce", "asymmetric"):
                loss.matters(None, "with several labels an image: the binary cross entropy")
                found.loss = {"kind": "bce"}
    return found


def alone(labels: Labels) -> dict[str, Any]:
    """The recipe's `task` of learning from the labels alone."""
    if labels.source and labels.weight != 1:
        text = "a loss counts 1 here, and so it does alone in PaddleClas"
        labels.source.remark("weight", text)
    default = {"kind": "bce" if labels.many else "cross_entropy"}
    return ({"kind": "multilabel"} if labels.many else {}) | {"loss": labels.loss or default}

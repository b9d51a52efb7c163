"""`Optimizer.lr`: the peak learning rate, its warm-up and how it decays."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppcls.errors import UserError
from ppcls.paddleclas_config.page import Section


@dataclass(frozen=True)
class Run:
    """What a schedule depends on; PaddleClas counts milestones from the end of warm-up."""

    epochs: float
    warmup: float
    eval_every: float  # epochs

    def milestones(self, epochs: list[float]) -> list[float]:
        return [short(self.warmup + epoch) for epoch in epochs]


Ours = tuple[float, dict[str, Any]]  # the peak and the recipe's `decay`


def short(number: float) -> float:
    """2 for 2.0."""
    return int(number) if number == int(number) else number


def share(lr: Section, key: str, peak: float) -> dict[str, float]:
    """`end` of a decay down to the learning rate under `key`."""
    end = lr.number(key, 0)
    return {"end": round(end / peak, 12)} if end else {}


def constant(lr: Section, run: Run) -> Ours:
    return lr.positive("learning_rate"), {"kind": "constant"}


def cosine(lr: Section, run: Run) -> Ours:
    peak = lr.positive("learning_rate")
    return peak, {"kind": "cosine", **share(lr, "eta_min", peak)}


def linear(lr: Section, run: Run) -> Ours:
    peak, power = lr.positive("learning_rate"), lr.number("power", 1)
    if lr.get("cycle"):
        lr.matters("cycle", "not carried over: it decays once")
    bent = {"power": float(power)} if power != 1 else {}
    return peak, {"kind": "polynomial", **bent, **share(lr, "end_lr", peak)}


def step(lr: Section, run: Run) -> Ours:
    every, gamma = lr.positive("step_size"), lr.number("gamma", 0.1)
    decay: dict[str, Any] = {"kind": "step", "every": short(every)}
    decay |= {"after_warmup": True} if run.warmup else {}
    return lr.positive("learning_rate"), decay | ({"gamma": gamma} if gamma != 0.1 else {})


def multi_step(lr: Section, run: Run) -> Ours:
    gamma, at = lr.number("gamma", 0.1), run.milestones(lr.numbers("milestones"))
    if "step_each_epoch" in lr:
        lr.get("step_each_epoch")  # PaddleClas puts its own in its place
    decay = {"kind": "step", "milestones": at, **({"gamma": gamma} if gamma != 0.1 else {})}
    return lr.positive("learning_rate"), decay


def piecewise(lr: Section, run: Run) -> Ours:
    epochs, values = lr.numbers("decay_epochs"), lr.numbers("values")
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


def one_cycle(lr: Section, run: Run) -> Ours:
    peak, end = lr.positive("max_learning_rate"), lr.number("end_learning_rate", 1e-10)
    for key, own in (("anneal_strategy", "cos"), ("three_phase", False)):
        if lr.get(key, own) != own:
            lr.matters(key, f"{own} here")
    return peak, {
        "kind": "one_cycle",
        "rise": f"{short(round(100 * lr.number('phase_pct', 0.3), 6))}%",
        "start": round(1 / lr.positive("divide_factor", 25), 12),
        "end": round(end / peak, 12),
    }


def plateau(lr: Section, run: Run) -> Ours:
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


SCHEDULES: dict[str, Callable[[Section, Run], Ours]] = {
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


def convert(lr: Section, epochs: float, eval_every: float) -> dict[str, Any]:
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
        peak, decay = lr.number(keys[0] if keys else "learning_rate"), {"kind": "constant"}
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

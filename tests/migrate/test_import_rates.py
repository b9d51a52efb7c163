"""Learning rates of a run, step by step, against Paddle's schedulers as PaddleClas runs them."""

import pytest
from paddle.optimizer import lr

STEPS, EPOCHS = 7, 12  # steps of an epoch
PEAK = 0.4
START = 0.1


def warmed(after, steps):
    return lr.LinearWarmup(after, steps, START, PEAK)


def cosine(steps):
    return lr.CosineAnnealingDecay(PEAK, steps)


def stepped(size, gamma=0.5):
    return lr.StepDecay(PEAK, size, gamma)


def multilabel(*milestones):
    return lr.MultiStepDecay(PEAK, list(milestones), 0.5)


def pieces():
    return lr.PiecewiseDecay(PIECES["decay_epochs"], PIECES["values"])


def cycle(part):
    return lr.OneCycleLR(PEAK, STEPS * EPOCHS, 10.0, 1e-10, part)


WARM = {"warmup_epoch": 3, "warmup_start_lr": START}
MILESTONES = {"milestones": [2, 5]}
PIECES = {"decay_epochs": [2, 5], "values": [PEAK, 0.2, 0.03]}
HALF = {"gamma": 0.5}

# The keys, by_epoch, and a scheduler that is stepped after each step, or after each epoch.
ROWS = [
    ("Cosine", WARM, False, lambda: warmed(cosine(9 * STEPS), 3 * STEPS)),
    ("Cosine", WARM, True, lambda: warmed(cosine(9), 3)),
    ("Cosine", {}, True, lambda: cosine(12)),
    ("Linear", {"end_lr": 0.1}, True, lambda: lr.PolynomialDecay(PEAK, 12, 0.1)),
    ("ConstLR", WARM, True, lambda: warmed(PEAK, 3)),
    ("Constant", WARM, False, lambda: lr.MultiStepDecay(PEAK, [10**6])),
    ("Step", {"step_size": 2, **HALF, **WARM}, True, lambda: warmed(stepped(2), 3)),
    ("Step", {"step_size": 2.4, **HALF}, False, lambda: stepped(16)),
    ("Step", {"step_size": 2.4, **HALF, **WARM}, False, lambda: warmed(stepped(16), 21)),
    ("Step", {"step_size": 2, **HALF, **WARM}, False, lambda: warmed(stepped(14), 21)),
    (
        "MultiStepDecay",
        {"milestones": [2, 5], **HALF, **WARM},
        True,
        lambda: warmed(multilabel(2, 5), 3),
    ),
    ("MultiStepDecay", {"milestones": [2.3], **HALF}, False, lambda: multilabel(2.3 * STEPS)),
    ("MultiStepDecay", {"milestones": [2.5], **HALF}, True, lambda: multilabel(2.5)),
    (
        "Piecewise",
        {**PIECES, **WARM},
        True,
        lambda: warmed(lr.PiecewiseDecay([2, 5], PIECES["values"]), 3),
    ),
    ("OneCycleLR", {"phase_pct": 0.3, "divide_factor": 10}, False, lambda: cycle(0.3)),
    ("OneCycleLR", {"phase_pct": 0.5, "divide_factor": 10}, False, lambda: cycle(0.5)),
]


@pytest.mark.parametrize(("name", "given", "by_epoch", "built"), ROWS)
def test_every_step_has_the_rate_it_has_there(old, name, given, by_epoch, built):
    peak = {"OneCycleLR": "max_learning_rate", "Piecewise": "unused"}.get(name, "learning_rate")
    keys = {"name": name, **given, "by_epoch": by_epoch, peak: PEAK}
    keys.pop("unused", None)
    recipe = old.set("Optimizer.lr", keys).set("Global.epochs", EPOCHS).convert(cards=1)
    schedule, photos = recipe.train.schedule, recipe.train.images_per_step
    there, expected = built(), []
    for _epoch in range(EPOCHS):
        for _ in range(STEPS):
            expected.append(there())
            if not by_epoch:
                there.step()
        if by_epoch:
            there.step()
    total = STEPS * EPOCHS
    found = [schedule.over(STEPS, total, photos)(step) for step in range(total)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert "Optimizer.lr.by_epoch" not in old.remarks


def test_what_of_by_epoch_cannot_be_said_is(old):
    """There the cycle and Linear's warm-up are counted in steps, and stepped once an epoch."""
    keys = {"name": "OneCycleLR", "max_learning_rate": PEAK, "by_epoch": True}
    old.set("Optimizer.lr", keys).convert()
    assert "hardly rises" in old.said("lr.by_epoch")
    old.set("Optimizer.lr", {"name": "Linear", "learning_rate": PEAK, "by_epoch": True, **WARM})
    old.convert()
    assert "does not end" in old.said("lr.by_epoch")
    plateau = {"name": "ReduceOnPlateau", "learning_rate": PEAK, "by_epoch": True, **WARM}
    old.set("Optimizer.lr", plateau).convert()
    assert "in the place of the score" in old.said("lr.warmup_epoch")

"""Temperature, sets of classes and the limit of the unknown, fitted to a network's answers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcls.calibrate.costs import Costs
from ppcls.drift.sketch import Sketch, make_sketch
from ppcls.inference.calibration import (
    COSTS,
    LEAST,
    Calibration,
    MadeFrom,
    Ranks,
    Sets,
    Unknown,
    cheapest,
    logits_of,
    nonconformity,
    principal,
    strangeness,
    tempered,
    unit,
    with_products,
)
from ppcls.report.figures import calibration_parts
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

SEED = 0
FOLDS = 5  # of cross-fitting
STEPS = 50  # of Newton's at most
HOTTEST = 20.0  # temperature, and the reciprocal of the coldest
FAR = -1e6  # below the largest logit: what nothing brings back
CLEAR = 2.0  # standard errors by which a temperature has to make answers better
TUNED = 0.2  # the share of images that the penalty of raps is chosen by
FEW = 5  # images of a class, on average, below which all classes have one mean of features
KEPT = 256  # directions in which features vary
NEIGHBOURS = 1000  # images whose features are kept at most
SLICES, MANY = 20, 2000  # of cross-fitting the unknown where there are not so many images
WITHOUT_FEATURES = "entropy"
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # those of arXiv:2009.14193


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        coverage: how often a set is to hold the right class.
        method: lac, aps or raps.
        per_class: hold the coverage in each class.
        false_alarms: the share of images of the classes that may be called unknown.
    """

    coverage: float = 0.95
    method: Any = "lac"
    per_class: bool = False
    false_alarms: float = 0.05


@dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers to labelled images: probabilities float32 [N, classes], labels int64 [N]
    and, where it gives them, features float32 [N, D]; how the images look, float32 [N, LOOKS],
    where they are to be held against others; `ranks` of the probabilities are a store.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None = None
    looks: np.ndarray | None = None
    ranks: Ranks | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    def ranked(self) -> "Answers":
        """With ranks, which parts that are taken need not find again."""
        return replace(self, ranks=Ranks.of(self.probabilities))

    def nonconformity(self, method: str, penalty: float = 0.0, free: int = 0) -> np.ndarray:
        return nonconformity(self.probabilities, method, penalty, free, self.ranks)

    def held(self, sets: Sets) -> np.ndarray:
        """Which classes are in each image's set: bool [N, classes]."""
        return sets.hold(self.probabilities, self.ranks)

    def take(self, places: np.ndarray) -> "Answers":
        features, looks = (
            None if own is None else own[places] for own in (self.features, self.looks)
        )
        ranks = self.ranks and self.ranks.take(places)
        return Answers(self.probabilities[places], self.labels[places], features, looks, ranks)


# --------------------------------------------------------------------------
# Temperature (arXiv:1706.04599)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits are divided by so that the labels are likeliest, by Newton's method.

    Of the reciprocal of the temperature the loss is convex.

    Args:
        logits: [N, classes]; -inf for a class that is none.
        labels: int64 [N].
    """
    rows = logits.astype(np.float64)
    rows = np.maximum(rows - rows.max(axis=1, keepdims=True), FAR)
    right = rows[np.arange(len(rows)), labels]
    beta = 1.0
    for _ in range(STEPS):
        powers = np.exp(beta * rows)
        shares = powers / powers.sum(axis=1, keepdims=True)
        weighted = shares * rows
        mean = weighted.sum(axis=1)
        slope = float((mean - right).mean())
        bend = float(((weighted * rows).sum(axis=1) - mean**2).mean())
        wanted = beta - slope / bend if bend > 0 else beta * (4 if slope < 0 else 1)
        new = min(max(wanted, beta / 4, 1 / HOTTEST), beta * 4, HOTTEST)
        if abs(new - beta) <= 1e-9 * beta:
            break
        beta = new
    return 1 / beta


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the right class's probability, in nats."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each image, in nats, float64 [N]."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(right, LEAST))


def ece(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error, as the report of an evaluation has it."""
    return float(ece_parts(probabilities, labels).mean())


def ece_parts(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each image adds to it, float64 [N]; see `calibration_parts`."""
    return calibration_parts(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def folds(answers: Answers, wanted: int = FOLDS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of cross-fitting, the places of the images to fit to, and of those to look at."""
    count = min(wanted, len(answers))
    order = np.random.default_rng(SEED).permutation(len(answers))
    parts = [np.sort(order[i::count]) for i in range(count)]
    for part in parts:
        rest = np.setdiff1d(np.arange(len(answers)), part)
        yield rest, part


def tempered_apart(answers: Answers) -> np.ndarray:
    """Probabilities, each image's with the temperature that fits the others."""
    found = answers.probabilities.copy()
    logits = logits_of(answers.probabilities)
    for rest, part in folds(answers):
        own = fit_temperature(logits[rest], answers.labels[rest])
        found[part] = tempered(answers.probabilities[part], own)
    return found


def temperature_of(answers: Answers, apart: np.ndarray) -> float:
    """The temperature; 1 where in cross-fitting it makes likelihood or calibration no better.

    Each by more than chance: the mean gain is CLEAR standard errors. Without that, of few images
    one is often fitted that is worse for others, or that makes them likelier and no better
    calibrated.

    Args:
        apart: as `tempered_apart` gives it.
    """
    labels = answers.labels
    for error in (log_losses, ece_parts):
        gain = error(answers.probabilities, labels) - error(apart, labels)
        if gain.mean() <= CLEAR * gain.std() / math.sqrt(len(gain)):
            return 1.0
    return fit_temperature(logits_of(answers.probabilities), labels)


# --------------------------------------------------------------------------
# Sets (split conformal prediction)


def quantile(scores: np.ndarray, share: float) -> float:
    """The score that so large a share of new images does not exceed, on average over draws.

    It is the ceil((N + 1) share)-th smallest; infinity where there are too few.
    """
    rank = math.ceil((len(scores) + 1) * share - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def least_images(share: float) -> int:
    """How many images a finite `quantile` needs."""
    return math.ceil(share / (1 - share) - 1e-9) if share < 1 else 1 << 62


def fit_sets(answers: Answers, wish: Wish) -> Sets:
    """Sets of classes with the coverage asked for."""
    penalty, free = 0.0, 0
    if wish.method == "raps":
        order = np.random.default_rng(SEED).permutation(len(answers))
        tuned = round(TUNED * len(answers))
        penalty, free = fit_penalty(answers.take(order[:tuned]), wish.coverage)
        answers = answers.take(order[tuned:])
    scores = answers.nonconformity(wish.method, penalty, free)
    own = scores[np.arange(len(scores)), answers.labels]
    if wish.per_class:
        parts = [own[answers.labels == label] for label in range(answers.classes)]
    else:
        parts = [own]
    thresholds = tuple(quantile(part, wish.coverage) for part in parts)
    return Sets(
        method=wish.method,
        coverage=wish.coverage,
        thresholds=thresholds,
        penalty=penalty,
        free=free,
    )


def fit_penalty(answers: Answers, coverage: float) -> tuple[float, int]:
    """Of raps: `free` is where most right classes stand, and `penalty` makes the sets smallest."""
    rows = np.arange(len(answers))
    right = answers.probabilities[rows, answers.labels]
    places = 1 + (answers.probabilities > right[:, None]).sum(axis=1)
    free = min(quantile(places, coverage), answers.classes)
    sizes = {}
    for penalty in PENALTIES:
        scores = answers.nonconformity("raps", penalty, int(free))
        limit = quantile(scores[rows, answers.labels], coverage)
        sizes[penalty] = float((scores <= limit).sum(axis=1).mean())
    return min(sizes, key=lambda penalty: sizes[penalty]), int(free)


# --------------------------------------------------------------------------
# The unknown


def fit_distance(answers: Answers) -> dict[str, np.ndarray]:
    """The arrays of `ppcls.inference.calibration.with_products`.

    The covariance within the classes is shrunk as Ledoit and Wolf do (2004, "A well-conditioned
    estimator for large-dimensional covariance matrices"); all directions but the KEPT in which the
    classes vary most count alike.
    """
    assert answers.features is not None
    rows = unit(answers.features)
    _, which, counts = np.unique(answers.labels, return_inverse=True, return_counts=True)
    if len(rows) < FEW * len(counts):  # too few of a class for a mean of its own
        which, counts = np.zeros(len(rows), np.int64), np.array([len(rows)])
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, which, rows)
    means /= counts[:, None]
    apart = rows - means[which]
    count, width = apart.shape
    spread, directions = principal(apart, KEPT)
    mean = spread.sum() / width
    total = (spread**2).sum()
    noise = (((apart**2).sum(axis=1) ** 2).sum() / count - total) / count
    share = min(1.0, max(noise / max(total - width * mean**2, LEAST), LEAST))
    rest = share * mean
    shrunk = (1 - share) * spread + rest
    weights = np.sqrt(np.maximum(1 - rest / np.maximum(shrunk[: len(directions)], LEAST), 0))
    varies = directions * weights[:, None]
    places = np.random.default_rng(SEED).permutation(count)[:NEIGHBOURS]
    return {
        "means": means.astype(np.float32),
        "varies": varies.astype(np.float32),
        "neighbours": rows[np.sort(places)].astype(np.float16),
    }


def fit_unknown(answers: Answers, wish: Wish) -> tuple[Unknown, dict[str, np.ndarray], np.ndarray]:
    """The limit of the unknown, the arrays it needs, and how strange each image is to the others'.

    The limit is that of a test whose false alarms are known (arXiv:2104.08279): strangeness of
    images that its arrays were not fitted to. Arrays fitted to fewer images find all others
    stranger, and the limit too high: so few are left out at a time.
    """
    if answers.features is None:
        values: dict[str, np.ndarray] = {}
        strange = strangeness(WITHOUT_FEATURES, answers.probabilities, None, values)
        measure = WITHOUT_FEATURES
    else:
        measure = "distance"
        strange = np.empty(len(answers))
        for rest, part in folds(answers, SLICES if len(answers) < MANY else FOLDS):
            apart = with_products(**fit_distance(answers.take(rest)))
            given = answers.take(part)
            strange[part] = strangeness(measure, given.probabilities, given.features, apart)
        values = fit_distance(answers)
    threshold = quantile(strange, 1 - wish.false_alarms)
    unknown = Unknown(measure=measure, threshold=threshold, false_alarms=wish.false_alarms)
    return unknown, values, strange


# --------------------------------------------------------------------------
# All of it


@dataclass(frozen=True, eq=False)
class Fitted:
    """A calibration, with what a picture shows of the images it was made from.

    Attributes:
        values: the arrays that go with it, but for those of the sketch.
        tempered: their probabilities, float32 [N, classes], each image's with the temperature
            that fits the others.
        sizes: of each image's set by the others' thresholds, int64 [N].
    """

    calibration: Calibration
    values: dict[str, np.ndarray]
    sketch: Sketch
    tempered: np.ndarray
    sizes: np.ndarray


def fit(answers: Answers, wish: Wish, made_from: MadeFrom, costs: Costs | None = None) -> Fitted:
    """Calibrate on a network's answers to labelled images.

    Args:
        costs: by which decisions are made, None where there are to be none.

    Raises:
        UserError: there are too few images for what is asked for, or costs of other classes.
    """
    require_enough(answers, wish, made_from.data)
    if costs and len(costs.values) != answers.classes:
        raise UserError(
            f"{costs.source}: has costs of {plural(len(costs.values), 'class')}, and the network "
            f"has {answers.classes:,}"
        )
    if wish.method != "lac":
        answers = answers.ranked()
    apart = tempered_apart(answers)
    temperature = temperature_of(answers, apart)
    if temperature == 1:
        apart = answers.probabilities
    sets = fit_sets(answers, wish)
    unknown, values, strange = fit_unknown(answers, wish)
    expected, sizes = expect(answers, wish, strange)
    expected |= {
        "calibration_error": round(ece(answers.probabilities, answers.labels), 4),
        "calibration_error_after": round(ece(apart, answers.labels), 4),
    }
    if costs:
        values[COSTS] = costs.values
        expected |= expect_costs(apart, answers.labels, costs.values)
    assert answers.looks is not None
    sketch = make_sketch(answers.probabilities, answers.features, answers.looks)
    calibration = Calibration(
        made_from=made_from,
        temperature=temperature,
        sets=sets,
        unknown=unknown,
        expected=expected,
        sketch=sketch.of,
        costs=costs and costs.source,
    )
    return Fitted(calibration, values, sketch, apart, sizes)


def require_enough(answers: Answers, wish: Wish, data: str) -> None:
    """UserError for fewer images than the rates asked for need."""
    count = len(answers)
    needed = max(least_images(wish.coverage), least_images(1 - wish.false_alarms))
    if wish.method == "raps":
        needed = math.ceil(needed / (1 - TUNED))
    if wish.per_class:
        count = int(np.bincount(answers.labels, minlength=answers.classes).max())
    if count < needed:
        where = "the largest class of " if wish.per_class else ""
        raise UserError(
            f"{where}{data}: {plural(count, 'image')}, and a coverage of {wish.coverage:g} with "
            f"false alarms of {wish.false_alarms:g} needs at least {needed:,}; give more images, "
            "or ask for less: --coverage 0.8 --false-alarms 0.2"
        )


def expect(answers: Answers, wish: Wish, strange: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """What to expect of photos like these, by cross-fitting, and the size of each one's set."""
    count = len(answers)
    held = np.zeros(answers.probabilities.shape, bool)
    unknown = np.zeros(count, bool)
    for rest, part in folds(answers):
        held[part] = answers.take(part).held(fit_sets(answers.take(rest), wish))
        unknown[part] = strange[part] > quantile(strange[rest], 1 - wish.false_alarms)
    rows = np.arange(count)
    best = answers.probabilities.argmax(axis=1)
    sizes = held.sum(axis=1)
    sure = ~unknown & (sizes == 1) & held[rows, best]
    right = best == answers.labels
    found = {
        "top1": right.mean(),
        "coverage": held[rows, answers.labels].mean(),
        "classes_in_set": sizes.mean(),
        "sure": sure.mean(),
        "right_where_sure": right[sure].mean() if sure.any() else 0.0,
        "unsure": (~sure & ~unknown).mean(),
        "unknown": unknown.mean(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}, sizes


def expect_costs(apart: np.ndarray, labels: np.ndarray, costs: np.ndarray) -> dict[str, float]:
    """The mean cost of an image by decisions and by the likeliest class, the standard error of
    their difference, and how many are decided otherwise.

    Args:
        apart: probabilities [N, classes], each image's with the temperature that fits the others.
        labels: int64 [N].
        costs: [classes, classes].
    """
    decided, likeliest = cheapest(apart, costs), apart.argmax(axis=1)
    cost, usual = costs[labels, decided], costs[labels, likeliest]
    found = {
        "cost": cost.mean(),
        "cost_of_likeliest": usual.mean(),
        "cost_error": (usual - cost).std() / math.sqrt(len(labels)),
        "decided_otherwise": (decided != likeliest).mean(),
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}

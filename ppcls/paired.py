"""Two classifiers on the same images: whether their scores differ, by how much, and in which class.

What is right with one and wrong with the other decides; images on which both are right, or both
wrong, say nothing of which is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.utils.text import plural

LEVEL = 0.05  # of tests: how often networks that are equally good are called different, at most
RESAMPLES = 2000  # of a bootstrap
Z = 1.959963984540054  # the normal distribution's quantile at 1 - LEVEL / 2


@dataclass(frozen=True)
class Difference:
    """The score of B beside that of A, on the same images.

    Attributes:
        images: how many.
        before, after: the score of A and of B, 0 to 1.
        low, high: the 95 % interval of `after - before`.
        p: how likely as many images or more would change sides by chance alone.
        lost, won: images that are worse with B than with A, and better.
        least: the least difference that could have been seen, with so many that change sides.
    """

    images: int
    before: float
    after: float
    low: float
    high: float
    p: float
    lost: int
    won: int
    least: float

    @classmethod
    def of_answers(cls, before: np.ndarray, after: np.ndarray) -> "Difference":
        """Of what is right, bool [N], with A and with B: McNemar's exact test, Tango's interval."""
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        images = len(before)
        low, high = score_interval(won, lost, images)
        a, b = (float(right.mean()) if images else 0.0 for right in (before, after))
        least = least_seen(lost + won) / max(images, 1)
        return cls(images, a, b, low, high, mcnemar(lost, won), lost, won, least)

    @classmethod
    def of_shares(cls, before: np.ndarray, after: np.ndarray) -> "Difference":
        """Of a score of each image, float [N], with A and with B, such as the share of its labels
        that is right: by the normal distribution of the mean difference.
        """
        change = after.astype(np.float64) - before
        images = len(change)
        mean = float(change.mean())
        error = float(change.std(ddof=1)) / math.sqrt(images) if images > 1 else 1.0
        p = math.erfc(abs(mean) / error / math.sqrt(2)) if error else float(mean == 0)
        low, high = max(mean - Z * error, -1.0), min(mean + Z * error, 1.0)
        lost, won = int((change < 0).sum()), int((change > 0).sum())
        a, b = float(before.mean()), float(after.mean())
        return cls(images, a, b, low, high, p, lost, won, Z * error)

    @classmethod
    def of_f1(cls, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> "Difference":
        """Of F1 over all labels, 0 and 1 [N, classes], by a paired bootstrap: images are drawn anew
        RESAMPLES times, for A and B the same ones (B. Efron, Annals of Statistics 7 (1979), 1-26).
        """
        counts = [hits(labels, given) for given in (before, after)]
        images = len(labels)
        draws = np.random.default_rng(0)
        changes = np.empty(RESAMPLES)
        for number in range(RESAMPLES):
            taken = draws.integers(0, images, images)
            a, b = (f1_of(own[taken]) for own in counts)
            changes[number] = b - a
        low, high = (float(q) for q in np.quantile(changes, (LEVEL / 2, 1 - LEVEL / 2)))
        fewer = 1 + min(int((changes <= 0).sum()), int((changes >= 0).sum()))
        p = min(1.0, 2 * fewer / (RESAMPLES + 1))
        own = [np.array([f1_of(row[None]) for row in count]) for count in counts]
        lost, won = int((own[1] < own[0]).sum()), int((own[1] > own[0]).sum())
        a, b = (f1_of(count) for count in counts)
        return cls(images, a, b, low, high, p, lost, won, (high - low) / 2)

    @property
    def change(self) -> float:
        """What B gains on A; below 0 what it loses."""
        return self.after - self.before

    @property
    def loss(self) -> float:
        """What B loses, as measured: what a budget is held against."""
        return -self.change

    @property
    def is_seen(self) -> bool:
        """Whether A and B differ by more than chance: the test says so, and the interval, too."""
        return self.p < LEVEL and not self.low <= 0 <= self.high

    def interval(self) -> str:
        return f"{points(self.low)} to {points(self.high)} points"

    def words(self, names: tuple[str, str] = ("A", "B")) -> str:
        """Whether B is better, in one sentence."""
        change = f"{abs(100 * self.change):.2g} points"
        if self.is_seen:
            better = "better" if self.change > 0 else "worse"
            return (
                f"{names[1]} is {better} than {names[0]} by {change} (95 % interval "
                f"{self.interval()}, p {chance(self.p)})"
            )
        images = plural(self.images, "image")
        return (
            f"no difference between {names[0]} and {names[1]} can be seen (95 % interval "
            f"{self.interval()}, p {chance(self.p)}): with {images}, one below "
            f"{100 * self.least:.2g} points could not be"
        )

    def to_plain(self) -> dict[str, Any]:
        """For JSON and YAML; shares from 0 to 1."""
        return {
            "images": self.images,
            "score_a": self.before,
            "score_b": self.after,
            "difference": self.change,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "lost": self.lost,
            "won": self.won,
            "different": self.is_seen,
            "least_seen": self.least,
        }


def points(share: float) -> str:
    """A difference of shares in points, with its sign: `+0.3`, `-1.2`."""
    return f"{100 * share:+.2g}" if abs(share) < 0.1 else f"{100 * share:+.1f}"


def chance(p: float) -> str:
    """`0.31`, `0.004`, `below 0.0001`."""
    return f"{p:.2g}" if p >= 1e-4 else "below 0.0001"


def difference_of(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Difference:
    """Of the answers of A and B beside the right ones: classes int64 [N], or 0 and 1 [N, classes],
    of which each image has a share that is right.
    """
    right, again = before == labels, after == labels
    if labels.ndim == 1:
        return Difference.of_answers(right, again)
    return Difference.of_shares(right.mean(axis=1), again.mean(axis=1))


# --------------------------------------------------------------------------- tests, intervals


def mcnemar(lost: int, won: int) -> float:
    """The exact two-sided p of McNemar's test: a fair coin says to which side an image changes.

    Q. McNemar, Psychometrika 12 (1947), 153-157, with the binomial distribution in place of its
    approximation. Where A and B are equally good, p < x comes about in a share x of cases at most.
    """
    return min(1.0, 2 * lower_tail(min(lost, won), lost + won))


def lower_tail(most: int, tosses: int) -> float:
    """How likely a fair coin shows heads at most so often."""
    scale = math.lgamma(tosses + 1) - tosses * math.log(2)
    logs = (scale - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) for k in range(most + 1))
    return math.fsum(map(math.exp, logs))


def least_seen(flips: int) -> int:
    """How many more of the images that change sides must do so in one direction to be seen.

    At least six have to: five on one side are chance with p 0.06.
    """
    flips = max(flips, next(n for n in range(1, 64) if mcnemar(0, n) < LEVEL))
    low, high = 0, flips // 2  # of those on the smaller side: seen with `low`, not with `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if mcnemar(middle, flips - middle) < LEVEL else (low, middle)
    return flips - 2 * low


def score_interval(won: int, lost: int, images: int) -> tuple[float, float]:
    """The 95 % interval of (won - lost) / images, two shares of the same images.

    The differences that a score test does not refuse: T. Tango, Statistics in Medicine 17 (1998),
    891-908. It holds for few images, and says something also where none changed sides.
    """
    if not images:
        return -1.0, 1.0

    def statistic(delta: float) -> float:
        """How many standard errors the measured difference lies above `delta`."""
        b = -won - lost + (2 * images - won + lost) * delta
        c = -lost * delta * (1 - delta)
        likeliest = (math.sqrt(max(b * b - 8 * images * c, 0.0)) - b) / (4 * images)
        variance = images * (2 * likeliest + delta * (1 - delta))
        distance = won - lost - images * delta
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    def bound(target: float) -> float:
        low, high = -1.0, 1.0  # the statistic falls from one to the other
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if statistic(middle) > target else (low, middle)
        return (low + high) / 2

    return bound(Z), bound(-Z)


def holm(chances: Sequence[float]) -> list[float]:
    """The p of several tests, raised so that with all of them together LEVEL still holds.

    S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    raised = [0.0] * len(chances)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - place) * chances[i]))
        raised[i] = largest
    return raised


# --------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class ClassDifference:
    """One class: `whole` on its images alone; `p` is raised for how many classes were tried."""

    number: int
    whole: Difference
    p: float

    @property
    def is_seen(self) -> bool:
        return self.p < LEVEL


def by_class(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, classes: int
) -> list[ClassDifference]:
    """The classes that have images, by number.

    Args:
        labels: int [N], or 0 and 1 [N, classes], of which each class has all images.
        before, after: bool, of the same shape, what is right with A and with B.
    """
    if labels.ndim == 2:
        columns = [(number, before[:, number], after[:, number]) for number in range(classes)]
    else:
        own = ((number, labels == number) for number in range(classes))
        columns = [(number, before[there], after[there]) for number, there in own if there.any()]
    found = [(number, Difference.of_answers(a, b)) for number, a, b in columns]
    raised = holm([whole.p for _, whole in found])
    return [
        ClassDifference(number, whole, p) for (number, whole), p in zip(found, raised, strict=True)
    ]


# --------------------------------------------------------------------------- several labels


def hits(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Of each image the labels that are found, given wrongly and missed, int64 [N, 3]."""
    own, given = labels.astype(bool), decided.astype(bool)
    return np.stack([(own & given).sum(1), (~own & given).sum(1), (own & ~given).sum(1)], axis=1)


def f1_of(counts: np.ndarray) -> float:
    """F1 of counts [N, 3] as `hits` gives them, over all images; 1 with nothing to find."""
    found, wrong, missed = counts.sum(axis=0)
    return float(2 * found / (2 * found + wrong + missed)) if found + wrong + missed else 1.0


# --------------------------------------------------------------------------- outputs


@dataclass(frozen=True)
class Spread:
    """How far outputs lie apart: the largest difference of a number, its image, and the mean."""

    largest: float
    where: int
    mean: float

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> "Spread":
        """Of outputs [N, …] of both; what is no number differs by NaN."""
        apart = np.abs(after.astype(np.float64) - before).reshape(len(before), -1)
        rows = apart.max(axis=1)
        where = int(np.argmax(np.where(np.isnan(rows), np.inf, rows)))
        return cls(float(rows[where]), where, float(apart.mean()))

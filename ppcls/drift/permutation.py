"""Whether two samples of images are alike: an exact test by permutation of which is which.

Where they are alike, all ways to deal the images to the two are equally likely, so the share of
them that lie as far apart as the given one is the chance of that. Four distances are looked at in
the same permutations: of where the features lie (energy distance, which is an MMD: arXiv:0805.2368,
arXiv:1207.6076), of the scores (Anderson and Darling's), of the classes (chi-squared) and of how
the images look (Hotelling's, of normal scores). The alarm is for the smallest of their four
chances, compared with the smallest ones of all permutations (Westfall and Young): so the four
together are wrong as seldom as is asked. Which distance finds which shift: arXiv:1810.11953.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ppcls.drift import PARTS
from ppcls.drift.sketch import FINE, Rows, product
from ppcls.inference.looks import LOOKS

PERMUTATIONS = 1000  # with the one that was found, at least
BEYOND = 10  # permutations that lie beyond an alarm's limit, at least
LANDMARKS = 128
SPREADS = 0.5  # by which the spreads of looks count, beside their means
SEEN = 10  # images of both samples from which a class counts by itself
TOGETHER = 64  # permutations that are worked on at a time, a power of two …
MOST = 1 << 22  # … and images in all of them
FIRST = 4 * TOGETHER  # permutations after which a window that is clearly alike is left
FEWEST = 20  # images of a sample


@dataclass(frozen=True)
class Part:
    """How far apart two samples are in one thing.

    Attributes:
        distance: as many times as alike samples on average; 1 is what chance makes of them.
        p: the chance that alike samples are as far apart.
        surplus: deviations by which they are further apart than alike ones on average.
    """

    name: str
    distance: float
    p: float
    surplus: float


@dataclass(frozen=True)
class Shift:
    """A class whose share is another one.

    Attributes:
        before, after: the shares, 0 to 1.
        deviations: by which it has risen or, below 0, fallen.
    """

    number: int
    before: float
    after: float
    deviations: float


@dataclass(frozen=True)
class Move:
    """One of the LOOKS in the reference and in the window, in its own units.

    Attributes:
        before, after: its means.
        deviations: by which the mean has risen or, below 0, fallen.
        spread_before, spread_after: how far images lie from these means, on average.
        spread_deviations: by which that has risen or fallen.
    """

    name: str
    before: float
    after: float
    deviations: float
    spread_before: float
    spread_after: float
    spread_deviations: float

    @property
    def clearest(self) -> float:
        """Deviations, of the mean or the spread."""
        return max(abs(self.deviations), abs(self.spread_deviations))


@dataclass(frozen=True)
class Verdict:
    """What came of a test.

    Attributes:
        p: the chance that alike images are as far apart in any of the parts.
        parts: the one that moved most first.
        shifts: of the classes, the largest first.
        by_classes: the share of the distance of the features, and of the looks, that goes where the
            classes of the reference are given the shares that they have in the window, 0 to 1.
        scores: the mean score in the reference and in the window.
        looks: the one that moved most clearly first.
    """

    images: int
    reference: int
    false_alarms: float
    p: float
    parts: tuple[Part, ...]
    shifts: tuple[Shift, ...]
    by_classes: dict[str, float]
    scores: tuple[float, float]
    looks: tuple[Move, ...]

    @property
    def alarm(self) -> bool:
        return self.p <= self.false_alarms

    def part(self, name: str) -> Part:
        return next(one for one in self.parts if one.name == name)


def compare(
    reference: Rows,
    window: Rows,
    false_alarms: float,
    between: Callable[[], None] = lambda: None,
) -> Verdict:
    """Hold a window of images against the reference.

    Args:
        false_alarms: the share of windows of alike images that raise an alarm.
        between: is called after each few milliseconds of work.
    """
    sizes = len(reference), len(window)
    several = max(PERMUTATIONS, math.ceil(BEYOND / false_alarms - 1e-9))
    random = np.random.default_rng(zlib.crc32(window.places.tobytes() + window.scores.tobytes()))
    pooled = Pooled.of(reference, window)
    found = np.empty((len(PARTS), several))
    together = TOGETHER
    while together > 1 and together * sum(sizes) > MOST:
        together //= 2
    for start in range(0, several, together):
        count = min(together, several - start)
        dealt = deal(random, count, sizes)
        if start == 0:
            dealt[0] = pooled.own
        found[:, start : start + count] = pooled.distances(dealt)
        between()
        if start + count == FIRST and clearly_alike(found[:, :FIRST], false_alarms):
            several = FIRST
            break
    found = found[:, :several]
    ranks = np.stack([rank(row) for row in found])
    p = ranks[:, 0] / several
    mean = found.mean(axis=1)
    spread = found.std(axis=1)
    spread[spread <= 1e-9 * mean] = np.inf  # all are the same, but for rounding
    surplus = (found[:, 0] - mean) / spread
    times = np.where(mean > 0, found[:, 0] / np.maximum(mean, 1e-300), 1.0)
    measured = zip(PARTS, times.tolist(), p.tolist(), surplus.tolist(), strict=True)
    parts = [Part(*one) for one in measured]
    chances = {one.name: one.p for one in parts}
    explained = {
        name: pooled.by_classes(centred)
        for name, centred in (("features", pooled.features), ("looks", pooled.looks))
    }
    moved = [name for name in explained if chances[name] <= false_alarms]
    # Where other shares of classes are why these moved, they are named first.
    leads = moved and chances["classes"] <= false_alarms
    leads = leads and all(explained[name] > 0.5 for name in moved)
    order = {"classes": 0, "features": 1, "scores": 2, "looks": 3}

    def key(one: Part) -> tuple[float, ...]:
        return (order[one.name] if leads else 0, one.p, -one.surplus)

    return Verdict(
        images=sizes[1],
        reference=sizes[0],
        false_alarms=false_alarms,
        p=float(lowest(ranks) / several),
        parts=tuple(sorted(parts, key=key)),
        shifts=shifts(reference.classes, window.classes),
        by_classes=explained,
        scores=(float(reference.scores.mean()), float(window.scores.mean())),
        looks=moves(reference.looks, window.looks),
    )


@dataclass(frozen=True, eq=False)
class Pooled:
    """The images of both samples, the lowest score first; but for `own` nothing depends on which
    are whose.

    Attributes:
        sizes: of the reference and the window.
        classes: int64 [N].
        features: as `coordinates` gives them, float32 [N, K].
        own: 1 for those of the window, else 0, float32 [N].
        ends: of images of one score, the last.
        weights: of the distance of the two samples at each of these.
        kinds: which class each is of, those of few images together, 0 or 1, float32 [N, C].
        looks: as `normal_scores` gives them, float32 [N, K].
    """

    sizes: tuple[int, int]
    classes: np.ndarray
    features: np.ndarray
    own: np.ndarray
    ends: np.ndarray
    weights: np.ndarray
    kinds: np.ndarray
    looks: np.ndarray

    @classmethod
    def of(cls, reference: Rows, window: Rows) -> "Pooled":
        rows = Rows.joined(reference, window)
        count = len(rows)
        order = np.argsort(rows.scores, kind="stable")
        rows = rows.take(order)
        features = coordinates(rows.places)
        ends = np.flatnonzero(rows.scores[1:] > rows.scores[:-1])
        below = (ends + 1) / count
        weights = (np.diff(ends, prepend=-1) / count / (below * (1 - below))).astype(np.float32)
        _, which, counts = np.unique(rows.classes, return_inverse=True, return_counts=True)
        few = counts < SEEN
        column = np.where(few, 0, np.cumsum(~few))[which]
        kinds = np.zeros((count, int(column.max()) + 1), np.float32)
        kinds[np.arange(count), column] = 1
        own = (order >= len(reference)).astype(np.float32)
        sizes = len(reference), len(window)
        looks = normal_scores(rows.looks)
        return cls(sizes, rows.classes, features, own, ends, weights, kinds, looks)

    def by_classes(self, centred: np.ndarray) -> float:
        """The share of a distance of means that other shares of the classes account for, from 0 to
        1: that which is gone where the reference's images have the window's shares.

        Args:
            centred: `features` or `looks`.
        """
        own = self.own > 0
        before, after = (np.bincount(self.classes, mask) for mask in (~own, own))
        weights = (after / np.maximum(before, 1))[self.classes[~own]]
        if not weights.any():
            return 0.0
        found = []
        for each in (np.ones(len(weights)), weights):
            share = each / each.sum()
            mean = (share[:, None] * centred[~own]).sum(axis=0)
            apart = ((centred[own].mean(axis=0) - mean) ** 2).sum()
            chance = spread_of(centred) * ((share**2).sum() + 1 / own.sum())
            found.append(max(float(apart - chance), 0.0))
        return max(1 - found[1] / found[0], 0.0) if found[0] else 0.0

    def distances(self, dealt: np.ndarray) -> np.ndarray:
        """How far apart the samples are, float64 [parts, count].

        What is counted is exact, and sums are rounded, so that equal ones are equal.

        Args:
            dealt: ways to deal the images: 1 for the window, else 0, float32 [count, N].
        """
        reference, window = self.sizes
        both = 1 / reference + 1 / window
        features, looks = (
            means_apart(dealt, centred, both) for centred in (self.features, self.looks)
        )
        below = np.cumsum(dealt, axis=1)
        below = below[:, :-1] if len(self.ends) == below.shape[1] - 1 else below[:, self.ends]
        apart = below * np.float32(both) - ((self.ends + 1) / reference).astype(np.float32)
        scores = (apart * apart * self.weights).sum(axis=1)
        totals = self.kinds.sum(axis=0, dtype=np.float64)
        apart = product(dealt, self.kinds).astype(np.float64) * both - totals / reference
        classes = (apart**2 / np.maximum(totals, 1)).sum(axis=1)
        return np.stack([features, scores, classes, looks])


def spread_of(centred: np.ndarray) -> float:
    """The variance of rows about 0, over all their coordinates."""
    return float((centred**2).mean(axis=0, dtype=np.float64).sum())


def means_apart(dealt: np.ndarray, centred: np.ndarray, both: float) -> np.ndarray:
    """The squared distance of two samples' means, in 1e-5 of what chance makes of it, [count];
    whole numbers, so that equal ones are equal.

    Args:
        centred: rows about 0, float32 [N, K].
        both: 1 / N of one sample + 1 / N of the other.
    """
    chance = spread_of(centred) * both
    if chance <= 1e-9:
        return np.zeros(len(dealt))
    apart = product(dealt, centred).astype(np.float64) * both
    return np.rint((apart**2).sum(axis=1) / chance * 1e5)


def coordinates(places: np.ndarray) -> np.ndarray:
    """Float32 [N, at most LANDMARKS]: the squares of the differences of their means add up to half
    the energy distance, nearly. They are a Cholesky factor of its kernel, which begins with the
    images that those before tell least of (Fine and Scheinberg, 2001).

    LAPACK's own ways to it take threads from an engine; see `product`.

    Args:
        places: of both samples.
    """
    rows = places.astype(np.float32) / FINE
    lengths = np.sqrt((rows**2).sum(axis=1))
    left = lengths.copy()  # of the kernel's diagonal
    found = np.zeros((min(LANDMARKS, len(rows)), len(rows)), np.float32)
    for step in range(len(found)):
        place = int(left.argmax())
        if left[place] <= 1e-4 * lengths.max() or not left[place]:
            return centered(found[:step].T)
        apart = np.sqrt(((rows - rows[place]) ** 2).sum(axis=1))
        kernel = (lengths + lengths[place] - apart) / 2
        known = np.einsum("kn,k->n", found[:step], found[:step, place])
        found[step] = (kernel - known) / np.sqrt(left[place])
        left = np.maximum(left - found[step] ** 2, 0)
    return centered(found.T)


def normal_scores(looks: np.ndarray) -> np.ndarray:
    """Float32 [N, at most 2 * LOOKS]: each column by its ranks, as if it were normal, and the
    squares of these, so that the squares of the differences of their means add up to how far the
    means of looks are apart (Hotelling's T²), and half of how far their spreads are, but for a
    factor. What does not vary is left out. No image, however odd, counts for much.

    Args:
        looks: of both samples, [N, LOOKS].
    """
    count = len(looks)
    quantiles = np.array([0, *(NormalDist().inv_cdf(i / 2 / count) for i in range(1, 2 * count))])
    columns = []
    for column in looks.T:
        _, which, counts = np.unique(column, return_inverse=True, return_counts=True)
        columns.append(quantiles[(2 * np.cumsum(counts) - counts)[which]])  # the middle of equals
    scores = np.stack(columns, axis=1)
    scores -= scores.mean(axis=0)
    squares = scores**2
    squares -= squares.mean(axis=0)
    found = uncorrelated(scores), math.sqrt(SPREADS) * uncorrelated(squares)
    return np.concatenate(found, axis=1, dtype=np.float32)


def uncorrelated(columns: np.ndarray) -> np.ndarray:
    """Of columns about 0, float64 [N, K], combinations of the variance 1, float32 [N, K or fewer],
    by all in which something varies.
    """
    values, axes = np.linalg.eigh(np.einsum("ni,nj->ij", columns, columns) / len(columns))
    varies = values > 1e-3 * values.max(initial=1e-3)
    white = axes[:, varies] / np.sqrt(values[varies])
    return product(columns.astype(np.float32), white.astype(np.float32))


def centered(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32))


def deal(random: np.random.Generator, count: int, sizes: tuple[int, int]) -> np.ndarray:
    """Ways to deal the images: 1 for the window, else 0, float32 [count, N]."""
    drawn = random.random((count, sum(sizes)))
    limit = np.partition(drawn, sizes[1] - 1, axis=1)[:, sizes[1] - 1 : sizes[1]]
    return (drawn <= limit).astype(np.float32)


def rank(values: np.ndarray) -> np.ndarray:
    """How many are as large as each, with itself, int64 [N]."""
    return len(values) - np.searchsorted(np.sort(values), values, side="left")


def clearly_alike(found: np.ndarray, false_alarms: float) -> bool:
    """Whether more permutations could hardly make an alarm of it any more."""
    ranks = np.stack([rank(row) for row in found])
    return lowest(ranks) / found.shape[1] > 4 * false_alarms + 0.1


def lowest(ranks: np.ndarray) -> int:
    """How many permutations are as far out as the first one, by their least rank; of equal ones
    the next decides.

    Args:
        ranks: int64 [parts, permutations].
    """
    ordered = np.sort(ranks, axis=0)
    base = ranks.shape[1] + 1
    key = ordered[0]
    for row in ordered[1:]:
        key = key * base + row
    return int((key <= key[0]).sum())


def shifts(reference: np.ndarray, window: np.ndarray) -> tuple[Shift, ...]:
    """Of the classes, that of the largest change first, without those of no change."""
    most = int(max(reference.max(), window.max())) + 1
    before, after = (np.bincount(one, minlength=most) for one in (reference, window))
    sizes = len(reference), len(window)
    share = (before + after) / sum(sizes)
    error = np.sqrt(np.maximum(share * (1 - share), 1e-12) * (1 / sizes[0] + 1 / sizes[1]))
    moved = (after / sizes[1] - before / sizes[0]) / error
    found = np.argsort(-np.abs(moved), kind="stable")
    return tuple(
        Shift(int(i), float(before[i] / sizes[0]), float(after[i] / sizes[1]), float(moved[i]))
        for i in found
        if moved[i] and share[i]
    )


def moves(reference: np.ndarray, window: np.ndarray) -> tuple[Move, ...]:
    """Of how images look, the clearest first; the spreads by Levene's test."""
    samples = [one.astype(np.float64) for one in (reference, window)]
    columns = []
    for values in (samples, [np.abs(one - one.mean(axis=0)) for one in samples]):
        before, after = (one.mean(axis=0) for one in values)
        error = np.concatenate(values).std(axis=0) * math.sqrt(sum(1 / len(one) for one in values))
        columns += [before, after, (after - before) / np.maximum(error, 1e-9)]
    found = zip(LOOKS, *(one.tolist() for one in columns), strict=True)
    return tuple(sorted((Move(*one) for one in found), key=lambda one: -one.clearest))


def finds(reference: int, window: int, false_alarms: float) -> tuple[float, float]:
    """What so many images find four times in five: how far the mean of something moves, in
    deviations, and how much the share of a class of half of the images, from 0 to 1.
    """
    normal = NormalDist()
    limit = normal.inv_cdf(1 - false_alarms / (2 * len(PARTS)))
    found = (limit + normal.inv_cdf(0.8)) * math.sqrt(1 / reference + 1 / window)
    return found, found / 2

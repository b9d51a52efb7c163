"""Thresholds above which a class is named, chosen on labelled images by a stated aim."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ppcls.data.class_names import label_numbers
from ppcls.data.lists import column_called, csv_fields, label_mistake
from ppcls.utils.errors import UserError
from ppcls.utils.text import at_most, columns, decimal, first_of, plural, quoted

MIDDLE = 0.5  # the threshold where labelled images say nothing
NEVER = 1.0  # above which no probability is
FEW = 20  # images of a class below which what holds for them may not hold for others
LISTED = 30  # classes that are shown in words
CONFIDENCE = 0.95  # of intervals
KINDS = "f1, precision=0.9, recall=0.9, fpr=0.001 or cost=1:5 (a false alarm : a miss)"
COLUMNS = ("class", "aim")  # of a file of aims …
ENDING = ".csv"  # … whose name ends so, as no aim in words does
REST = "*"  # in the place of a class: those that are not named


@dataclass(frozen=True)
class Aim:
    """What a threshold is to reach.

    Attributes:
        kind: f1: the highest F1. precision: at least `least`, with the highest recall. recall: at
            least `least`, with the highest precision. fpr: `least` at most, with the highest
            recall. cost: the lowest sum of `costs` over the images.
        least: a share, 0 to 1.
        costs: of naming an image that is not of the class, and of not naming one that is.
    """

    kind: Literal["f1", "precision", "recall", "fpr", "cost"]
    least: float = 0.0
    costs: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, text: str, argument: str = "--thresholds", or_else: str = "") -> "Aim":
        """The aim in words, of the argument so called; UserError where it names none.

        Args:
            or_else: what the argument may be besides, for the message.
        """
        kind, _, value = text.partition("=")
        if text == "f1":
            return cls("f1")
        if kind in ("precision", "recall", "fpr"):
            share = decimal(value)
            if share is not None and 0 <= share <= 1 and (share or kind == "fpr"):
                return cls(kind, share)
        if kind == "cost":
            costs = [decimal(part) for part in value.split(":")]
            if len(costs) == 2 and all(c is not None and 0 < c < np.inf for c in costs):
                return cls("cost", costs=(float(costs[0] or 0), float(costs[1] or 0)))
        raise UserError(f"{argument} {quoted(text)}: should be {KINDS}{or_else}")

    def __str__(self) -> str:
        if self.kind == "cost":
            return f"the lowest cost, {self.costs[0]:g} a false alarm and {self.costs[1]:g} a miss"
        if self.kind == "f1":
            return "the highest F1"
        sign = "≤" if self.kind == "fpr" else "≥"
        name = "false positive rate" if self.kind == "fpr" else self.kind
        return f"{name} {sign} {100 * self.least:g} %"


@dataclass(frozen=True)
class Aims:
    """What the thresholds of all classes are to reach.

    Attributes:
        rest: of the classes that are not named.
        rows: of those that are: where that stands, the class, its aim.
        source: the file, or the argument, which names classes and says nothing of the rest, so that
            theirs is the usual aim; "" where `rest` was stated.
    """

    rest: Aim
    rows: tuple[tuple[str, str, Aim], ...] = ()
    source: str = ""

    @classmethod
    def of(
        cls,
        given: str | os.PathLike[str] | Mapping[str, str],
        argument: str = "--thresholds",
    ) -> "Aims":
        """One aim in words for all classes; or for each its own: a CSV file, or a mapping.

        A text that ends in .csv is a file's path, and so is every path that is no text. A file has
        the columns `class` and `aim`; as a class, * is all that are not named, whose aim is f1
        where it is missing.

        Raises:
            UserError: an aim that is none, or a file that cannot be read or is none of aims; up to
                ten mistakes at once.
        """
        if isinstance(given, Mapping):
            source = argument
            rows = [(f"{argument}[{quoted(name)}]:", name, text) for name, text in given.items()]
            mistakes = []
        elif isinstance(given, os.PathLike) or str(given).lower().endswith(ENDING):
            source = os.fspath(given)
            rows, mistakes = aims_in(source)
        else:
            return cls(Aim.of(str(given), argument, ", or a CSV file, class,aim"))
        found = []
        for place, name, text in rows:
            try:
                if name == "":
                    raise UserError(f"{place} no class")
                found.append((place, str(name), Aim.of(str(text), place)))
            except UserError as error:
                mistakes += error.lines
        if mistakes:
            raise UserError(*first_of(mistakes))
        if not found:
            raise UserError(f"{source}: names no class")
        rest = [(place, aim) for place, name, aim in found if name == REST]
        if len(rest) > 1:
            raise UserError(f"{rest[1][0]} {REST} has an aim already ({rest[0][0].rstrip(':')})")
        named = tuple(row for row in found if row[1] != REST)
        return cls(rest[0][1], named) if rest else cls(Aim("f1"), named, source)

    def of_classes(self, names: Sequence[str], first: int = 0) -> tuple[list[Aim], list[str]]:
        """The aim of each class, and those that have the usual one because nobody named them.

        Args:
            names: of all the network's classes.
            first: the first class that has a threshold.

        Raises:
            UserError: a class that there is not, or is named twice; up to ten at once.
        """
        numbers = label_numbers([name for _, name, _ in self.rows], names)
        found: dict[int, tuple[str, Aim]] = {}
        mistakes = []
        for place, name, aim in self.rows:
            number = numbers.get(name, len(names))
            if number >= len(names):
                mistakes.append(f"{place} {label_mistake(name, tuple(names), True)}")
            elif number < first:
                mistakes.append(
                    f"{place} {quoted(name)} has no threshold: of two classes the second, "
                    f"{quoted(names[first])}, has one"
                )
            elif number in found:
                mistakes.append(
                    f"{place} {quoted(name)} has an aim already ({found[number][0].rstrip(':')})"
                )
            else:
                found[number] = place, aim
        if mistakes:
            raise UserError(*first_of(mistakes))
        aims = [found[n][1] if n in found else self.rest for n in range(first, len(names))]
        others = [name for n, name in enumerate(names) if n >= first and n not in found]
        return aims, others if self.source else []


def aims_in(path: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The rows of a file of aims: the place, class and aim of each; and the mistakes."""
    header, table, wrong = csv_fields(path)
    if not header:
        raise UserError(f"{path}: is empty; a first line {','.join(COLUMNS)} is expected")
    name, aim = (column_called(path, header, column) for column in COLUMNS)
    rows = [(f"{path}:{line}:", row[name], row[aim]) for line, row in table]
    return rows, [f"{path}:{line}: {text}" for line, text in wrong]


# --------------------------------------------------------------------------
# What each threshold would do


@dataclass(frozen=True, eq=False)
class Cuts:
    """All the ways in which a threshold divides one class's images, the highest threshold first.

    Attributes:
        thresholds: float64 [cuts], midway between two scores (or the highest and 1, the lowest
            and 0); a score above it means yes.
        taken: int64 [cuts], images above it.
        hits: int64 [cuts], those of them that have the class.
        positives, negatives: images that have the class, and that have not.
    """

    thresholds: np.ndarray
    taken: np.ndarray
    hits: np.ndarray
    positives: int
    negatives: int

    @property
    def f1(self) -> np.ndarray:
        """2 TP / (2 TP + FP + FN), float64 [cuts]; the class has images."""
        return 2 * self.hits / (self.taken + self.positives)

    @property
    def precision(self) -> np.ndarray:
        """The share of what is taken that has the class, float64 [cuts]; 0 of nothing."""
        return self.hits / np.maximum(self.taken, 1)

    @property
    def recall(self) -> np.ndarray:
        """The true positive rate, float64 [cuts]; 0 without positives."""
        return self.hits / max(self.positives, 1)

    @property
    def false_positive_rate(self) -> np.ndarray:
        """The share of images without the class that is taken, float64 [cuts]."""
        return (self.taken - self.hits) / max(self.negatives, 1)


def cuts(scores: np.ndarray, labels: np.ndarray) -> Cuts:
    """Every cut of one class's images.

    Args:
        scores: probabilities [N], N above 0.
        labels: 0 and 1 [N].
    """
    order = np.argsort(-scores, kind="stable")
    values = scores[order].astype(np.float64)
    ends = np.flatnonzero(np.diff(values, append=-1.0))  # the last of equal scores
    bounds = np.concatenate([[1.0], values[ends], [0.0]])
    middles = (bounds[:-1] + bounds[1:]) / 2
    taken = np.append(0, ends + 1)
    hits = np.append(0, np.cumsum(labels[order], dtype=np.int64)[ends])
    kept = slice(None) if values[-1] > 0 else slice(-1)  # nothing is below a score of 0
    positives = int(labels.sum())
    return Cuts(middles[kept], taken[kept], hits[kept], positives, len(labels) - positives)


def best_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each class the threshold whose F1 is highest; a score above it means yes.

    Thresholds lie midway between two scores (or a score and 0), of equal F1 the one nearest to the
    middle of all; 0.5 for a class that all images or none have.

    Args:
        scores: probabilities [N, classes].
        labels: 0 and 1 [N, classes].

    Returns:
        float64 [classes].
    """
    aim = Aim("f1")
    return np.array([chosen(s, y, aim).value for s, y in zip(scores.T, labels.T, strict=True)])


# --------------------------------------------------------------------------
# The one that is chosen


@dataclass(frozen=True)
class Threshold:
    """One class's threshold, and what it does to the images that it was chosen on.

    Attributes:
        aim: what it was chosen by.
        images: that have the class.
        named: that are above the threshold.
        right: that are both.
        reached: whether the aim is; where not, a class that lacks precision is never named, one
            that lacks recall wherever its score is above 0. None where all images have the class or
            none has, which says nothing of the aim, so that the threshold is 0.5.
        best: the highest precision, or recall where that is the aim, that any threshold reaches.
    """

    aim: Aim
    value: float
    images: int
    named: int
    right: int
    reached: bool | None = True
    best: float = 1.0

    @property
    def precision(self) -> float | None:
        """None where nothing is named."""
        return self.right / self.named if self.named else None

    @property
    def recall(self) -> float | None:
        """None where no image has the class."""
        return self.right / self.images if self.images else None


@dataclass(frozen=True)
class Chosen:
    """The thresholds of all classes that have one.

    Attributes:
        data: the images that they were chosen on, in words.
        images: how many those are.
        names: of the classes.
        classes: the threshold of each.
    """

    data: str
    images: int
    names: tuple[str, ...]
    classes: tuple[Threshold, ...]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(one.value for one in self.classes)

    @property
    def one_aim(self) -> bool:
        """Whether all were chosen by the same aim."""
        return len({one.aim for one in self.classes}) == 1

    @property
    def aim(self) -> str:
        """What they were chosen by, in words."""
        return str(self.classes[0].aim) if self.one_aim else "an aim of each class"

    @property
    def few(self) -> list[str]:
        """Names of the classes of which there are too few images to rely on."""
        pairs = zip(self.names, self.classes, strict=True)
        return [name for name, one in pairs if one.images < FEW]

    def to_plain(self) -> dict[str, object]:
        """For a manifest or a report."""
        pairs = list(zip(self.names, self.classes, strict=True))
        return {
            "aim": self.aim,
            **({} if self.one_aim else {"aims": [str(one.aim) for one in self.classes]}),
            "data": self.data,
            "images": self.images,
            "positives": [one.images for one in self.classes],
            "named": [one.named for one in self.classes],
            "right": [one.right for one in self.classes],
            "not_reached": [name for name, one in pairs if one.reached is False],
        }


def choose(
    scores: np.ndarray, labels: np.ndarray, aims: Sequence[Aim], names: Sequence[str], data: str
) -> Chosen:
    """A threshold for each class.

    Args:
        scores: probabilities [N, classes].
        labels: 0 and 1 [N, classes].
        aims, names: one for each class.
        data: what the images are, in words.
    """
    found = tuple(chosen(s, y, a) for s, y, a in zip(scores.T, labels.T, aims, strict=True))
    return Chosen(data, len(labels), tuple(names), found)


def chosen(scores: np.ndarray, labels: np.ndarray, aim: Aim) -> Threshold:
    """One class's threshold; of equally good ones the one nearest to 0.5.

    Args:
        scores: probabilities [N].
        labels: 0 and 1 [N].
    """
    told = ("recall",) if labels.all() else ("precision", "fpr", "cost")
    if (labels.all() or not labels.any()) and aim.kind not in told:
        above = scores > MIDDLE
        right = int((above & (labels == 1)).sum())
        return Threshold(aim, MIDDLE, int(labels.sum()), int(above.sum()), right, None)
    own = cuts(scores, labels)
    able = np.ones(len(own.taken), bool)
    then = np.zeros(len(own.taken))
    small = 1e-9  # what rounding may take from a share
    if aim.kind == "f1":
        first = own.f1
    elif aim.kind == "precision":
        able = (own.taken > 0) & (own.precision >= aim.least - small)
        first, then = own.recall, own.precision
    elif aim.kind == "recall":
        able = own.recall >= aim.least - small
        first, then = own.precision, own.recall
    elif aim.kind == "fpr":
        able = own.false_positive_rate <= aim.least + small
        first, then = own.recall, own.precision
    else:
        alarm, miss = aim.costs
        first = -alarm * (own.taken - own.hits) - miss * (own.positives - own.hits)
    best = float((own.recall if aim.kind == "recall" else own.precision).max())
    reached = bool(able.any())
    if not reached and aim.kind == "precision":
        return Threshold(aim, NEVER, own.positives, 0, 0, False, best)
    if not reached:  # recall, of a class that has scores of 0
        able = own.recall == own.recall.max()
    places = np.flatnonzero(able)
    distance = np.abs(own.thresholds - MIDDLE)
    place = places[np.lexsort((distance[able], -then[able], -first[able]))[0]]
    value, named, right = own.thresholds[place], own.taken[place], own.hits[place]
    return Threshold(aim, float(value), own.positives, int(named), int(right), reached, best)


def interval(hits: int, count: int) -> tuple[float, float]:
    """Where the share lies that gave `hits` of `count`, with 95 % confidence.

    Clopper and Pearson's exact one, 1934; (0, 1) of nothing.
    """
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


# --------------------------------------------------------------------------
# In words


def lines(found: Chosen) -> list[str]:
    """What was chosen, what that reaches, and what it does not."""
    said = [
        f"thresholds for {found.aim}, chosen on {plural(found.images, 'image')} of {found.data}"
    ]
    pairs = list(zip(found.names, found.classes, strict=True))
    heads = ("threshold", "precision", "(95 %)", "recall", "(95 %)", "images")
    rows: list[tuple[str, ...]] = [("class", "aim", *heads)]
    for name, one in pairs[:LISTED]:
        precision, recall = shares(one)
        values = (f"{one.value:.4f}", *precision, *recall, f"{one.images:,}")
        rows.append((name, str(one.aim), *values))
    if found.one_aim:
        rows = [(name, *values) for name, _, *values in rows]
    said += [f"  {line}" for line in columns(rows, (0,) if found.one_aim else (0, 1))]
    if len(pairs) > LISTED:
        said.append(f"  … and {len(pairs) - LISTED:,} more classes: eval --report shows all")
    failed = [(name, one) for name, one in pairs if one.reached is False]
    said += [f"  {name}: {remark(one)}" for name, one in failed[:LISTED]]
    if len(failed) > LISTED:
        said.append(f"  … nor by {len(failed) - LISTED:,} more classes")
    unknown = [name for name, one in pairs if one.reached is None]
    if unknown:
        said.append(f"  all images have it or none has, so {MIDDLE:g}: {at_most(unknown)}")
    few = [name for name in found.few if name not in unknown]
    if few:
        many = plural(len(few), "class has", "classes have")
        said.append(
            f"note: {many} fewer than {FEW} images, which is few to choose a threshold on: "
            f"{at_most(few)}"
        )
    return said


def shares(one: Threshold) -> tuple[tuple[str, str], tuple[str, str]]:
    """Precision and recall, each with its interval, in words."""
    found = []
    for value, count in ((one.precision, one.named), (one.recall, one.images)):
        if value is None:
            found.append(("-", ""))
        else:
            low, high = interval(one.right, count)
            found.append((f"{100 * value:.1f} %", f"{100 * low:.1f}-{100 * high:.1f}"))
    return found[0], found[1]


def remark(one: Threshold) -> str:
    """What is to be known of a class's threshold, "" for nothing."""
    if one.reached is False:
        then = "it is never named" if one.value == NEVER else "it has the lowest threshold"
        return f"{one.aim} is not reached ({100 * one.best:.1f} % at most), so {then}"
    if one.reached is None:
        return "all images have it" if one.images else "no image has it"
    return f"fewer than {FEW} images" if one.images < FEW else ""

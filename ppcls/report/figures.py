"""The figures of a report, from what a network said of each photo."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls.report.outcomes import Outcomes

BINS = 15
PAIRS, WORST = 20, 24  # how many confused pairs and mistakes are shown


@dataclass(frozen=True)
class ClassFigures:
    """One class; precision, recall and F1 are None where it has no photos."""

    number: int
    name: str
    photos: int
    predicted: int  # photos taken for it, rightly or not
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Bin:
    """Photos whose confidence lies in (low, high]; the means are None where there are none."""

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Pair:
    """Photos of class `true` that were taken for class `predicted`."""

    true: int
    predicted: int
    photos: int


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that a report says.

    Attributes:
        about: model, weights and data, in words.
        scores: top-k accuracies and loss as evaluation prints them.
        names: one for each class, no two alike.
        averages: "macro" (each class with photos counts alike) and "weighted" (by its photos),
            each precision, recall and f1.
        confusion: int64 [classes, classes], photos by true class (rows) and predicted one.
        pairs: the most confused ones, most photos first.
        worst: indices of mistakes, those with the highest probability first.
        ece: expected calibration error, 0 to 1.
    """

    about: dict[str, str]
    scores: dict[str, float]
    names: tuple[str, ...]
    outcomes: Outcomes
    classes: list[ClassFigures]
    averages: dict[str, dict[str, float]]
    confusion: np.ndarray
    pairs: list[Pair]
    worst: list[int]
    ece: float
    bins: list[Bin]


def make(
    about: dict[str, str],
    scores: dict[str, float],
    names: Sequence[str],
    outcomes: Outcomes,
) -> Report:
    """The report on an evaluation; `names` () when unknown."""
    shown = distinct(names or [str(number) for number in range(outcomes.classes)])
    matrix = confusion(outcomes)
    classes, averages = by_class(outcomes, shown, matrix)
    ece, bins = calibration(outcomes.confidences, outcomes.right)
    return Report(
        about,
        scores,
        shown,
        outcomes,
        classes,
        averages,
        matrix,
        confused(matrix),
        worst(outcomes),
        ece,
        bins,
    )


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with the class's number after each that occurs twice."""
    uses = Counter(names)
    return tuple(f"{name} ({i})" if uses[name] > 1 else name for i, name in enumerate(names))


def confusion(outcomes: Outcomes) -> np.ndarray:
    """int64 [classes, classes]: photos by true class (rows) and predicted class (columns)."""
    count = outcomes.classes  # scikit-learn's own would warn of a single class
    cells = outcomes.labels * count + outcomes.predicted
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def by_class(
    outcomes: Outcomes, names: Sequence[str], matrix: np.ndarray
) -> tuple[list[ClassFigures], dict[str, dict[str, float]]]:
    """Each class's figures, and their averages over the classes that have photos.

    A class that has photos and is never predicted has precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    photos, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    filled = np.flatnonzero(photos)
    given = {"y_true": outcomes.labels, "y_pred": outcomes.predicted, "labels": filled}
    columns = precision_recall_fscore_support(**given, zero_division=0)[:3]  # type: ignore
    figures = dict(zip(filled.tolist(), np.transpose(columns).tolist(), strict=True))
    classes = [
        ClassFigures(
            number,
            name,
            int(photos[number]),
            int(predicted[number]),
            *figures.get(number, [None] * 3),
        )
        for number, name in enumerate(names)
    ]
    averages = {}
    for kind in ("macro", "weighted"):
        values = precision_recall_fscore_support(**given, average=kind, zero_division=0)[:3]  # type: ignore
        averages[kind] = dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
    return classes, averages


def confused(matrix: np.ndarray) -> list[Pair]:
    """The PAIRS pairs of classes with most photos taken for the other; of equal ones, by share."""
    true, predicted = np.nonzero(matrix * ~np.eye(len(matrix), dtype=bool))
    photos = matrix[true, predicted]
    shares = photos / matrix.sum(axis=1)[true]
    order = np.lexsort((-shares, -photos))[:PAIRS]
    return [Pair(int(true[i]), int(predicted[i]), int(photos[i])) for i in order]


def worst(outcomes: Outcomes) -> list[int]:
    """Indices of the WORST mistakes with the highest probability; of equal ones, by their loss."""
    mistakes = np.flatnonzero(~outcomes.right)
    keys = (-outcomes.losses[mistakes], -outcomes.confidences[mistakes])
    return mistakes[np.lexsort(keys)][:WORST].tolist()


def calibration(confidences: np.ndarray, right: np.ndarray) -> tuple[float, list[Bin]]:
    """Expected calibration error over BINS bins of equal width (arXiv:1706.04599), and the bins.

    The mean over the photos of |accuracy - mean confidence| of each one's bin; bin m of M holds
    the confidences in ((m - 1) / M, m / M].

    Args:
        confidences: float [N], the probability of the predicted class.
        right: bool [N].
    """
    confidences = confidences.astype(np.float64)
    edges = np.arange(BINS + 1) / BINS
    own = np.digitize(confidences, edges[1:-1], right=True)
    bins, ece = [], 0.0
    for index in range(BINS):
        inside = own == index
        photos = int(inside.sum())
        confidence = float(confidences[inside].mean()) if photos else None
        accuracy = float(right[inside].mean()) if photos else None
        if confidence is not None and accuracy is not None:
            ece += abs(accuracy - confidence) * photos / len(right)
        bins.append(Bin(float(edges[index]), float(edges[index + 1]), photos, confidence, accuracy))
    return ece, bins

"""What a network said of each image, and the figures made of that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls import metrics
from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset
from ppcls.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One network's answers, in the order of the images.

    Attributes:
        samples: the images.
        probabilities: float32 [N, classes], softmax of the logits.
        predicted: int64 [N]; where the label ties with another class, that one, as top-1 counts.
        ranks: int64 [N], the label's place among the classes, from 1; a tie counts against it.
        losses: float64 [N], cross entropy in nats.
    """

    samples: Dataset
    probabilities: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray

    @classmethod
    def to_fill(cls, samples: Dataset, classes: int) -> "Outcomes":
        """Room for the answers to these images, each of which is then to be added."""
        count = len(samples)
        probabilities = np.full((count, classes), np.nan, np.float32)
        numbers = np.zeros(count, np.int64)
        return cls(samples, probabilities, numbers, numbers.copy(), np.full(count, np.nan))

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Keep the answers to one batch: float32 [N, classes].

        Raises:
            UserError: logits that are no numbers, of which there is nothing to report.
        """
        require_finite(self.samples, batch, logits)
        own = batch.labels
        rows = np.arange(len(batch.labels))
        values = logits.astype(np.float64)
        values -= values.max(axis=1, keepdims=True)
        total = np.exp(values).sum(axis=1)
        ranks = 1 + metrics.rivals(logits, own)
        others = logits.copy()
        others[rows, own] = -np.inf
        self.probabilities[batch.indices] = np.exp(values) / total[:, None]
        self.predicted[batch.indices] = np.where(ranks == 1, own, others.argmax(axis=1))
        self.ranks[batch.indices] = ranks
        self.losses[batch.indices] = np.log(total) - values[rows, own]

    def filled(self) -> "Outcomes":
        """Without the images to which no answer was added, since they cannot be read."""
        there = np.flatnonzero(~np.isnan(self.losses))
        arrays = (self.probabilities, self.predicted, self.ranks, self.losses)
        return Outcomes(self.samples.subset(there), *(array[there] for array in arrays))

    @property
    def labels(self) -> np.ndarray:
        """int64 [N], the true classes."""
        return self.samples.labels

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    @property
    def right(self) -> np.ndarray:
        """bool [N]: where the predicted class is the true one."""
        return self.predicted == self.labels

    @property
    def confidences(self) -> np.ndarray:
        """float32 [N]: the probability of the predicted class."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted]


def require_finite(samples: Dataset, batch: Batch, logits: np.ndarray) -> None:
    """UserError for the first image whose logits are no numbers."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        place = samples.where(int(batch.indices[broken[0]]))
        raise UserError(f"{place}: the network's logits are not finite; mend its weights")


# --------------------------------------------------------------------------
# The figures of a report, from what a network said of each image

BINS = 15
RATE = 1e-3  # of false positives, at which recall is told as well
# how many confused pairs and mistakes are shown
PAIRS = 20
WORST = 24


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Attributes:
        precision, recall, f1: None where it has no images.
        tpr_at_fpr: recall where its score is so high that at most a share RATE of the other images
            is taken; None where all images have it or none has.
    """

    number: int
    name: str
    photos: int
    predicted: int  # images taken for it, rightly or not
    precision: float | None
    recall: float | None
    f1: float | None
    tpr_at_fpr: float | None


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in (low, high]; the means are None where there are none."""

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Pair:
    """Images of class `true` that were taken for class `predicted`."""

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
        averages: "macro" (each class with images counts alike) and "weighted" (by its images),
            each precision, recall and f1.
        confusion: int64 [classes, classes], images by true class (rows) and predicted one.
        pairs: the most confused ones, most images first.
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
    """int64 [classes, classes]: images by true class (rows) and predicted class (columns)."""
    count = outcomes.classes  # scikit-learn's own would warn of a single class
    cells = outcomes.labels * count + outcomes.predicted
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def by_class(
    outcomes: Outcomes, names: Sequence[str], matrix: np.ndarray
) -> tuple[list[ClassFigures], dict[str, dict[str, float]]]:
    """Each class's figures, and their averages over the classes that have images.

    A class that has images and is never predicted has precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    photos = matrix.sum(axis=1)
    predicted = matrix.sum(axis=0)
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
            tpr_at_fpr=known(metrics.tpr_at_fpr(scores, outcomes.labels == number, RATE)),
        )
        for number, (name, scores) in enumerate(zip(names, outcomes.probabilities.T, strict=True))
    ]
    averages = {}
    for kind in ("macro", "weighted"):
        values = precision_recall_fscore_support(**given, average=kind, zero_division=0)[:3]  # type: ignore
        averages[kind] = dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
    return classes, averages


def known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def confused(matrix: np.ndarray) -> list[Pair]:
    """The PAIRS pairs of classes with most images taken for the other; of equal ones, by share."""
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

    The mean over the images of |accuracy - mean confidence| of each one's bin; bin m of M holds
    the confidences in ((m - 1) / M, m / M].

    Args:
        confidences: float [N], the probability of the predicted class.
        right: bool [N].
    """
    confidences = confidences.astype(np.float64)
    own = bin_of(confidences)
    edges = np.arange(BINS + 1) / BINS
    bins = []
    for index in range(BINS):
        inside = own == index
        photos = int(inside.sum())
        confidence = float(confidences[inside].mean()) if photos else None
        accuracy = float(right[inside].mean()) if photos else None
        bins.append(Bin(float(edges[index]), float(edges[index + 1]), photos, confidence, accuracy))
    return float(calibration_parts(confidences, right).mean()), bins


def calibration_parts(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What each image adds to the expected calibration error, which is their mean, float64 [N].

    That is how much surer the network is of it than right, or less sure where its whole bin is;
    arguments as of `calibration`.
    """
    gap = confidences.astype(np.float64) - right
    own = bin_of(confidences.astype(np.float64))
    return np.sign(np.bincount(own, gap, BINS))[own] * gap


def bin_of(confidences: np.ndarray) -> np.ndarray:
    """The number of each confidence's bin, from 0, int64 [N]."""
    return np.digitize(confidences, np.arange(1, BINS) / BINS, right=True)

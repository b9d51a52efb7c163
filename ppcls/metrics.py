"""Scores of a classifier, and the meters that add them up over batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ppcls.thresholds import best_thresholds, cuts

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


Score = Literal["top1", "top5", "map", "f1", "loss"]


def goodness(scores: Mapping[str, float], name: Score) -> float:
    """A score so that higher is better."""
    return -scores[name] if name == "loss" else scores[name]


def correct(logits: np.ndarray, labels: np.ndarray, k: int) -> int:
    """How many rows have their label among the k highest logits; a tie counts against the label.

    Args:
        logits: float [N, classes].
        labels: int [N].
    """
    return int((rivals(logits, labels) < k).sum())


def rivals(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many other classes are not below each row's label, int64 [N]; NaN is never below."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return (~(logits < own)).sum(axis=1) - 1


def ranks(num_classes: int) -> tuple[int, ...]:
    """The k of the top-k accuracies that mean something for this many classes."""
    return tuple(k for k in (1, 5) if k < num_classes) or (1,)


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class the area under precision over recall, as the sum of steps; NaN without images.

    Args:
        scores: float [N, classes], higher for likelier.
        labels: 0 and 1 [N, classes].

    Returns:
        float64 [classes].
    """
    from sklearn.metrics import average_precision_score

    pairs = zip(scores.T, labels.T, strict=True)
    return np.array([average_precision_score(y, s) if y.any() else np.nan for s, y in pairs])


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """mAP: the mean of `average_precisions` over the classes that have images; NaN for none."""
    return mean_of(average_precisions(scores, labels))


def f1(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0; both 0 and 1 [N, classes]."""
    hits = (decisions & (labels == 1)).sum(axis=0)
    marked = decisions.sum(axis=0) + labels.sum(axis=0, dtype=np.int64)
    return 2 * hits / np.maximum(marked, 1)


def tpr_at_fpr(scores: np.ndarray, labels: np.ndarray, most: float) -> float:
    """Recall at the threshold that takes at most a share `most` of the images without the class.

    NaN where all images have the class or none has. Of fewer than 1 / `most` images without it,
    none is taken.

    Args:
        scores: [N], higher for likelier.
        labels: 0 and 1 [N].
    """
    if labels.all() or not labels.any():
        return float("nan")
    own = cuts(scores, labels)
    return float(own.recall[own.false_positive_rate <= most].max())


def mean_accuracies(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each attribute the mean of true positive and true negative rate; mA is their mean.

    As in the literature of pedestrian attributes (arXiv:1603.07054). NaN for an attribute that all
    images have or none has, where PaddleClas counts the missing rate as 0.

    Args:
        decisions: bool [N, classes].
        labels: 0 and 1 [N, classes].

    Returns:
        float64 [classes].
    """
    has = labels == 1
    found = (decisions & has).sum(axis=0)
    passed = (~decisions & ~has).sum(axis=0)
    positives = has.sum(axis=0)
    negatives = len(labels) - positives
    with np.errstate(invalid="ignore"):
        return (found / positives + passed / negatives) / 2


def attributes(decisions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of attribute recognition (arXiv:1603.07054), as PaddleClas's ATTRMetric has them.

    "ma" is the mean of `mean_accuracies`. The others are of an image's attributes: "accuracy" is
    the mean over the images of |found and there| / |found or there|, "precision" of / |found|,
    "recall" of / |there|, each 0 where that is 0 / 0; "f1" is the harmonic mean of the latter two.

    Args:
        decisions: bool [N, classes].
        labels: 0 and 1 [N, classes].
    """
    has = labels == 1
    both = (decisions & has).sum(axis=1)
    either = (decisions | has).sum(axis=1)
    precision, recall, accuracy = (
        float((both / np.maximum(count, 1)).mean())
        for count in (decisions.sum(axis=1), has.sum(axis=1), either)
    )
    return {
        "ma": mean_of(mean_accuracies(decisions, labels)),
        "accuracy": accuracy,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / ((precision + recall) or 1.0),
    }


def mean_of(values: np.ndarray) -> float:
    """The mean of those that are numbers; NaN for none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference over that of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# --------------------------------------------------------------------------
# What evaluation adds up over the batches, by the kind of task


class Meter(Protocol):
    """Takes in batches, then gives the scores; `parts` is what it keeps of each batch, in order."""

    parts: list[Any]

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        """Float32 logits [N, classes] and the labels of a batch."""

    def scores(self) -> dict[str, float]:
        """By name; "loss" is among them."""
        ...

    def thresholds(self) -> list[float]:
        """Of each class the probability above which an image has it; [] where one class wins."""
        ...


class TopKMeter:
    """Top-k accuracies and mean cross entropy."""

    def __init__(self, classes: int):
        self.ranks = ranks(classes)
        self.parts: list[tuple[list[int], float, int]] = []  # right by rank, loss, images

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        import paddle
        from paddle.nn import functional as F

        loss = float(F.cross_entropy(logits, paddle.to_tensor(labels), reduction="sum"))
        above = rivals(logits.numpy(), labels)
        right = [int((above < k).sum()) for k in self.ranks]
        self.parts.append((right, loss, len(labels)))

    def scores(self) -> dict[str, float]:
        rights, losses, counts = zip(*self.parts, strict=True)
        count = sum(counts)
        totals = np.sum(rights, axis=0).tolist()
        shares = {f"top{k}": right / count for k, right in zip(self.ranks, totals, strict=True)}
        return shares | {"loss": sum(losses) / count}

    def thresholds(self) -> list[float]:
        return []

    @staticmethod
    def score_names(classes: int) -> list[str]:
        """The names of the scores for so many classes."""
        return [*(f"top{k}" for k in ranks(classes)), "loss"]

    @staticmethod
    def right(logits: Tensor, targets: Tensor) -> Tensor:
        """Which images are right, bool [N], as `correct` counts them.

        A mixed one, shares [N, classes], is judged by its largest share.
        """
        import paddle

        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        own = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1)
        return (logits < own).logical_not().sum(axis=1) == 1  # none but the label's own


class MultiLabelMeter:
    """Mean average precision, macro F1 at the thresholds, and mean binary cross entropy.

    `given`: thresholds of the classes; (): those with the best F1 on these very images.
    """

    def __init__(self, given: Sequence[float] = ()):
        self.given = list(given)
        self.parts: list[tuple[np.ndarray, np.ndarray, float]] = []  # probabilities, labels, loss

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        import paddle
        from paddle.nn import functional as F

        targets = paddle.to_tensor(labels).astype(logits.dtype)
        terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss = float(terms.mean(axis=1).sum())
        self.parts.append((F.sigmoid(logits).numpy(), labels, loss))

    def scores(self) -> dict[str, float]:
        probabilities, labels = self.joined()
        decisions = probabilities > np.array(self.thresholds())
        return {
            "map": mean_average_precision(probabilities, labels),
            "f1": float(f1(decisions, labels).mean()),
            "loss": sum(loss for _, _, loss in self.parts) / len(labels),
        }

    def thresholds(self) -> list[float]:
        return self.given or best_thresholds(*self.joined()).tolist()

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and labels [N, classes] of all batches."""
        probabilities, labels, _ = zip(*self.parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(labels)

    @staticmethod
    def score_names() -> list[str]:
        """The names of the scores."""
        return ["map", "f1", "loss"]

    @staticmethod
    def right(logits: Tensor, targets: Tensor) -> Tensor:
        """Of each image the share of its labels that are right, float64 [N]."""
        wanted = targets.astype(logits.dtype) > 0.5
        return ((logits > 0) == wanted).astype("float64").mean(axis=1)

"""Scores of a classifier, and the meters that add them up over batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        return float(np.nanmean(average_precisions(scores, labels)))


def f1(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0; both 0 and 1 [N, classes]."""
    hits = (decisions & (labels == 1)).sum(axis=0)
    marked = decisions.sum(axis=0) + labels.sum(axis=0, dtype=np.int64)
    return 2 * hits / np.maximum(marked, 1)


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
    return np.array([best_threshold(s, y) for s, y in zip(scores.T, labels.T, strict=True)])


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    if labels.all() or not labels.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order].astype(np.float64)
    ends = np.flatnonzero(np.diff(sorted_scores, append=-1.0))  # the last of equal scores
    taken = ends + 1
    hits = np.cumsum(labels[order], dtype=np.int64)[ends]
    values = 2 * hits / (taken + int(labels.sum()))
    after = np.append(sorted_scores[ends[1:]], 0.0)
    middles = (sorted_scores[ends] + after) / 2
    best = middles[values >= values.max()]
    return float(best[np.abs(best - 0.5).argmin()])


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

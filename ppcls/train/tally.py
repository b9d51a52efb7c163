"""What evaluation adds up over the batches, by the kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ppcls import metrics

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


class Tally(Protocol):
    """Takes in batches, then gives the scores; `parts` is what it keeps of each batch, in order."""

    parts: list[Any]

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        """Float32 logits [N, classes] and the labels of a batch."""

    def scores(self) -> dict[str, float]:
        """By name; "loss" is among them."""
        ...

    def thresholds(self) -> list[float]:
        """Of each class the probability above which a photo has it; [] where one class wins."""
        ...


class OneLabel:
    """Top-k accuracies and mean cross entropy."""

    def __init__(self, classes: int):
        self.ranks = metrics.ranks(classes)
        self.parts: list[tuple[list[int], float, int]] = []  # right by rank, loss, photos

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        import paddle
        from paddle.nn import functional as F

        loss = float(F.cross_entropy(logits, paddle.to_tensor(labels), reduction="sum"))
        above = metrics.rivals(logits.numpy(), labels)
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
    def scored(classes: int) -> list[str]:
        """The names of the scores for so many classes."""
        return [*(f"top{k}" for k in metrics.ranks(classes)), "loss"]

    @staticmethod
    def right(logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right; a mixed one, shares [N, classes], by its largest share."""
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        return metrics.correct(logits, labels, 1)


class ManyLabels:
    """Mean average precision, macro F1 at the thresholds, and mean binary cross entropy.

    `given`: thresholds of the classes; (): those with the best F1 on these very photos.
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
            "map": metrics.mean_average_precision(probabilities, labels),
            "f1": float(metrics.f1(decisions, labels).mean()),
            "loss": sum(loss for _, _, loss in self.parts) / len(labels),
        }

    def thresholds(self) -> list[float]:
        return self.given or metrics.best_thresholds(*self.joined()).tolist()

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and labels [N, classes] of all batches."""
        probabilities, labels, _ = zip(*self.parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(labels)

    @staticmethod
    def scored() -> list[str]:
        """The names of the scores."""
        return ["map", "f1", "loss"]

    @staticmethod
    def right(logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right, each by the share of its labels that are."""
        return float(((logits > 0) == (targets > 0.5)).mean(axis=1).sum())

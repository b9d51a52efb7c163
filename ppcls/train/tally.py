"""What evaluation adds up over the batches, by the kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ppcls import metrics

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


class Tally(Protocol):
    """Takes in batches, then gives the scores."""

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
        self.right, self.loss, self.count = dict.fromkeys(metrics.ranks(classes), 0), 0.0, 0

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        import paddle
        from paddle.nn import functional as F

        self.loss += float(F.cross_entropy(logits, paddle.to_tensor(labels), reduction="sum"))
        for k in self.right:
            self.right[k] += metrics.correct(logits.numpy(), labels, k)
        self.count += len(labels)

    def scores(self) -> dict[str, float]:
        shares = {f"top{k}": right / self.count for k, right in self.right.items()}
        return shares | {"loss": self.loss / self.count}

    def thresholds(self) -> list[float]:
        return []


class ManyLabels:
    """Mean average precision, macro F1 at the thresholds, and mean binary cross entropy.

    `given`: thresholds of the classes; (): those with the best F1 on these very photos.
    """

    def __init__(self, given: Sequence[float] = ()):
        self.given, self.loss, self.count = list(given), 0.0, 0
        self.probabilities: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def add(self, logits: Tensor, labels: np.ndarray) -> None:
        import paddle
        from paddle.nn import functional as F

        targets = paddle.to_tensor(labels).astype(logits.dtype)
        terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        self.loss += float(terms.mean(axis=1).sum())
        self.count += len(labels)
        self.probabilities.append(F.sigmoid(logits).numpy())
        self.labels.append(labels)

    def scores(self) -> dict[str, float]:
        probabilities, labels = np.concatenate(self.probabilities), np.concatenate(self.labels)
        decisions = probabilities > np.array(self.thresholds())
        return {
            "map": metrics.mean_average_precision(probabilities, labels),
            "f1": float(metrics.f1(decisions, labels).mean()),
            "loss": self.loss / self.count,
        }

    def thresholds(self) -> list[float]:
        probabilities, labels = np.concatenate(self.probabilities), np.concatenate(self.labels)
        return self.given or metrics.best_thresholds(probabilities, labels).tolist()

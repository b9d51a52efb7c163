"""Scores of a classifier."""

import numpy as np


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

"""Scores of a classifier."""

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np

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
    """Of each class the area under precision over recall, as the sum of steps; NaN without photos.

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
    """mAP: the mean of `average_precisions` over the classes that have photos; NaN for none."""
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
    middle of all; 0.5 for a class that all photos or none have.

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

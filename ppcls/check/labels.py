"""Confident learning: which labels are likely wrong, by scores learnt from other images.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(arXiv:1911.00068), says how images are ranked and which classes are mixed up. How many of those
that rank first are wrong, a mixture of two kinds of labels says, as the false discovery rate of
many tests is found (Storey, 2002): a label that is wrong has the score of any other label of its
image. Numbers in, numbers out.
"""

from dataclasses import dataclass

import numpy as np

WRONG = 0.4  # probability from which a label is said to be likely wrong
AMBIGUOUS = 0.1  # … and from which it is said to be in doubt
FIRST = (2, 10)  # images at the least, a hundredth of all, by which the share is estimated
SAME = 0.35  # share of two classes that is taken for the other, from which they may be one
LEAST = 5  # images that a class needs for that


@dataclass(frozen=True)
class Issues:
    """What is found among N images.

    Attributes:
        wrong: int64 [n], images whose label is likely wrong, the likeliest first.
        ambiguous: int64 [m], further images whose label is in doubt, so ordered, too.
        doubt: float64 [N], the probability that the label is wrong; NaN: not judged.
        suggested: int64 [N], the likeliest other class; -1: not judged.
        share: of all labels that is wrong, as estimated.
        same: pairs of classes that may be one, and the share of their images on the other's side.
    """

    wrong: np.ndarray
    ambiguous: np.ndarray
    doubt: np.ndarray
    suggested: np.ndarray
    share: float
    same: list[tuple[int, int, float]]


def find_issues(scores: np.ndarray, labels: np.ndarray) -> Issues:
    """Judge labels by scores.

    Args:
        scores: probabilities [N, classes] of what has not learnt from the image; rows of NaN for
            images that are not judged.
        labels: int64 [N], as given.
    """
    known = np.flatnonzero(np.isfinite(scores).all(axis=1))
    doubt = np.full(len(labels), np.nan)
    suggested = np.full(len(labels), -1, np.int64)
    if len(known) < FIRST[0] or scores.shape[1] < 2:
        return Issues(known[:0], known[:0], doubt, suggested, 0.0, [])
    judged = scores[known].astype(np.float64)
    given = labels[known]
    doubt[known], share = wrong_probability(judged, given)
    rows = np.arange(len(known))
    own = judged[rows, given]
    others = judged.copy()
    others[rows, given] = -1
    suggested[known] = others.argmax(axis=1)
    order = known[np.lexsort((own, -doubt[known]))]
    wrong = order[doubt[order] >= WRONG]
    ambiguous = order[(doubt[order] < WRONG) & (doubt[order] >= AMBIGUOUS)]
    return Issues(wrong, ambiguous, doubt, suggested, share, same_classes(judged, given))


def wrong_probability(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """The probability that each label is wrong, float64 [N], and the share of those that are.

    Labels are ranked by their scores (self-confidence). A wrong one is any other label of its
    image, so the scores of all other labels say how often a wrong one's is so low. Where scores
    are lowest nearly all labels are wrong, which gives the share; further up right ones mix with
    them, and how the densities of both kinds compare there is the probability. A label that is the
    likeliest is not in doubt.
    """
    from sklearn.isotonic import IsotonicRegression

    count, classes = scores.shape
    own = scores[np.arange(count), labels]
    order = np.argsort(own, kind="stable")
    is_other = np.ones(scores.shape, bool)
    is_other[np.arange(count), labels] = False
    places = np.searchsorted(own[order], scores[is_other]).clip(max=count - 1)
    # Between one label's score and the next, how many a wrong label for each image would have.
    others = np.bincount(places, minlength=count) / (classes - 1)
    ranks = np.arange(1, count + 1)
    first = int(np.clip(count // 100, *FIRST))
    share = (ranks / np.maximum(np.cumsum(others), 1e-9))[first - 1 :].min()
    # The probability falls as scores rise.
    density = IsotonicRegression(increasing=False).fit_transform(ranks, others)
    doubt = np.empty(count)
    doubt[order] = np.minimum(1, share * density)
    doubt[own >= scores.max(axis=1)] = 0
    return doubt, float(min(1, share))


def thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean score of each class on the images labelled so, float64 [classes] (equation 2).

    From there on an image is surely of the class; NaN for classes without images.
    """
    classes = scores.shape[1]
    own = scores[np.arange(len(labels)), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, minlength=classes)
    return np.divide(sums, counts, out=np.full(classes, np.nan), where=counts > 0)


def confident_joint(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each label are surely of each class, int64 [labels, classes] (equation 1).

    Of several classes that an image is surely of, the likeliest counts.
    """
    classes = scores.shape[1]
    sure = scores >= np.nan_to_num(thresholds(scores, labels), nan=np.inf)
    best = np.where(sure, scores, -1).argmax(axis=1)
    some = sure.any(axis=1)
    cells = labels[some] * classes + best[some]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def same_classes(scores: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of classes whose images are surely of the other one about as often as not.

    Of one class that got two names, half are; the share is the mean of both rows of the confident
    joint, so that the sizes of the classes do not count.
    """
    joint = confident_joint(scores, labels)
    rows = joint.sum(axis=1, keepdims=True)
    crossed = joint / np.maximum(rows, 1)
    both = (crossed + crossed.T) / 2
    few = rows[:, 0] < LEAST
    both[few] = 0
    both[:, few] = 0
    pairs = np.argwhere(np.triu(both >= SAME, 1))
    found = [(int(one), int(other), float(both[one, other])) for one, other in pairs]
    return sorted(found, key=lambda pair: -pair[2])

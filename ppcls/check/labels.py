"""Confident learning: which labels are likely wrong, by scores learnt from other images.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(arXiv:1911.00068): how often images of one class are surely of another tells how noisy the labels
are; with that, Bayes' rule says of each image how likely its label is wrong. Numbers in, numbers
out.
"""

from dataclasses import dataclass

import numpy as np

WRONG = 0.5  # probability from which a label is said to be likely wrong
AMBIGUOUS = 0.1  # … and from which it is said to be in doubt
SAME = 0.35  # share of two classes that is taken for the other, from which they may be one
LEAST = 5  # images that a class needs for that
ROUNDS = 30  # in which probabilities and noise settle
FAINT = 1e-3  # images: no noise is impossible


@dataclass(frozen=True)
class Issues:
    """What is found among N images.

    Attributes:
        wrong: int64 [n], images whose label is likely wrong, the likeliest first.
        ambiguous: int64 [m], further images whose label is in doubt, so ordered, too.
        doubt: float64 [N], the probability that the label is wrong; NaN: not judged.
        suggested: int64 [N], the likeliest other class; -1: not judged.
        same: pairs of classes that may be one, and the share of their images on the other's side.
    """

    wrong: np.ndarray
    ambiguous: np.ndarray
    doubt: np.ndarray
    suggested: np.ndarray
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
    own = scores[known].astype(np.float64)
    given = labels[known]
    if len(known):
        doubt[known] = wrong_probability(own, given)
        others = own.copy()
        others[np.arange(len(known)), given] = -1
        suggested[known] = others.argmax(axis=1)
    order = known[np.argsort(-doubt[known], kind="stable")]
    wrong = order[doubt[order] >= WRONG]
    ambiguous = order[(doubt[order] < WRONG) & (doubt[order] >= AMBIGUOUS)]
    return Issues(wrong, ambiguous, doubt, suggested, same_classes(own, given))


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


def noise(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How likely an image of each class gets each label, float64 [labels, classes].

    From the confident joint, whose rows are brought to the number of images of each label
    (equation 3).
    """
    joint = confident_joint(scores, labels).astype(np.float64)
    counts = np.bincount(labels, minlength=len(joint))
    joint += np.diag(joint.sum(axis=1) == 0)  # a label of which no image is sure
    joint *= (counts / joint.sum(axis=1))[:, None]
    return shares(joint)


def shares(joint: np.ndarray) -> np.ndarray:
    """A joint's columns, each divided by its sum."""
    joint = joint + FAINT
    return joint / joint.sum(axis=0)


def wrong_probability(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probability that each label is wrong, float64 [N].

    By Bayes' rule: an image's class is as likely as the scores say, times how likely that class
    gets this label. How noisy labels are is taken from the confident joint first, which counts
    what the classifier gets wrong as noise, too, and then from these probabilities, in turn.
    """
    rates = noise(scores, labels)
    classes = len(rates)
    for _ in range(ROUNDS):
        posterior = rates[labels] * scores
        posterior /= posterior.sum(axis=1, keepdims=True)
        joint = np.zeros((classes, classes))
        np.add.at(joint, labels, posterior)
        rates = shares(joint)
    return 1 - posterior[np.arange(len(labels)), labels]


def same_classes(scores: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of classes whose images are taken for the other one about as often as not.

    Of one class that got two names, half are; the share is the mean of both, so that the sizes of
    the classes do not count.
    """
    classes = scores.shape[1] if scores.ndim == 2 else 0
    crossed = np.zeros((classes, classes))
    counts = np.bincount(labels, minlength=classes)
    for label in np.flatnonzero(counts >= LEAST):
        own = scores[labels == label]
        crossed[label] = (own > own[:, [label]]).mean(axis=0)
    both = (crossed + crossed.T) / 2
    both[counts < LEAST] = 0
    both[:, counts < LEAST] = 0
    pairs = np.argwhere(np.triu(both >= SAME, 1))
    found = [(int(one), int(other), float(both[one, other])) for one, other in pairs]
    return sorted(found, key=lambda pair: -pair[2])

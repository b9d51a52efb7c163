"""Photos held out for evaluation."""

import numpy as np

from ppcls.data.datasets import Samples
from ppcls.errors import UserError


def split(
    samples: Samples, holdout: float, seed: int, whole: bool = False
) -> tuple[Samples, Samples]:
    """Hold out a share of every class: (train, held_out), the same for the same files and seed.

    Each class with two photos or more has at least one on both sides. A photo that is listed twice
    stays on one side. Neither the order of listing nor the folder's own place matters. A photo with
    several labels counts as one of its rarest class. With `whole`, all of a class may be held out,
    and of a class with one photo that is.
    """
    if not 0 < holdout < 1:
        raise UserError(f"the share to hold out lies between 0 and 1, not {holdout}")
    labels = samples.labels if samples.labels.ndim == 1 else rarest(samples.labels)
    held: set[str] = set()
    found, counts = np.unique(labels, return_counts=True)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for label, members in zip(found, classes, strict=True):
        own = sorted(set(samples.paths.take(members)))
        count = min(max(int(len(own) * holdout + 0.5), 1), len(own) - (not whole))
        order = np.random.default_rng([seed, int(label)]).permutation(len(own))
        held.update(own[index] for index in order[:count])
    is_held = np.fromiter((path in held for path in samples.paths), bool, len(samples))
    return samples.subset(np.flatnonzero(~is_held)), samples.subset(np.flatnonzero(is_held))


def rarest(labels: np.ndarray) -> np.ndarray:
    """Of uint8 [N, classes], the set class with the fewest photos; `classes` where none is set."""
    counts = labels.sum(axis=0, dtype=np.int64)
    rank = np.where(labels == 1, counts, counts.sum() + 1)
    return np.where(labels.any(axis=1), rank.argmin(axis=1), labels.shape[1])

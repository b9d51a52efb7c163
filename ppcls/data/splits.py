"""Whole groups of images dealt to the parts of a data set, with every class on each part.

A part should have its share of every class and of all images. What is made small is the sum over
the classes of the squared distances from these shares, each divided by the share; all images
together count as much as all classes do. Groups are dealt from the large ones to the small, each to
the part where that sum grows least; then single groups move to where a part has no image of a class
yet, and as long as moves make the sum smaller. Groups of about one size are dealt in an order that
the seed draws. Neither the order of listing nor the number of processes matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls.data.samples import Groups

ROUNDS = 8  # in which each group may move, at most …
MOVES = 100_000  # … and so many looks at a group, of which a million take some minutes
SAME = 1e-9  # of what the sum changes by: less may be rounding


def deal_groups(
    groups: Groups, labels: np.ndarray, shares: Sequence[float], needed: Sequence[int], seed: int
) -> np.ndarray:
    """For each image the number of the part that its group is dealt to, int64 [N].

    Args:
        labels: int64 [N], or uint8 [N, classes] of 0 and 1.
        shares: of each part, positive and 1 together.
        needed: how much it matters that a part has an image of every class; 0: not at all.
    """
    _, numbers = np.unique(groups.numbers, return_inverse=True)
    numbers = numbers.reshape(-1)
    deal = Deal.of(numbers, labels, np.array(shares, np.float64), np.array(needed, np.int64))
    order = np.random.default_rng([seed]).permutation(len(deal.of_groups))
    sizes = np.array([np.floor(np.log2(deal.weight(group)) + SAME) for group in range(len(order))])
    for group in order[np.argsort(-sizes[order], kind="stable")].tolist():
        deal.put(group, first_least(deal.additions(group)))
    deal.repair()
    rounds = min(ROUNDS, max(1, MOVES // max(1, len(order))))
    for _ in range(rounds):
        if not sum(deal.improve(group) for group in order.tolist()):
            break
    return deal.parts[numbers]


@dataclass(frozen=True)
class Content:
    """How many images of which classes a group has; the last class is that of all images."""

    classes: np.ndarray
    counts: np.ndarray


class Deal:
    """Groups on their way to parts: `parts` (int64 [groups]) says where each is, -1: nowhere yet.

    `counts` (int64 [parts, classes + 1]) are the images there, in the last column of all classes.
    """

    def __init__(self, of_groups: list[Content], shares: np.ndarray, needed: np.ndarray):
        self.of_groups = of_groups
        self.shares = shares
        self.needed = needed
        width = 1 + max(int(content.classes[-1]) for content in of_groups)
        self.totals = np.zeros(width, np.int64)
        for content in of_groups:
            self.totals[content.classes] += content.counts
        self.weights = np.ones(width)
        self.weights[-1] = max(1, np.count_nonzero(self.totals[:-1]))
        self.counts = np.zeros((len(shares), width), np.int64)
        self.parts = np.full(len(of_groups), -1, np.int64)

    @classmethod
    def of(
        cls, numbers: np.ndarray, labels: np.ndarray, shares: np.ndarray, needed: np.ndarray
    ) -> "Deal":
        """With the content of the groups `numbers` (int64 [N], from 0 on) of images so labelled."""
        if labels.ndim == 2:
            images, classes = np.nonzero(labels)
            width = labels.shape[1] + 1
        else:
            images, classes = np.arange(len(labels)), labels
            width = int(labels.max(initial=0)) + 2
        of_all = numbers * width + width - 1
        keys, counts = np.unique(
            np.concatenate([numbers[images] * width + classes, of_all]), return_counts=True
        )
        ends = np.searchsorted(keys, np.arange(1, numbers.max(initial=0) + 1) * width)
        pairs = zip(np.split(keys % width, ends), np.split(counts, ends), strict=True)
        return cls([Content(*pair) for pair in pairs], shares, needed)

    def shares_of(self, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A group's classes, the part it has of all their images, and how much each counts."""
        content = self.of_groups[group]
        classes = content.classes
        return classes, content.counts / self.totals[classes], self.weights[classes]

    def weight(self, group: int) -> float:
        _, own, weights = self.shares_of(group)
        return float((weights * own * own).sum())

    def additions(self, group: int) -> np.ndarray:
        """What the sum grows by with the group on each part, float64 [parts]."""
        classes, own, weights = self.shares_of(group)
        missing = self.counts[:, classes] / self.totals[classes] - self.shares[:, None]
        return (weights * (2 * missing * own + own * own)).sum(axis=1) / self.shares

    def put(self, group: int, part: int) -> None:
        """Bring a group to a part, from where it is, if anywhere."""
        content = self.of_groups[group]
        if self.parts[group] >= 0:
            self.counts[self.parts[group], content.classes] -= content.counts
        self.counts[part, content.classes] += content.counts
        self.parts[group] = part

    def best_move(self, group: int) -> tuple[int, float, int]:
        """How much more classes are missed, and how much larger the sum is, after a group's best
        move; and the part it goes to.
        """
        here = int(self.parts[group])
        content = self.of_groups[group]
        classes = content.classes
        left = self.counts[here, classes] == content.counts
        missed = self.needed[here] * int(left[:-1].sum())
        self.counts[here, classes] -= content.counts
        grown = self.additions(group)
        found = (self.counts[:, classes[:-1]] == 0).sum(axis=1) * self.needed
        self.counts[here, classes] += content.counts
        others = [part for part in range(len(self.shares)) if part != here]
        least = min(missed - found[part] for part in others)
        others = [part for part in others if missed - found[part] == least]
        part = others[first_least(grown[others])]
        gain = float(grown[part] - grown[here])
        small = SAME * float(np.abs(grown).max())
        return int(least), 0.0 if abs(gain) <= small else gain, part

    def improve(self, group: int) -> bool:
        """Move a group where that is better."""
        missed, grown, part = self.best_move(group)
        better = (missed, grown) < (0, 0.0)
        if better:
            self.put(group, part)
        return better

    def repair(self) -> None:
        """Bring groups to parts that miss a class, the most useful first, while that helps."""
        scarce = set(np.flatnonzero((self.counts[:, :-1] == 0).any(axis=0)).tolist())
        holders = [
            group
            for group, content in enumerate(self.of_groups)
            if not scarce.isdisjoint(content.classes.tolist())
        ]
        moved = True
        while moved:
            moved = False
            for missed, _, _, group in sorted((*self.best_move(group), group) for group in holders):
                now, _, part = self.best_move(group)
                if now < 0 and now <= missed:  # as useful as it was before others moved
                    self.put(group, part)
                    moved = True


def first_least(values: np.ndarray) -> int:
    """The first of the least, which rounding does not tell apart."""
    small = SAME * np.abs(values).max()
    return int(np.flatnonzero(values <= values.min() + small)[0])

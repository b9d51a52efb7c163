"""Which images an epoch shows, how often, and at what size: all of it from (seed, epoch).

An image that an epoch shows several times is told apart by a *virtual index*: its index plus the
number of images times the count of its earlier showings. The first showing has the index itself.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from ppcls.config.node import NotNegative, Share, node
from ppcls.config.own import OrOwn, Own
from ppcls.data.samples import Dataset
from ppcls.data.unlabeled import JoinedDataset
from ppcls.utils.errors import UserError
from ppcls.utils.text import at_most, plural

# tell random numbers apart: of images without labels, of a step's order
WITHOUT = 1
ORDER = 2


@node
class Shuffle:
    """Every image once."""

    kind: Literal["shuffle"] = "shuffle"

    def draw(
        self, samples: Dataset, classes: int, total: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The first `total` images of the data set, shuffled again each time through: int64."""
        rounds = max(1, -(-total // len(samples)))
        return np.concatenate([rng.permutation(len(samples)) for _ in range(rounds)])[:total]


@node
class Balanced:
    """Classes in proportion to their number of images ** (1 - power).

    1: every class equally often; 0.5: by the square root (arXiv:1805.00932); 0: as they are.
    """

    kind: Literal["balanced"] = "balanced"
    power: Share = 1.0  # 1: classes equally; 0: as they are

    def draw(
        self, samples: Dataset, classes: int, total: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Indices int64 [total] in random order. UserError: a class without images."""
        counts = class_counts(samples, classes, self.kind)
        empty = [samples.class_name(label) for label in np.flatnonzero(counts == 0).tolist()]
        if empty:
            raise UserError(
                f"train.sampler: balanced shows every class, and {samples.source} has no images "
                f"of {at_most(empty)}: add some, or -o train.sampler.kind=shuffle"
            )
        return by_class(samples.labels, counts ** (1 - self.power), total, rng)


@node
class Weighted:
    """Each image with a chance in proportion to the weight of its class."""

    kind: Literal["weighted"] = "weighted"
    weights: tuple[NotNegative, ...]  # of each class

    def __post_init__(self):
        if not any(self.weights):
            raise ValueError("weights are all 0: raise one of them")

    def draw(
        self, samples: Dataset, classes: int, total: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Indices int64 [total] in random order. UserError: weights that do not fit the data."""
        counts = class_counts(samples, classes, self.kind)
        if len(self.weights) != classes:
            raise UserError(
                f"train.sampler.weights: {plural(len(self.weights), 'weight')} for "
                f"{plural(classes, 'class')}: "
                "give one for each"
            )
        shares = counts * np.array(self.weights)
        if not shares.any():
            raise UserError(
                f"train.sampler.weights: 0 for every class that {samples.source} has images of: "
                "raise one of them"
            )
        return by_class(samples.labels, shares, total, rng)


@dataclass(frozen=True)
class OwnSampler(Own):
    """A sampler of one's own: called as `sampler(targets, total, rng)` at the start of each epoch,
    with the labels int64 [N] (uint8 [N, classes] of 0 and 1 where an image may have several), it
    gives int64 [total], which images the epoch shows. All chance comes from `rng`.
    """

    called: ClassVar[str] = "a sampler, called as sampler(targets, total, rng)"
    supplied: ClassVar[int] = 3

    def draw(
        self, samples: Dataset, classes: int, total: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Indices int64 [total]. UserError where the sampler gives others."""
        drawn = np.asarray(self.run(samples.labels, total, rng))
        whole = drawn.dtype.kind in "iu" and drawn.shape == (total,)
        if not whole or (total and not 0 <= drawn.min() <= drawn.max() < len(samples)):
            raise UserError(
                f"{self.name}: should give {total} indices below {len(samples)}, "
                f"and gave {drawn.dtype} {list(drawn.shape)}"
            )
        return drawn.astype(np.int64)


Sampler = Annotated[Shuffle | Balanced | Weighted, Field(discriminator="kind"), OrOwn(OwnSampler)]


def class_counts(samples: Dataset, classes: int, kind: str) -> np.ndarray:
    """Images per class; UserError where an image may have several classes."""
    if samples.labels.ndim > 1:
        raise UserError(
            f"train.sampler: {kind} needs one label for each image, and those of "
            f"{samples.source} may have several: -o train.sampler.kind=shuffle"
        )
    return samples.counts(classes)


def by_class(
    labels: np.ndarray, shares: np.ndarray, total: int, rng: np.random.Generator
) -> np.ndarray:
    """`total` image indices in random order, classes in proportion to `shares`.

    A class is drawn as often as its share says, rounded up or down so that the expectation is
    exact. Of a class every image comes once before one comes again.
    """
    ends = np.cumsum(np.bincount(labels, minlength=len(shares)))
    members = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    drawn = [
        np.resize(rng.permutation(images), quota)
        for images, quota in zip(members, quotas(shares, total, rng), strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def quotas(shares: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers int64 [classes] that sum to `total`, each within 1 of its part of the total.

    Systematic sampling: the parts lie end to end, in random order so that no class is tied to its
    neighbour, on a ruler whose marks stand 1 apart from a random start; a class gets its marks.
    """
    order = rng.permutation(len(shares))
    # Rounded, so that a part that is a whole number stays one.
    ends = np.round(np.cumsum(shares[order]) * (total / shares.sum()), 6)
    marks = np.floor(ends + rng.random())
    found = np.empty(len(shares), np.int64)
    found[order] = np.diff(marks, prepend=0)
    return found


@dataclass(frozen=True)
class EpochSampler:
    """Which samples each step of an epoch shows, the same for all processes.

    Attributes:
        sampler: draws the images of an epoch.
        samples: those of all classes, and maybe more without labels.
        photos_per_step: of all processes together.
        drop_last: leave out an epoch's last, smaller step.
        repeats: showings of a drawn image.
        with_labels, without: how many of a step's images have a label and have none, where the
            samples are of both kinds.
        limit: steps after which an epoch ends; None: all of them.
    """

    sampler: Sampler
    samples: Dataset | JoinedDataset
    classes: int
    images_per_step: int
    drop_last: bool = True
    repeats: int = 1
    seed: int = 0
    with_labels: int = 0
    without: int = 0
    limit: int | None = None

    def order(self, epoch: int) -> list[np.ndarray]:
        """The virtual indices of each step. UserError: the sampler does not fit the data."""
        seed = self.seed
        samples = self.samples
        classes = self.classes
        if isinstance(samples, JoinedDataset):
            sizes = self.with_labels, self.without
            return mixed_steps(self.sampler, samples, classes, sizes, seed, epoch)[: self.limit]
        shown = epoch_images(self.sampler, samples, classes, self.repeats, seed, epoch)
        return train_order(shown, self.images_per_step, self.drop_last)[: self.limit]


def train_order(shown: np.ndarray, batch: int, drop_last: bool) -> list[np.ndarray]:
    """An epoch's virtual indices in batches, the last one maybe smaller or dropped."""
    batches = [shown[i : i + batch] for i in range(0, len(shown), batch)]
    return batches[: len(shown) // batch] if drop_last else batches


def epoch_images(
    sampler: Sampler, samples: Dataset, classes: int, repeats: int, seed: int, epoch: int
) -> np.ndarray:
    """The virtual indices of an epoch, int64, as many as there are images.

    Args:
        repeats: showings of a drawn image, one after the other (arXiv:1901.09335); so many times
            fewer images are drawn.

    Raises:
        UserError: the sampler does not fit the data.
    """
    count = len(samples)
    rng = np.random.default_rng([seed, epoch])
    drawn = sampler.draw(samples, classes, -(-count // repeats), rng)
    shown = np.repeat(drawn, repeats)[:count]
    return shown + count * earlier(shown)


def mixed_steps(
    sampler: Sampler,
    samples: JoinedDataset,
    classes: int,
    sizes: tuple[int, int],
    seed: int,
    epoch: int,
) -> list[np.ndarray]:
    """The virtual indices of an epoch's steps, each of so many images with labels and without.

    As many whole steps as there are images for. Those with labels are drawn as the sampler says.

    Raises:
        UserError: the sampler does not fit the data.
    """
    steps = len(samples) // sum(sizes)
    count = len(samples.labeled)
    with_labels, without = sizes
    rngs = [np.random.default_rng([seed, epoch, *more]) for more in ((), (WITHOUT,), (ORDER,))]
    known = sampler.draw(samples.labeled, classes, steps * with_labels, rngs[0])
    unknown = Shuffle().draw(samples.unlabeled, classes, steps * without, rngs[1]) + count
    parts = known.reshape(steps, with_labels), unknown.reshape(steps, without)
    # In random order, so that the parts of a step that is divided have both kinds.
    shown = rngs[2].permuted(np.concatenate(parts, axis=1), axis=1)
    virtual = shown.ravel() + len(samples) * earlier(shown.ravel())
    return list(virtual.reshape(shown.shape))


def earlier(values: np.ndarray) -> np.ndarray:
    """How many equal values stand before each: int64, as [5, 7, 5, 5] to [0, 0, 1, 2]."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.searchsorted(ranked, ranked)
    return found

"""Ops on a batch: images mixed with one another, and their targets with them.

A node is called as `op(images, targets, rng)`: uint8 [N, H, W, C] and float32 [N, classes] to the
same, not written into. Mixed pixels are rounded to whole numbers. Of a recipe's `batch_ops` one at
most is applied to a batch, each with its `prob`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ppcls.config.node import Positive, Share, node
from ppcls.config.own import OrOwn, Own
from ppcls.utils.errors import UserError

Mixed = tuple[np.ndarray, np.ndarray]


@node
class Mixup:
    """lam * image + (1 - lam) * another, lam ~ Beta(alpha, alpha) (arXiv:1710.09412)."""

    op: Literal["mixup"] = "mixup"
    alpha: Positive = 0.2  # of the beta distribution of shares
    prob: Share = 1.0

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Mixed:
        lam = np.float32(rng.beta(self.alpha, self.alpha))
        other = rng.permutation(len(images))
        mixed = np.empty_like(images)
        for i, j in enumerate(other):  # one at a time: the floats stay in the cache
            mixed[i] = np.rint(images[i] * lam + images[j] * (1 - lam))
        return mixed, blend(targets, other, lam)


@node
class CutMix:
    """A box of another image of the batch, its area a share 1 - lam, lam ~ Beta(alpha, alpha).

    arXiv:1905.04899: the box is as wide for its height as the image, its centre anywhere, the part
    beyond the edge cut off; targets are mixed by the area that is left.
    """

    op: Literal["cutmix"] = "cutmix"
    alpha: Positive = 1.0  # of the beta distribution of areas
    prob: Share = 1.0

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Mixed:
        height, width = images.shape[1:3]
        side = np.sqrt(1 - rng.beta(self.alpha, self.alpha))
        y, x = rng.random(2) * (height, width)
        high = side * height
        wide = side * width
        top, bottom = (int(np.clip(y + half, 0, height)) for half in (-high / 2, high / 2))
        left, right = (int(np.clip(x + half, 0, width)) for half in (-wide / 2, wide / 2))
        other = rng.permutation(len(images))
        mixed = images.copy()
        mixed[:, top:bottom, left:right] = images[other, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, blend(targets, other, np.float32(kept))


@node
class FMix:
    """Images mixed by a mask of irregular shape: low-frequency noise, cut at a height.

    arXiv:2002.12047: Gaussian noise in frequencies, divided by frequency ** `decay_power`; of its
    inverse transform the highest share lam is the image's, the rest another's of the batch.
    """

    op: Literal["fmix"] = "fmix"
    alpha: Positive = 1.0  # of the beta distribution of areas
    decay_power: Positive = 3.0  # the higher, the smoother the mask
    prob: Share = 1.0

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Mixed:
        height, width = images.shape[1:3]
        lam = rng.beta(self.alpha, self.alpha)
        own = self.mask(height, width, lam, rng)
        other = rng.permutation(len(images))
        mixed = np.where(own[None, :, :, None], images, images[other])
        return mixed, blend(targets, other, np.float32(own.mean()))

    def mask(self, height: int, width: int, lam: float, rng: np.random.Generator) -> np.ndarray:
        """bool [height, width], of which a share lam, rounded, is True."""
        rows = np.fft.fftfreq(height)[:, None]
        columns = np.fft.rfftfreq(width)[None, :]
        frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
        noise = rng.standard_normal((2, *frequency.shape))
        spectrum = (noise[0] + 1j * noise[1]) / frequency**self.decay_power
        heights = np.fft.irfft2(spectrum, (height, width)).ravel()
        mask = np.zeros(height * width, bool)
        mask[np.argsort(-heights, kind="stable")[: round(lam * height * width)]] = True
        return mask.reshape(height, width)


@dataclass(frozen=True)
class OwnBatchTransform(Own):
    """A batch transform of one's own, called as those above; `prob` says how often it is applied.

    A key `prob` need not be a parameter of it; 1 unless given.
    """

    tag: ClassVar[str] = "op"
    called: ClassVar[str] = "a batch transform, called as transform(images, targets, rng)"
    supplied: ClassVar[int] = 3
    beside: ClassVar[Mapping[str, Any]] = {"prob": Share}

    @property
    def prob(self) -> float:
        return self.options.get("prob", getattr(self.part, "prob", 1.0))

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Mixed:
        found = self.run(images, targets, rng)
        pair = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
        shapes = [getattr(one, "shape", None) for one in pair]
        if shapes[1] != targets.shape or shapes[0] is None or len(shapes[0]) != 4:
            raise UserError(
                f"{self.name}: should give images uint8 [N, H, W, C] and targets float32 "
                f"{list(targets.shape)}, and gave {shapes[0]} and {shapes[1]}"
            )
        return pair[0].astype(np.uint8, copy=False), pair[1].astype(np.float32, copy=False)  # type: ignore


BatchTransform = Annotated[
    Mixup | CutMix | FMix, Field(discriminator="op"), OrOwn(OwnBatchTransform)
]


def check(ops: Sequence[BatchTransform]) -> None:
    """ValueError unless at most one is applied to a batch."""
    total = sum(op.prob for op in ops)
    if total > 1 + 1e-9:
        raise ValueError(
            f"batch_ops: their probabilities sum to {total:g}; one op at most is applied to a "
            "batch: give each a prob so that they sum to at most 1"
        )


def apply(
    ops: Sequence[BatchTransform], images: np.ndarray, targets: np.ndarray, rng: np.random.Generator
) -> Mixed:
    """One of the ops, drawn by their `prob`, or none."""
    drawn = rng.random()
    for op in ops:
        drawn -= op.prob
        if drawn < 0:
            return op(images, targets, rng)
    return images, targets


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """int64 [N], or 0 and 1 [N, classes], to float32 [N, classes]; zeros for a label of -1."""
    if labels.ndim == 2:
        return labels.astype(np.float32)
    targets = np.zeros((len(labels), classes), np.float32)
    known = np.flatnonzero(labels >= 0)
    targets[known, labels[known]] = 1
    return targets


def blend(targets: np.ndarray, other: np.ndarray, lam: np.float32) -> np.ndarray:
    return lam * targets + (1 - lam) * targets[other]

"""The training ops a recipe may choose from, ops made of others, and how they are run.

An op is a node called as `op(image, rng, size)`: uint8 [H, W, C] to the same with other H and W,
`size` the side in pixels the network is being trained at. The result depends on these three alone;
the input is never written into; how many random numbers an op draws does not depend on the image.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import rebuild_dataclass

from ppcls.config.node import NotNegative, Share, node
from ppcls.data.auto_augment import AugMix, AutoAugment, RandAugment, TrivialAugment
from ppcls.data.colour import ColorJitter, GaussianBlur, Grayscale, Lighting
from ppcls.data.erasing import Cutout, GridMask, HideAndSeek, RandomErasing
from ppcls.data.transforms import (
    CenterCrop,
    HorizontalFlip,
    Pad,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ResizeShort,
    Rotation,
    VerticalFlip,
)
from ppcls.errors import UserError
from ppcls.utils.text import plural


@node
class RandomApply:
    """All of `ops` in order with probability `prob`, or none."""

    op: Literal["random_apply"] = "random_apply"
    prob: Share = 0.5
    ops: tuple["TrainOp", ...]

    def __post_init__(self):
        if not self.ops:
            raise ValueError("ops is empty: name one op or more")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return run(self.ops, image, rng, size) if rng.random() < self.prob else image


@node
class OneOf:
    """One of `ops`, drawn in proportion to `weights` (null: evenly)."""

    op: Literal["one_of"] = "one_of"
    ops: tuple["TrainOp", ...]
    weights: tuple[NotNegative, ...] | None = None

    def __post_init__(self):
        if not self.ops:
            raise ValueError("ops is empty: name one op or more")
        if self.weights is not None and len(self.weights) != len(self.ops):
            raise ValueError(
                f"{plural(len(self.weights), 'weight')} for {plural(len(self.ops), 'op')}: "
                "give each one"
            )
        if self.weights is not None and not any(self.weights):
            raise ValueError("weights are all 0: raise one of them")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        ends = np.cumsum(self.weights or [1.0] * len(self.ops))
        chosen = int(np.searchsorted(ends, rng.random() * ends[-1], "right"))
        return self.ops[chosen](image, rng, size)


TrainOp = Annotated[
    RandomResizedCrop
    | HorizontalFlip
    | VerticalFlip
    | Resize
    | ResizeShort
    | CenterCrop
    | RandomCrop
    | Pad
    | Rotation
    | ColorJitter
    | Grayscale
    | GaussianBlur
    | Lighting
    | AutoAugment
    | RandAugment
    | TrivialAugment
    | AugMix
    | RandomErasing
    | Cutout
    | HideAndSeek
    | GridMask
    | RandomApply
    | OneOf,
    Field(discriminator="op"),
]
rebuild_dataclass(RandomApply)  # type: ignore  # now that TrainOp is known
rebuild_dataclass(OneOf)  # type: ignore


def run(
    ops: Sequence[TrainOp], image: np.ndarray, rng: np.random.Generator, size: int
) -> np.ndarray:
    """The image after all ops, of whatever size they leave."""
    for op in ops:
        image = op(image, rng, size)
    return image


def apply(
    ops: Sequence[TrainOp], image: np.ndarray, rng: np.random.Generator, size: int
) -> np.ndarray:
    """The image uint8 [H, W, C] after all ops: uint8 [size, size, C].

    UserError where the ops end in another size; equal image, rng state and size give equal results.
    """
    result = run(ops, image, rng, size)
    if result.shape != (size, size, image.shape[2]) or result.dtype != np.uint8:
        height, width = result.shape[:2]
        raise UserError(
            f"train.ops must end in an image of {size}x{size}; "
            f"{ops[-1].op if ops else 'without ops'} gave {width}x{height}; "
            "add random_resized_crop, resize, center_crop or random_crop"
        )
    return result

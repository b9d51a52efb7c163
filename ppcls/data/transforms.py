"""Training ops on one photo, the list a recipe may choose from, and how they are run.

An op is a node called as `op(image, rng, size)`: uint8 [H, W, C] to the same with other H and W,
`size` the side in pixels the network is being trained at. The result depends on these three alone;
the input is never written into; how many random numbers an op draws does not depend on the image.
Here are the geometric ones; those of another kind have their own module and join `TrainOp`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from ppcls.config.node import Count, Int, Positive, Share, node
from ppcls.data.geometry import Backend, Interpolation, center_crop, resize, resize_short
from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError

__all__ = ["Preprocess", "TrainOp", "apply"]

# Boxes tried before the crop falls back to the middle.
TRIES = 10


@node
class RandomResizedCrop:
    """A random box stretched to size x size (arXiv:1409.4842): its area a uniform share within
    `scale` of the image's, its width / height log-uniform within `ratio`. Of ten boxes the first
    that fits, or else the largest in the middle with an allowed ratio.
    """

    op: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333)
    interpolation: Interpolation = "bilinear"
    backend: Backend = "cv2"

    def __post_init__(self):
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)}: give the smaller share first, at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio {list(self.ratio)}: give the smaller width / height first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        left, top, width, height = self.box(image.shape[1], image.shape[0], rng)
        part = image[top : top + height, left : left + width]
        return resize(part, size, size, self.interpolation, self.backend)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels of a crop of an image of width x height."""
        small, large = (share * width * height for share in self.scale)
        narrow, wide = (math.log(ratio) for ratio in self.ratio)
        for share, form, x, y in rng.random((TRIES, 4)).tolist():
            area = small + share * (large - small)
            ratio = math.exp(narrow + form * (wide - narrow))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (width - w) // 2, (height - h) // 2, w, h


@node
class HorizontalFlip:
    """Left and right exchanged, with probability `prob`."""

    op: Literal["horizontal_flip"] = "horizontal_flip"
    prob: Share = 0.5

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return cv2.flip(image, 1).reshape(image.shape) if rng.random() < self.prob else image


@node
class VerticalFlip:
    """Top and bottom exchanged, with probability `prob`."""

    op: Literal["vertical_flip"] = "vertical_flip"
    prob: Share = 0.5

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return cv2.flip(image, 0).reshape(image.shape) if rng.random() < self.prob else image


@node
class Resize:
    """The whole image stretched to size x size."""

    op: Literal["resize"] = "resize"
    interpolation: Interpolation = "bilinear"
    backend: Backend = "cv2"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return resize(image, size, size, self.interpolation, self.backend)


@node
class ResizeShort:
    """The short side resized to `pixels` (null: to size), the shape kept."""

    op: Literal["resize_short"] = "resize_short"
    pixels: Count | None = None
    interpolation: Interpolation = "bilinear"
    backend: Backend = "cv2"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return resize_short(image, self.pixels or size, self.interpolation, self.backend)


@node
class CenterCrop:
    """The middle size x size; UserError for an image smaller than that."""

    op: Literal["center_crop"] = "center_crop"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        height, width = image.shape[:2]
        if min(height, width) < size:
            raise UserError(
                f"train.ops: center_crop cannot cut {size}x{size} out of an image of "
                f"{width}x{height}; put resize_short before it"
            )
        return center_crop(image, size)


@node
class RandomCrop:
    """A random size x size of the image, first framed with `pad` black pixels on each side, and
    with more where it would still be too small.
    """

    op: Literal["random_crop"] = "random_crop"
    pad: Annotated[Int, Field(ge=0)] = 0

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        height, width = image.shape[:2]
        high, wide = (max(side + 2 * self.pad, size) for side in (height, width))
        above, before = (high - height) // 2, (wide - width) // 2
        rest = (high - height - above, before, wide - width - before)
        framed = cv2.copyMakeBorder(image, above, *rest, cv2.BORDER_CONSTANT)
        x, y = rng.random(2).tolist()
        left, top = int(x * (wide - size + 1)), int(y * (high - size + 1))
        cropped = framed[top : top + size, left : left + size]
        return cropped.reshape(size, size, image.shape[2])


TrainOp = Annotated[
    RandomResizedCrop
    | HorizontalFlip
    | VerticalFlip
    | Resize
    | ResizeShort
    | CenterCrop
    | RandomCrop,
    Field(discriminator="op"),
]


def apply(
    ops: Sequence[TrainOp], image: np.ndarray, rng: np.random.Generator, size: int
) -> np.ndarray:
    """The image uint8 [H, W, C] after all ops: uint8 [size, size, C].

    UserError where the ops end in another size; equal image, rng state and size give equal results.
    """
    result = image
    for op in ops:
        result = op(result, rng, size)
    if result.shape != (size, size, image.shape[2]) or result.dtype != np.uint8:
        height, width = result.shape[:2]
        raise UserError(
            f"train.ops must end in an image of {size}x{size}; "
            f"{ops[-1].op if ops else 'without ops'} gave {width}x{height}; "
            "add random_resized_crop, resize, center_crop or random_crop"
        )
    return result

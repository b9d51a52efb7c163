"""Training ops that cut, resize, frame, mirror and turn a photo."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from ppcls.config.node import Float, Int, Margin, Positive, Share, Side, node
from ppcls.data.geometry import (
    Backend,
    Interpolation,
    center_crop,
    check_box,
    random_box,
    resize,
    resize_short,
    rotate,
)
from ppcls.errors import UserError
from ppcls.utils.opencv import cv2

Byte = Annotated[Int, Field(ge=0, le=255)]


@node
class RandomResizedCrop:
    """A random box stretched to size x size (arXiv:1409.4842): its area a uniform share within
    `scale` of the image's, its width / height log-uniform within `ratio`. Of ten boxes the first
    that fits, or else the largest in the middle with an allowed ratio. The interpolation "random"
    is bilinear or bicubic, each half of the time.
    """

    op: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333)
    interpolation: Literal[Interpolation, "random"] = "bilinear"
    backend: Backend = "cv2"

    def __post_init__(self):
        check_box(self.scale, self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        left, top, width, height = self.box(image.shape[1], image.shape[0], rng)
        part = image[top : top + height, left : left + width]
        if self.interpolation == "random":
            interpolation = "bilinear" if rng.random() < 0.5 else "bicubic"
        else:
            interpolation = self.interpolation
        return resize(part, size, size, interpolation, self.backend)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels of a crop of an image of width x height."""
        if found := random_box(width, height, self.scale, self.ratio, rng):
            return found
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
    pixels: Side | None = None
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
    pad: Margin = 0

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


BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


def four_sides(value: Any) -> Any:
    """One number stands for all sides."""
    return (value,) * 4 if isinstance(value, int) else value


@node
class Pad:
    """Framed with so many `pixels` on the left, top, right and bottom, or one number for all: of
    the value `fill`, of the "edge" continued, or of the image mirrored with its border pixels
    ("symmetric") or without ("reflect").
    """

    op: Literal["pad"] = "pad"
    pixels: Annotated[tuple[Margin, ...], BeforeValidator(four_sides)]
    fill: Byte = 0
    mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant"

    def __post_init__(self):
        if len(self.pixels) != 4:
            raise ValueError("pixels: give one number, or four: left, top, right, bottom")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        left, top, right, bottom = self.pixels
        border, fill = BORDERS[self.mode], (self.fill,) * 4
        framed = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=fill)
        return framed.reshape(*framed.shape[:2], image.shape[2])


@node
class Rotation:
    """Turned about the middle by degrees drawn evenly from `degrees`, counterclockwise where above
    0, bilinear; the size stays, and corners where nothing is left are `fill`.
    """

    op: Literal["rotation"] = "rotation"
    degrees: tuple[Float, Float] = (-15.0, 15.0)
    fill: Byte = 0

    def __post_init__(self):
        if self.degrees[0] > self.degrees[1]:
            raise ValueError(f"degrees {list(self.degrees)}: give the smaller angle first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        low, high = self.degrees
        return rotate(image, low + rng.random() * (high - low), self.fill)

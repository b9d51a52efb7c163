"""Training ops that hide parts of a photo.

What is hidden is painted black ("constant"), of ImageNet's mean colour ("mean", which is close to 0
after normalising) or of random values ("pixel"). Lengths are in pixels.
"""

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.config.node import Margin, NotNegative, Positive, Share, Side, Times, node
from ppcls.data.geometry import check_box, random_box
from ppcls.utils.opencv import cv2

Mode = Literal["pixel", "constant", "mean"]

# ImageNet's mean colour and what is grey of it; alpha is opaque.
MEANS = {1: (116,), 3: (124, 116, 104), 4: (124, 116, 104, 255)}


def painted(image: np.ndarray, where: np.ndarray, mode: Mode, seed: int) -> np.ndarray:
    """A copy of the image [H, W, C] painted where `where`, uint8 [H, W], is not 0."""
    if mode == "pixel":
        paint = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
    else:
        paint = even(image.shape, mode)
    result = np.array(image, order="C")
    return cv2.copyTo(paint, where, result).reshape(image.shape)


@lru_cache(8)  # images in training are all of one size
def even(shape: tuple[int, int, int], mode: Mode) -> np.ndarray:
    """An image of one colour."""
    return np.full(shape, MEANS[shape[2]] if mode == "mean" else 0, np.uint8)


def seed_of(rng: np.random.Generator) -> int:
    """One draw that seeds as many as an image's size asks for."""
    return int(rng.integers(1 << 62))


@node
class RandomErasing:
    """A box hidden with probability `prob` (arXiv:1708.04896): its area a uniform share within
    `scale` of the image's, its width / height log-uniform within `ratio`, anywhere inside.
    """

    op: Literal["random_erasing"] = "random_erasing"
    prob: Share = 0.5
    scale: tuple[Positive, Positive] = (0.02, 0.4)
    ratio: tuple[Positive, Positive] = (0.3, 3.3333333)
    mode: Mode = "pixel"

    def __post_init__(self):
        check_box(self.scale, self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        chance, seed = rng.random(), seed_of(rng)
        box = random_box(image.shape[1], image.shape[0], self.scale, self.ratio, rng)
        if chance >= self.prob or box is None:
            return image
        left, top, width, height = box
        where = np.zeros(image.shape[:2], np.uint8)
        where[top : top + height, left : left + width] = 1
        return painted(image, where, self.mode, seed)


@node
class Cutout:
    """Squares of `length` (null: half of size) hidden (arXiv:1708.04552), their middles anywhere in
    the image, so that parts of them may lie outside.
    """

    op: Literal["cutout"] = "cutout"
    holes: Times = 1
    length: Side | None = None
    mode: Mode = "mean"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        length = self.length or max(size // 2, 1)
        where, seed = np.zeros(image.shape[:2], np.uint8), seed_of(rng)
        for x, y in rng.random((self.holes, 2)).tolist():
            left = int(x * image.shape[1]) - length // 2
            top = int(y * image.shape[0]) - length // 2
            where[max(top, 0) : top + length, max(left, 0) : left + length] = 1
        return painted(image, where, self.mode, seed)


@node
class HideAndSeek:
    """The image divided into squares, each hidden with probability `prob` (arXiv:1811.02545); their
    side is one of `sides`, 0 hides nothing.
    """

    op: Literal["hide_and_seek"] = "hide_and_seek"
    sides: tuple[Margin, ...] = (0, 16, 32, 44, 56)
    prob: Share = 0.5
    mode: Mode = "mean"

    def __post_init__(self):
        if not self.sides:
            raise ValueError("sides is empty: name one side or more")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        side, seed = self.sides[int(rng.random() * len(self.sides))], seed_of(rng)
        if not side:
            return image
        height, width = image.shape[:2]
        squares = np.random.default_rng(seed).random((-(-height // side), -(-width // side)))
        hidden = (squares < self.prob).astype(np.uint8).repeat(side, 0).repeat(side, 1)
        where = np.ascontiguousarray(hidden[:height, :width])
        return painted(image, where, self.mode, seed + 1)


@node
class GridMask:
    """With probability `prob` a grid of squares hidden (arXiv:2001.04086): one in each unit, whose
    side is drawn from `unit`; between them a share `ratio` of the side stays seen. The grid begins
    anywhere and is turned by up to `rotate` degrees.
    """

    op: Literal["grid_mask"] = "grid_mask"
    prob: Share = 0.8
    unit: tuple[Side, Side] = (96, 224)
    ratio: Share = 0.6
    rotate: Annotated[NotNegative, Field(le=360)] = 0.0
    mode: Mode = "mean"

    def __post_init__(self):
        if self.unit[0] > self.unit[1]:
            raise ValueError(f"unit {list(self.unit)}: give the shorter side first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        chance, side, x, y, turn = rng.random(5).tolist()
        seed = seed_of(rng)
        if chance >= self.prob:
            return image
        unit = self.unit[0] + int(side * (self.unit[1] - self.unit[0] + 1))
        angle = math.radians(turn * self.rotate)
        sine, cosine = math.sin(angle), math.cos(angle)
        u, v = np.arange(image.shape[1]), np.arange(image.shape[0])[:, None]
        across, down = cosine * u + int(x * unit), cosine * v + int(y * unit)
        if angle:
            across, down = across + sine * v, down - sine * u
        seen = round(self.ratio * unit)
        where = ((across % unit >= seen) & (down % unit >= seen)).astype(np.uint8)
        return painted(image, where, self.mode, seed)

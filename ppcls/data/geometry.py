"""Resizing, cropping and warping of uint8 images [H, W, C], by OpenCV or Pillow."""

import math
from typing import Literal

import numpy as np
from PIL import Image

from ppcls.errors import UserError
from ppcls.utils.opencv import cv2

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Backend = Literal["cv2", "pil"]

CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
# To Pillow CMYK is four channels like any other; RGBA's colours it would weight by alpha.
MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# A photo a few pixels wide, enlarged beyond this side, would fill the memory.
LONGEST = 1 << 15
# Boxes tried before `random_box` gives up.
TRIES = 10


def resize(
    image: np.ndarray, width: int, height: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """uint8 [H, W, 1 | 3 | 4] to [height, width, C] by OpenCV ("cv2") or Pillow ("pil").

    Where it shrinks, Pillow averages over all pixels; OpenCV looks at the nearest few, but for
    "area". PaddleClas's networks were evaluated with OpenCV, EfficientNet's with Pillow.
    """
    if image.shape[:2] == (height, width):
        return image
    if backend == "cv2":
        resized = cv2.resize(image, (width, height), interpolation=CV2[interpolation])
    else:
        shape = (image.shape[1], image.shape[0])
        photo = Image.frombytes(MODES[image.shape[2]], shape, image.tobytes())
        resized = np.array(photo.resize((width, height), PIL[interpolation]))
    return resized.reshape(height, width, image.shape[2])


def short_sides(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Width and height after the short side is made `pixels`, rounded as PaddleClas rounds them.

    UserError for an image so narrow that its long side would exceed 32,768 pixels.
    """
    scale = pixels / min(height, width)
    wide, high = round(width * scale), round(height * scale)
    if max(wide, high) > LONGEST:
        raise UserError(
            f"an image of {width}x{height} pixels is too narrow to resize its short side to "
            f"{pixels}; crop it first"
        )
    return wide, high


def resize_short(
    image: np.ndarray, pixels: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """The image with its short side `pixels` long; UserError as `short_sides`."""
    wide, high = short_sides(image.shape[0], image.shape[1], pixels)
    return resize(image, wide, high, interpolation, backend)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle [size, size, C] of an image at least that large: a view."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def check_box(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """ValueError for bounds that `random_box` cannot draw within."""
    if not scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale {list(scale)}: give the smaller share first, at most 1")
    if ratio[0] > ratio[1]:
        raise ValueError(f"ratio {list(ratio)}: give the smaller width / height first")


def random_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    """Left, top, width and height in pixels of a box in an image of width x height: its area a
    uniform share within `scale` of the image's, its width / height log-uniform within `ratio`.
    The first that fits of ten, which are drawn in any case; None where none does.
    """
    small, large = (share * width * height for share in scale)
    narrow, wide = (math.log(bound) for bound in ratio)
    for share, form, x, y in rng.random((TRIES, 4)).tolist():
        area = small + share * (large - small)
        stretch = math.exp(narrow + form * (wide - narrow))
        w, h = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
        if 0 < w <= width and 0 < h <= height:
            return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
    return None


def translate(image: np.ndarray, right: int, down: int, fill: int) -> np.ndarray:
    """The image moved by whole pixels; every channel is `fill` where there is nothing."""
    height, width = image.shape[:2]
    x, y = max(-width, min(right, width)), max(-height, min(down, height))
    moved = np.full_like(image, fill, order="C")
    kept = image[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
    moved[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = kept
    return moved


def warp(
    image: np.ndarray, x: tuple[float, float, float], y: tuple[float, float, float], fill: int
) -> np.ndarray:
    """The image whose point (u, v) is the given one's point (x, y), bilinear; `fill` outside it.

    x = x[0] u + x[1] v + x[2], y likewise, the middle of the first pixel being (0.5, 0.5): what
    Pillow's transform(AFFINE, (*x, *y), BILINEAR) gives, rounded where Pillow cuts off to whole
    levels (with OpenCV 5; version 4 interpolates in steps of 1/32 pixel).
    """
    height, width = image.shape[:2]
    centred = [[a, b, c + (a + b - 1) / 2] for a, b, c in (x, y)]
    warped = cv2.warpAffine(
        image,
        np.array(centred),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).reshape(image.shape)
    u, v = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    outside = np.zeros((height, width), bool)
    for (a, b, c), side in ((x, width), (y, height)):
        places = a * u + (b * v + c)
        outside |= places < 0
        outside |= places >= side
    return cv2.copyTo(np.full_like(warped, fill), outside.view(np.uint8), warped)


def shear(image: np.ndarray, x: float, y: float, fill: int) -> np.ndarray:
    """Rows moved left by `x` times their height below the top, columns up by `y` likewise."""
    return warp(image, (1, x, 0), (y, 1, 0), fill)


def rotate(image: np.ndarray, degrees: float, fill: int) -> np.ndarray:
    """Turned counterclockwise about the middle, the size kept: Pillow's rotate, bilinear."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x, y = image.shape[1] / 2, image.shape[0] / 2
    across = (cosine, -sine, x - cosine * x + sine * y)
    return warp(image, across, (sine, cosine, y - sine * x - cosine * y), fill)

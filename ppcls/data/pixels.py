"""Changes of uint8 images [H, W, C] that augmentation is made of: warping, colours, mixing."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ppcls.utils.opencv import cv2


def translate(image: np.ndarray, right: int, down: int, fill: int) -> np.ndarray:
    """The image moved by whole pixels; every channel is `fill` where there is nothing."""
    height, width = image.shape[:2]
    x = max(-width, min(right, width))
    y = max(-height, min(down, height))
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
    u = np.arange(width) + 0.5
    v = np.arange(height)[:, None] + 0.5
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
    sine = math.sin(math.radians(degrees))
    cosine = math.cos(math.radians(degrees))
    x = image.shape[1] / 2
    y = image.shape[0] / 2
    across = (cosine, -sine, x - cosine * x + sine * y)
    return warp(image, across, (sine, cosine, y - sine * x - cosine * y), fill)


# --------------------------------------------------------------------------
# Changes of pixels' values: uint8 [H, W, 1 | 3 | 4] to the same, alpha left alone

LEVELS = np.arange(256)
# Rows that go through float32 together: their memory is used again, which a whole image's is not.
ROWS = 32
# Pillow's ImageFilter.SMOOTH, which its sharpness blends with.
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each value v replaced by table[v]; `table` is [256], or [256, C] with one for each colour."""
    if image.shape[2] == 4:
        own = table[:, None] if table.ndim == 1 else table
        table = np.column_stack([np.broadcast_to(own, (256, 3)), LEVELS])
    looked_up = cv2.LUT(image, np.ascontiguousarray(table, np.uint8).reshape(1, 256, -1))
    return looked_up.reshape(image.shape)


def colours(image: np.ndarray) -> int:
    """The channels that are not alpha: 1 or 3."""
    return min(image.shape[2], 3)


def on_colours(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The image with `change` made of its colours."""
    if image.shape[2] == 4:
        return np.dstack([change(np.ascontiguousarray(image[..., :3])), image[..., 3]])
    return change(image).reshape(image.shape)


def luma(image: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B: uint8 [H, W]; the image itself where it is grey."""
    if image.shape[2] == 1:
        return image[..., 0]
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if image.shape[2] == 3 else cv2.COLOR_RGBA2GRAY)


def histograms(image: np.ndarray) -> list[np.ndarray]:
    """How often each level occurs: int [256], for each colour."""
    # OpenCV counts in float32, which is exact up to 16 million pixels.
    counted = (cv2.calcHist([image], [c], None, [256], [0, 256]) for c in range(colours(image)))
    return [counts.reshape(256).astype(np.int64) for counts in counted]


# --------------------------------------------------------------------------- by the value alone


def invert(image: np.ndarray) -> np.ndarray:
    """The negative."""
    return look_up(image, 255 - LEVELS)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """The upper `bits` (0 to 8) of each value."""
    return look_up(image, LEVELS & (256 - (1 << (8 - bits))))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """The negative where the value is `threshold` or above."""
    return look_up(image, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Values times `factor`; 0 is black, 1 changes nothing."""
    return look_up(image, blended(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the mean luma times `factor`; 0 is even grey, 1 changes nothing."""
    grey = luma(image)
    mean = int(cv2.sumElems(grey)[0] / grey.size + 0.5)
    return look_up(image, blended(mean, factor))


def blended(start: int, factor: float) -> np.ndarray:
    """For each level the one `factor` of the way from `start` to it, cut off as Pillow does."""
    way = start + np.float32(factor) * (LEVELS - start).astype(np.float32)
    return np.clip(way, 0, 255).astype(np.uint8)


# --------------------------------------------------------------------------- by the histogram


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Each colour stretched to the whole range from 0 to 255."""
    tables = []
    for counts in histograms(image):
        used = np.flatnonzero(counts)
        low = int(used[0])
        high = int(used[-1])
        scale = 255 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.clip((LEVELS * scale + offset).astype(int), 0, 255))
    return look_up(image, np.column_stack(tables))


def equalize(image: np.ndarray) -> np.ndarray:
    """Each colour's levels spread so that all are about equally frequent."""
    tables = []
    for counts in histograms(image):
        used = counts[counts > 0]
        step = int(used[:-1].sum()) // 255
        below = np.cumsum(counts) - counts
        tables.append(np.minimum((step // 2 + below) // step, 255) if step else LEVELS)
    return look_up(image, np.column_stack(tables))


# --------------------------------------------------------------------------- by other pixels


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the pixel's luma times `factor`: 0 is grey, 1 changes nothing."""
    if image.shape[2] == 1:
        return image
    grey = cv2.cvtColor(luma(image), cv2.COLOR_GRAY2RGB)
    return on_colours(image, lambda own: blend(grey, own, factor))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the smoothed image times `factor`: 0 is smooth, 1 changes nothing, 2 sharp."""

    def sharpen(own: np.ndarray) -> np.ndarray:
        smooth = own.copy()
        inner = cv2.filter2D(own, -1, SMOOTH).reshape(own.shape)[1:-1, 1:-1]
        smooth[1:-1, 1:-1] = inner
        return blend(smooth, own, factor)

    return on_colours(image, sharpen)


def blend(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    """`factor` of the way from start to end, or beyond, cut off to whole levels in 0 to 255."""
    # OpenCV rounds: half a level less cuts off instead, but for what float32 lacks in precision.
    return cv2.addWeighted(end, factor, start, 1 - factor, -0.4999)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Colours turned by `shift` of the full circle of HSV, in float32; grey stays grey."""
    if image.shape[2] == 1:
        return image

    def turn(own: np.ndarray) -> np.ndarray:
        turned = np.empty_like(own, order="C")
        for top in range(0, len(own), ROWS):
            strip = slice(top, top + ROWS)
            hsv = cv2.cvtColor(own[strip].astype(np.float32), cv2.COLOR_RGB2HSV)
            hsv[..., 0] += 360 * (shift % 1)  # OpenCV takes angles above 360 degrees as such
            turned[strip] = cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
        return turned

    return on_colours(image, turn)


def grey(image: np.ndarray) -> np.ndarray:
    """Every colour replaced by the luma."""
    if image.shape[2] == 1:
        return image
    level = cv2.cvtColor(luma(image), cv2.COLOR_GRAY2RGB)
    return on_colours(image, lambda own: level)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothed by a Gaussian of `sigma` pixels, cut off beyond three; mirrored at the border."""
    side = 2 * int(np.ceil(3 * sigma)) + 1
    return on_colours(image, lambda own: cv2.GaussianBlur(own, (side, side), sigma))


def mix(images: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    """The sum of images of one shape, alpha too, each times its share; in float32, rounded."""
    mixed = np.empty_like(images[0], order="C")
    for top in range(0, len(mixed), ROWS):
        strip = slice(top, top + ROWS)
        total = np.zeros(mixed[strip].shape, np.float32)
        for image, share in zip(images, shares, strict=True):
            total += np.float32(share) * image[strip]
        mixed[strip] = np.rint(total)
    return mixed

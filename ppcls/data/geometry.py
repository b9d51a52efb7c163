"""Resizing and cropping of uint8 images [H, W, C], by OpenCV or Pillow."""

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from ppcls.errors import UserError

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


def resize_short(
    image: np.ndarray, pixels: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """The image with its short side `pixels` long, the sides rounded as PaddleClas rounds them.

    UserError for an image so narrow that its long side would exceed 32,768 pixels.
    """
    height, width = image.shape[:2]
    scale = pixels / min(height, width)
    wide, high = round(width * scale), round(height * scale)
    if max(wide, high) > LONGEST:
        raise UserError(
            f"an image of {width}x{height} pixels is too narrow to resize its short side to "
            f"{pixels}; crop it first"
        )
    return resize(image, wide, high, interpolation, backend)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle [size, size, C] of an image at least that large: a view."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]

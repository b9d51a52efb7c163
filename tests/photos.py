"""Photos that tests make for themselves."""

from pathlib import Path

import cv2
import numpy as np


def write_photo(path: Path, seed: int, shape: tuple[int, int, int] = (48, 40, 3)) -> None:
    """A photo of random pixels, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    assert cv2.imwrite(str(path), pixels)

"""Images that tests make for themselves."""

from pathlib import Path

import cv2
import numpy as np


def write_photo(path: Path, seed: int, shape: tuple[int, int, int] = (48, 40, 3)) -> None:
    """An image of random pixels, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    assert cv2.imwrite(str(path), pixels)


def scene(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Random colours uint8 [height, width, 3], the finer the weaker, as in images."""
    rng, photo = np.random.default_rng(seed), np.full((height, width, 3), 110.0)
    for cells in (2, 4, 8, 16, 32):
        grid = rng.normal(0, 60 / cells**0.5, (cells, cells, 3))
        photo += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(photo, 0, 255).astype(np.uint8)

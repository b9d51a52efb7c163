"""How long an engine takes, where several run by turns."""

import time

import numpy as np

from ppcls.inference.engines.base import Engine
from ppcls.inference.folder import Folder

SETTLE = 0.05  # seconds of untimed runs after another engine ran, whose idle threads still spin


def settle(engine: Engine, images: np.ndarray) -> None:
    """Run for a moment untimed."""
    start = time.perf_counter()
    while True:
        engine.run(images)
        if time.perf_counter() - start > SETTLE:
            return


def timed(engine: Engine, images: np.ndarray, seconds: float) -> list[float]:
    """Seconds of each of the runs of a turn of so many seconds."""
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        engine.run(images)
        times.append(time.perf_counter() - start)
    return times


def example(folder: Folder, batch: int) -> np.ndarray:
    """Noise as photos would come: uint8 [N, H, W, C], or normalised float32 [N, C, H, W]."""
    preprocess = folder.manifest.preprocess
    side, channels = preprocess.crop, preprocess.channels
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, channels), np.uint8)
    return pixels if folder.manifest.input == "uint8" else preprocess.normalize(pixels)

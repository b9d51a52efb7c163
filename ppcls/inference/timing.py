"""How long an engine takes, where several run by turns."""

import time
from collections.abc import Callable

import numpy as np

from ppcls.inference.engines.base import Engine
from ppcls.inference.folder import Folder

SETTLE = 0.05  # seconds of untimed runs after another engine ran, whose idle threads still spin

Clock = Callable[[], float]  # seconds since any time


def settle(
    engine: Engine,
    images: np.ndarray,
    clock: Clock = time.perf_counter,
    seconds: float = SETTLE,
) -> None:
    """Run for a moment untimed."""
    start = clock()
    while True:
        engine.run(images)
        if clock() - start > seconds:
            return


def timed(
    engine: Engine, images: np.ndarray, seconds: float, clock: Clock = time.perf_counter
) -> list[float]:
    """Seconds of each of the runs of a turn of so many seconds."""
    times: list[float] = []
    while sum(times) < seconds:
        start = clock()
        engine.run(images)
        times.append(clock() - start)
    return times


def example(folder: Folder, batch: int) -> np.ndarray:
    """Noise as photos would come: uint8 [N, H, W, C], or normalised float32 [N, C, H, W]."""
    preprocess = folder.manifest.preprocess
    side, channels = preprocess.crop, preprocess.channels
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, channels), np.uint8)
    return pixels if folder.manifest.input == "uint8" else preprocess.normalize(pixels)

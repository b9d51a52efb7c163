"""The time that photos take before and after the network."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data import images
from ppcls.data.preprocess import Preprocess
from ppcls.inference.predictor import softmax
from ppcls.utils.opencv import cv2

MADE = (375, 500)  # pixels of a made-up photo, as large as ImageNet's are on average
BATCH, CLASSES, TOPK = 8, 1000, 5
SECONDS = 0.5
MOST = 64  # photos of a folder


def make_photo(folder: Path) -> Path:
    """A JPEG that is about as detailed, and as large, as photos are."""
    noise = np.random.default_rng(0).standard_normal((*MADE, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    pixels = np.clip(128 + 48 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    path = folder / "photo.jpg"
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    return path


def describe(preprocess: Preprocess, given: Path | None) -> dict[str, Any]:
    """What the times depend on."""
    ways = asdict(preprocess)
    used = {key: ways[key] for key in ("resize", "crop", "interpolation", "backend")}
    made = f"a made-up photo of {MADE[1]} x {MADE[0]}"
    return {**used, "channels": preprocess.channels, "photos": str(given or made)}


def time_photos(
    preprocess: Preprocess, photos: Sequence[Path], seconds: float = SECONDS
) -> dict[str, float]:
    """Milliseconds a photo, one thread: decoding, resizing and cropping; normalising and stacking
    in batches of 8; softmax and the five best of 1,000 classes in batches of 8. Each for
    so many `seconds`.
    """
    pixels = [preprocess(images.read(photo, preprocess.channels)) for photo in photos[:MOST]]
    batch = [pixels[i % len(pixels)] for i in range(BATCH)]
    logits = np.random.default_rng(0).standard_normal((BATCH, CLASSES), dtype=np.float32)

    def read() -> None:
        for photo in photos[:MOST]:
            preprocess(images.read(photo, preprocess.channels))

    def normalize() -> None:
        preprocess.normalize(np.stack(batch))

    return {
        "read_ms": milliseconds(read, seconds) / len(pixels),
        "normalize_ms": milliseconds(normalize, seconds) / BATCH,
        "postprocess_ms": milliseconds(lambda: best(logits), seconds) / BATCH,
    }


def best(logits: np.ndarray) -> np.ndarray:
    return np.argsort(-softmax(logits), axis=1, kind="stable")[:, :TOPK]


def milliseconds(run: Callable[[], Any], seconds: float) -> float:
    """Median of runs within `seconds`, at least one, after an untimed one."""
    run()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))

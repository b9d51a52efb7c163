"""Photos to class names, with an exported folder alone."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ppcls.data import images
from ppcls.data.datasets import find_photos
from ppcls.errors import UserError
from ppcls.inference import manifest
from ppcls.inference.engines import PaddleInference

Photo = str | PathLike[str] | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The best classes of one photo, the likeliest first."""

    path: str | None  # None: it was given as an array
    classes: list[int]
    labels: list[str]  # class names; the class numbers where names are unknown
    scores: list[float]  # probabilities
    milliseconds: float  # reading, preprocessing and network, the mean over its batch


class Predictor:
    """An exported folder, ready to predict: `Predictor("exported/x").predict(["a.jpg"])`."""

    def __init__(
        self, folder: str | PathLike[str], device: str = "auto", threads: int | None = None
    ):
        """Open a folder that `tools/export.py` wrote.

        Args:
            device: auto, cpu or gpu.
            threads: CPU threads; None: all cores.

        Raises:
            ValueError: the folder is incomplete, or the device is not there.
        """
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        self.engine = PaddleInference(self.folder, device, threads)

    def predict(
        self, photos: Photo | Sequence[Photo], topk: int | None = None, batch_size: int = 8
    ) -> list[Prediction]:
        """Classify photos.

        Args:
            photos: files, folders (all photos in them), lists of files, or arrays
                uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA).
            topk: classes per photo; None: what the export says (5).
            batch_size: photos per run of the network; changes the speed alone.

        Raises:
            ValueError: a photo that is missing or broken, named.
        """
        return list(self.stream(find(photos), topk, batch_size))

    def stream(
        self, photos: Sequence[Photo], topk: int | None = None, batch_size: int = 8
    ) -> Iterator[Prediction]:
        """As `predict` for photo files and arrays, one batch at a time."""
        topk = self.manifest.topk if topk is None else topk
        if topk < 1 or batch_size < 1:
            raise UserError(f"topk ({topk}) and batch_size ({batch_size}) should be at least 1")
        for i in range(0, len(photos), batch_size):
            yield from self.predict_batch(photos[i : i + batch_size], topk)

    def predict_batch(self, photos: Sequence[Photo], topk: int) -> Iterator[Prediction]:
        start = time.perf_counter()
        scores = self.engine.run(self.prepare(photos))
        if self.manifest.labels and len(self.manifest.labels) != scores.shape[1]:
            raise UserError(
                f"{self.folder}: inference.yml has {len(self.manifest.labels)} labels and the "
                f"network {scores.shape[1]} classes; export it again"
            )
        milliseconds = (time.perf_counter() - start) * 1000 / len(photos)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :topk]
        for photo, row, classes in zip(photos, scores, best, strict=True):
            yield Prediction(
                path=None if isinstance(photo, np.ndarray) else str(photo),
                classes=classes.tolist(),
                labels=[self.label(index) for index in classes],
                scores=row[classes].tolist(),
                milliseconds=milliseconds,
            )

    def prepare(self, photos: Iterable[Photo]) -> np.ndarray:
        """The network's input, float32 [N, C, H, W]."""
        preprocess = self.manifest.preprocess
        return preprocess.normalize(
            np.stack([preprocess(open_photo(p, preprocess.channels)) for p in photos])
        )

    def label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)


def open_photo(photo: Photo, channels: int) -> np.ndarray:
    if isinstance(photo, np.ndarray):
        return images.convert(photo, channels)
    return images.read(photo, channels)


def find(photos: Photo | Sequence[Photo]) -> list[Photo]:
    """Files and arrays as they are; folders and list files as the photos they hold."""
    if isinstance(photos, (str, PathLike, np.ndarray)):
        photos = [photos]
    found: list[Photo] = []
    for photo in photos:
        found += [photo] if isinstance(photo, np.ndarray) else find_photos(photo)
    return found

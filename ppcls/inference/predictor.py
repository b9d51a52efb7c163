"""Photos to class names, with an exported folder alone."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ppcls.data import images
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
        self.manifest = manifest.read(Path(folder))
        self.engine = PaddleInference(Path(folder), device, threads)

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
        return list(self.stream(photos, topk, batch_size))

    def stream(
        self, photos: Photo | Sequence[Photo], topk: int | None = None, batch_size: int = 8
    ) -> Iterator[Prediction]:
        """As `predict`, one batch at a time."""
        found = find(photos)
        for i in range(0, len(found), batch_size):
            yield from self.predict_batch(found[i : i + batch_size], topk or self.manifest.topk)

    def predict_batch(self, photos: Sequence[Photo], topk: int) -> Iterator[Prediction]:
        start = time.perf_counter()
        scores = self.engine.run(self.prepare(photos))
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
        found += [photo] if isinstance(photo, np.ndarray) else find_files(Path(photo))
    return found


def find_files(path: Path) -> list[Photo]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in images.SUFFIXES)
        if not files:
            raise UserError(
                f"{path}: no photos in this folder ({', '.join(sorted(images.SUFFIXES))})"
            )
        return list(files)
    if path.suffix.lower() in (".txt", ".lst") and path.is_file():
        return read_list(path)
    return [path]


def read_list(path: Path) -> list[Photo]:
    """The photos of a list file, one a line, relative to it; a label after the path is let go."""
    photos: list[Photo] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        whole = path.parent / line.strip()
        labelled = path.parent / line.strip().rpartition("\t" if "\t" in line else " ")[0].rstrip()
        if not line.strip():
            raise UserError(f"{path}:{number}: blank line; one photo a line is expected")
        if not whole.is_file() and not labelled.is_file():
            raise UserError(f"{path}:{number}: {whole} does not exist")
        photos.append(whole if whole.is_file() else labelled)
    if not photos:
        raise UserError(f"{path}: names no photos")
    return photos

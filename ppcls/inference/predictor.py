"""Photos to class names, with an exported folder alone."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ppcls import environment
from ppcls.data import images
from ppcls.data.datasets import find_photos
from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError
from ppcls.inference.choose import choose
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.table import device_for, open_engine
from ppcls.inference.folder import open_folder

AUTO = "auto"
MANY_CLASSES = 1 << 30
AHEAD = 2  # batches, of each that runs, that are being prepared meanwhile
MANY = 8  # batches of each thread from which on each thread runs its own
LARGE = 1 << 29  # bytes of a network
SUMS_TO_ONE = 1e-3

Photo = str | PathLike[str] | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The best classes of one photo, or all above their thresholds; the likeliest first."""

    path: str | None  # None: it was given as an array
    classes: list[int]
    labels: list[str]  # class names; the class numbers where names are unknown
    scores: list[float]  # probabilities
    milliseconds: float  # reading, preprocessing and network, the mean over its batch


class Predictor:
    """An exported folder, ready to predict: `Predictor("exported/x").predict(["a.jpg"])`."""

    def __init__(
        self,
        folder: str | PathLike[str],
        device: str = "auto",
        threads: int | None = None,
        engine: str = AUTO,
        precision: str = "fp32",
        batch_size: int = 8,
        **given: Any,
    ):
        """Open a folder that ppcls, PaddleClas or PaddleX exported.

        Args:
            device: auto, cpu or gpu.
            threads: CPU threads; None: as many as are fastest, or with an engine named, all cores.
            engine: a name in `engines.table.ENGINES`, or auto: the fastest here, measured once.
            precision: of the arithmetic: fp32, bf16 (CPUs that have it) or fp16 (GPUs).
            batch_size: photos per run of the network; changes the speed alone.
            given: in place of what inference.yml says: resize, crop, interpolation, backend, mean,
                std (fields of `Preprocess`), labels, a file of class names, "imagenet" or a
                sequence of them, and threshold.

        Raises:
            ValueError: the folder is incomplete, or the device or the engine is not there.
        """
        if batch_size < 1:
            raise UserError(f"batch_size ({batch_size}) should be at least 1")
        self.folder = open_folder(Path(folder), given)
        self.manifest = self.folder.manifest
        self.batch_size = batch_size
        settings = Settings(engine, device_for(device), precision, batch=batch_size)
        if engine == AUTO:
            self.engine = choose(self.folder, settings, threads)
        else:
            settings = replace(settings, threads=threads or environment.threads())
            self.engine = open_engine(self.folder, settings)
        self.output = self.manifest.output
        self.threads, self.parallel = threads, None

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        topk: int | None = None,
        batch_size: int | None = None,
    ) -> list[Prediction]:
        """Classify photos.

        Args:
            photos: files, folders (all photos in them), lists of files, or arrays
                uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA).
            topk: classes per photo; None: what the export says (5). A multi-label network gives
                all classes above their thresholds, at most `topk` where it is given. One with a
                threshold for its second class (PaddleClas's ThreshOutput) gives the class decided
                on, and more only where `topk` asks for them: behind it, the likeliest first.
            batch_size: photos per run of the network; None: the predictor's.

        Raises:
            ValueError: a photo that is missing or broken, named.
        """
        return list(self.stream(find(photos), topk, batch_size))

    def stream(
        self, photos: Sequence[Photo], topk: int | None = None, batch_size: int | None = None
    ) -> Iterator[Prediction]:
        """As `predict` for photo files and arrays, a batch at a time, in their order.

        The next batches are being prepared meanwhile; of many, as many run at once as there are
        threads, for that wastes least.
        """
        if topk is None:
            topk = self.manifest.topk if self.manifest.task == "classify" else MANY_CLASSES
            topk = topk if self.manifest.default is None else 1  # the class that is decided on
        size = self.batch_size if batch_size is None else batch_size
        if topk < 1 or size < 1:
            raise UserError(f"topk ({topk}) and batch_size ({size}) should be at least 1")
        batches = [photos[i : i + size] for i in range(0, len(photos), size)]
        engine = self.engine_for(len(batches))
        streams = engine.settings.streams
        work = partial(self.prepare_and_run, engine) if streams > 1 else self.prepare
        with ThreadPoolExecutor(streams) as workers:
            waiting: deque[tuple[Sequence[Photo], Future[Run]]] = deque()
            for batch in batches:
                waiting.append((batch, workers.submit(work, batch)))
                if len(waiting) > AHEAD * streams:
                    yield from self.finish(*waiting.popleft(), engine, topk)
            while waiting:
                yield from self.finish(*waiting.popleft(), engine, topk)

    def engine_for(self, batches: int) -> Engine:
        """The engine for so many batches: for many, one that runs a batch on each thread."""
        settings, threads = self.engine.settings, self.threads or environment.threads()
        small = self.folder.size() < LARGE  # else reading photos hardly counts
        if settings.device != "cpu" or threads == 1 or batches < MANY * threads or not small:
            return self.engine
        if self.parallel is None:
            settings = replace(settings, threads=1, streams=threads)
            self.parallel = open_engine(self.folder, settings)
        return self.parallel

    def finish(
        self, photos: Sequence[Photo], work: "Future[Run]", engine: Engine, topk: int
    ) -> Iterator[Prediction]:
        done = work.result()
        if done.output is None:
            done = run(engine, done)
        assert done.output is not None
        scores = self.probabilities(done.output)
        milliseconds = done.seconds * 1000 / len(photos)
        for photo, row in zip(photos, scores, strict=True):
            classes, shares = self.answer(row, topk)
            yield Prediction(
                path=None if isinstance(photo, np.ndarray) else str(photo),
                classes=classes.tolist(),
                labels=[self.label(index) for index in classes],
                scores=shares[classes].tolist(),
                milliseconds=milliseconds,
            )

    def answer(self, row: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
        """The classes that probabilities [classes] stand for, and the probabilities to show."""
        if self.manifest.default is not None:
            return self.manifest.decide(row, topk)
        classes = best_of(row, topk)
        if self.manifest.task == "multilabel":
            above = row > np.array(self.manifest.threshold)
            classes = classes[above[classes]]
        return classes, row

    def prepare_and_run(self, engine: Engine, photos: Sequence[Photo]) -> "Run":
        return run(engine, self.prepare(photos))

    def prepare(self, photos: Iterable[Photo]) -> "Run":
        """The network's input, and the seconds it took."""
        start = time.perf_counter()
        preprocess = self.manifest.preprocess
        images = [open_photo(photo, preprocess) for photo in photos]
        normal = self.manifest.input == "float32"
        result = preprocess.normalize(images) if normal else np.stack(images)
        return Run(result, time.perf_counter() - start)

    def probabilities(self, output: np.ndarray) -> np.ndarray:
        """The network's output, [N, classes], as probabilities."""
        if output.ndim != 2:
            raise UserError(
                f"{self.folder.path}: the network's output is {list(output.shape)}, not a number "
                "for each class: is it a classifier?"
            )
        if self.manifest.labels and len(self.manifest.labels) != output.shape[1]:
            raise UserError(
                f"{self.folder.path}: there are {len(self.manifest.labels)} labels and the "
                f"network has {output.shape[1]} classes; give the names of these (labels), or "
                "export it again"
            )
        threshold, several = self.manifest.threshold, self.manifest.task == "multilabel"
        if several and np.ndim(threshold) and len(output[0]) != np.size(threshold):
            raise UserError(
                f"{self.folder.path}: there are {np.size(threshold)} thresholds and the network "
                f"has {output.shape[1]} classes; export it again"
            )
        if self.output is None:
            self.output = "probabilities" if is_probabilities(output, several) else "logits"
        return output if self.output == "probabilities" else link(output, self.manifest.task)

    def label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)


def best_of(row: np.ndarray, topk: int) -> np.ndarray:
    """The classes of the highest numbers, the highest first; of equal ones the first comes first.

    Without sorting all of them, which for 1,000 classes takes as long as reading a photo's file.
    """
    if topk >= len(row):
        return np.argsort(-row, kind="stable")
    least = np.partition(row, -topk)[-topk]
    (found,) = np.nonzero(row >= least)
    return found[np.argsort(-row[found], kind="stable")][:topk]


@dataclass(frozen=True)
class Run:
    """A batch on its way: images, then output; and the seconds so far."""

    images: np.ndarray
    seconds: float
    output: np.ndarray | None = None


def run(engine: Engine, prepared: Run) -> Run:
    start = time.perf_counter()
    output = engine.run(prepared.images)
    return Run(prepared.images, prepared.seconds + time.perf_counter() - start, output)


def is_probabilities(output: np.ndarray, several: bool) -> bool:
    """Whether numbers [N, classes] look like probabilities: from 0 to 1, in a row's sum or each."""
    sums = output.max(axis=1) if several else output.sum(axis=1)
    low, high = (0, 1) if several else (1, 1)
    fits = (sums >= low - SUMS_TO_ONE) & (sums <= high + SUMS_TO_ONE)
    return bool((output >= 0).all() and fits.all())


def link(logits: np.ndarray, task: str) -> np.ndarray:
    """Logits [N, classes] as probabilities: softmax or, where each class is its own, logistic."""
    return softmax(logits) if task == "classify" else 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def open_photo(photo: Photo, preprocess: Preprocess) -> np.ndarray:
    """A photo as uint8 [crop, crop, C]; errors about a file name it."""
    if isinstance(photo, np.ndarray):
        return preprocess(images.convert(photo, preprocess.channels))
    pixels = images.read(photo, preprocess.channels)
    try:
        return preprocess(pixels)
    except UserError as error:
        raise UserError(f"{photo}: {error}") from None


def find(photos: Photo | Sequence[Photo]) -> list[Photo]:
    """Files and arrays as they are; folders and list files as the photos they hold."""
    if isinstance(photos, (str, PathLike, np.ndarray)):
        photos = [photos]
    found: list[Photo] = []
    for photo in photos:
        found += [photo] if isinstance(photo, np.ndarray) else find_photos(photo)
    return found

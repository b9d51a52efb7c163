"""What classifiers answer on the same images: each in its own way, or with parts of another's."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ppcls.data.preprocess import Preprocess
from ppcls.inference.inputs import Content, open_image, pixels_of
from ppcls.inference.predictor import Predictor
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.guard import user_errors
from ppcls.utils.log import Progress, say
from ppcls.utils.text import at_most, plural

AHEAD = 2  # batches that are being prepared meanwhile


@dataclass(frozen=True)
class Way:
    """How images become answers: an opened network, and how they are prepared for it."""

    predictor: Predictor
    preprocess: Preprocess

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Prepared images, uint8 [N, H, W, C], to probabilities float32 [N, classes].

        Raises:
            UserError: the network takes no images of that size.
        """
        images = self.preprocess.network_input(pixels, self.predictor.manifest.input)
        return self.predictor.probabilities(self.predictor.engine.run(images))


@dataclass(frozen=True)
class Prepared:
    """A batch: the places of the images that can be read, and their pixels by preprocessing."""

    places: list[int]
    pixels: dict[Preprocess, np.ndarray]
    mistakes: list[DataError]


def answers(
    ways: Sequence[Way], paths: Sequence[str], skip: bool = False, what: str = "comparing"
) -> tuple[list[np.ndarray], np.ndarray]:
    """The probabilities of each way, float32 [N, classes], and the places of the images.

    Each image is decoded once.

    Args:
        skip: leave out images that cannot be read, and say so.

    Raises:
        UserError: an image cannot be read, or none can; an output is not finite; a network takes no
            images of the size that they are prepared in.
    """
    found: list[list[np.ndarray]] = [[] for _ in ways]
    places: list[int] = []
    lost: list[str] = []
    size = ways[0].predictor.batch_size
    batches = batches_of(ways, paths, size)
    for batch in Progress(batches, what, -(-len(paths) // size)):
        if batch.mistakes and not skip:
            raise UserError(f"{batch.mistakes[0]} (--on-error skip goes on without it)")
        lost += map(str, batch.mistakes)
        if not batch.places:
            continue
        for way, rows in zip(ways, found, strict=True):
            output = way.run(batch.pixels[way.preprocess])
            broken = np.flatnonzero(~np.isfinite(output).all(axis=1))
            if len(broken):
                raise way.predictor.not_finite(str(paths[batch.places[broken[0]]]))
            rows.append(output)
        places += batch.places
    if lost:
        say(f"note: compared without {plural(len(lost), 'image')}: {at_most(lost, 3)}")
    if not places:
        raise UserError(f"none of {plural(len(paths), 'image')} can be read")
    return [np.concatenate(rows) for rows in found], np.array(places)


def batches_of(ways: Sequence[Way], paths: Sequence[str], size: int) -> Iterator[Prepared]:
    kinds = list(dict.fromkeys(way.preprocess for way in ways))
    workers = ways[0].predictor.workers
    waiting: deque[Future[Prepared]] = deque()
    for start in range(0, len(paths), size):
        numbers = range(start, min(start + size, len(paths)))
        batch = [(number, paths[number]) for number in numbers]
        waiting.append(workers.submit(prepare, kinds, batch))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def prepare(kinds: Sequence[Preprocess], batch: Sequence[tuple[int, str]]) -> Prepared:
    places = []
    mistakes = []
    rows: dict[Preprocess, list[np.ndarray]] = {kind: [] for kind in kinds}
    for place, path in batch:
        try:
            images = prepare_one(kinds, path)
        except DataError as error:
            mistakes.append(error)
            continue
        places.append(place)
        for kind, image in zip(kinds, images, strict=True):
            rows[kind].append(image)
    pixels = {kind: np.stack(images) for kind, images in rows.items() if images}
    return Prepared(places, pixels, mistakes)


def prepare_one(kinds: Sequence[Preprocess], path: str) -> list[np.ndarray]:
    if len(kinds) == 1:
        return [open_image(path, kinds[0])]
    with user_errors(path, DataError):
        try:
            decoded = {c: pixels_of(path, c, path) for c in {kind.channels for kind in kinds}}
        except DataError:
            raise
        except UserError as error:
            raise DataError(*error.lines) from None
    return [open_image(Content(path, decoded[kind.channels]), kind) for kind in kinds]


# --------------------------------------------------------------------------- two of them


@dataclass(frozen=True)
class Answered:
    """What was answered on images: probabilities [N, classes], and what is decided of them: classes
    int64 [N] or, with several labels, 0 and 1 [N, classes].
    """

    probabilities: np.ndarray
    decided: np.ndarray

    def changed(self, other: "Answered") -> np.ndarray:
        """How much of each image's answer another one decides otherwise, 0 to 1, float64 [N]."""
        differs = self.decided != other.decided
        return differs.astype(np.float64) if differs.ndim == 1 else differs.mean(axis=1)

    def distances(self, other: "Answered") -> np.ndarray:
        """How far apart the answers to each image are, 0 to 2, float64 [N]: the part of the
        probability that another class gets, and what is decided otherwise.
        """
        apart = np.abs(self.probabilities.astype(np.float64) - other.probabilities)
        moved = apart.sum(axis=1) / 2 if self.decided.ndim == 1 else apart.mean(axis=1)
        return moved + self.changed(other)

    def take(self, places: np.ndarray) -> "Answered":
        return Answered(self.probabilities[places], self.decided[places])


def renumbered(decided: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What B decides, as A numbers the classes.

    Args:
        order: B's number of each class of A.
    """
    return np.argsort(order)[decided] if decided.ndim == 1 else decided[:, order]

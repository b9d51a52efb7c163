"""Every image looked at once: digests, a perceptual hash, its size and what is odd about it.

What is kept of one image: digests, a perceptual hash, its size and what is odd about it.

The perceptual hash is the signs of an image's 256 lowest frequencies (a discrete cosine transform
of the image in grey, 32x32), without the mean: 256 bits that saving, resizing and brightness
hardly change. Written here because the libraries for it bring SciPy and wavelets along.
"""

import hashlib
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from functools import partial
from itertools import islice
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from ppcls.config.node import Sides
from ppcls.data import decode
from ppcls.data.preprocess import both, short_sides
from ppcls.data.samples import Dataset
from ppcls.data.workers import start_pool
from ppcls.utils.environment import core_count
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import Progress
from ppcls.utils.opencv import cv2

# of the grey picture that is hashed; 64-bit words of the hash
SIDE = 32
WORDS = 4
FLAT = 2.0  # standard deviation in grey levels below which an image shows nothing
LONG = 4  # times the short side from which a shape is odd
RECORD = np.dtype(
    [
        ("bytes", np.uint64),  # digest of the file
        ("pixels", np.uint64),  # digest of the decoded pixels; 0: not decoded
        ("hash", np.uint64, WORDS),
        ("width", np.uint32),
        ("height", np.uint32),
        ("odd", np.uint32),
    ]
)


class Odd(IntFlag):
    """What is no mistake, but may surprise."""

    ALPHA = 1
    DEEP = 2
    CMYK = 4
    TURNED = 8
    GREY = 16
    ANIMATED = 32
    LONG = 64
    BLANK = 128
    SUFFIX = 256
    LARGE = 512
    SMALL = 1024


@dataclass(frozen=True)
class Demands:
    """What a recipe asks of images: channels, and sizes in pixels (0: unknown)."""

    channels: int = 3
    resize: int = 0  # that a short side is resized to
    crop: Sides = 0
    whole: bool = False  # one side that is not below `crop` is enough


def examine(paths: Sequence[str], demands: Demands) -> tuple[np.ndarray, dict[int, str]]:
    """RECORD [N] for the images, and for each that is broken its place in `paths` and why."""
    records = np.zeros(len(paths), RECORD)
    broken = {}
    # Pillow's warning of a large image names no file; the image is noted as large.
    with warnings.catch_warnings(), decoder_messages() as messages:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for i, path in enumerate(paths):
            try:
                records[i] = record(path, demands)
            except UserError as error:
                broken[i] = error.without(path)
            said = read_messages(messages)
            if said and i not in broken:
                broken[i] = f"decoded with damage ({said}); replace it, or save it anew"
    return records, broken


def record(path: str, demands: Demands) -> tuple:
    """An image's RECORD; UserError where it is broken or too narrow."""
    data = decode.read_bytes(path)
    pixels = decode.decode(data, demands.channels, path)
    height, width = pixels.shape[:2]
    if demands.resize:
        short_sides(height, width, demands.resize)
    pixel_digest, words, blank = fingerprint(pixels)
    odd = oddities(data, path) | (Odd.BLANK if blank else 0)
    odd |= Odd.LONG if max(width, height) > LONG * min(width, height) else 0
    odd |= Odd.LARGE if width * height > decode.LARGE else 0
    high, wide = both(demands.crop)
    below = (height < high, width < wide)
    odd |= Odd.SMALL if (all(below) if demands.whole else any(below)) else 0
    return digest(data), pixel_digest, words, width, height, odd


def fingerprint(pixels: np.ndarray) -> tuple[int, np.ndarray, bool]:
    """The digest of uint8 [H, W, C], and what `perceptual_hash` says of it in grey."""
    code = {1: None, 3: cv2.COLOR_RGB2GRAY, 4: cv2.COLOR_RGBA2GRAY}[pixels.shape[2]]
    grey = pixels if code is None else cv2.cvtColor(pixels, code)
    return digest(pixels.data, pixels.shape), *perceptual_hash(grey)


def digest(data: bytes | memoryview, shape: tuple[int, ...] = ()) -> int:
    """64 bits, never 0: two of a million different images agree once in 40 million data sets."""
    made = hashlib.sha1(repr(shape).encode(), usedforsecurity=False)
    made.update(data)
    return int.from_bytes(made.digest()[:8], "little") or 1


def perceptual_hash(grey: np.ndarray) -> tuple[np.ndarray, bool]:
    """Grey uint8 [H, W] to uint64 [4], and whether it shows nothing: such hashes mean nothing.

    Bit n of the 256 is the sign of frequency n, from low to high.
    """
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    signs = cv2.dct(small)[ROWS, COLUMNS] > 0
    blank = cv2.meanStdDev(small)[1].item() < FLAT
    return np.packbits(signs, bitorder="little").view("<u8"), blank


def low_frequencies(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lowest frequencies without the mean, by diagonals."""
    places = [(i + j, i, j) for i in range(SIDE) for j in range(SIDE) if i + j]
    _, rows, columns = np.array(sorted(places)[:count]).T
    return rows, columns


ROWS, COLUMNS = low_frequencies(64 * WORDS)


def oddities(data: bytes, path: str) -> Odd:
    """What the file's header says that may surprise."""
    image = decode.open_image(data, path)
    found = Odd(0)
    if image.has_transparency_data:
        found |= Odd.ALPHA
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        found |= Odd.DEEP
    if image.mode in ("CMYK", "YCCK"):
        found |= Odd.CMYK
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"):
        found |= Odd.GREY
    if decode.orientation(image.info.get("exif", b"")) > 1:
        found |= Odd.TURNED
    if getattr(image, "is_animated", False):
        found |= Odd.ANIMATED
    named = decode.format_named(path)
    if named and named != ("JPEG" if image.format == "MPO" else image.format):
        found |= Odd.SUFFIX
    return found


@contextmanager
def decoder_messages() -> Iterator[BinaryIO]:
    """A file that takes what is written to this process's stderr meanwhile.

    libjpeg says there, and nowhere else, that it found damage in an image it decoded.
    """
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def read_messages(file: BinaryIO) -> str:
    """The first line that was written since the last look."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return ""
    text = os.pread(file.fileno(), size, 0).decode(errors="replace")
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    os.ftruncate(file.fileno(), 0)
    return text.splitlines()[0].strip()


# --------------------------------------------------------------------------
# Every image of a data set looked at once, by a worker process for each core

UNLABELED = "unlabeled"  # the part without labels
CHUNK = 64  # images that a worker is given at a time
FEW = 256  # images below which starting workers takes longer than the work

Found = TypeVar("Found")


@dataclass(frozen=True)
class Album:
    """The parts of a data set ("train", "eval", "unlabeled") as one row of images.

    `labels` says what is wrong with the labels of all, "" where nothing is.
    """

    parts: dict[str, Dataset]
    labels: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def find(self, image: int) -> tuple[str, Dataset, int]:
        """The part of an image, the part's samples, and the image's index there."""
        for name, samples in self.parts.items():
            if image < len(samples):
                return name, samples, image
            image -= len(samples)
        raise IndexError(image)

    def part(self, image: int) -> str:
        return self.find(image)[0]

    def path(self, image: int) -> str:
        _, samples, index = self.find(image)
        return samples.paths[index]

    def where(self, image: int) -> str:
        """The place to look for the image, as `Samples.where`."""
        _, samples, index = self.find(image)
        return samples.where(index)

    def label(self, image: int) -> str:
        """The name of the image's class, or its number."""
        part, samples, index = self.find(image)
        return "no label" if part == UNLABELED else samples.label_of(index)

    def labelled(self) -> list[tuple[str, Dataset]]:
        """The parts with labels, and their names."""
        return [(name, part) for name, part in self.parts.items() if name != UNLABELED]

    def paths(self) -> Iterator[str]:
        for samples in self.parts.values():
            yield from samples.paths


@dataclass(frozen=True)
class Survey:
    """What was seen: RECORD [N], and for each broken image why."""

    album: Album
    records: np.ndarray
    broken: dict[int, str]


def survey(album: Album, demands: Demands, what: str = "check") -> Survey:
    """Look at all images; DataError where a worker process is ended by one."""
    records = np.zeros(len(album), RECORD)
    broken = {}
    done = 0
    look = partial(examine, demands=demands)
    results = in_order(look, chunks(album.paths(), CHUNK), workers_for(len(album)))
    for rows, reasons in Progress(
        results, f"{what}, in steps of {CHUNK} images", -(-len(album) // CHUNK)
    ):
        records[done : done + len(rows)] = rows
        broken |= {done + place: reason for place, reason in reasons.items()}
        done += len(rows)
    return Survey(album, records, broken)


def workers_for(images: int) -> int:
    """How many processes are worth starting; 0: none beside this one."""
    return min(core_count(), images // CHUNK) if images >= FEW else 0


def chunks(paths: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(paths, size)):
        yield chunk


def in_order(
    look: Callable[[Sequence[str]], Found], work: Iterator[Sequence[str]], workers: int
) -> Generator[Found, None, None]:
    """What `look` says of each chunk of paths, in order; 0 `workers`: this process itself.

    Raises:
        DataError: a worker was ended, maybe by an image.
    """
    if not workers:
        yield from map(look, work)
        return
    pool = start_pool(workers)
    asked: deque[Sequence[str]] = deque()
    pending: deque[Future] = deque()
    try:
        for chunk in work:
            asked.append(chunk)
            pending.append(pool.submit(look, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
                asked.popleft()
        while pending:
            yield pending.popleft().result()
            asked.popleft()
    except BrokenProcessPool:
        raise DataError(
            f"a worker was ended from outside, for lack of memory or by one of the images from "
            f"{asked[0][0]} on; check that folder by itself"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)

"""Every photo of a data set looked at once, by a worker process for each core."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np

from ppcls.check.photo import RECORD, Demands, examine
from ppcls.data.datasets import Samples
from ppcls.data.loader import start_pool
from ppcls.environment import core_count
from ppcls.errors import DataError
from ppcls.log import Progress

UNLABELED = "unlabeled"  # the part without labels
CHUNK = 64  # photos that a worker is given at a time
FEW = 256  # photos below which starting workers takes longer than the work

Found = TypeVar("Found")


@dataclass(frozen=True)
class Album:
    """The parts of a data set ("train", "eval", "unlabeled") as one row of photos.

    `labels` says what is wrong with the labels of all, "" where nothing is.
    """

    parts: dict[str, Samples]
    labels: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def find(self, photo: int) -> tuple[str, Samples, int]:
        """The part of a photo, the part's samples, and the photo's index there."""
        for name, samples in self.parts.items():
            if photo < len(samples):
                return name, samples, photo
            photo -= len(samples)
        raise IndexError(photo)

    def part(self, photo: int) -> str:
        return self.find(photo)[0]

    def path(self, photo: int) -> str:
        _, samples, index = self.find(photo)
        return samples.paths[index]

    def where(self, photo: int) -> str:
        """The place to look for the photo, as `Samples.where`."""
        _, samples, index = self.find(photo)
        return samples.where(index)

    def label(self, photo: int) -> str:
        """The name of the photo's class, or its number."""
        part, samples, index = self.find(photo)
        return "no label" if part == UNLABELED else samples.label_of(index)

    def labelled(self) -> list[tuple[str, Samples]]:
        """The parts with labels, and their names."""
        return [(name, part) for name, part in self.parts.items() if name != UNLABELED]

    def paths(self) -> Iterator[str]:
        for samples in self.parts.values():
            yield from samples.paths


@dataclass(frozen=True)
class Survey:
    """What was seen: RECORD [N], and for each broken photo why."""

    album: Album
    records: np.ndarray
    broken: dict[int, str]


def survey(album: Album, demands: Demands, what: str = "check") -> Survey:
    """Look at all photos; DataError where a worker process is ended by one."""
    records, broken, done = np.zeros(len(album), RECORD), {}, 0
    look = partial(examine, demands=demands)
    results = in_order(look, chunks(album.paths(), CHUNK), workers_for(len(album)))
    for rows, reasons in Progress(
        results, f"{what}, in steps of {CHUNK} photos", -(-len(album) // CHUNK)
    ):
        records[done : done + len(rows)] = rows
        broken |= {done + place: reason for place, reason in reasons.items()}
        done += len(rows)
    return Survey(album, records, broken)


def workers_for(photos: int) -> int:
    """How many processes are worth starting; 0: none beside this one."""
    return min(core_count(), photos // CHUNK) if photos >= FEW else 0


def chunks(paths: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(paths, size)):
        yield chunk


def in_order(
    look: Callable[[Sequence[str]], Found], work: Iterator[Sequence[str]], workers: int
) -> Generator[Found, None, None]:
    """What `look` says of each chunk of paths, in order; 0 `workers`: this process itself.

    Raises:
        DataError: a worker was ended, maybe by a photo.
    """
    if not workers:
        yield from map(look, work)
        return
    pool = start_pool(workers, {})
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
            f"a worker was ended from outside, for lack of memory or by one of the photos from "
            f"{asked[0][0]} on; check that folder by itself"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)

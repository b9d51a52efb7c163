"""Which images a student learns from: the surest of each class, none near the evaluation images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ppcls.check.findings import BANDS, COUNTS
from ppcls.check.survey import Odd
from ppcls.select.scores import BLOCK, Scores

PAIRS = 1 << 18  # that are compared at a time
HALF = BANDS // 2


class Near:
    """Known hashes, of which near ones are found without comparing with each.

    A hash is compared with those that agree with it in one of the 16 bands of 16 bits or, for a
    limit above 15 bits, in all but one bit of a band. So all within 31 bits are found, and within
    32 all but those that differ by exactly two bits in every band.
    """

    def __init__(self, hashes: np.ndarray, pairs: int = PAIRS):
        """`hashes`: uint64 [N, 4]; `pairs`: how many are compared at a time."""
        self.pairs = pairs
        self.bands = bands_of(hashes)
        self.orders = [np.argsort(band, kind="stable") for band in self.bands]
        counts = [np.bincount(band, minlength=1 << 16) for band in self.bands]
        self.starts = [np.concatenate([[0], np.cumsum(count)]) for count in counts]

    def __call__(self, hashes: np.ndarray, bits: int) -> np.ndarray:
        """bool [M]: which of uint64 [M, 4] differ in at most `bits` bits from a known one."""
        bands = bands_of(hashes)
        found = np.zeros(len(hashes), bool)
        flips = [0, *(1 << bit for bit in range(16))] if bits > 15 else [0]
        for band in range(BANDS):
            for flip in flips:
                rows = np.flatnonzero(~found)
                self.compare(bands, rows, band, bands[band, rows] ^ np.uint16(flip), bits, found)
        return found

    def compare(
        self,
        bands: np.ndarray,
        rows: np.ndarray,
        band: int,
        keys: np.ndarray,
        bits: int,
        found: np.ndarray,
    ) -> None:
        """Note in `found` which of `rows` are near one of those known with their key in a band."""
        starts = self.starts[band]
        first = starts[keys]
        counts = starts[1:][keys] - first
        some = np.flatnonzero(counts)
        rows = rows[some]
        first = first[some]
        counts = counts[some]
        ends = np.cumsum(counts)
        start = 0
        while start < len(rows):
            done = ends[start] - counts[start]
            stop = max(start + 1, int(np.searchsorted(ends, done + self.pairs, "right")))
            part = slice(start, stop)
            own = np.repeat(rows[part], counts[part])
            shift = first[part] - (ends[part] - counts[part] - done)
            others = self.orders[band][np.arange(len(own)) + np.repeat(shift, counts[part])]
            # Half of the bits tell nearly all apart.
            differ = distances(bands[:HALF], self.bands[:HALF], own, others)
            own = own[differ <= bits]
            others = others[differ <= bits]
            found[own[distances(bands, self.bands, own, others) <= bits]] = True
            start = stop


def distances(
    bands: np.ndarray, known: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """In how many bits `rows` of `bands` differ from `others` of `known`, int [N]."""
    total = np.zeros(len(rows), np.uint16)
    for one, other in zip(bands, known, strict=True):
        total += COUNTS[one[rows] ^ other[others]]
    return total


def bands_of(hashes: np.ndarray) -> np.ndarray:
    """uint64 [N, 4] to uint16 [16, N]."""
    return np.ascontiguousarray(
        np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), BANDS).T
    )


class EvalDuplicates:
    """Images that none of the chosen may be, or look much like."""

    def __init__(self, records: np.ndarray, bits: int):
        """`records`: of `ppcls.check.survey`, [N]; broken images count for nothing."""
        read = records[records["pixels"] != 0]
        self.pixels = read["pixels"]
        self.near = Near(read["hash"][read["odd"] & Odd.BLANK == 0])
        self.bits = bits

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """bool [n]: which of RECORD [n] are the same or nearly so."""
        found = np.isin(block["pixels"], self.pixels)
        rows = np.flatnonzero(~found & block["hash"].any(axis=1))
        found[rows] = self.near(block["hash"][rows], self.bits)
        return found


# --------------------------------------------------------------------------
# Of each class the images that a teacher is surest of, from scores of any number of images

CANDIDATE = np.dtype([("place", "<i8"), ("pixels", "<u8"), ("label", "<u4"), ("confidence", "<f4")])
WAITING = 1 << 16  # candidates that are sorted into a small pool at a time


@dataclass(frozen=True)
class Chosen:
    """What was chosen, CANDIDATE [n] in the order of the images, and what was not."""

    rows: np.ndarray
    images: int
    left_out: int  # that cannot be read
    near: int  # the evaluation images
    below: int  # the least confidence asked for
    copies: int  # of chosen ones

    def counts(self, classes: int) -> np.ndarray:
        """Chosen images of each class, int64 [classes]."""
        return np.bincount(self.rows["label"], minlength=classes)


def choose(
    scores: Scores,
    classes: int,
    per_class: int,
    least: float,
    excluded: EvalDuplicates | None,
    block: int = BLOCK,
    waiting: int = WAITING,
) -> Chosen:
    """The `per_class` surest images of each class, without copies and those to keep away from.

    An image belongs to its likeliest class; of equal confidences the earlier image wins. Memory is
    bounded by `classes` times `per_class`, whatever the number of images.

    Args:
        block: scores that are read at a time.
        waiting: candidates that are sorted into a small pool at a time.
    """
    pool = Pool(classes, per_class, waiting)
    left_out = near = below = 0
    for place, found in scores.blocks(block):
        read = found["pixels"] != 0
        far = read & ~excluded(found) if excluded else read
        sure = far & (found["confidence"] >= np.float32(least))
        left_out += int((~read).sum())
        near += int((read & ~far).sum())
        below += int((far & ~sure).sum())
        rows = np.empty(int(sure.sum()), CANDIDATE)
        rows["place"] = place + np.flatnonzero(sure)
        for name in ("pixels", "label", "confidence"):
            rows[name] = found[name][sure]
        pool.add(rows)
    rows = pool.chosen()
    copies = shown(rows["pixels"], (found for _, found in scores.blocks(block))) - len(rows)
    return Chosen(rows, scores.done, left_out, near, below, copies)


class Pool:
    """The surest images of each class seen so far, at most `limit`, no two with the same pixels."""

    def __init__(self, classes: int, limit: int, most_waiting: int = WAITING):
        self.limit = limit
        self.most_waiting = most_waiting  # that are sorted in when they are so many
        self.bar = np.full(classes, -1, np.float32)  # what an image has to be above
        self.rows = np.empty(0, CANDIDATE)  # by class, in it the surest first
        self.waiting: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """CANDIDATE [n], of images behind all that were added before."""
        self.waiting.append(rows[rows["confidence"] > self.bar[rows["label"]]])
        if sum(map(len, self.waiting)) >= max(self.most_waiting, len(self.rows) // 4):
            self.settle()

    def settle(self) -> None:
        rows = np.concatenate([self.rows, *self.waiting])
        self.waiting = []
        # Bits of floats from 0 on are ordered as they are. A stable sort leaves earlier images
        # before later ones that are as sure.
        unsure = ~rows["confidence"].view(np.uint32)
        keys = rows["label"].astype(np.uint64) << np.uint64(32) | unsure
        rows = rows[np.argsort(keys, kind="stable")]
        rows = rows[~repeated(rows)]
        starts = np.searchsorted(rows["label"], np.arange(len(self.bar) + 1))
        rank = np.arange(len(rows)) - starts[rows["label"]]
        self.rows = rows[rank < self.limit]
        full = np.flatnonzero(np.diff(starts) >= self.limit)
        self.bar[full] = rows["confidence"][starts[full] + self.limit - 1]

    def chosen(self) -> np.ndarray:
        """CANDIDATE [n] in the order of the images.

        Of an image that is in two classes (the last bits of a score depend on the batch) the surer
        one is taken, and the other class has one less.
        """
        self.settle()
        rows = self.rows[np.lexsort((self.rows["place"], -self.rows["confidence"]))]
        rows = rows[np.unique(rows["pixels"], return_index=True)[1]]
        return rows[np.argsort(rows["place"])]


def repeated(rows: np.ndarray) -> np.ndarray:
    """bool [n]: which of CANDIDATE [n], sorted by class, have the pixels of one before in it."""
    order = np.argsort(rows["pixels"], kind="stable")
    pixels = rows["pixels"][order]
    labels = rows["label"][order]
    found = np.zeros(len(rows), bool)
    found[order[1:]] = (pixels[1:] == pixels[:-1]) & (labels[1:] == labels[:-1])
    return found


def shown(pixels: np.ndarray, blocks: Iterable[np.ndarray]) -> int:
    """How many images have one of these digests of pixels."""
    known = np.sort(pixels)
    if not len(known):
        return 0
    total = 0
    for block in blocks:
        at = np.searchsorted(known, block["pixels"]).clip(max=len(known) - 1)
        total += int((known[at] == block["pixels"]).sum())
    return total

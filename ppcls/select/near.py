"""Which photos are near the evaluation photos: hashes looked up by their bands."""

import numpy as np

from ppcls.check.neighbours import BANDS, COUNTS
from ppcls.check.photo import Odd

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
        bands, found = bands_of(hashes), np.zeros(len(hashes), bool)
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
        rows, first, counts = rows[some], first[some], counts[some]
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
            own, others = own[differ <= bits], others[differ <= bits]
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


class Away:
    """Photos that none of the chosen may be, or look much like."""

    def __init__(self, records: np.ndarray, bits: int):
        """`records`: of `ppcls.check.photo`, [N]; broken photos count for nothing."""
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

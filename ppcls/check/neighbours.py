"""Pairs of near perceptual hashes, without comparing each with each.

Each of the 16 bands of 16 bits brings together the photos that are equal in it; only those are
compared in all 256 bits. A pair that differs in at most 15 bits is equal in one band for certain.
"""

import numpy as np

from ppcls.check.photo import WORDS

# Bits of 256 in which near-duplicates may differ; docs/data.md has the measurements.
NEAR = 32
# Photos of one band that are alike are compared with the next in order, up to so many …
REACH = 1000
# … and each is linked with so many at most: enough to see that it is one of a crowd.
LINKS = 20
BANDS = 4 * WORDS
COUNTS = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def near_pairs(hashes: np.ndarray, reach: int = REACH) -> np.ndarray:
    """Pairs of the rows of `hashes` (uint64 [N, 4]) that differ in few bits.

    int64 [P, 3]: i < j and the number of bits, sorted. In a band a row is compared with the next
    `reach`; it is in `LINKS` pairs or a few more, not
    in all, where more rows are near it.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), BANDS)
    links = np.zeros(len(hashes), np.int64)
    found = [band_pairs(bands, band, links, reach) for band in range(BANDS)]
    return np.unique(np.concatenate(found), axis=0)


def band_pairs(bands: np.ndarray, band: int, links: np.ndarray, reach: int) -> np.ndarray:
    """The near pairs (int64 [P, 3]) among rows equal in one band; counts them in `links`."""
    # In the order of this band and the next three, the nearest stand near each other.
    parts = [np.roll(bands, -band, axis=1)[:, place].astype(np.uint64) for place in range(4)]
    keys = parts[0] << 48 | parts[1] << 32 | parts[2] << 16 | parts[3]
    order = np.argsort(keys, kind="stable")
    groups, rows = parts[0][order], bands[order]
    found = [np.empty((0, 3), np.int64)]
    here = np.arange(len(order))
    for step in range(1, reach + 1):
        here = here[: np.searchsorted(here, len(order) - step)]
        here = here[(groups[here] == groups[here + step]) & (links[order[here]] < LINKS)]
        if not len(here):
            break
        differ = rows[here] ^ rows[here + step]
        bits = COUNTS[differ].sum(axis=1)
        near = bits <= NEAR
        one, other = order[here[near]], order[here[near] + step]
        new = differ[near, :band].all(axis=1)  # an earlier band has counted the others
        np.add.at(links, one[new], 1)
        np.add.at(links, other[new], 1)
        pairs = [np.minimum(one, other), np.maximum(one, other), bits[near].astype(np.int64)]
        found.append(np.stack(pairs, axis=1))
    return np.concatenate(found)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `count` photos the lowest one that `pairs` (int64 [P, 2 or 3]) link it with."""
    lowest = np.arange(count)
    while len(pairs):
        both = np.minimum(lowest[pairs[:, 0]], lowest[pairs[:, 1]])
        before = lowest.copy()
        np.minimum.at(lowest, pairs[:, 0], both)
        np.minimum.at(lowest, pairs[:, 1], both)
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            break
    return lowest

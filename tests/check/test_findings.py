"""Near pairs against the comparison of each with each."""

import time

import numpy as np

from ppcls.check.findings import LINKS, NEAR, components, near_pairs


def flipped(words: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The hash uint64 [4] with `count` of its bits changed."""
    bits = np.unpackbits(words.view(np.uint8))
    bits[rng.choice(256, count, replace=False)] ^= 1
    return np.packbits(bits).view(np.uint64)


def hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def each_with_each(rows: np.ndarray) -> set[tuple[int, int, int]]:
    bits = np.unpackbits(rows.view(np.uint8), axis=1)
    found = set()
    for i in range(len(rows)):
        counts = (bits[i] ^ bits[i + 1 :]).sum(1)
        found |= {(i, i + 1 + int(j), int(counts[j])) for j in np.flatnonzero(counts <= NEAR)}
    return found


def test_all_pairs_of_up_to_15_bits_are_found_and_none_beyond_the_limit():
    rng = np.random.default_rng(1)
    rows = hashes(300)
    near = [flipped(rows[i], bits, rng) for bits in range(41) for i in range(bits, bits + 6)]
    rows = np.concatenate([rows, near])
    expected, found = each_with_each(rows), set(map(tuple, near_pairs(rows).tolist()))
    assert found <= expected
    assert {pair for pair in expected if pair[2] <= 15} <= found
    assert len(found) > 0.8 * len(expected)
    assert max(pair[2] for pair in expected) == NEAR


def test_the_order_of_photos_does_not_matter():
    rng = np.random.default_rng(2)
    rows = hashes(50)
    rows = np.concatenate([rows, [flipped(row, 9, rng) for row in rows]])
    order = rng.permutation(100)
    found = {frozenset((int(order[i]), int(order[j]))) for i, j, _ in near_pairs(rows[order])}
    assert found == {frozenset((i, i + 50)) for i in range(50)}


def test_none_and_one_and_the_same_twice():
    assert near_pairs(hashes(0)).shape == (0, 3)
    assert near_pairs(hashes(1)).shape == (0, 3)
    assert near_pairs(hashes(1).repeat(2, 0)).tolist() == [[0, 1, 0]]


def test_a_crowd_is_found_as_one_without_all_its_pairs():
    rng = np.random.default_rng(3)
    start = hashes(1)[0]
    rows = np.array([flipped(start, 4, rng) for _ in range(3000)])
    began = time.process_time()
    pairs = near_pairs(rows)
    assert time.process_time() - began < 20
    assert len(pairs) <= len(rows) * (LINKS + 1)
    assert (components(len(rows), pairs) == 0).all()


def test_far_photos_of_one_band_are_compared_up_to_the_reach():
    """Two that are alike in the first band alone, and the others of that band between them."""
    rows = hashes(500)
    bands = rows.view(np.uint16).reshape(-1, 16)
    bands[:, 0] = 7
    bands[:, 1] |= 1
    bands[0, 1] = 0
    bands[1] = bands[0] ^ np.uint16(0b11)
    bands[1, 0], bands[1, 1] = 7, 0xC000
    between = int(((bands[:, 1] > 0) & (bands[:, 1] < 0xC000)).sum())
    assert 300 < between < 450
    for reach, found in ((30, []), (between, []), (between + 1, [[0, 1, 30]])):
        assert near_pairs(rows, reach).tolist() == found


def test_components():
    pairs = np.array([[3, 4, 0], [1, 2, 0], [2, 6, 0], [4, 5, 0]])
    assert components(8, pairs).tolist() == [0, 1, 1, 3, 3, 3, 1, 7]
    chain = np.stack([np.arange(999), np.arange(1, 1000), np.zeros(999, int)], 1)
    order = np.random.default_rng(0).permutation(999)
    assert (components(1000, chain[order]) == 0).all()
    assert components(3, chain[:0]).tolist() == [0, 1, 2]

"""Near hashes against the comparison with each, and how long many take."""

import time

import numpy as np
import pytest

from ppcls.check import survey
from ppcls.check.survey import Odd
from ppcls.select.choose import EvalDuplicates, Near
from ppcls.select.scores import RECORD


def hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def flipped(words, count, rng):
    bits = np.unpackbits(words.view(np.uint8))
    bits[rng.choice(256, count, replace=False)] ^= 1
    return np.packbits(bits).view(np.uint64)


def fewest(rows, known):
    """The bits to the nearest of the known, by comparison with each."""
    return np.array([
        min(sum(bin(int(word)).count("1") for word in row ^ other) for other in known)
        for row in rows
    ])  # fmt: skip


@pytest.mark.parametrize("pairs", [1, 7, 1 << 18])
def test_all_near_ones_are_found_and_no_others(pairs):
    rng, known = np.random.default_rng(1), hashes(40)
    known[:30] &= np.uint64(0xFFFF)  # many are alike in most bands
    rows = np.array([flipped(known[n % 40], bits, rng) for n, bits in enumerate(range(45))])
    rows = np.concatenate([rows, hashes(20, seed=2)])
    bits, index = fewest(rows, known), Near(known, pairs)
    for limit in (0, 1, 15, 16, 31, 32):
        assert (index(rows, limit) == (bits <= limit)).all(), limit
    assert (index(known, 0)).all()


def test_spread_bits_are_found_up_to_31():
    """The worst case: bits that differ evenly in all bands."""
    known = hashes(1)
    row = known.copy().view(np.uint16).reshape(16)
    row[:15] ^= 0b11
    assert not Near(known)(row.view(np.uint64)[None], 29).any()
    assert Near(known)(row.view(np.uint64)[None], 30).all()
    row[15] ^= 1
    assert Near(known)(row.view(np.uint64)[None], 31).all()


def test_none_known_and_none_asked():
    assert not Near(hashes(0))(hashes(3), 32).any()
    assert Near(hashes(3))(hashes(0), 32).shape == (0,)


def test_a_large_evaluation_set_takes_little_time():
    index, rows = Near(hashes(50_000)), hashes(4000, seed=1)
    began = time.process_time()
    assert not index(rows, 32).any()
    assert time.process_time() - began < 3  # some 0.15; each with each takes 6 or more


def test_blank_and_broken_evaluation_photos_keep_none_away():
    known = np.zeros(4, survey.RECORD)
    known["pixels"] = [1, 2, 0, 4]
    known["hash"] = hashes(4)
    known["odd"] = [0, Odd.BLANK, 0, Odd.ALPHA]
    asked = np.zeros(7, RECORD)
    asked["pixels"] = [9, 9, 9, 9, 1, 2, 9]
    asked["hash"][:4] = known["hash"]
    asked["hash"][4:6] = hashes(2, seed=1)
    known["hash"][3] = 0  # as near to an image that shows nothing as can be
    found = EvalDuplicates(known, 32)(asked)
    assert found.tolist() == [True, False, False, False, True, True, False]

"""Mutated files of others are read or refused in words, in little time and memory."""

import pytest
from mutated_files import KINDS, Tally, read_all


def judge(tally: Tally, count: int) -> None:
    assert not tally.wrong
    assert sum(tally.verdicts.values()) == count
    assert tally.verdicts["refused"] > tally.verdicts["loaded"] > 0
    assert {kind for kind, _ in tally.by_kind} == set(KINDS)


def test_two_hundred():
    judge(read_all(200), 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_thousand_others():
    judge(read_all(5000, seed=1), 5000)

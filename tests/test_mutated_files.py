"""Mutated files of others are read or refused in words, in little time and memory."""

import pytest
from mutated_files import KINDS, Tally, read_all

# Of these tracebacks are still known: of headers of tars, and of indexes that are not whole.
KNOWN = ("tar", "index")


def judge(tally: Tally, count: int) -> None:
    known = [f for f, said in tally.wrong.items() if f[1] in KNOWN and said.startswith("traceback")]
    assert set(tally.wrong) == set(known), tally.wrong
    assert sum(tally.verdicts.values()) == count
    assert tally.verdicts["refused"] > tally.verdicts["loaded"] > 0
    assert {kind for kind, _ in tally.by_kind} == set(KINDS)


def test_two_hundred():
    judge(read_all(200), 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_thousand_others():
    judge(read_all(5000, seed=1), 5000)

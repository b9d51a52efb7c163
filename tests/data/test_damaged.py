"""Damaged images of every format give pixels or a UserError that names them, in time and memory."""

from contextlib import contextmanager

import pytest
from damaged_images import DAMAGES, ENCODINGS, Tally, damaged, read_all, reader

# 179 million pixels are accepted; Pillow and the array hold 4 and up to 7 bytes of each at once.
MEGABYTES = 2500


def judge(tally: Tally, count: int) -> None:
    assert not tally.wrong
    assert sum(tally.verdicts.values()) == count
    assert tally.verdicts["refused"] > tally.verdicts["pixels"] > 0
    assert tally.peak[0] < MEGABYTES


def test_three_hundred():
    judge(read_all(0, 300), 300)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand():
    tally = read_all(0, 10_000)
    judge(tally, 10_000)
    kinds = {(kind, damage) for kind, damage, _ in tally.by_damage}
    assert len(kinds) == len({kind for kind, *_ in ENCODINGS}) * len(DAMAGES)


def test_what_ends_or_stops_the_process_is_told_apart():
    """The tally itself: the reader's process is ended, or waits, and the rest is read."""

    class Jobs:
        def __init__(self, jobs):
            self.jobs, self.sent = jobs, 0

        def __getattr__(self, name):
            return getattr(self.jobs, name)

        def send(self, job):
            self.sent += 1
            self.jobs.send(job if self.sent != 3 else "no job")  # which ends the process

    @contextmanager
    def started():
        with reader() as jobs:
            yield Jobs(jobs)

    tally = read_all(0, 4, started=started)
    assert tally.verdicts["ends the process"] == 2
    assert [photo[0] for photo in tally.wrong] == [1, 3]
    assert sum(tally.verdicts.values()) == 4


def test_a_photo_is_the_same_every_time():
    assert damaged(7) == damaged(7)
    assert damaged(7) != damaged(8)

"""How images of many requests become batches: nobody waits for nothing, none is lost or mixed."""

import threading
import time
from collections import Counter

import numpy as np
import pytest

from ppcls.serve.batching import Batcher, Item, Request

SOON = 30.0  # seconds within which a thread gets on, on a busy machine


class Clock:
    """A made time, which stands still until it is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def items(count, kind=(2, 2, 3), is_tensor=False, first=0):
    request = Request(first, [None] * count, missing=count)
    return [Item(request, place, np.zeros(kind, np.uint8), is_tensor) for place in range(count)]


def coming(batcher, *given):
    """Images that were announced and are there now."""
    batcher.announce(len(given))
    batcher.put(*given)


class Taking:
    """A thread that takes one batch."""

    def __init__(self, batcher):
        self.found = None
        self.thread = threading.Thread(target=self.work, args=(batcher,), daemon=True)
        self.thread.start()

    def work(self, batcher):
        self.found = batcher.take()

    @property
    def is_waiting(self):
        self.thread.join(0.05)
        return self.thread.is_alive()

    def batch(self):
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "it still waits"
        return self.found[0]


def until(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_is_there_runs_at_once_where_no_more_comes():
    batcher = Batcher(4, 1000.0, 1, Clock())
    given = items(3)
    coming(batcher, *given)
    assert batcher.take() == (given, True)


def test_a_batch_waits_for_images_on_their_way_and_no_longer_than_until_it_is_full():
    batcher = Batcher(4, 1000.0, 1, Clock())
    given = items(5)
    batcher.announce(5)
    batcher.put(*given[:3])
    taking = Taking(batcher)
    assert taking.is_waiting
    batcher.put(given[3])
    assert taking.batch() == given[:4]


def test_the_last_image_that_comes_ends_the_waiting():
    batcher = Batcher(4, 1000.0, 1, Clock())
    given = items(2)
    batcher.announce(2)
    batcher.put(given[0])
    taking = Taking(batcher)
    assert taking.is_waiting
    batcher.put(given[1])
    assert taking.batch() == given


def test_an_image_that_does_not_come_ends_the_waiting():
    batcher = Batcher(4, 1000.0, 1, Clock())
    given = items(1)
    batcher.announce(2)
    batcher.put(given[0])
    taking = Taking(batcher)
    assert taking.is_waiting
    batcher.miss()  # it was broken, say
    assert taking.batch() == given


def test_the_waiting_counts_from_the_first_image_on():
    clock = Clock()
    batcher = Batcher(4, 5.0, 1, clock)
    given = items(2)
    batcher.announce(3)
    batcher.put(given[0])
    clock.now += 4.9
    batcher.put(given[1])
    taking = Taking(batcher)
    assert taking.is_waiting
    clock.now += 0.1
    with batcher.changed:
        batcher.changed.notify_all()  # as its own wait would end by the real clock
    assert taking.batch() == given


def test_the_real_clock_ends_the_waiting():
    batcher = Batcher(4, 0.05, 1)
    given = items(1)
    batcher.announce(2)
    start = time.monotonic()
    batcher.put(given[0])
    assert batcher.take()[0] == given
    assert time.monotonic() - start >= 0.05


def test_without_a_delay_nothing_waits():
    batcher = Batcher(4, 0.0, 1, Clock())
    given = items(1)
    batcher.announce(2)
    batcher.put(given[0])
    assert batcher.take()[0] == given


def test_idle_threads_share_what_is_there():
    """Two images, two threads with nothing to do: one each, and both run; neither waits on."""
    batcher = Batcher(4, 1000.0, 2, Clock())
    first, second = items(2)
    batcher.announce(2)
    batcher.put(first)
    threads = [Taking(batcher), Taking(batcher)]
    until(lambda: batcher.idle == 2)
    batcher.put(second)
    assert sorted(len(one.batch()) for one in threads) == [1, 1]
    alone = [one.found[1] for one in threads]
    assert alone.count(True) <= 1  # no batch that runs beside another one is told that it is alone


def test_a_batch_is_alone_only_where_nothing_else_runs_or_waits():
    batcher = Batcher(2, 0.0, 2, Clock())
    coming(batcher, *items(3))
    with batcher.changed:
        batcher.idle = 1  # another thread waits, too
    batch, alone = batcher.take()
    assert len(batch) == 2
    assert not alone  # one image is left
    assert batcher.take()[1]
    with batcher.changed:
        batcher.idle = 0  # the other thread runs a batch
    coming(batcher, *items(1))
    assert batcher.take()[1] is False


def test_kinds_are_not_mixed_and_keep_their_order():
    batcher = Batcher(8, 0.0, 1, Clock())
    small, large, tensors = items(2), items(2, (4, 4, 3)), items(2, (3, 2, 2), True)
    mixed = [small[0], large[0], tensors[0], small[1], large[1], tensors[1]]
    coming(batcher, *mixed)
    assert [batcher.take()[0] for _ in range(3)] == [small, large, tensors]


def test_a_tensor_and_an_image_of_one_shape_are_two_kinds():
    batcher = Batcher(8, 0.0, 1, Clock())
    image, tensor = items(1), items(1, is_tensor=True)
    coming(batcher, *image, *tensor)
    assert batcher.take()[0] == image
    assert batcher.take()[0] == tensor


def test_what_was_first_runs_first_across_batches():
    batcher = Batcher(2, 0.0, 1, Clock())
    given = items(5)
    coming(batcher, *given)
    assert [batcher.take()[0] for _ in range(3)] == [given[:2], given[2:4], given[4:]]


def test_closed_it_gives_what_is_left_then_nothing():
    batcher = Batcher(2, 0.0, 1, Clock())
    given = items(3)
    coming(batcher, *given)
    batcher.close()
    assert [len(batcher.take()[0]) for _ in range(4)] == [2, 1, 0, 0]


def test_closing_wakes_all_who_wait():
    batcher = Batcher(2, 1000.0, 3, Clock())
    threads = [Taking(batcher) for _ in range(3)]
    until(lambda: batcher.idle == 3)
    batcher.close()
    assert [one.batch() for one in threads] == [[], [], []]


@pytest.mark.parametrize(("most", "delay", "runners"), [(1, 0.0, 1), (4, 0.002, 2), (3, 0.5, 4)])
def test_no_image_is_lost_or_taken_twice_under_many_threads(most, delay, runners):
    """Also none that nobody was woken for: without a wake-up the count would never be whole."""
    batcher = Batcher(most, delay, runners)
    taken = Counter()
    lock = threading.Lock()
    sizes = []

    def run():
        while batch := batcher.take()[0]:
            with lock:
                sizes.append(len(batch))
                taken.update((item.request.number, item.place) for item in batch)

    def give(number):
        random = np.random.default_rng(number)
        for turn in range(25):
            given = items(int(random.integers(1, 4)), first=1000 * number + turn)
            batcher.announce(len(given) + 1)
            for item in given:
                batcher.put(item)
            batcher.miss()
            with lock:
                expected.update((item.request.number, item.place) for item in given)

    expected = Counter()
    running = [threading.Thread(target=run, daemon=True) for _ in range(runners)]
    giving = [threading.Thread(target=give, args=(number,)) for number in range(8)]
    for thread in running + giving:
        thread.start()
    for thread in giving:
        thread.join()
    until(lambda: taken.total() == expected.total())
    batcher.close()
    for thread in running:
        thread.join(SOON)
        assert not thread.is_alive()
    assert taken == expected
    assert max(sizes) <= most
    assert batcher.coming == 0


def test_a_request_is_whole_with_its_last_answer():
    request = Request(1, [None] * 3, missing=3)
    assert [request.answer(place, place) for place in (2, 0, 1)] == [False, False, True]
    assert request.answers == [0, 1, 2]


def test_a_request_is_over_when_it_is_late_or_left():
    request = Request(1, [None], until=10.0)
    assert not request.is_over(10.0)
    assert request.is_over(10.1)
    request.cancelled = True
    assert request.is_over(0.0)

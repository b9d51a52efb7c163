"""What a plan makes of an engine whose seconds are known."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ppcls.inference.engines.base import Settings
from ppcls.serve import curve
from ppcls.utils.errors import UserError


class Clock(threading.local):
    """A made time of each thread, which passes only where an engine runs."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Made:
    """An engine whose batches take the seconds that a function gives by their size."""

    def __init__(self, clock, seconds, settings):
        self.clock = clock
        self.seconds = seconds
        self.settings = settings
        self.sizes = set()
        self.closed = False

    def run_all(self, images):
        self.sizes.add(len(images))
        self.clock.now += self.seconds(len(images))
        return [np.zeros((len(images), 2), np.float32)]

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    """A predictor whose engine, and the one that runs a batch on each thread, take so long."""
    clock = Clock()
    monkeypatch.setattr(curve, "time", clock)
    monkeypatch.setattr(curve, "example", lambda folder, size: np.zeros((size, 3, 2, 2)))

    def make(seconds, beside=None, threads=2, bytes=1000, device="cpu"):
        opened = []

        def open_engine(folder, settings):
            if beside is None:
                raise UserError("no memory for a second one")
            opened.append(Made(clock, beside, settings))
            return opened[-1]

        monkeypatch.setattr(curve, "open_engine", open_engine)
        folder = SimpleNamespace(size=lambda: bytes)
        engine = Made(clock, seconds, Settings("made", device, threads=threads))
        return SimpleNamespace(engine=engine, threads=threads, folder=folder, opened=opened)

    return make


def test_the_smallest_batch_that_is_nearly_as_fast_as_any(made):
    """8 images take 13 units, 1.63 each, 16 take 25, 1.56 each: the 4 % are worth the wait."""
    found = curve.plan(made(lambda size: 0.001 * (1 + 1.5 * size)), None, None)
    assert found.batch == 16
    found = curve.plan(made(lambda size: 0.001 * (1 + 10 * size)), None, None)
    assert found.batch == 4  # 10.25 units an image; of 16, 10.06
    assert found.streams == 1
    assert found.beside is found.alone
    assert found.rate == pytest.approx(16 / 0.161)


def test_an_engine_that_gains_nothing_by_batches_gets_single_images_and_no_delay(made):
    found = curve.plan(made(lambda size: 0.01 * size), None, None)
    assert (found.batch, found.delay) == (1, 0.0)
    assert found.seconds == pytest.approx({1: 0.01, 2: 0.02, 4: 0.04, 8: 0.08, 16: 0.16})


@pytest.mark.parametrize(
    ("seconds", "runs"), [(2.0, 3), (0.1, 3), (0.01, 30), (0.001, 100), (0.0001, 500)]
)
def test_fast_networks_are_measured_for_a_shorter_time(made, seconds, runs):
    calls = []
    predictor = made(lambda size: calls.append(size) or seconds)
    assert curve.seconds_of(predictor.engine, predictor, 4, 1) == pytest.approx(seconds)
    assert len(calls) == pytest.approx(runs + 1, abs=1)  # one is not timed


def test_the_delay_is_what_a_full_batch_saves(made):
    found = curve.plan(made(lambda size: 0.1), None, None)
    assert found.batch == 16
    assert found.delay == pytest.approx(15 * 0.1)


def test_an_engine_that_is_slower_by_batches_waits_for_none(made):
    found = curve.plan(made(lambda size: 0.01 * size**1.5), None, None)
    assert (found.batch, found.delay) == (1, 0.0)


def test_a_batch_on_each_thread_where_that_is_faster(made):
    """One thread takes 1.5 times as long for a batch as two: two of them do more."""
    predictor = made(lambda size: 0.01 * size, lambda size: 0.015 * size)
    found = curve.plan(predictor, None, None)
    assert found.streams == 2
    assert found.alone is predictor.engine
    assert found.beside is predictor.opened[0]
    assert found.beside.settings == replace(predictor.engine.settings, threads=1, streams=2)
    assert found.rate == pytest.approx(2 / 0.015)
    assert found.batch == 1


def test_one_batch_at_a_time_where_several_are_no_faster(made):
    predictor = made(lambda size: 0.01 * size, lambda size: 0.0199 * size)
    found = curve.plan(predictor, None, None)
    assert found.streams == 1
    assert found.beside is predictor.engine
    assert predictor.opened[0].closed  # nothing keeps its memory


@pytest.mark.parametrize("other", [{"threads": 1}, {"bytes": 1 << 30}, {"device": "gpu"}])
def test_no_second_engine_where_it_would_be_of_no_use(made, other):
    predictor = made(lambda size: 0.01 * size, lambda size: 0.0001 * size, **other)
    assert curve.plan(predictor, None, None).streams == 1
    assert not predictor.opened


def test_a_second_engine_that_cannot_be_opened_is_done_without(made):
    assert curve.plan(made(lambda size: 0.01 * size), None, None).streams == 1


def test_what_is_given_is_taken(made):
    predictor = made(lambda size: 0.01 * size)
    found = curve.plan(predictor, 6, 0.25)
    assert (found.batch, found.delay) == (6, 0.25)
    assert max(found.seconds) == 4


def test_each_size_that_may_come_has_run_before_the_first_request(made):
    """Engines prepare themselves for a size when they first see it."""
    predictor = made(lambda size: 0.01 * size)
    curve.plan(predictor, 7, None)
    assert predictor.engine.sizes >= set(range(1, 8))


def test_a_plan_is_taken_up_again_without_measuring(made):
    predictor = made(lambda size: 0.01 * size, lambda size: 0.015 * size)
    first = curve.plan(predictor, 3, None)
    known = {
        "batch": first.batch,
        "streams": first.streams,
        "delay": first.delay,
        "rate": first.rate,
        # as JSON has it
        "seconds": {str(size): seconds for size, seconds in first.seconds.items()},
    }
    other = made(lambda size: 0.5, lambda size: 0.5)
    again = curve.resume_plan(other, known)
    assert replace(again, alone=first.alone, beside=first.beside) == first
    assert again.alone is other.engine
    assert again.beside is other.opened[0]
    for engine in (again.alone, again.beside):
        assert engine.sizes == {1, 2, 3}

"""Learning rates against figures worked by hand."""

import math

import pytest

from ppcls.config.node import Span
from ppcls.train.schedule import Constant, Cosine, Schedule, Step

EPOCH, TOTAL, BATCH = 10, 100, 64


def rates(schedule, steps):
    return [schedule(step, EPOCH, TOTAL, BATCH) for step in steps]


def test_cosine_is_half_a_wave():
    schedule = Schedule(lr=0.4, decay=Cosine())
    assert rates(schedule, [0, 25, 50, 75, 100]) == pytest.approx(
        [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5)), 0.0]
    )


def test_cosine_starts_after_warm_up_and_ends_where_told():
    schedule = Schedule(lr=0.4, warmup=Span(2, "epochs"), decay=Cosine(end=0.1))
    assert rates(schedule, [0, 5, 10, 20, 60, 100]) == pytest.approx(
        [0.0, 0.1, 0.2, 0.4, 0.4 * 0.55, 0.04]
    )


def test_warm_up_may_start_above_zero():
    schedule = Schedule(lr=0.5, warmup=Span(10, "steps"), warmup_start=0.1, decay=Constant())
    assert rates(schedule, [0, 5, 10, 99]) == pytest.approx([0.1, 0.3, 0.5, 0.5])


def test_steps_at_the_milestones_given():
    decay = Step(milestones=(Span(3, "epochs"), Span(60, "steps"), Span(90, "percent")))
    schedule = Schedule(lr=0.1, decay=decay)
    assert rates(schedule, [0, 29, 30, 59, 60, 89, 90, 99]) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    )


def test_the_published_rate_is_scaled_in_proportion_to_the_batch():
    schedule = Schedule(lr=0.1, for_batch=256, decay=Constant())
    assert schedule(0, EPOCH, TOTAL, 64) == pytest.approx(0.025)
    assert schedule(0, EPOCH, TOTAL, 512) == pytest.approx(0.2)
    assert Schedule(lr=0.1).scale(64) == 1.0

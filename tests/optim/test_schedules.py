"""Learning rates against figures worked by hand."""

import math

import pytest

from ppcls.config.node import Span
from ppcls.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)

EPOCH, TOTAL, BATCH = 10, 100, 64


def rates(schedule, steps):
    rate = schedule.over(EPOCH, TOTAL, BATCH)
    return [rate(step) for step in steps]


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
    assert schedule.over(EPOCH, TOTAL, 64)(0) == pytest.approx(0.025)
    assert schedule.over(EPOCH, TOTAL, 512)(0) == pytest.approx(0.2)
    assert Schedule(lr=0.1).scale(64) == 1.0


def test_steps_every_so_often():
    schedule = Schedule(lr=1.0, decay=Step(every=Span(2.5, "epochs"), gamma=0.5))
    assert rates(schedule, [0, 24, 25, 49, 50, 99]) == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_a_rate_may_stay_all_through_an_epoch():
    schedule = Schedule(lr=0.4, warmup=Span(2, "epochs"), per="epoch", decay=Cosine())
    assert rates(schedule, [9, 10, 19, 20, 29]) == [0, 0.2, 0.2, 0.4, 0.4]
    assert rates(schedule, [65]) == pytest.approx([0.2])


def test_steps_may_count_from_the_end_of_warm_up():
    decay = Step(every=Span(2.57, "epochs"), after_warmup=True, gamma=0.5)
    schedule = Schedule(lr=1.0, warmup=Span(1, "epochs"), decay=decay)
    assert rates(schedule, [5, 10, 34, 35, 59, 60]) == [0.5, 1, 1, 0.5, 0.5, 0.25]


def test_explicit_values_are_honoured():
    decay = Piecewise(milestones=(Span(3, "epochs"), Span(50, "percent")), values=(0.3, 0.02))
    schedule = Schedule(lr=0.1, for_batch=32, decay=decay)
    assert rates(schedule, [0, 29, 30, 49, 50, 99]) == pytest.approx(
        [0.2, 0.2, 0.6, 0.6, 0.04, 0.04]
    )


def test_polynomial():
    schedule = Schedule(lr=0.8, warmup=Span(20, "steps"), decay=Polynomial(power=2.0, end=0.25))
    assert rates(schedule, [10, 20, 60, 100]) == pytest.approx([0.4, 0.8, 0.2 + 0.6 * 0.25, 0.2])
    line = Schedule(lr=1.0, decay=Polynomial())
    assert rates(line, [0, 30, 99]) == pytest.approx([1, 0.7, 0.01])


def test_exponential():
    schedule = Schedule(lr=1.0, decay=Exponential(gamma=0.81, every=Span(20, "steps")))
    assert rates(schedule, [0, 10, 20, 30]) == pytest.approx([1, 0.9, 0.81, 0.729])
    warmed = Schedule(lr=1.0, warmup=Span(1, "epochs"), decay=Exponential(gamma=0.5))
    assert rates(warmed, [10, 20, 40]) == pytest.approx([1, 0.5, 0.125])


def test_one_cycle_goes_up_and_down():
    schedule = Schedule(lr=2.0, decay=OneCycle(rise=Span(4, "epochs"), start=0.1, end=0.01))
    assert rates(schedule, [0, 39, 69, 99]) == pytest.approx([0.2, 2.0, 2 * 0.505, 0.02])


def test_plateau_cuts_where_nothing_got_better():
    scores = {10: 0.5, 20: 0.6, 30: 0.6, 40: 0.55, 50: 0.7, 60: 0.7, 70: 0.1, 80: 0.2, 90: 0.3}
    evaluations = [{"step": step, "top1": score} for step, score in scores.items()]
    schedule = Schedule(lr=1.0, decay=Plateau(patience=Span(2, "epochs"), gamma=0.5))

    def rate(step, known=evaluations):
        return schedule.over(EPOCH, TOTAL, BATCH)(step, known)

    # best at 20, cut at 40; best at 50, cut at 70; nothing better since, cut at 90
    steps = [0, 39, 40, 69, 70, 89, 90, 99]
    assert [rate(step) for step in steps] == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rate(99, []) == 1
    flipped = [{"step": e["step"], "loss": 1 - e["top1"]} for e in evaluations]
    by_loss = Schedule(lr=1.0, decay=Plateau(score="loss", patience=Span(2, "epochs"), gamma=0.5))
    flipped_rate = by_loss.over(EPOCH, TOTAL, BATCH)
    assert [flipped_rate(s, flipped) for s in steps] == [rate(s) for s in steps]


def test_plateau_does_not_count_evaluations_of_the_warm_up():
    evaluations = [{"step": s, "top1": 0.9 if s == 10 else 0.1} for s in range(10, 60, 10)]
    decay = Plateau(patience=Span(2, "epochs"))
    schedule = Schedule(lr=1.0, warmup=Span(2, "epochs"), decay=decay)
    steps = [20, 39, 40]  # the best after warm-up is that at 20
    assert [schedule.over(EPOCH, TOTAL, BATCH)(s, evaluations) for s in steps] == pytest.approx(
        [1, 1, 0.1]
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Step, "either milestones"),
        (lambda: Step(milestones=(3,), every=3), "either milestones"),
        (lambda: Step(every=0), "more than 0"),
        (lambda: Piecewise(milestones=(3, 6), values=(0.1,)), "2 milestones and 1 value:"),
        (lambda: Schedule(lr=1.0, warmup=2, decay=OneCycle()), "one_cycle rises by itself"),
    ],
)
def test_what_makes_no_schedule_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()

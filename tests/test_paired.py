"""Paired tests and intervals, beside other ways to the same figures, and by simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import f1_score

from ppcls.paired import (
    LEVEL,
    Difference,
    Spread,
    Z,
    by_class,
    difference_of,
    holm,
    least_seen,
    mcnemar,
    score_interval,
)


def rights(both, lost, won, neither=0):
    """What is right with A and with B, for so many images of each kind."""
    a = [True] * (both + lost) + [False] * (won + neither)
    b = [True] * both + [False] * lost + [True] * won + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (3, 9), (40, 61), (700, 610)])
def test_mcnemar_is_the_binomial_test(lost, won):
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-9)


def statistic(won, lost, images, delta):
    """Tango's, with the likeliest share of losses found by search, not by his formula."""

    def unlikely(share):
        cells = (won, share + delta), (lost, share), (images - won - lost, 1 - 2 * share - delta)
        return -sum(n * math.log(max(q, 1e-300)) for n, q in cells if n)

    low, high = max(0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(low, high), options={"xatol": 1e-12}).x
    return (won - lost - images * delta) / math.sqrt(images * (2 * share + delta * (1 - delta)))


@pytest.mark.parametrize(("won", "lost", "images"), [(12, 2, 50), (3, 9, 100), (40, 61, 736)])
def test_the_interval_ends_where_the_score_test_refuses(won, lost, images):
    low, high = score_interval(won, lost, images)
    assert low < (won - lost) / images < high
    assert statistic(won, lost, images, low) == pytest.approx(Z, abs=1e-3)
    assert statistic(won, lost, images, high) == pytest.approx(-Z, abs=1e-3)


def test_the_interval_without_a_flip_is_known():
    high = Z**2 / (736 + Z**2)  # from the score test of a share of 0
    assert score_interval(0, 0, 736) == pytest.approx((-high, high), abs=1e-9)


def test_intervals_hold_and_equal_networks_are_seldom_called_different():
    random = np.random.default_rng(0)
    for images, lose, win in ((100, 0.05, 0.05), (736, 0.02, 0.02), (300, 0.06, 0.02)):
        draws = random.multinomial(images, (lose, win, 1 - lose - win), 1500)
        called = covered = 0
        for lost, won, rest in draws:
            found = Difference.of_answers(*rights(rest, lost, won))
            called += found.is_seen
            covered += found.low <= win - lose <= found.high
        assert covered / len(draws) > 0.93
        assert called / len(draws) <= LEVEL if lose == win else called / len(draws) > 0.5


def test_what_could_have_been_seen():
    for flips in range(60):
        most = max(flips, 6)
        seen = [
            n
            for n in range(most % 2, most + 1, 2)
            if mcnemar((most - n) // 2, (most + n) // 2) < LEVEL
        ]
        assert least_seen(flips) == min(seen)


def test_holm_raises_chances():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_words_say_whether_it_is_noise():
    better = Difference.of_answers(*rights(600, 20, 50, 66))
    assert better.words().startswith("B is better than A by 4.1 points (95 % interval +1.9 to ")
    worse = Difference.of_answers(*rights(600, 50, 20, 66))
    assert worse.words(("float", "int8")).startswith("int8 is worse than float by 4.1 points")
    assert worse.loss == pytest.approx(30 / 736)
    noise = Difference.of_answers(*rights(700, 9, 7, 20))
    assert noise.words() == (
        "no difference between A and B can be seen (95 % interval -1.5 to +0.88 points, p 0.8): "
        "with 736 images, one below 1.4 points could not be"
    )


def test_classes_have_their_own_tests_with_a_correction_for_their_number():
    labels = np.repeat([0, 1, 3], 40)
    before = np.ones(120, bool)
    after = before.copy()
    after[40:50] = False
    found = by_class(labels, before, after, 4)
    assert [one.number for one in found] == [0, 1, 3]
    assert [one.is_seen for one in found] == [False, True, False]
    assert found[1].p == pytest.approx(3 * mcnemar(10, 0))
    assert found[1].whole.after == 0.75


def test_several_labels():
    random = np.random.default_rng(0)
    labels = (random.random((400, 5)) < 0.3).astype(np.uint8)
    after = np.where(random.random(labels.shape) < 0.2, 1 - labels, labels)
    before = np.where(random.random(labels.shape) < 0.1, 1 - labels, labels)
    found = difference_of(labels, before, after)
    assert found.change == pytest.approx((after == labels).mean() - (before == labels).mean())
    t = stats.ttest_rel((after == labels).mean(1), (before == labels).mean(1))
    assert (found.low, found.high) == pytest.approx(tuple(t.confidence_interval()), abs=2e-3)
    f1 = Difference.of_f1(labels, before, after)
    assert f1.before == pytest.approx(f1_score(labels, before, average="micro"))
    assert f1.after == pytest.approx(f1_score(labels, after, average="micro"))
    assert f1.low < f1.change < f1.high < 0
    assert f1.is_seen
    same = Difference.of_f1(labels, before, before)
    assert (same.change, same.p, same.is_seen) == (0, 1, False)
    assert not difference_of(labels, before, before).is_seen
    assert [one.number for one in by_class(labels, before == labels, after == labels, 5)] == [
        *range(5)
    ]


def test_the_largest_difference_is_found_and_what_is_no_number_is_it():
    a = np.zeros((3, 2), np.float32)
    b = np.array([[0, 0.25], [0, 0], [0.5, 0]], np.float32)
    assert Spread.of(a, b) == Spread(0.5, 2, 0.125)
    b[1, 1] = np.nan
    found = Spread.of(a, b)
    assert math.isnan(found.largest)
    assert found.where == 1

"""The test whether two samples are alike: how often it is wrong, and what it finds first."""

import numpy as np
import pytest

from ppcls.drift import permutation
from ppcls.drift.permutation import compare, finds, lowest, rank
from ppcls.drift.sketch import FINE, Rows


def made(seed, count, move=0.0, score=0.0, shares=(0.4, 0.3, 0.2, 0.1), width=8):
    """Images of four classes whose features tell the class, and where all have been moved."""
    random = np.random.default_rng(seed)
    classes = random.choice(len(shares), count, p=shares)
    places = random.normal(0, 1, (count, width))
    places[:, 0] += classes - 1
    places[:, 1:3] += move
    scores = np.clip(random.normal(0.7 - score, 0.12, count), 0, 1)
    return Rows(
        np.int8(np.clip(np.rint(FINE * places), -127, 127)), scores.astype(np.float32), classes
    )


def rates(count, sizes, false_alarms, **options):
    """The chances of so many pairs of alike samples."""
    return np.array(
        [
            compare(
                made(2 * i, sizes[0], **options), made(2 * i + 1, sizes[1], **options), false_alarms
            ).p
            for i in range(count)
        ]
    )


def band(rate, count):
    """In which 999 of 1,000 shares of so many draws lie."""
    return 3.3 * np.sqrt(rate * (1 - rate) / count)


def test_alike_samples_raise_as_many_alarms_as_asked(monkeypatch):
    monkeypatch.setattr(permutation, "PERMUTATIONS", 200)
    found = rates(300, (40, 30), 0.05)
    for rate in (0.05, 0.1, 0.5):
        assert np.mean(found <= rate) == pytest.approx(rate, abs=band(rate, 300))


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.4, 0.3, 0.2, 0.1), (0.97, 0.01, 0.01, 0.01)])
def test_alike_samples_of_any_shares(shares):
    found = rates(1000, (90, 45), 0.01, shares=shares)
    for rate in (0.01, 0.05):
        assert np.mean(found <= rate) == pytest.approx(rate, abs=band(rate, 1000))


def test_each_kind_of_shift_is_named_first():
    reference = made(0, 800)
    for part, shift in (
        ("features", {"move": 0.5}),
        ("scores", {"score": 0.08}),
        ("classes", {"shares": (0.25, 0.3, 0.2, 0.25)}),
    ):
        for seed in range(1, 4):
            found = compare(reference, made(seed, 300, **shift), 0.01)
            assert found.alarm, part
            assert found.parts[0].name == part
            assert found.parts[0].distance > 2


def test_classes_that_rose_and_fell_are_named_with_their_shares():
    found = compare(made(0, 800), made(1, 400, shares=(0.2, 0.3, 0.2, 0.3)), 0.01)
    first = {one.number: one for one in found.shifts[:2]}
    assert set(first) == {0, 3}
    assert first[3].deviations > 3
    assert first[0].deviations < -3
    assert (first[3].before, first[3].after) == pytest.approx((0.1, 0.3), abs=0.05)
    assert found.by_classes > 0.5
    assert found.part("features").p <= 0.01  # the features of other classes are others


def test_features_of_the_classes_themselves_are_no_matter_of_shares():
    assert compare(made(0, 800), made(1, 400, move=0.5), 0.01).by_classes < 0.2


def test_the_same_photos_get_the_same_answer():
    reference, window = made(0, 200), made(1, 100)
    assert compare(reference, window, 0.05) == compare(reference, window, 0.05)


def test_small_rates_get_enough_permutations():
    """Of the least rank in one of three parts there are up to three permutations."""
    found = compare(made(0, 300), made(1, 100, move=2), 0.002)
    assert found.part("features").p == pytest.approx(1 / 5000)
    assert found.p <= 3 / 5000


def test_samples_that_do_not_vary_are_alike():
    same = Rows(np.zeros((50, 4), np.int8), np.ones(50, np.float32), np.zeros(50, np.int64))
    found = compare(same, same, 0.01)
    assert found.p == 1
    assert [one.distance for one in found.parts] == [1, 1, 1]
    assert found.shifts == ()


def test_one_score_for_all_is_a_score_like_any():
    """Networks that are sure of all give the same score again and again."""
    reference, window = made(0, 100), made(1, 60)
    one = Rows(window.places, np.ones(60, np.float32), window.classes)
    found = compare(reference, one, 0.01)
    assert found.alarm
    assert found.parts[0].name == "scores"


def test_ranks_by_hand():
    np.testing.assert_array_equal(rank(np.array([3.0, 1, 3, 5])), [3, 4, 3, 1])
    # (1, 4) is as far out as itself and (1, 1), not as (2, 2).
    assert lowest(np.array([[1, 1, 2, 4], [4, 1, 2, 3]])) == 2


def test_more_photos_find_less():
    mean, share = finds(1000, 500, 0.01)
    assert share == mean / 2
    assert mean == pytest.approx(0.21, abs=0.01)
    assert finds(1000, 50, 0.01)[0] > 2 * mean
    found = [
        compare(made(0, 1000), made(i, 500, score=0.12 * mean), 0.01).alarm for i in range(1, 9)
    ]
    assert sum(found) >= 4

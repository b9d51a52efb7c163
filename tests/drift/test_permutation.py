"""The test whether two samples are alike: how often it is wrong, and what it finds first."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from ppcls.drift import PARTS, permutation
from ppcls.drift.permutation import SPREADS, compare, finds, lowest, normal_scores, rank
from ppcls.drift.sketch import FINE, Rows
from ppcls.inference.looks import LOOKS


def made(seed, count, move=0.0, score=0.0, shares=(0.4, 0.3, 0.2, 0.1), width=8, light=1.0):
    """Images of four classes whose features tell the class, where all have been moved, and whose
    light and colours are so many times as strong.
    """
    random = np.random.default_rng(seed)
    classes = random.choice(len(shares), count, p=shares)
    places = random.normal(0, 1, (count, width))
    places[:, 0] += classes - 1
    places[:, 1:3] += move
    scores = np.clip(random.normal(0.7 - score, 0.12, count), 0, 1)
    looks = random.normal((110, 55, 10, -4, -2), (25, 10, 20, 10, 0.5), (count, len(LOOKS)))
    looks[:, :4] *= light
    return Rows(
        np.int8(np.clip(np.rint(FINE * places), -127, 127)),
        scores.astype(np.float32),
        classes,
        looks.astype(np.float16),
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
        ("looks", {"light": 1.1}),
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
    assert found.by_classes["features"] > 0.5
    assert found.part("features").p <= 0.01  # the features of other classes are others


def test_features_of_the_classes_themselves_are_no_matter_of_shares():
    found = compare(made(0, 800), made(1, 400, move=0.5, light=1.2), 0.01)
    assert max(found.by_classes.values()) < 0.2


def test_the_same_photos_get_the_same_answer():
    reference, window = made(0, 200), made(1, 100)
    assert compare(reference, window, 0.05) == compare(reference, window, 0.05)


def test_small_rates_get_enough_permutations():
    """Of the least rank in one of four parts there are up to four permutations."""
    found = compare(made(0, 300), made(1, 100, move=2), 0.002)
    assert found.part("features").p == pytest.approx(1 / 5000)
    assert found.p <= 4 / 5000


def test_samples_that_do_not_vary_are_alike():
    same = Rows(
        np.zeros((50, 4), np.int8),
        np.ones(50, np.float32),
        np.zeros(50, np.int64),
        np.full((50, len(LOOKS)), 7, np.float16),
    )
    found = compare(same, same, 0.01)
    assert found.p == 1
    assert [one.distance for one in found.parts] == [1, 1, 1, 1]
    assert found.shifts == ()
    assert {one.deviations for one in found.looks} == {0}


def test_one_score_for_all_is_a_score_like_any():
    """Networks that are sure of all give the same score again and again."""
    reference, window = made(0, 100), made(1, 60)
    one = replace(window, scores=np.ones(60, np.float32))
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


# --------------------------------------------------------------------------- looks


def grey(rows):
    """As of images of one channel, many of which are alike."""
    looks = rows.looks.copy()
    looks[:, 2:4] = 0
    looks[rows.scores < 0.7] = 0
    return replace(rows, looks=np.rint(looks))


def test_grey_and_black_images_raise_as_many_alarms_as_asked(monkeypatch):
    monkeypatch.setattr(permutation, "PERMUTATIONS", 200)
    found = np.array(
        [
            compare(grey(made(2 * i, 40)), grey(made(2 * i + 1, 30)), 0.05).part("looks").p
            for i in range(300)
        ]
    )
    for rate in (0.05, 0.1, 0.5):
        assert np.mean(found <= rate) == pytest.approx(rate, abs=band(rate, 300))


def test_light_is_found_where_all_else_is_as_it_was():
    for seed in range(1, 9):
        found = compare(made(0, 800), made(seed, 50, light=1.3), 0.01)
        assert found.alarm
        assert found.part("looks").p <= 0.002
    assert min(found.part(name).p for name in PARTS if name != "looks") > 0.01


def test_light_that_varies_is_found_and_said():
    """Half of the images darker, half brighter: as by day and by night."""
    window = made(1, 200)
    looks = window.looks.copy()
    looks[:100, :4] *= np.float16(0.7)
    looks[100:, :4] *= np.float16(1.3)
    found = compare(made(0, 800), replace(window, looks=looks), 0.01)
    assert found.parts[0].name == "looks"
    assert found.part("looks").p <= 0.002
    first = found.looks[0]
    assert first.name in ("brightness", "contrast")
    assert abs(first.deviations) < 3 < first.spread_deviations
    assert first.spread_after / first.spread_before > 1.5


def test_light_is_told_in_its_own_units():
    found = compare(made(0, 800), made(1, 300, light=1.2), 0.01)
    moved = {one.name: one for one in found.looks}
    brightness = moved["brightness"]
    assert brightness.after / brightness.before == pytest.approx(1.2, abs=0.04)
    assert brightness.before == pytest.approx(110, abs=3)
    assert brightness.deviations > 8
    assert abs(moved["sharpness"].deviations) < 4
    clear = [one.clearest for one in found.looks]
    assert clear == sorted(clear, reverse=True)


def test_a_look_that_never_varied_is_found_to_have_moved():
    """As where all photos were grey, and those that come have colours."""
    reference, window = grey(made(0, 300)), grey(made(1, 60))
    looks = window.looks.copy()
    looks[:, 2] = 4
    found = compare(reference, replace(window, looks=looks), 0.01)
    assert found.parts[0].name == "looks"
    assert found.looks[0].name == "warmth"
    assert (found.looks[0].before, found.looks[0].after) == (0, 4)


def test_a_few_odd_images_hide_no_light():
    window = made(1, 200, light=1.1)
    looks = window.looks.copy()
    looks[:6] = (0, 0, -255, 255, -8)
    assert compare(made(0, 800), replace(window, looks=looks), 0.01).part("looks").p <= 0.002


def test_normal_scores_are_those_of_ranks_made_uncorrelated():
    random = np.random.default_rng(0)
    looks = np.exp(random.normal(0, 1, (500, 5)))
    looks[:, 1] += 2 * looks[:, 0]
    looks[:, 2] = 3
    looks[:, 3] = np.rint(looks[:, 3])
    looks = looks.astype(np.float16)
    found = normal_scores(looks)
    assert found.shape == (500, 8)
    scores = norm.ppf((rankdata(np.delete(looks, 2, axis=1), axis=0) - 0.5) / 500)
    scores -= scores.mean(axis=0)
    squares = scores**2 - (scores**2).mean(axis=0)
    for columns, own, weight in ((scores, found[:, :4], 1), (squares, found[:, 4:], SPREADS)):
        np.testing.assert_allclose(own.T @ own / 500, weight * np.eye(4), atol=1e-5)
        # The same distances as by the inverse of their covariance.
        some = columns[:40].mean(axis=0)
        expected = weight * some @ np.linalg.inv(columns.T @ columns / 500) @ some
        assert (own[:40].mean(axis=0) ** 2).sum() == pytest.approx(expected, rel=1e-4)

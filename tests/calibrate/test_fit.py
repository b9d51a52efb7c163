"""Temperature, sets and the unknown, held against what is known of made answers, and MAPIE."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ppcls.calibrate import fit
from ppcls.calibrate.fit import Answers, Wish
from ppcls.inference.calibration import (
    MadeFrom,
    Ranks,
    distance,
    logits_of,
    nonconformity,
    tempered,
    with_products,
)
from ppcls.inference.looks import LOOKS
from ppcls.report import figures
from ppcls.utils.errors import UserError

MADE_FROM = MadeFrom(
    images=1, classes=5, data="photos", digest="0", network={}, assumption="drawn alike"
)
MAPIE = json.loads((Path(__file__).parents[1] / "golden/mapie.json").read_text())


def made(count, classes=5, sharpness=1.0, seed=0, features=0):
    """Answers whose scores are right with `sharpness` 1, and too sure with more."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    sharp = np.exp(sharpness * logits)
    shown = (sharp / sharp.sum(axis=1, keepdims=True)).astype(np.float32)
    pooled = None
    if features:
        centers = np.random.default_rng(99).normal(0, 1, (classes, features))
        pooled = (centers[labels] + random.normal(0, 1, (count, features))).astype(np.float32)
    return Answers(shown, labels, pooled, random.random((count, len(LOOKS)), np.float32))


# --------------------------------------------------------------------------- temperature


def temperature(answers):
    return fit.fit_temperature(logits_of(answers.probabilities), answers.labels)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 4.0])
def test_the_temperature_is_how_much_too_sure_the_answers_are(sharpness):
    answers = made(20_000, sharpness=sharpness)
    assert temperature(answers) == pytest.approx(sharpness, rel=0.03)
    again = Answers(tempered(answers.probabilities, sharpness), answers.labels)
    assert temperature(again) == pytest.approx(1, rel=0.03)


def test_it_is_that_of_the_least_loss_even_where_answers_are_certain():
    answers = made(300, sharpness=15)  # most probabilities are 0 or 1
    best = temperature(answers)
    loss = lambda t: fit.log_loss(tempered(answers.probabilities, t), answers.labels)  # noqa: E731
    assert loss(best) < min(loss(best * 1.02), loss(best / 1.02), loss(1))


def test_answers_that_are_all_right_are_not_made_endlessly_sure():
    answers = made(100)
    right = Answers(answers.probabilities, answers.probabilities.argmax(axis=1))
    assert 1 / fit.HOTTEST <= temperature(right) < 1


def test_a_class_that_is_none_changes_no_temperature():
    answers = made(500, sharpness=2)
    logits = logits_of(answers.probabilities)
    more = np.concatenate([logits, np.full((500, 1), -np.inf)], axis=1)
    assert fit.fit_temperature(more, answers.labels) == pytest.approx(temperature(answers))


def test_it_is_left_out_where_it_helps_no_image_that_it_was_not_fitted_to():
    kept = []
    for seed in range(20):
        good = made(200, seed=seed)
        kept.append(fit.temperature_of(good, fit.tempered_apart(good)) != 1)
    assert sum(kept) < 10
    sharp = made(200, sharpness=2)
    apart = fit.tempered_apart(sharp)
    assert fit.temperature_of(sharp, apart) == pytest.approx(2, rel=0.2)
    assert fit.ece(apart, sharp.labels) < fit.ece(sharp.probabilities, sharp.labels)


def test_it_is_left_out_where_calibration_is_better_by_no_more_than_chance():
    """Likelier answers alone are not enough: of a few sure mistakes they come, too."""
    random = np.random.default_rng(0)
    for seed in range(5):
        good = made(700, seed=seed)
        wrong = random.permutation(700)[:10]
        good.probabilities[wrong] = 1e-5 / 4
        good.probabilities[wrong, (good.labels[wrong] + 1) % 5] = 1 - 1e-5
        apart = fit.tempered_apart(good)
        assert fit.log_loss(apart, good.labels) < fit.log_loss(good.probabilities, good.labels)
        assert fit.temperature_of(good, apart) == 1


def test_the_parts_of_the_calibration_error_are_those_of_a_report():
    answers = made(400, sharpness=1.5)
    confidences = answers.probabilities.max(axis=1)
    right = answers.probabilities.argmax(axis=1) == answers.labels
    expected, bins = figures.calibration(confidences, right)
    parts = fit.ece_parts(answers.probabilities, answers.labels)
    assert parts.mean() == pytest.approx(expected, abs=1e-12)
    filled = [one for one in bins if one.photos]
    assert len(filled) > 5
    gaps = [one.photos * abs(one.accuracy - one.confidence) for one in filled]
    assert expected == pytest.approx(sum(gaps) / 400, abs=1e-12)


# --------------------------------------------------------------------------- sets


def test_quantile_is_the_rank_that_conformal_prediction_asks_for():
    scores = np.arange(1, 20, dtype=float)  # 19 of them: the 19th is 95 % of 20
    assert fit.quantile(scores, 0.95) == 19
    assert fit.quantile(scores[:-1], 0.95) == math.inf
    assert fit.least_images(0.95) == 19
    assert fit.quantile(np.arange(99.0), 0.9) == 89


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_sets_hold_the_right_class_as_often_as_asked(method, per_class):
    wish = Wish(0.9, method, per_class)
    held = []
    for seed in range(200):
        answers = made(1000, sharpness=2, seed=seed)
        order = np.arange(1000)
        sets = fit.fit_sets(answers.take(order[:500]), wish)
        rest = answers.take(order[500:])
        inside = sets.hold(rest.probabilities)[np.arange(500), rest.labels]
        by_class = [inside[rest.labels == label].mean() for label in range(5)]
        held.append([inside.mean(), *by_class])
    mean, *classes = np.mean(held, axis=0)
    assert mean == pytest.approx(0.9, abs=0.015)
    if per_class:
        assert classes == pytest.approx([0.9] * 5, abs=0.015)


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_ranks_that_are_kept_change_no_set(method):
    answers = made(300, sharpness=2)
    wish = Wish(0.9, method)
    half, other = np.arange(0, 300, 2), np.arange(1, 300, 2)
    sets = fit.fit_sets(answers.take(half), wish)
    kept = answers.ranked()
    assert fit.fit_sets(kept.take(half), wish) == sets
    expected = sets.hold(answers.probabilities[other])
    np.testing.assert_array_equal(kept.take(other).held(sets), expected)
    assert isinstance(kept.take(other).ranks, Ranks)


def test_classes_of_their_own_rarity_are_held_too():
    """What sets for all images together do not: a rare class may have all the misses."""
    random = np.random.default_rng(0)
    labels = (random.random(4000) < 0.1).astype(np.int64)
    share = np.clip(random.normal(np.where(labels, 0.5, 0.05), 0.15), 0.001, 0.999)
    answers = Answers(np.stack([1 - share, share], axis=1).astype(np.float32), labels)
    rare = np.flatnonzero(labels)
    together = fit.fit_sets(answers, Wish(0.9)).hold(answers.probabilities)
    each = fit.fit_sets(answers, Wish(0.9, per_class=True)).hold(answers.probabilities)
    assert together[rare, 1].mean() < 0.6
    assert each[rare, 1].mean() == pytest.approx(0.9, abs=0.01)


def test_a_class_with_too_few_images_is_in_every_set():
    answers = made(500)
    few = Answers(answers.probabilities, np.where(answers.labels == 4, 3, answers.labels))
    sets = fit.fit_sets(few, Wish(0.95, per_class=True))
    assert sets.thresholds[4] == math.inf
    assert sets.hold(few.probabilities)[:, 4].all()
    assert not sets.hold(few.probabilities)[:, :4].all()


def test_lac_gives_the_sets_that_mapie_gives():
    answers = Answers(np.array(MAPIE["probabilities"], np.float32), np.array(MAPIE["labels"]))
    half = len(answers) // 2
    rest = answers.take(np.arange(half, len(answers)))
    for coverage, sizes in MAPIE["lac"].items():
        sets = fit.fit_sets(answers.take(np.arange(half)), Wish(float(coverage)))
        found = ["".join(map(str, np.flatnonzero(row))) for row in sets.hold(rest.probabilities)]
        assert found == sizes, coverage


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_adaptive_sets_are_no_larger_than_mapies(method):
    answers = Answers(np.array(MAPIE["probabilities"], np.float32), np.array(MAPIE["labels"]))
    half = len(answers) // 2
    rest = answers.take(np.arange(half, len(answers)))
    for coverage, size in MAPIE[method].items():
        sets = fit.fit_sets(answers.take(np.arange(half)), Wish(float(coverage), method))
        assert sets.hold(rest.probabilities).sum(axis=1).mean() <= size


def test_scores_of_classes_by_hand():
    row = np.array([[0.1, 0.6, 0.3]], np.float32)
    np.testing.assert_allclose(nonconformity(row, "lac"), [[0.9, 0.4, 0.7]], atol=1e-7)
    aps = nonconformity(row, "aps")
    drawn = (0.6 - aps[0, 1]) / 0.6  # of the likeliest, whose score is what is left of 0.6
    assert 0 <= drawn < 1
    expected = [1 - 0.1 * drawn, 0.6 - 0.6 * drawn, 0.9 - 0.3 * drawn]
    np.testing.assert_allclose(aps, [expected], atol=1e-6)
    raps = nonconformity(row, "raps", 0.5, 1)
    np.testing.assert_allclose(raps - aps, [[1.0, 0.0, 0.5]], atol=1e-6)


def test_what_is_drawn_is_the_same_each_time_and_even():
    rows = made(4000).probabilities
    once = nonconformity(rows, "aps")
    np.testing.assert_array_equal(once, nonconformity(rows[::-1], "aps")[::-1])
    best = rows.argmax(axis=1)[:, None]
    left = np.take_along_axis(once / rows, best, axis=1)[:, 0]  # 1 - what was drawn
    counts = np.histogram(left, 10, (0, 1))[0]
    assert counts.min() > 330
    assert counts.max() < 470


# --------------------------------------------------------------------------- the unknown


@pytest.mark.parametrize("features", [0, 12])
def test_false_alarms_are_as_many_as_asked_for(features):
    found = []
    for seed in range(60):
        answers = made(600, seed=seed, features=features)
        fitted = fit.fit(answers.take(np.arange(400)), Wish(false_alarms=0.1), MADE_FROM)
        calibration = replace(fitted.calibration, values=opened(fitted.values))
        rest = answers.take(np.arange(400, 600))
        found.append(np.mean([state(calibration, rest, i) == "unknown" for i in range(200)]))
    assert 0.085 < np.mean(found) < 0.115


def test_features_tell_what_is_unlike_all_classes():
    answers = made(600, features=12)
    fitted = fit.fit(answers, Wish(), MADE_FROM)
    assert fitted.calibration.unknown.measure == "distance"
    calibration = replace(fitted.calibration, values=opened(fitted.values))
    odd = made(200, seed=1)  # as sure as the others
    pooled = np.random.default_rng(2).normal(0, 1, (200, 12)) - 6
    odd = replace(odd, features=pooled.astype(np.float32))
    assert np.mean([state(calibration, odd, i) == "unknown" for i in range(200)]) > 0.95


def test_an_image_beside_the_mean_of_a_class_but_far_from_all_images_is_strange():
    """Between the heaps of a class its images vary, and none is there: only neighbours tell."""
    random = np.random.default_rng(0)
    heaps = np.array([[6, 6, 0], [6, -6, 0], [6, 0, 6], [6, 0, -6]]).repeat(50, axis=0)
    features = np.c_[heaps + random.normal(0, 0.3, (200, 3)), random.normal(0, 0.3, (200, 5))]
    answers = replace(made(200), labels=np.zeros(200, np.int64), features=features)
    values = fit.fit_distance(answers)
    between = np.array([[6, 4.25, 4.25, 0, 0, 0, 0, 0]])
    old = with_products(values["means"], values["varies"])
    with_neighbours = with_products(**values)
    seen = [distance(features, arrays) for arrays in (old, with_neighbours)]
    odd = [distance(between, arrays)[0] for arrays in (old, with_neighbours)]
    assert odd[0] < np.quantile(seen[0], 0.95)
    assert odd[1] > seen[1].max()


def opened(values):
    """The arrays as prediction has them."""
    return with_products(**values) if values else {}


def state(calibration, answers, index):
    pooled = None if answers.features is None else answers.features[index]
    return calibration.judge(answers.probabilities[index], pooled)[1]


# --------------------------------------------------------------------------- all of it


def test_what_is_expected_is_what_comes_of_other_images():
    wish = Wish(0.9, false_alarms=0.05)
    answers = made(4000, sharpness=2, features=12)
    fitted = fit.fit(answers, wish, MADE_FROM)
    expected = fitted.calibration.expected
    calibration = replace(fitted.calibration, values=opened(fitted.values))
    others = made(4000, sharpness=2, seed=5, features=12)
    states = [state(calibration, others, i) for i in range(4000)]
    for name in ("sure", "unsure", "unknown"):
        share = np.mean([found == name for found in states])
        assert expected[name] == pytest.approx(share, abs=0.04), name
    assert expected["sure"] + expected["unsure"] + expected["unknown"] == pytest.approx(1, abs=1e-3)
    assert expected["coverage"] == pytest.approx(0.9, abs=0.02)
    right = others.probabilities.argmax(axis=1) == others.labels
    sure = np.array(states) == "sure"
    assert expected["right_where_sure"] == pytest.approx(right[sure].mean(), abs=0.04)
    assert expected["right_where_sure"] > expected["top1"]


@pytest.mark.parametrize(
    ("count", "wish", "needed"),
    [
        (18, Wish(), 19),
        (19, Wish(false_alarms=0.01), 99),
        (23, Wish(method="raps"), 24),
        (40, Wish(per_class=True), 19),
    ],
)
def test_too_few_images(count, wish, needed):
    with pytest.raises(UserError, match=f"photos: .*needs at least {needed}; give more images"):
        fit.fit(made(count), wish, MADE_FROM)

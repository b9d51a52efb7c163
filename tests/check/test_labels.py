"""Confident learning on scores that are made, and what cleanlab says of the same."""

import numpy as np
import pytest

from ppcls.check import labels as confident
from ppcls.check.label_scores import cross_fitted, deal
from ppcls.similar import unit

# What cleanlab 2.9.0 says of `made(0, 400)` with 10 % planted: compute_confident_joint(labels,
# scores, calibrate=False), and the thresholds get_confident_thresholds(labels, scores).
CLEANLAB_JOINT = [[66, 3, 3, 2], [4, 56, 0, 2], [3, 8, 86, 2], [1, 7, 3, 94]]
CLEANLAB_THRESHOLDS = [0.8167093816, 0.8339799628, 0.8020583343, 0.8389936826]


def made(seed, count, classes=4, rate=0.1):
    """Scores of a fair classifier, labels of which a share is planted wrong, and true classes."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, count)
    logits = random.normal(0, 1, (count, classes)) + 3.5 * np.eye(classes)[true]
    powers = np.exp(1.5 * logits)
    labels = true.copy()
    places = random.choice(count, round(rate * count), replace=False)
    labels[places] = (true[places] + random.integers(1, classes, len(places))) % classes
    return powers / powers.sum(axis=1, keepdims=True), labels, true


def test_the_confident_joint_is_cleanlabs():
    scores, labels, _ = made(0, 400)
    assert confident.confident_joint(scores, labels).tolist() == CLEANLAB_JOINT
    assert confident.thresholds(scores, labels) == pytest.approx(CLEANLAB_THRESHOLDS, abs=1e-6)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3])
def test_planted_errors_are_found(rate):
    scores, labels, true = made(1, 3000, rate=rate)
    found = confident.find_issues(scores, labels)
    wrong = labels != true
    assert wrong[found.wrong].mean() > 0.9
    assert wrong[found.wrong].sum() / wrong.sum() > 0.8
    assert np.all(np.diff(found.doubt[found.wrong]) <= 0)
    right = found.suggested[found.wrong] == true[found.wrong]
    assert right[wrong[found.wrong]].mean() > 0.95
    # How many are wrong is known; the probabilities are careful rather than bold.
    assert found.share == pytest.approx(wrong.mean(), rel=0.25)
    assert found.doubt[found.wrong].mean() < wrong[found.wrong].mean() + 0.05
    assert not set(found.wrong) & set(found.ambiguous)
    assert found.same == []


def test_without_errors_hardly_any_are_found():
    scores, labels, _ = made(2, 3000, rate=0)
    found = confident.find_issues(scores, labels)
    assert len(found.wrong) <= 6


def test_one_class_that_got_two_names():
    scores, _, true = made(3, 2000, rate=0)
    random = np.random.default_rng(0)
    two = np.where(random.random(2000) < 0.2, 4, true)  # a fifth of each is called by a fifth name
    two = np.where(true == 0, two, true)
    split = np.c_[scores * [0.8, 1, 1, 1], 0.2 * scores[:, 0]]
    split[:, [0, 4]] *= random.uniform(0.2, 5, (2000, 1)) ** np.array([1, -1])
    split /= split.sum(axis=1, keepdims=True)
    found = confident.find_issues(split, two)
    ((one, other, share),) = found.same
    assert (one, other) == (0, 4)
    assert 0.35 < share < 0.65


def test_images_that_are_not_judged():
    scores, labels, _ = made(4, 500)
    scores[[3, 7]] = np.nan
    found = confident.find_issues(scores, labels)
    assert np.flatnonzero(np.isnan(found.doubt)).tolist() == [3, 7]
    assert found.suggested[[3, 7]].tolist() == [-1, -1]
    none = confident.find_issues(np.full((3, 2), np.nan), np.array([0, 1, 1]))
    assert (len(none.wrong), len(none.ambiguous), none.same) == (0, 0, [])


def test_a_label_of_which_no_image_is_sure():
    """Every number stays finite where a class is always taken for another one."""
    scores = np.tile([0.9, 0.06, 0.04], (30, 1))
    labels = np.repeat([0, 1, 2], [20, 8, 2])
    found = confident.find_issues(scores, labels)
    assert np.isfinite(found.doubt).all()
    assert (found.doubt >= 0).all()


def test_folds_keep_groups_whole_and_spread_classes():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [100, 40, 4])
    groups = np.arange(144)
    groups[10:16] = 10
    groups[[20, 120]] = 20  # one image under two labels
    folds = deal(labels, groups)
    assert set(folds[10:16]) == {folds[10]}
    assert folds[20] == folds[120]
    assert (folds[labels == 2] == -1).all()
    for label, least in ((0, 16), (1, 7)):
        assert np.bincount(folds[labels == label], minlength=5).min() >= least
    order = random.permutation(144)
    assert sorted(np.bincount(deal(labels[order], order)[labels[order] < 2])) == [28] * 5


def test_a_cross_fitted_classifier_does_not_know_the_labels_it_judges():
    """On noise it is right by chance; on features that tell classes apart, nearly always."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 400)
    noise = unit(random.normal(0, 1, (400, 64)).astype(np.float32))
    folds = deal(labels, np.arange(400))
    right = (cross_fitted(noise, labels, folds).argmax(axis=1) == labels).mean()
    assert 0.1 < right < 0.4
    features = unit((noise + np.eye(64)[labels]).astype(np.float32))
    folds[:5] = -1
    scores = cross_fitted(features, labels, folds)
    assert np.isnan(scores[:5]).all()
    assert scores[5:].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (scores[5:].argmax(axis=1) == labels[5:]).mean() > 0.95
    assert scores.dtype == np.float32


def test_at_least_as_good_as_cleanlab_on_the_same_scores():
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    for rate in (0.02, 0.05, 0.1):
        scores, labels, true = made(5, 3000, rate=rate)
        wrong = labels != true
        ours = confident.find_issues(scores, labels).wrong
        theirs = np.flatnonzero(filters.find_label_issues(labels, scores))
        assert wrong[ours].mean() >= wrong[theirs].mean()

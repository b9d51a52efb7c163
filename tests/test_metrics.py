"""Scores against scikit-learn, by hand, and in the cases that scikit-learn leaves open."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, top_k_accuracy_score

from ppcls import metrics


def test_top_k_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(labels, logits, k=k, labels=range(12), normalize=False)
        assert metrics.correct(logits, labels, k) == expected


def test_a_constant_or_broken_network_is_right_about_nothing():
    labels = np.array([0, 1, 2])
    assert metrics.correct(np.zeros((3, 4)), labels, 1) == 0
    assert metrics.correct(np.full((3, 4), np.nan), labels, 1) == 0


def test_only_ranks_below_the_class_count_mean_something():
    assert metrics.ranks(1000) == (1, 5)
    assert metrics.ranks(5) == (1,)
    assert metrics.ranks(2) == (1,)
    assert metrics.ranks(1) == (1,)


def test_mean_average_precision_is_that_of_scikit_learn_over_classes_with_photos():
    rng = np.random.default_rng(1)
    scores, labels = rng.random((60, 5)).round(1), rng.integers(0, 2, (60, 5))
    labels[:, 3] = 0  # no image shows it
    own = metrics.average_precisions(scores, labels)
    assert np.isnan(own[3])
    rest = [0, 1, 2, 4]
    assert own[rest] == pytest.approx(
        average_precision_score(labels[:, rest], scores[:, rest], average=None)
    )
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(np.mean(own[rest]))


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    # Found at ranks 1 and 3: precisions 1 and 2/3.
    assert metrics.mean_average_precision(scores, np.array([[1], [0], [1], [0]])) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    decisions, labels = rng.random((50, 4)) > 0.6, rng.integers(0, 2, (50, 4)).astype(np.uint8)
    labels[:, 1], decisions[:, 1] = 0, False
    expected = f1_score(labels, decisions, average=None, zero_division=0)
    assert metrics.f1(decisions, labels) == pytest.approx(expected)


def test_no_threshold_has_a_better_f1():
    rng = np.random.default_rng(3)
    for trial in range(20):
        labels = rng.integers(0, 2, (30, 1))
        scores = np.clip(0.3 * labels + rng.random((30, 1)) * 0.7, 0, 1).round(trial % 3 + 1)
        found = metrics.best_thresholds(scores, labels)
        best = max(f1_score(labels, scores > t, zero_division=0) for t in [-1, *scores.ravel()])
        assert f1_score(labels, scores > found) == pytest.approx(best)


def test_a_threshold_lies_midway_between_the_scores_that_it_divides():
    scores, labels = np.array([[0.9], [0.7], [0.3], [0.1]]), np.array([[1], [1], [0], [0]])
    assert metrics.best_thresholds(scores, labels) == pytest.approx([0.5])
    assert metrics.best_thresholds(scores - 0.1, labels) == pytest.approx([0.4])


def test_a_class_of_all_photos_or_none_has_the_middle_threshold():
    scores = np.array([[0.9, 0.2], [0.8, 0.1]])
    assert metrics.best_thresholds(scores, np.array([[1, 0], [1, 0]])).tolist() == [0.5, 0.5]

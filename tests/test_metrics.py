"""Scores against scikit-learn, by hand, and in the cases that scikit-learn leaves open."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_curve,
    top_k_accuracy_score,
)

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


def test_attribute_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (60, 5)).astype(np.uint8)
    decisions = rng.random((60, 5)) > 0.4
    labels[0], decisions[1] = 0, False  # an image without any attribute, one without an answer
    found = metrics.attributes(decisions, labels)
    given = {"y_true": labels, "y_pred": decisions, "average": "samples", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(jaccard_score(**given))
    assert found["precision"] == pytest.approx(precision_score(**given))
    assert found["recall"] == pytest.approx(recall_score(**given))
    each = [balanced_accuracy_score(labels[:, c], decisions[:, c]) for c in range(5)]
    assert metrics.mean_accuracies(decisions, labels) == pytest.approx(each)
    assert found["ma"] == pytest.approx(np.mean(each))


def test_attribute_metrics_by_hand():
    labels = np.array([[1, 0, 1], [0, 1, 1]])
    decisions = np.array([[True, True, False], [False, True, True]])
    found = metrics.attributes(decisions, labels)
    # Of the third, which all images have, there is no true negative rate.
    expected = {"ma": (1 + 0.5) / 2, "accuracy": (1 / 3 + 1) / 2, "precision": 0.75}
    assert found == pytest.approx(expected | {"recall": 0.75, "f1": 0.75})
    nothing = metrics.attributes(np.zeros((2, 3), bool), np.zeros((2, 3), int))
    assert np.isnan(nothing.pop("ma"))
    assert set(nothing.values()) == {0.0}


def test_true_positives_at_a_rate_of_false_ones_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    for most in (0, 0.01, 0.1, 1):
        labels = rng.integers(0, 2, 200)
        scores = np.clip(0.2 * labels + 0.8 * rng.random(200), 0, 1).round(2)
        rates, recalls, _ = roc_curve(labels, scores, drop_intermediate=False)
        expected = recalls[rates <= most].max()
        assert metrics.tpr_at_fpr(scores, labels, most) == pytest.approx(expected)
    assert np.isnan(metrics.tpr_at_fpr(scores, np.ones(200, int), 0.1))

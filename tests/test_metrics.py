"""Top-k accuracy against scikit-learn and the cases it leaves open."""

import numpy as np
from sklearn.metrics import top_k_accuracy_score

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

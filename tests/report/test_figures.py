"""A report's figures against hand-worked examples, numpy, scipy and scikit-learn."""

import warnings

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset, Paths
from ppcls.report import figures, plots
from ppcls.report.figures import Outcomes
from ppcls.utils.errors import UserError


def photos(labels) -> Dataset:
    labels = np.asarray(labels, np.int64)
    return Dataset(Paths([f"{i}.png" for i in range(len(labels))]), labels, (), "photos")


def answered(logits, labels) -> Outcomes:
    logits, samples = np.asarray(logits, np.float32), photos(labels)
    outcomes = Outcomes.to_fill(samples, logits.shape[1])
    for part in np.array_split(np.arange(len(samples)), 2)[::-1]:  # in any order of batches
        images = np.zeros((len(part), 1, 1, 3), np.uint8)
        outcomes.add(Batch(images, samples.labels[part], part), logits[part])
    return outcomes


def made(logits, labels, names=()) -> figures.Report:
    return figures.make({"model": "x"}, {"loss": 0.0}, names, answered(logits, labels))


def test_calibration_by_hand():
    # (14/15, 1]: mean 0.96, accuracy 0.5; (8/15, 9/15]: mean 0.575, accuracy 1, 9/15 included.
    confidences, right = np.array([0.95, 0.6, 0.97, 0.55]), np.array([True, True, False, True])
    ece, bins = figures.calibration(confidences, right)
    assert ece == pytest.approx(0.5 * 0.46 + 0.5 * 0.425)
    assert [one.photos for one in bins] == [0] * 8 + [2] + [0] * 5 + [2]
    assert (bins[8].low, bins[8].high) == (8 / 15, 9 / 15)
    assert (bins[8].confidence, bins[8].accuracy) == (pytest.approx(0.575), 1)
    assert (bins[0].confidence, bins[0].accuracy) == (None, None)


def test_calibration_agrees_with_numpys_histograms():
    random = np.random.default_rng(0)
    confidences = random.random(1000).astype(np.float32)
    right = random.random(1000) < confidences**2
    sums, hits = (
        np.histogram(confidences, 15, (0, 1), weights=weights)[0]
        for weights in (confidences, right * 1.0)
    )
    ece, bins = figures.calibration(confidences, right)
    assert ece == pytest.approx(np.abs(sums - hits).sum() / 1000)
    assert sum(one.photos for one in bins) == 1000


def test_answers_are_the_softmax_of_the_logits():
    random = np.random.default_rng(1)
    logits = random.normal(0, 30, (40, 6)).astype(np.float32)
    labels = random.integers(0, 6, 40)
    found = answered(logits, labels)
    expected = softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6, atol=1e-44)
    losses = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(40), labels]
    np.testing.assert_allclose(found.losses, losses, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found.predicted, logits.argmax(axis=1))
    places = np.argsort(np.argsort(-logits, axis=1), axis=1)[np.arange(40), labels] + 1
    np.testing.assert_array_equal(found.ranks, places)
    np.testing.assert_array_equal(found.confidences, found.probabilities.max(axis=1))


def test_a_tie_counts_against_the_label():
    found = answered([[1, 1, 0], [1, 1, 0], [0, 2, 2], [3, 0, 0]], [0, 1, 0, 0])
    assert found.predicted.tolist() == [1, 0, 1, 0]
    assert found.ranks.tolist() == [2, 2, 3, 1]
    assert found.confidences[0] == found.probabilities[0].max()


def test_there_is_no_report_on_what_is_no_number():
    for value in (np.nan, np.inf):
        with pytest.raises(UserError, match=r"^2\.png: the network's logits are not finite"):
            answered([[0, 1], [0, 1], [value, 1], [0, 1]], [0, 1, 0, 1])


def test_pairs_and_mistakes_come_in_order():
    said = [1, 1, 1, 1, 0, 2, 2, 2]
    report = made(
        np.eye(3)[said] * [[3], [1], [2], [1], [9], [4], [4], [5]], [0] * 4 + [1] * 3 + [2]
    )
    pairs = [(pair.true, pair.predicted, pair.photos) for pair in report.pairs]
    assert pairs == [(0, 1, 4), (1, 2, 2), (1, 0, 1)]
    assert report.worst[0] == 4
    assert report.worst[-2:] == [1, 3]
    assert 7 not in report.worst
    equal = made(np.eye(3)[[1, 1, 0, 2]], [0, 0, 1, 1])  # of equal counts the larger share
    assert [(pair.true, pair.predicted) for pair in equal.pairs] == [(0, 1), (1, 0), (1, 2)]


def test_classes_without_photos_are_left_out_of_the_means():
    report = made(np.eye(4)[[0, 0, 2, 1]], [0, 0, 0, 1])
    assert [one.f1 for one in report.classes] == [pytest.approx(0.8), 1, None, None]
    assert [one.predicted for one in report.classes] == [2, 1, 1, 0]
    assert report.averages["macro"]["recall"] == pytest.approx((2 / 3 + 1) / 2)


def test_recall_at_a_rate_of_false_positives_is_that_of_each_class_against_the_others():
    logits = [[3, 0, 0], [2, 0, 0], [0, 1, 0], [2.5, 0, 0], [0, 2, 0], [0, 3, 0]]
    report = made(logits, [0, 0, 0, 1, 1, 1])
    # Of the class 0 one image is above all others, of the class 1 two are; of the class 2 none is.
    assert [one.tpr_at_fpr for one in report.classes] == [
        pytest.approx(1 / 3), pytest.approx(2 / 3), None,
    ]  # fmt: skip


@pytest.mark.parametrize(("logits", "labels"), [([[1.0]] * 3, [0] * 3), ([[0, 9.0]] * 2, [1, 1])])
def test_one_class_and_no_mistakes(logits, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = made(logits, labels)
        plots.confusion(report.confusion, report.names)
        plots.reliability(report.bins)
    assert report.averages["macro"] == {"precision": 1, "recall": 1, "f1": 1}
    assert report.confusion.sum() == report.confusion[labels[0], labels[0]] == len(labels)
    assert report.pairs == report.worst == []


def test_names_are_told_apart_and_default_to_numbers():
    assert figures.distinct(["crane", "dog", "crane"]) == ("crane (0)", "dog", "crane (2)")
    assert made(np.eye(3), [0, 1, 2]).names == ("0", "1", "2")


def test_a_large_matrix_is_drawn_in_blocks():
    matrix = np.random.default_rng(2).integers(0, 9, (7, 7))
    blocks = plots.pooled(matrix, 3)
    assert blocks.shape == (3, 3)
    assert blocks[1, 2] == matrix[3:6, 6:].sum()
    assert blocks.sum() == matrix.sum()
    np.testing.assert_array_equal(plots.pooled(matrix, 1), matrix)


def test_names_that_no_font_has_become_numbers(capsys):
    eye = np.eye(2, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unknown, number, *_ = (
            plots.confusion(eye, names)
            for names in (["\U00012222", "b"], ["0", "b"], ["猫", r"$\frac{$ $"])
        )
    assert unknown == number
    assert "no installed font has \U00012222" in capsys.readouterr().out
    cut = plots.confusion(eye, ["a" * 30, "Käfer"])
    assert cut == plots.confusion(eye, ["a" * 19 + "…", "Käfer"])
    assert cut != plots.confusion(eye, ["a" * 19 + "…", "Kafer"])

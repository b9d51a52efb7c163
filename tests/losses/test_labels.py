"""Losses against numpy and scikit-learn's formulas, their gradients against finite differences."""

import numpy as np
import paddle
import pytest

from ppcls.losses.labels import Asymmetric, BinaryCrossEntropy, CrossEntropy, Focal
from ppcls.utils.errors import UserError

rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 2, (6, 5))
LABELS = rng.integers(0, 5, 6)
SHARES = rng.dirichlet(np.ones(5), 6)
MANY = (rng.random((6, 5)) < 0.4).astype("float64")
FREQUENCIES = (0.1, 0.5, 0.9, 0.0, 1.0)
ABSENT = 1 - np.array(FREQUENCIES)
WEIGHTS = (0.5, 1.0, 2.0, 0.0, 3.0)
ONE_HOT = np.eye(5)[LABELS]


def log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(x, shares, weights=1.0):
    return -(np.multiply(weights, shares) * log_softmax(x)).sum(1).mean()


def focal(x, shares, gamma, weights=1.0):
    p = np.exp(log_softmax(x))
    return -(np.multiply(weights, shares) * (1 - p) ** gamma * np.log(p)).sum(1).mean()


def terms_of(x, shares):
    p = logistic(x)
    return shares * np.log(p) + (1 - shares) * np.log(1 - p)


def bce(x, shares):
    return -terms_of(x, shares).mean()


def asymmetric(x, shares, up, down, clip):
    p = logistic(x)
    q = np.maximum(p - clip, 0)
    terms = shares * (1 - p) ** up * np.log(p) + (1 - shares) * q**down * np.log(1 - q)
    return -terms.sum(1).mean()


def smooth(shares, s):
    return (1 - s) * shares + s / 5


def as_in_the_paper(**numbers):
    return Asymmetric(**numbers, reduction="mean", focal_gradient=True)


CASES = {
    "hard": (CrossEntropy(), LABELS, lambda x: cross_entropy(x, ONE_HOT)),
    "smoothed": (
        CrossEntropy(smoothing=0.1),
        LABELS,
        lambda x: cross_entropy(x, smooth(ONE_HOT, 0.1)),
    ),
    "all smoothed": (CrossEntropy(smoothing=1.0), LABELS, lambda x: cross_entropy(x, 0.2)),
    "mixed": (CrossEntropy(), SHARES, lambda x: cross_entropy(x, SHARES)),
    "mixed and smoothed": (
        CrossEntropy(smoothing=0.1),
        SHARES,
        lambda x: cross_entropy(x, smooth(SHARES, 0.1)),
    ),
    "weighted": (
        CrossEntropy(weights=WEIGHTS),
        LABELS,
        lambda x: -(np.array(WEIGHTS)[LABELS] * log_softmax(x)[range(6), LABELS]).mean(),
    ),
    "weighted, mixed, smoothed": (
        CrossEntropy(weights=WEIGHTS, smoothing=0.2),
        SHARES,
        lambda x: cross_entropy(x, smooth(SHARES, 0.2), WEIGHTS),
    ),
    "focal": (Focal(), LABELS, lambda x: focal(x, ONE_HOT, 2)),
    "focal, half": (Focal(gamma=0.5), SHARES, lambda x: focal(x, SHARES, 0.5)),
    "focal 0": (Focal(gamma=0), LABELS, lambda x: cross_entropy(x, ONE_HOT)),
    "focal, weighted, smoothed": (
        Focal(gamma=3, weights=WEIGHTS, smoothing=0.1),
        LABELS,
        lambda x: focal(x, smooth(ONE_HOT, 0.1), 3, WEIGHTS),
    ),
    "bce": (BinaryCrossEntropy(), LABELS, lambda x: bce(x, ONE_HOT)),
    "bce of many": (BinaryCrossEntropy(), MANY, lambda x: bce(x, MANY)),
    "bce of rare answers": (
        BinaryCrossEntropy(frequencies=FREQUENCIES),
        MANY,
        lambda x: -(terms_of(x, MANY) * np.exp(np.where(MANY, ABSENT, FREQUENCIES))).mean(),
    ),
    "bce, summed over classes": (
        BinaryCrossEntropy(reduction="sum"),
        MANY,
        lambda x: -terms_of(x, MANY).sum(1).mean(),
    ),
    "bce, mixed, threshold": (
        BinaryCrossEntropy(threshold=0.2),
        SHARES,
        lambda x: bce(x, SHARES > 0.2),
    ),
    "bce, smoothed": (
        BinaryCrossEntropy(smoothing=0.1, threshold=0.2),
        SHARES,
        lambda x: bce(x, smooth(SHARES > 0.2, 0.1)),
    ),
    "asymmetric": (as_in_the_paper(), MANY, lambda x: asymmetric(x, MANY, 0, 4, 0.05)),
    "asymmetric, of one": (
        as_in_the_paper(gamma_positive=1, gamma_negative=2, clip=0.1),
        LABELS,
        lambda x: asymmetric(x, ONE_HOT, 1, 2, 0.1),
    ),
    "asymmetric as bce": (
        as_in_the_paper(gamma_negative=0, clip=0),
        MANY,
        lambda x: 5 * bce(x, MANY),
    ),
    "asymmetric as focal": (
        as_in_the_paper(gamma_positive=2, gamma_negative=2, clip=0),
        MANY,
        lambda x: asymmetric(x, MANY, 2, 2, 0),
    ),
}


def slope(function, at, width=1e-5):
    """The gradient by central differences, in float64."""
    found = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = width
        found[index] = (function(at + step) - function(at - step)) / (2 * width)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_its_gradient(case):
    loss, targets, expected = CASES[case]
    x = paddle.to_tensor(LOGITS.astype("float32"), stop_gradient=False)
    given = targets if targets.ndim == 1 else targets.astype("float32")
    value = loss(x, paddle.to_tensor(given))
    value.backward()
    assert float(value) == pytest.approx(expected(LOGITS), rel=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), slope(expected, LOGITS), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_the_mean_of_its_photos(case):
    loss, targets, _ = CASES[case]
    x = paddle.to_tensor(LOGITS.astype("float32"))
    given = paddle.to_tensor(targets if targets.ndim == 1 else targets.astype("float32"))
    parts = float(loss(x[:4], given[:4])) * 4 / 6 + float(loss(x[4:], given[4:])) * 2 / 6
    assert float(loss(x, given)) == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_it_stays_finite_where_the_network_is_sure(case):
    loss, targets, _ = CASES[case]
    sure = np.where(ONE_HOT, 60.0, -60.0).astype("float32")
    for logits in (sure, -sure):
        x = paddle.to_tensor(logits, stop_gradient=False)
        given = targets if targets.ndim == 1 else targets.astype("float32")
        value = loss(x, paddle.to_tensor(given))
        value.backward()
        assert np.isfinite(float(value))
        assert np.isfinite(x.grad.numpy()).all()


def test_a_confident_mistake_keeps_its_slope():
    """Where 1 - p is 0 in float32, the logarithm still says how wrong it is."""
    x = paddle.to_tensor(np.array([[40.0, -40.0]], "float32"), stop_gradient=False)
    loss = Asymmetric(gamma_negative=0, clip=0)(
        x, paddle.to_tensor(np.array([[0.0, 1.0]], "float32"))
    )
    loss.backward()
    assert float(loss) == pytest.approx(80)
    np.testing.assert_allclose(x.grad.numpy(), [[1, -1]], rtol=1e-6)


def test_the_asymmetric_loss_is_that_of_its_own_code():
    """A sum over images and classes whose powers are constants: numpy, at PaddleClas's numbers."""
    logits = rng.normal(0, 2, (16, 5))
    many = (rng.random((16, 5)) < 0.4).astype("float64")

    def powers(x):
        sure = np.where(many, logistic(x), np.minimum(1 - logistic(x) + 0.05, 1))
        return (1 - sure) ** np.where(many, 1, 4)

    def twin(x, held):
        sure = np.where(many, logistic(x), np.minimum(1 - logistic(x) + 0.05, 1))
        return -(np.log(np.maximum(sure, 1e-8)) * held).sum()

    def computed(**keys):
        x = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
        value = Asymmetric(gamma_positive=1, **keys)(x, paddle.to_tensor(many.astype("float32")))
        value.backward()
        return float(value), x.grad.numpy()

    value, gradient = computed()
    held = powers(logits)
    assert value == pytest.approx(twin(logits, held), rel=1e-5)
    np.testing.assert_allclose(gradient, slope(lambda x: twin(x, held), logits), atol=2e-5)
    mean, flowing = computed(reduction="mean", focal_gradient=True)  # what 0.1 began with
    assert value / mean == pytest.approx(16, rel=1e-5)
    cosine = (gradient * flowing).sum() / np.linalg.norm(gradient) / np.linalg.norm(flowing)
    assert 0.8 < cosine < 0.97


def test_frequencies_are_counted():
    built = BinaryCrossEntropy(frequencies="counted").build([3, 0, 6], 12)
    assert built.frequencies == (0.25, 0.0, 0.5)
    assert BinaryCrossEntropy().build([3, 0, 6], 12) == BinaryCrossEntropy()
    with pytest.raises(UserError, match="2 numbers for 3 classes: give one for each, or counted"):
        BinaryCrossEntropy(frequencies=(0.5, 0.5)).build([3, 0, 6], 12)


@pytest.mark.parametrize("node", [CrossEntropy, Focal])
def test_balanced_weights_come_from_the_counts(node):
    counts = np.array([10, 30, 60])
    assert node(weights="balanced").build(counts).weights == pytest.approx(
        (100 / 30, 100 / 90, 100 / 180)
    )
    assert node().build(counts).weights is None
    assert node(weights=(1, 2, 3)).build(counts).weights == (1, 2, 3)
    with pytest.raises(UserError, match="2 values for 3 classes"):
        node(weights=(1, 2)).build(counts)
    with pytest.raises(UserError, match=r"class 1, of which data.train has no image \(1 such\)"):
        node(weights="balanced").build(np.array([1, 0, 2]))

"""Losses between logits, and DIST: against numpy, finite differences, and from oneself."""

import numpy as np
import paddle
import pytest

from ppcls.losses.distill import DIST, DKD, JS, KL, SKD, WSL, Outputs, SoftCrossEntropy, SymmetricKL

rng = np.random.default_rng(0)
OWN, GUIDE = rng.normal(0, 2, (6, 5)), rng.normal(0, 3, (6, 5))
LABELS = rng.integers(0, 5, 6)
SHARES = rng.dirichlet(np.ones(5), 6)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def kl(q, p):
    return (q * np.log(q / p)).sum(1)


def soft(z, t, temperature):
    return -(temperature**2) * (softmax(t / temperature) * np.log(softmax(z / temperature))).sum(1)


def js(z, t):
    p, q = softmax(z), softmax(t)
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)).mean() / 2


def dml(z, t, act=softmax, least=1e-12):
    """PaddleClas's DMLLoss: the mean over all numbers of what is multiplied by the classes."""
    p, q = act(z), act(t)
    cost = q * np.log((q + least) / (p + least)) + p * np.log((p + least) / (q + least))
    return (cost * p.shape[-1] / 2).mean()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dkd(z, t, labels, temperature, alpha, beta):
    total = 0
    for own, guide, label in zip(z / temperature, t / temperature, labels, strict=True):
        p, q = softmax(own[None])[0], softmax(guide[None])[0]
        binary = [np.array([[v[label], 1 - v[label]]]) for v in (q, p)]
        rest = [np.delete(v, label)[None] / np.delete(v, label).sum() for v in (q, p)]
        total += alpha * kl(*binary)[0] + beta * kl(*rest)[0]
    return temperature**2 * total / len(z)


def wsl(shares):
    """The factor is held at the point where the slope is asked for."""
    ratio = (shares * np.log(softmax(OWN))).sum(1) / (shares * np.log(softmax(GUIDE))).sum(1)
    return lambda z, t: ((1 - np.exp(-ratio)) * soft(z, t, 2)).mean()


def skd(z, t, temperature, length=None):
    z, t = z - z.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
    length = length or np.linalg.norm(t, axis=1).mean()
    z, t = (length * v / np.linalg.norm(v, axis=1, keepdims=True) / temperature for v in (z, t))
    return temperature**2 * kl(softmax(t), softmax(z)).mean()


def dist(z, t, temperature, inter, intra):
    p, q = softmax(z / temperature), softmax(t / temperature)
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    return temperature**2 * (inter * np.mean(rows) + intra * np.mean(columns))


CASES = {
    "soft": (SoftCrossEntropy(), LABELS, lambda z, t: soft(z, t, 1).mean()),
    "soft, 4": (SoftCrossEntropy(temperature=4), LABELS, lambda z, t: soft(z, t, 4).mean()),
    "kl": (KL(), LABELS, lambda z, t: kl(softmax(t), softmax(z)).mean()),
    "kl, 3": (
        KL(temperature=3),
        LABELS,
        lambda z, t: 9 * kl(softmax(t / 3), softmax(z / 3)).mean(),
    ),
    "js": (JS(), LABELS, js),
    "dml": (SymmetricKL(), LABELS, dml),
    "dml, many": (SymmetricKL(act="sigmoid"), LABELS, lambda z, t: dml(z, t, sigmoid)),
    "dkd": (DKD(), LABELS, lambda z, t: dkd(z, t, LABELS, 1, 1, 0.5)),
    "dkd, mixed": (
        DKD(temperature=4, target=2, others=8),
        SHARES,
        lambda z, t: dkd(z, t, SHARES.argmax(1), 4, 2, 8),
    ),
    "wsl": (WSL(), LABELS, wsl(np.eye(5)[LABELS])),
    "wsl, mixed": (WSL(), SHARES, wsl(SHARES)),
    "skd": (SKD(), LABELS, lambda z, t: skd(z, t, 4)),
    "skd, 2": (SKD(temperature=2, length=3.0), LABELS, lambda z, t: skd(z, t, 2, 3.0)),
    "dist": (DIST(), LABELS, lambda z, t: dist(z, t, 1, 2, 2)),
    "dist, 4": (
        DIST(temperature=4, inter=1, intra=3),
        LABELS,
        lambda z, t: dist(z, t, 4, 1, 3),
    ),
}
ENTROPY = ("soft", "wsl")  # what they come to for a student like the teacher is not 0


def slope(function, at, width=1e-5):
    found = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = width
        found[index] = (function(at + step) - function(at - step)) / (2 * width)
    return found


def computed(loss, own, guide, targets):
    own = paddle.to_tensor(own, stop_gradient=False)
    value = loss(Outputs(own), Outputs(paddle.to_tensor(guide)), paddle.to_tensor(targets))
    value.backward()
    return float(value), own.grad.numpy()


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_those_of_numpy(name):
    loss, targets, twin = CASES[name]
    value, gradient = computed(loss, OWN, GUIDE, targets)
    assert value == pytest.approx(twin(OWN, GUIDE), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(gradient, slope(lambda z: twin(z, GUIDE), OWN), atol=1e-8)
    single, _ = computed(loss, OWN.astype("float32"), GUIDE.astype("float32"), targets)
    assert single == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_student_like_its_teacher_has_nothing_to_learn(name):
    loss, targets, _ = CASES[name]
    value, gradient = computed(loss, OWN, OWN, targets)
    if not name.startswith(ENTROPY):
        assert abs(value) < 1e-12
    assert np.abs(gradient).max() < 1e-9  # DIST and SKD have a root in them


@pytest.mark.parametrize("name", CASES)
def test_sure_logits_give_numbers(name):
    loss, targets, _ = CASES[name]
    sure = (50 * np.eye(5)[LABELS]).astype("float32")
    for own, guide in ((sure, sure), (-sure, sure), (np.zeros_like(sure), sure)):
        value, gradient = computed(loss, own, guide, targets)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_teachers_shift_of_all_logits_changes_nothing():
    for name, (loss, targets, _) in CASES.items():
        if name == "dml, many":
            continue  # whose classes are not compared with one another
        value, _ = computed(loss, OWN, GUIDE, targets)
        shifted, _ = computed(loss, OWN, GUIDE - 7, targets)
        assert shifted == pytest.approx(value, rel=1e-9), name


def test_the_symmetric_divergence_is_not_jensen_and_shannons():
    """A quarter near agreement; where two networks disagree, less than that, and bounded."""
    near, _ = computed(SymmetricKL(), GUIDE + 0.01 * OWN, GUIDE, LABELS)
    assert near / computed(JS(), GUIDE + 0.01 * OWN, GUIDE, LABELS)[0] == pytest.approx(4, rel=1e-3)
    sure = 12 * np.eye(5)
    (far, slopes), (bounded, flat) = (
        computed(loss, sure[[1, 2, 3, 4, 0]], sure, LABELS[:5]) for loss in (SymmetricKL(), JS())
    )
    assert bounded == pytest.approx(np.log(2), rel=1e-3)
    assert far == pytest.approx(12, rel=1e-3)
    assert np.abs(slopes).max() > 10 * np.abs(flat).max()

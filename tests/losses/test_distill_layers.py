"""Losses between features: against numpy, finite differences, and from oneself."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.losses.distill import AFD, MGD, PEFD, RKD, FeatureL2, Outputs
from ppcls.losses.distill_layers import build
from ppcls.utils.errors import UserError

rng = np.random.default_rng(1)
STUDENT, TEACHER = (3, 4), (5, 6)  # widths
OWN = [
    rng.normal(0, 1, (4, width, side, side)) for width, side in zip(STUDENT, (4, 2), strict=True)
]
GUIDE = [
    rng.normal(0, 1, (4, width, side, side)) for width, side in zip(TEACHER, (4, 2), strict=True)
]


@pytest.fixture(autouse=True)
def double():
    """Layers with float64 weights, drawn from a seed."""
    paddle.seed(0)
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def computed(loss, own, guide):
    """Value and gradients of a loss for features given as arrays."""
    own = [paddle.to_tensor(f, stop_gradient=False) for f in own]
    logits = paddle.zeros([len(own[0]), 2])
    guide = [paddle.to_tensor(f) for f in guide]
    value = loss(Outputs(logits, own), Outputs(logits, guide), paddle.zeros([len(own[0])], "int64"))
    value.backward()
    return float(value), [np.zeros(f.shape) if f.grad is None else f.grad.numpy() for f in own]


def slopes(function, features, width=1e-5):
    found = [np.zeros_like(f) for f in features]
    for stage, feature in enumerate(features):
        for index in np.ndindex(*feature.shape):
            ends = []
            for sign in (1, -1):
                changed = [f.copy() for f in features]
                changed[stage][index] += sign * width
                ends.append(function(changed))
            found[stage][index] = (ends[0] - ends[1]) / (2 * width)
    return found


def check(loss, twin):
    value, gradients = computed(loss, OWN, GUIDE)
    assert value == pytest.approx(twin(OWN), rel=1e-9, abs=1e-9)
    for gradient, expected in zip(gradients, slopes(twin, OWN), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-8)


def conv(x, layer):
    """A convolution with same padding, by sums over its kernel."""
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    half = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    out = np.zeros((len(x), len(weight), *x.shape[2:])) + bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            part = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            out += np.einsum("nchw,oc->nohw", part, weight[:, :, i, j])
    return out


def huber(difference):
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5).mean()


def relations(feature):
    """Distances over their mean and cosines, by loops."""
    x = feature.mean((2, 3))
    n = len(x)
    distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    cosines = np.zeros((n, n, n))
    for j, i, k in np.ndindex(n, n, n):
        if i != j and k != j:
            a, b = x[i] - x[j], x[k] - x[j]
            cosines[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return distances / (distances.sum() / (n * (n - 1))), cosines


def test_feature_l2():
    loss = build(FeatureL2(stage=-1), STUDENT, TEACHER)
    check(loss, lambda own: ((conv(own[1], loss.align) - GUIDE[1]) ** 2).sum() / 8)


def test_feature_l2_of_equal_widths_needs_no_layer():
    own = [np.repeat(f, 2, axis=1)[:, :width] for f, width in zip(OWN, TEACHER, strict=True)]
    value, _ = computed(build(FeatureL2(stage=-2), TEACHER, TEACHER), own, GUIDE)
    assert value == pytest.approx(((own[0] - GUIDE[0]) ** 2).sum() / 8)


def test_rkd():
    def twin(own):
        (d, a), (e, b) = relations(own[-1]), relations(GUIDE[-1])
        return 3 * huber(d - e) + 5 * huber(a - b)

    check(RKD(distance=3, angle=5), twin)


def test_mgd(monkeypatch):
    drawn = rng.random((4, 1, 4, 4))
    monkeypatch.setattr(paddle, "rand", lambda shape: paddle.to_tensor(drawn))
    loss = build(MGD(stage=-2, masked=0.4), STUDENT, TEACHER)
    assert 0 < (drawn < 0.4).sum() < drawn.size

    def twin(own):
        hidden = conv(conv(own[0], loss.align) * (drawn >= 0.4), loss.generate[0])
        made = conv(np.maximum(hidden, 0), loss.generate[2])
        return ((made - GUIDE[0]) ** 2).sum() / 4

    check(loss, twin)


def test_pefd():
    loss = build(PEFD(projectors=2), STUDENT, TEACHER)

    def twin(own):
        x, t = own[-1].mean((2, 3)), GUIDE[-1].mean((2, 3))
        parts = [np.maximum(x @ f.weight.numpy() + f.bias.numpy(), 0) for f in loss.linears]
        f = np.mean(parts, 0)
        return np.mean(1 - (f * t).sum(1) / np.linalg.norm(f, axis=1) / np.linalg.norm(t, axis=1))

    check(loss, twin)


def linear_norm(x, layer):
    y = x @ layer.linear.weight.numpy() + layer.linear.bias.numpy()
    return (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)


def test_afd():
    loss = build(AFD(width=7), STUDENT, TEACHER)

    def resized(f, side):  # 4 → 2 by means, 2 → 4 by copies
        if f.shape[1] > side:
            return f.reshape(len(f), side, 2, side, 2).mean((2, 4))
        return f if f.shape[1] == side else f.repeat(2, 1).repeat(2, 2)

    def flat(f, side):
        f = resized((f**2).mean(1), side).reshape(len(f), -1)
        return f / np.linalg.norm(f, axis=1, keepdims=True)

    def twin(own):
        queries = [linear_norm(f.mean((2, 3)), q) for f, q in zip(GUIDE, loss.queries, strict=True)]
        keys = [linear_norm(f.mean((2, 3)), k) for f, k in zip(own, loss.keys, strict=True)]
        mixed = linear_norm(np.maximum(np.concatenate(keys), 0), loss.bilinear)
        mixed = mixed.reshape(2, 4, 2, 7)  # the student's stage, image, the teacher's, width
        places = loss.teacher_place.numpy() @ loss.student_place.numpy().T
        total = 0
        for n in range(4):
            for t in range(2):
                scores = [(mixed[s, n, t] @ queries[t][n] + places[t, s]) / 7**0.5 for s in (0, 1)]
                share = np.exp(scores) / np.exp(scores).sum()
                side = GUIDE[t].shape[2]
                for s in range(2):
                    far = flat(own[s], side)[n] - flat(GUIDE[t], side)[n]
                    total += share[s] * (far**2).sum() / 4
        return total

    value, gradients = computed(loss, OWN, GUIDE)
    assert value == pytest.approx(twin(OWN), rel=1e-9)
    for gradient, expected in zip(gradients, slopes(twin, OWN), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize("loss", [FeatureL2(stage=-1), FeatureL2(stage=-2), RKD()])
def test_a_student_like_its_teacher_has_nothing_to_learn(loss):
    built = build(loss, STUDENT, STUDENT)
    value, gradients = computed(built, OWN, OWN)
    assert value < 1e-12
    assert max(np.abs(g).max() for g in gradients) < 1e-9


def test_one_photo_has_no_relations():
    value, gradients = computed(RKD(), [f[:1] for f in OWN], [f[:1] for f in GUIDE])
    assert value == 0
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("loss", [FeatureL2(), MGD(), PEFD(), AFD()])
def test_layers_are_trained(loss):
    built = build(loss, STUDENT, TEACHER)
    assert isinstance(built, nn.Layer)
    computed(built, OWN, GUIDE)
    for name, parameter in built.named_parameters():
        assert parameter.stop_gradient or parameter.grad is not None, name


def test_a_stage_that_is_not_there():
    with pytest.raises(
        UserError, match=r"task.losses: stage -3 is not there: the networks share 2"
    ):
        build(FeatureL2(stage=-3), STUDENT, (1, 2, 3))

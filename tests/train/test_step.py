"""One optimizer step: parts against the whole, clipping, the loss scale, what is no number."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.data.loader import Batch
from ppcls.losses.labels import CrossEntropy
from ppcls.optim.optimizers import SGD
from ppcls.optim.parameters import Group
from ppcls.tasks import Classify
from ppcls.train.step import FIRST_SCALE, LossScale, NotFinite, TrainStep

rng = np.random.default_rng(0)
PHOTOS = rng.normal(0, 1, (10, 3, 6, 6)).astype("float32")
LABELS = rng.integers(0, 3, 10)
SHARES = rng.dirichlet(np.ones(3), 10).astype("float32")


def build(clip_norm=None, scale=None, loss=None):
    """A small network whose norm is frozen, and its update."""
    paddle.seed(0)
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU(), nn.Flatten())
    net.add_sublayer("head", nn.Linear(64, 3))
    net[1].eval()
    optimizer = SGD().build([Group(net.parameters())])
    trained = [p for p in net.parameters() if not p.stop_gradient]
    task = Classify(loss=loss or CrossEntropy(smoothing=0.1))
    update = TrainStep(task.build(net), task.right, optimizer, trained, clip_norm, scale)
    return net, update


def run(update, parts):
    return update(parts, sum(len(part.images) for part in parts), 0.5)


def batches(*sizes, targets=LABELS):
    ends = np.cumsum(sizes)
    return [
        Batch(PHOTOS[end - size : end], targets[end - size : end], np.arange(end - size, end))
        for size, end in zip(sizes, ends, strict=True)
    ]


def weights(net):
    return np.concatenate([p.numpy().ravel() for p in net.parameters()])


@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "shares"])
@pytest.mark.parametrize("loss", [None, CrossEntropy(weights=(1, 2, 5))], ids=["plain", "weighted"])
def test_uneven_parts_are_the_whole(targets, loss):
    whole, update = build(loss=loss)
    before = weights(whole)
    done = run(update, batches(10, targets=targets))
    parts, update = build(loss=loss)
    again = run(update, batches(4, 4, 2, targets=targets))
    assert np.abs(weights(whole) - before).max() > 1e-2
    np.testing.assert_allclose(weights(parts), weights(whole), atol=1e-6)
    assert again.loss == pytest.approx(done.loss, rel=1e-6)
    assert again.right == done.right
    assert again.images == done.images == 10


def test_clipping_is_of_all_gradients_together():
    free, update = build()
    start = weights(free)
    run(update, batches(10))
    step = weights(free) - start
    length = np.linalg.norm(step) / 0.5
    for limit in (length / 4, length * 2):
        clipped, update = build(clip_norm=float(limit))
        run(update, batches(6, 4))
        factor = min(1.0, limit / length)
        np.testing.assert_allclose(weights(clipped) - start, factor * step, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_the_loss_scale_changes_nothing_but_the_range(clip_norm):
    plain, update = build(clip_norm)
    run(update, batches(10))
    scale = LossScale()
    scaled, update = build(clip_norm, scale)
    run(update, batches(6, 4))
    np.testing.assert_allclose(weights(scaled), weights(plain), atol=1e-6)
    assert scale.state_dict() == {"value": FIRST_SCALE, "good": 1}


def test_a_step_whose_gradients_overflow_is_left_out():
    scale = LossScale()
    scale.load_state_dict({"value": 1e38, "good": 7})
    net, update = build(scale=scale, loss=CrossEntropy(weights=(1e3, 1e3, 1e3)))
    before = weights(net)
    run(update, batches(10))
    np.testing.assert_array_equal(weights(net), before)
    assert scale.state_dict() == {"value": 5e37, "good": 0}
    scale.value = 1.0
    run(update, batches(10))
    assert np.abs(weights(net) - before).max() > 0  # nothing of the overflow is left


def test_what_is_no_number_changes_nothing():
    net, update = build()
    before, shares = weights(net), SHARES.copy()
    shares[7, 0] = np.nan  # in the second of the parts
    with pytest.raises(NotFinite) as error:
        run(update, batches(6, 4, targets=shares))
    assert error.value.what == "loss"
    np.testing.assert_array_equal(weights(net), before)
    assert all(p.grad is None or not p.grad.numpy().any() for p in net.parameters())


def test_a_gradient_that_is_no_number_is_not_clipped():
    net, update = build(clip_norm=1.0)
    before = weights(net)
    real = update.step

    def steep(images, targets, indices):
        loss, logits = real(images, targets, indices)
        return loss + net.head.weight.sum() * 1e38, logits

    update.step = steep
    with pytest.raises(NotFinite) as error:
        run(update, batches(10))
    assert error.value.what == "norm of the gradient"
    np.testing.assert_array_equal(weights(net), before)
    assert all(p.grad is None or not p.grad.numpy().any() for p in net.parameters())

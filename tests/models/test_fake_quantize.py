"""Numbers rounded as INT8 holds them: what it means in numpy, and the network that comes of it."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.api import create_model
from ppcls.kernels.start import are_here
from ppcls.models import fake_quantize
from ppcls.models.fake_quantize import Range, put_into, ranges_of, rounded_weights
from ppcls.models.fuse import fused


def rounded(x, low, high):
    """x by what INT8 with these ends has of it."""
    step = np.float32((high - low) / 255)
    zero_point = np.rint(-low / step)
    return (np.clip(np.rint(x / step) + zero_point, 0, 255) - zero_point) * step


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)])
def shape(request, monkeypatch):
    """Of images: of some that Paddle's operators round, and of some that the kernels do."""
    if not request.param:
        return (3, 4, 5, 6)
    if not are_here():
        pytest.skip("needs numba, and oneDNN of Paddle for Linux on x86")
    monkeypatch.setattr(fake_quantize.channels_last, "can_run", lambda: True)
    return (3, 4, 80, 70)


def test_a_range_is_the_mean_over_images_and_rounds_to_256_steps(shape):
    random = np.random.default_rng(0)
    one = Range()
    ends = []
    assert (one.eval()(paddle.ones(shape)).numpy() == 1).all()  # nothing is known yet
    one.train()
    for scale in (1, 3, 2):
        images = (random.standard_normal(shape) * scale).astype(np.float32)
        flat = images.reshape(len(images), -1)
        ends.append((flat.min(axis=1).mean(), flat.max(axis=1).mean()))
        found = one(paddle.to_tensor(images)).numpy()
        low, high = np.mean(ends, axis=0)
        np.testing.assert_allclose(one.seen.numpy(), [low, high, len(ends)], rtol=1e-6)
        np.testing.assert_allclose(found, rounded(images, low, high), atol=2e-5)
    before = one.seen.numpy()
    one.eval()(paddle.to_tensor(images * 10))
    assert (one.seen.numpy() == before).all()
    other = Range().eval()
    other.restore(one.seen)
    assert (other(paddle.to_tensor(images)).numpy() == one(paddle.to_tensor(images)).numpy()).all()


def test_the_range_of_many_steps_forgets():
    one = Range()
    for value in [1.0] * 100 + [2.0]:
        one(paddle.full([2, 3], value))
    np.testing.assert_allclose(one.seen.numpy(), [0, 1 + fake_quantize.SHARE, 101], rtol=1e-6)


def test_a_gradient_passes_where_nothing_was_clipped(shape):
    one = Range().eval()
    one.restore(paddle.to_tensor([-1.0, 3.0, 1.0]))
    images = np.random.default_rng(1).uniform(-4, 4, shape).astype(np.float32)
    x = paddle.to_tensor(images, stop_gradient=False)
    weights = paddle.arange(x.size, dtype="float32").reshape(shape)
    (one(x) * weights).sum().backward()
    step = np.float32(4 / 255)
    low = np.rint(-1 / step) * step
    inside = (images >= low) & (images <= low + 255 * step)
    np.testing.assert_allclose(x.grad.numpy(), np.where(inside, weights.numpy(), 0))
    assert 0 < inside.mean() < 1


@pytest.mark.parametrize("greatest", [64, 127])
def test_weights_are_whole_numbers_of_steps_of_their_channel(greatest):
    values = np.random.default_rng(2).standard_normal((5, 3, 2, 2)).astype(np.float32)
    values[4] = 0
    weight = paddle.to_tensor(values, stop_gradient=False)
    found = rounded_weights(weight, 0, greatest)
    step = np.abs(values).max(axis=(1, 2, 3), keepdims=True) / greatest
    whole = found.numpy()[:4] / step[:4]
    np.testing.assert_allclose(whole, np.rint(values[:4] / step[:4]), atol=1e-4)
    assert np.abs(whole).max() == pytest.approx(greatest)
    assert (found.numpy()[4] == 0).all()
    found.sum().backward()
    assert (weight.grad.numpy() == 1).all()
    # Folding a norm into them multiplies channels, which gives the same whole numbers.
    scale = np.array([2, -3, 0.1, 7, 1], np.float32).reshape(-1, 1, 1, 1)
    folded = rounded_weights(paddle.to_tensor(values * scale), 0, greatest).numpy()
    np.testing.assert_allclose(folded, found.numpy() * scale, rtol=1e-5)


def images_for(net):
    return paddle.to_tensor(np.random.default_rng(3).standard_normal((4, 3, 32, 32)), "float32")


@pytest.mark.parametrize("name", ["EfficientNetLite0", "MobileNetV3_small_x0_35"])
def test_every_convolution_and_linear_layer_of_a_network_rounds(name):
    paddle.seed(0)
    net = create_model(name, 3)
    state = set(net.state_dict())
    images = images_for(net)
    expected = net.eval()(images).numpy()
    put_into(net, 8)
    kinds = (nn.Conv2D, nn.Linear)
    layers = [path for path, one in net.named_sublayers() if isinstance(one, kinds)]
    assert list(ranges_of(net)) == layers
    assert set(net.state_dict()) == state
    net.train()
    net(images)
    for one in ranges_of(net).values():
        assert one.seen[2] == 1
    net(images).square().mean().backward()
    lost = [p.name for p in net.parameters() if p.grad is None and not p.stop_gradient]
    assert not lost
    with fused(net.eval()):  # what is folded rounds as what is not
        found = net(images).numpy()
    np.testing.assert_allclose(found, net(images).numpy(), atol=1e-4)
    assert expected.shape == found.shape


def test_layers_that_pad_otherwise_than_with_zeros_stay():
    net = nn.Sequential(nn.Conv2D(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU())
    put_into(net, 8)
    assert not ranges_of(net)

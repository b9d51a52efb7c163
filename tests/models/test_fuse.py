"""Batch norms folded into convolutions: the same network, and put back as it was."""

import numpy as np
import paddle
import pytest
from paddle import nn
from small_network import Small, settle

from ppcls.api import create_model
from ppcls.models.fuse import fused
from ppcls.models.layers import ConvNorm

NETWORKS = ("EfficientNetLite0", "ResNet18_vd", "SE_ResNet18_vd", "RegNetX_200MF")


def build(name):
    paddle.seed(0)
    return settle(Small() if name == "Small" else create_model(name, 2))


def norms(net):
    return [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]


def state(net):
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def photos():
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (4, 3, 32, 32)) + random.normal(0, 2, (4, 3, 1, 1))
    return paddle.to_tensor(noise.astype(np.float32))


@pytest.mark.parametrize("name", ["Small", *NETWORKS])
def test_a_fused_network_is_the_same_and_is_restored_exactly(name, photos):
    net = build(name)
    before, held = state(net), norms(net)
    assert held
    with paddle.no_grad():
        expected = net(photos).numpy()
        with fused(net):
            assert not norms(net)
            found = net(photos).numpy()
            names = {name for name, _ in net.named_parameters()}
            assert any(name.endswith("conv.bias") for name in names)
        again = net(photos).numpy()
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, scale))
    np.testing.assert_array_equal(again, expected)
    after = state(net)
    assert list(after) == list(before)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert [id(layer) for layer in norms(net)] == [id(layer) for layer in held]


def test_one_layer_by_hand():
    """A convolution of one weight: y = (w x - mean) * scale / sqrt(variance + epsilon) + shift."""
    layer = ConvNorm(1, 1, 1, act=None)
    layer.eval()
    norm = layer.norm
    for tensor, value in (
        (layer.conv.weight, 3.0),
        (norm._mean, 0.5),
        (norm._variance, 4.0),
        (norm.weight, 2.0),
        (norm.bias, 0.25),
    ):
        tensor.set_value(np.full(tensor.shape, value, np.float32))
    root = np.sqrt(4 + norm._epsilon)
    with fused(layer), paddle.no_grad():
        assert layer.conv.weight.item() == pytest.approx(3 * 2 / root, rel=1e-6)
        assert layer.conv.bias.item() == pytest.approx(0.25 - 0.5 * 2 / root, rel=1e-6)
        output = layer(paddle.full([1, 1, 1, 1], 7.0)).item()
    assert output == pytest.approx((3 * 7 - 0.5) * 2 / root + 0.25, rel=1e-6)


def test_an_error_inside_leaves_the_network_as_it_was(photos):
    net = build("Small")
    before, count = state(net), len(norms(net))
    with pytest.raises(KeyboardInterrupt), fused(net):
        raise KeyboardInterrupt
    assert len(norms(net)) == count
    for key, value in state(net).items():
        np.testing.assert_array_equal(before[key], value)


def test_an_error_while_folding_leaves_the_network_as_it_was():
    net = build("Small")
    net.body[2].norm = paddle.nn.BatchNorm2D(7)  # of 16 channels: two others are folded before it
    before = state(net)
    with pytest.raises(ValueError, match="could not be broadcast"), fused(net):
        pytest.fail("it should not come to this")
    after = state(net)
    assert list(after) == list(before)
    for key, value in after.items():
        np.testing.assert_array_equal(before[key], value)

"""A training step of every family with the kernels is Paddle's own but for rounding."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from ppcls.kernels import channels_last
from ppcls.kernels.start import are_here
from ppcls.models import registry

pytestmark = [
    pytest.mark.slow,  # numba takes seconds for each loop where none is in the cache
    pytest.mark.skipif(not are_here(), reason="needs numba, and oneDNN of Paddle for Linux on x86"),
]
NAMES = [
    "ResNet18",
    "ResNet50_vd",
    "ResNeXt50_32x4d",
    "SE_ResNeXt50_32x4d",
    "Res2Net50_26w_4s",
    "ResNeSt50",
    "RegNetX_200MF",
    "EfficientNetB0",
    "EfficientNetLite0",
    "MobileNetV3_small_x1_0",
    "PPLCNet_x0_25",
]
LIGHT = ("ResNet18", "PPLCNet_x0_25")  # of one block a stage


def network(name, light, calm, **changes):
    """With norms that have the statistics of noise, and parameters that do something.

    A calm one's activations stay within one of their pieces: a number that rounding takes to the
    other side of a bend changes gradients by a percent.
    """
    spec = registry.spec_of(name)
    if light:
        spec = replace(spec, depths=tuple(1 for _ in spec.depths))
    paddle.seed(0)
    net = registry.network(replace(spec, **changes), 7)
    random = np.random.default_rng(0)
    for norm in norms(net):
        c = len(norm.bias)
        weight = random.uniform(0.1, 0.2, c) if calm else random.uniform(0.6, 1.2, c)
        bias = random.uniform(1.3, 1.6, c) if calm else random.normal(0, 0.2, c)
        norm.weight.set_value(weight.astype(np.float32))
        norm.bias.set_value(bias.astype(np.float32))
    momenta = [norm._momentum for norm in norms(net)]
    with paddle.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels_last, "can_run", lambda: False)
        for norm in norms(net):
            norm._momentum = 0.0
        net(noise(8, seed=0))
    for norm, momentum in zip(norms(net), momenta, strict=True):
        norm._momentum = momentum
    return net


def norms(net):
    return [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]


def noise(count, seed):
    values = np.random.default_rng(seed).standard_normal((count, 3, 64, 64))
    return paddle.to_tensor(values.astype(np.float32))


def step(net, state, served, off=0.0):
    """Loss, gradients and statistics after a step from a state, whose numbers are a bit off."""
    random = np.random.default_rng(1)
    noisy = {
        name: (value * (1 + off * random.standard_normal(value.shape))).astype(np.float32)
        for name, value in state.items()
    }
    net.set_state_dict(noisy)
    net.clear_gradients()
    images = noise(4, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels_last, "LEAST", 0)
        patch.setattr(channels_last, "LEAST_DEPTHWISE", 0)
        if not served:
            patch.setattr(channels_last, "can_run", lambda: False)
        paddle.seed(3)
        loss = F.cross_entropy(net(images), paddle.to_tensor([0, 3, 6, 1]))
        loss.backward()
        drawn = paddle.rand([2]).numpy()
    trained = {name: p for name, p in net.named_parameters() if not p.stop_gradient}
    gradients = {name: np.ravel(p.grad.numpy()) for name, p in trained.items()}
    kept = [np.ravel(value.numpy()) for name, value in net.state_dict().items() if "._" in name]
    return loss.item(), gradients, np.concatenate(kept), drawn


def apart(found, expected):
    return np.linalg.norm(np.subtract(found, expected)) / np.linalg.norm(expected)


@pytest.mark.parametrize("calm", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_paddles_own(name, calm):
    check(network(name, name in LIGHT, calm), calm)


@pytest.mark.parametrize("calm", [True, False])
@pytest.mark.parametrize("name", ["ResNet18", "SE_ResNeXt50_32x4d", "EfficientNetLite0"])
def test_a_step_with_drop_path_is_paddles_own(name, calm):
    check(network(name, False, calm, drop_path=0.5), calm)


@pytest.mark.parametrize("calm", [True, False])
@pytest.mark.parametrize("name", LIGHT)
def test_a_step_of_all_blocks_is_paddles_own(name, calm):
    check(network(name, False, calm), calm)


def check(net, calm):
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    for training in (False, True) if calm else (True,):
        net.train()
        for norm in norms(net):
            norm.training = training
        loss, gradients, statistics, drawn = step(net, state, served=True)
        own = step(net, state, served=False)
        np.testing.assert_array_equal(drawn, own[3])  # as many random numbers
        limits = (1e-5, 1e-4, 1e-5)
        if not calm:
            # Paddle's own is the measure, with weights that are off by no more than rounding.
            noisy = step(net, state, served=False, off=1e-7)
            limits = (
                max(1e-4, 10 * apart(noisy[0], own[0])),
                max(0.05, 5 * apart(whole(noisy[1]), whole(own[1]))),
                max(1e-5, 10 * apart(noisy[2], own[2])),
            )
        assert apart(loss, own[0]) <= limits[0]
        assert apart(whole(gradients), whole(own[1])) <= limits[1]
        assert apart(statistics, own[2]) <= limits[2]
        for name, gradient in gradients.items() if calm else ():
            limit = 1e-3 * np.linalg.norm(own[1][name]) + 5e-5 * np.linalg.norm(whole(own[1]))
            assert np.linalg.norm(gradient - own[1][name]) <= limit, name


def whole(gradients):
    return np.concatenate(list(gradients.values()))

"""Two steps of each optimizer against its formula in numpy."""

import numpy as np
import paddle
import pytest

from ppcls.train.optim import AdamW, Momentum, RMSProp

RATES = (0.1, 0.05)
START = np.array([1.0, -2.0, 3.0])
GRADIENTS = (np.array([0.5, -1.0, 2.0]), np.array([-0.25, 1.5, 1.0]))


def run(node):
    """The parameter after two steps whose gradients are GRADIENTS."""
    layer = paddle.nn.Linear(3, 1, bias_attr=False)
    layer.weight.set_value(START.reshape(3, 1).astype("float32"))
    optimizer = node.build([layer.weight])
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        optimizer.set_lr(rate)
        layer(paddle.to_tensor(gradient.reshape(1, 3).astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return layer.weight.numpy().ravel()


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov):
    weight, velocity = START.copy(), np.zeros(3)
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        total = gradient + 0.01 * weight
        velocity = 0.9 * velocity + total
        weight = weight - rate * (total + 0.9 * velocity if nesterov else velocity)
    node = Momentum(momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    np.testing.assert_allclose(run(node), weight, rtol=1e-6)


def test_adamw_decays_apart_from_the_gradient():
    weight, first, second = START.copy(), np.zeros(3), np.zeros(3)
    for step, (rate, gradient) in enumerate(zip(RATES, GRADIENTS, strict=True), 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
        weight = weight * (1 - rate * 0.2) - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(run(AdamW(weight_decay=0.2)), weight, rtol=1e-5)


def test_rmsprop_has_epsilon_under_the_root():
    weight, mean, velocity = START.copy(), np.zeros(3), np.zeros(3)
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        total = gradient + 0.01 * weight
        mean = 0.9 * mean + 0.1 * total**2
        velocity = 0.8 * velocity + rate * total / np.sqrt(mean + 0.3)
        weight = weight - velocity
    node = RMSProp(rho=0.9, epsilon=0.3, momentum=0.8, weight_decay=0.01)
    np.testing.assert_allclose(run(node), weight, rtol=1e-5)

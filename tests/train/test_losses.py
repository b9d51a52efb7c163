"""Losses against numpy."""

import numpy as np
import paddle
import pytest

from ppcls.train.losses import CrossEntropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_and_its_gradient(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 5)).astype("float32")
    labels = rng.integers(0, 5, 6)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    exponents = np.exp(logits.astype("float64"))
    probabilities = exponents / exponents.sum(1, keepdims=True)

    x = paddle.to_tensor(logits, stop_gradient=False)
    loss = CrossEntropy(smoothing=smoothing)(x, paddle.to_tensor(labels))
    loss.backward()
    assert float(loss) == pytest.approx(-(target * np.log(probabilities)).sum(1).mean(), rel=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), (probabilities - target) / 6, atol=1e-6)

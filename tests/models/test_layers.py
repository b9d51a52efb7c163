import numpy as np
import paddle
import pytest

import ppcls
from ppcls.models.layers import (
    ACTIVATIONS,
    DropPath,
    HardSigmoid,
    SplitAttention,
    classifier,
    conv2d,
)


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    paddle.seed(0)
    rate, samples = 0.3, 4000
    y = DropPath(rate)(paddle.ones([samples, 2, 3, 3])).numpy().reshape(samples, -1)
    assert (y == y[:, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    deviation = (rate / (1 - rate) / samples) ** 0.5  # of the mean of the samples
    assert abs(y[:, 0].mean() - 1) < 4 * deviation


def test_drop_path_passes_gradients_of_the_kept_samples_only():
    paddle.seed(0)
    x = paddle.ones([64, 1, 1, 1])
    x.stop_gradient = False
    y = DropPath(0.5)(x)
    y.sum().backward()
    assert set(y.numpy().ravel().tolist()) == {0.0, 2.0}
    assert (x.grad.numpy() == y.numpy()).all()


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero():
    x = paddle.randn([8, 2, 3, 3])
    drop = DropPath(0.9)
    drop.eval()
    assert (drop(x) == x).all()
    assert (DropPath(0.0)(x) == x).all()


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 4), (5, 64)])
def test_convolutions_keep_the_variance_of_gradients(kernel, groups):
    """He's rule: a weight's variance is 2 over the number of outputs an input feeds."""
    paddle.seed(0)
    weight = conv2d(64, 128, kernel, groups=groups).weight.numpy()
    assert abs(weight.mean()) < 5 * weight.std() / weight.size**0.5
    fan_out = 128 // groups * kernel**2
    assert weight.var() == pytest.approx(2 / fan_out, rel=6 * (2 / weight.size) ** 0.5)


def test_the_first_loss_is_that_of_knowing_nothing():
    paddle.seed(0)
    logits = classifier(512, 200)(paddle.rand([64, 512]))
    loss = paddle.nn.functional.cross_entropy(logits, paddle.arange(64) % 200)
    assert float(loss) == pytest.approx(np.log(200), rel=0.02)


def test_split_attention_averages_equal_splits():
    """Two equal splits with equal gates mix to the one of them, whatever the gates are."""
    paddle.seed(0)
    layer = SplitAttention(8, radix=2)
    layer.eval()
    kernel = layer.conv.conv.weight.numpy()
    kernel[8:] = kernel[:8]
    layer.conv.conv.weight.set_value(kernel)
    gates = layer.excite.weight.numpy()
    gates[8:] = gates[:8]
    layer.excite.weight.set_value(gates)
    x = paddle.randn([2, 4, 5, 5]).tile([1, 2, 1, 1])  # either group of the convolution sees this
    split = layer.conv(x)[:, :8]
    np.testing.assert_allclose(layer(x).numpy(), split.numpy(), rtol=1e-5, atol=1e-6)


def test_efficientnets_drop_path_grows_linearly():
    net = ppcls.create_model("EfficientNetLite0")
    rates = [
        (i, b.drop_path.rate) for i, b in enumerate(b for s in net.stages for b in s) if b.residual
    ]
    assert len(rates) == 9
    assert rates == [(i, pytest.approx(0.2 * i / 16)) for i, _ in rates]


def test_the_hard_functions_by_hand():
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    sixth = np.clip(x + 3, 0, 6) / 6
    given = paddle.to_tensor(x)
    np.testing.assert_allclose(HardSigmoid()(given), sixth, atol=1e-6)
    np.testing.assert_allclose(HardSigmoid(0.2)(given), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["hardswish"]()(given), x * sixth, atol=1e-5)

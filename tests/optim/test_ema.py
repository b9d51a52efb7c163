"""The moving average against numpy."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.optim.ema import Ema


def test_parameters_and_statistics_are_averaged():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1D(2))
    average = Ema(decay=0.7, warmup=False).build(net)
    expected = {name: value.numpy() for name, value in net.state_dict().items()}
    for step in range(1, 4):
        for index, value in enumerate(net.state_dict().values()):
            value.set_value(paddle.full(value.shape, 10.0 * step + index))
        average.update(step)
        for index, name in enumerate(expected):
            expected[name] = 0.7 * expected[name] + 0.3 * (10.0 * step + index)
    trained = {name: value.numpy() for name, value in net.state_dict().items()}
    assert {name.split(".")[1] for name in trained} == {"weight", "bias", "_mean", "_variance"}
    with average.shown():
        for name, value in net.state_dict().items():
            np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-6)
            np.testing.assert_array_equal(average.held[name].numpy(), trained[name])
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), trained[name])


def test_the_trained_weights_come_back_after_an_error():
    net = nn.Linear(2, 2)
    average = Ema().build(net)
    net.weight.set_value(paddle.full([2, 2], 7.0))
    with pytest.raises(KeyError), average.shown():
        raise KeyError
    np.testing.assert_array_equal(net.weight.numpy(), 7)


def test_the_start_is_soon_forgotten():
    ema = Ema(decay=0.99)
    assert [ema.at(step) for step in (1, 90, 2000)] == pytest.approx([2 / 11, 0.91, 0.99])
    assert Ema(decay=0.99, warmup=False).at(1) == 0.99


def test_what_is_frozen_stays_exactly():
    net = nn.Linear(50, 50)
    average = Ema(decay=0.9).build(net)
    before = net.weight.numpy()
    for step in range(1, 30):
        average.update(step)
    np.testing.assert_array_equal(average.held["weight"].numpy(), before)

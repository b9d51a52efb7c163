"""Residual networks that leave out whole branches while they are trained (arXiv:1603.09382)."""

from dataclasses import replace

import numpy as np
import paddle
import pytest

from ppcls.api import create_model
from ppcls.models import registry
from ppcls.models.families.residual import Stem
from ppcls.models.layers import DropPath
from ppcls.utils.errors import UserError

SMALL = replace(
    registry.spec_of("ResNet18"),
    depths=(2, 1, 1, 1),
    widths=(8, 8, 8, 8),
    stem=Stem((8,), kernel=7),
)


def images(count=8):
    values = np.random.default_rng(0).standard_normal((count, 3, 40, 40))
    return paddle.to_tensor(values.astype(np.float32))


def network(drop_path):
    paddle.seed(0)
    return registry.network(replace(SMALL, drop_path=drop_path), num_classes=5)


def rates(net):
    blocks = (block for stage in net.stages for block in stage)
    return [getattr(block.drop_path, "rate", 0.0) for block in blocks]


@pytest.mark.parametrize(("name", "blocks"), [("ResNet50", 16), ("SE_ResNet18_vd", 8)])
def test_rates_rise_in_a_line_from_0_to_the_value_given(name, blocks):
    found = rates(create_model(name, 2, drop_path=0.3))
    assert found == pytest.approx(np.linspace(0, 0.3, blocks))


def test_a_block_leaves_out_its_branch_for_some_samples_and_scales_it_for_others():
    net, rate, count = network(0.5), 0.5, 512
    block = net.stages[3][0]
    assert block.drop_path.rate == rate
    x = paddle.randn([count, 8, 2, 2])
    with paddle.no_grad():
        shortcut, branch, out = (part(x).numpy() for part in (block.shortcut, block.branch, block))
    without = np.maximum(shortcut, 0)
    scaled = np.maximum(shortcut + branch / (1 - rate), 0)
    left_out = np.abs(out - without).max((1, 2, 3)) < 1e-6
    kept = np.abs(out - scaled).max((1, 2, 3)) < 1e-5
    assert (left_out ^ kept).all()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(left_out.mean() - rate) < 4 * deviation


def test_it_is_drawn_from_the_seed():
    net, x, outputs = network(0.9), images(), []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        outputs.append(net(x).numpy())
    assert (outputs[0] == outputs[1]).all()
    assert (outputs[0] != outputs[2]).any()


def test_it_is_off_in_evaluation():
    plain, dropping, x = network(0.0), network(0.9), images()
    for net in (plain, dropping):
        net.eval()
    with paddle.no_grad():
        assert (plain(x) == dropping(x)).all()


def test_at_0_nothing_changes_and_nothing_is_drawn():
    x = images()
    own, zero, dropping = registry.network(SMALL, 5), network(0.0), network(0.9)
    assert list(own.state_dict()) == list(zero.state_dict()) == list(dropping.state_dict())
    own.set_state_dict(zero.state_dict())
    assert not any(isinstance(layer, DropPath) for layer in zero.sublayers())
    paddle.seed(3)
    expected, first = own(x), paddle.rand([1]).item()
    paddle.seed(3)
    assert (zero(x) == expected).all()
    assert paddle.rand([1]).item() == first
    dropping.set_state_dict(own.state_dict())
    assert (dropping(x) != expected).any()


def test_efficientnets_keep_their_own_unless_told_otherwise():
    own, none, more = (create_model("EfficientNetLite0", 2, drop_path=p) for p in (None, 0.0, 0.4))
    assert rates(own)[14] == pytest.approx(0.2 * 14 / 16)  # the 16th and last has no shortcut
    assert not any(rates(none))
    assert rates(more)[14] == pytest.approx(0.4 * 14 / 16)


@pytest.mark.parametrize("value", [-0.1, 1, float("nan")])
def test_a_rate_that_is_none_is_refused(value):
    with pytest.raises(UserError, match=r"ResNet18: drop_path=.* should be at least 0 and below 1"):
        create_model("ResNet18", 2, drop_path=value)

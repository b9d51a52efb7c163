"""Blocks computed twice come to what they come to once, bit for bit."""

from dataclasses import replace
from functools import partial

import numpy as np
import paddle
import pytest
from paddle.distributed.fleet.utils import recompute as paddle_recompute

from ppcls.data.loader import Batch
from ppcls.models import recompute, registry
from ppcls.models.recompute import recompute_blocks
from ppcls.optim.ema import Ema
from ppcls.optim.optimizers import Momentum
from ppcls.optim.parameters import freeze, groups
from ppcls.tasks import Classify
from ppcls.train.setup import open_trained
from ppcls.train.step import TrainStep


def small(name):
    spec = registry.spec_of(name)
    paddle.seed(0)
    return registry.network(replace(spec, depths=(2, *[1] * (len(spec.depths) - 1))), 5)


def images(batch):
    return batch.astype("float32").transpose([0, 3, 1, 2]) / 255 - 0.5


def trained(name, again, patterns=(), by=recompute_blocks):
    """Losses, the generator's next numbers, the state and its average after two steps of two."""
    net = small(name)
    if again:
        by(net)
    frozen = freeze(net, patterns)
    optimizer = Momentum().build(groups(net, True, {}))
    average = Ema(decay=0.5).build(net)
    parameters = [p for p in net.parameters() if not p.stop_gradient]
    task = Classify()
    step = task.build(lambda batch: net(images(batch)))
    update = TrainStep(step, task.right, optimizer, parameters, 1.0)
    random, seen = np.random.default_rng(0), []
    for step in range(2):
        net.train()
        for layer in frozen:
            layer.eval()
        paddle.seed(step)
        photos = random.integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
        labels = random.integers(0, 5, (2, 3))
        batches = [Batch(*one, np.arange(3)) for one in zip(photos, labels, strict=True)]
        seen += [update(batches, 6, 0.05).loss, paddle.rand([2]).tolist()]
        average.update(step + 1)
    states = net.state_dict(), average.held
    return seen, *({name: value.numpy() for name, value in s.items()} for s in states)


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        pytest.param("ResNeSt50", (), marks=pytest.mark.slow),  # norms within a block's parts
        ("ResNet18", ()),
        ("EfficientNetB0", ()),  # drop path
        ("EfficientNetB0", ("stem.*", "stages.0.*")),  # the next block's input has no gradient
        ("ResNet18", ("stages.1.*",)),  # a gradient passes through what is frozen
    ],
)
def test_twice_is_once(name, patterns):
    once, twice = trained(name, False, patterns), trained(name, True, patterns)
    assert once[0] == twice[0]
    for first, second in zip(once[1:], twice[1:], strict=True):
        assert list(first) == list(second)
        for key, value in first.items():
            np.testing.assert_array_equal(second[key], value, err_msg=key)


def counted(net):
    """How often each block's branch is computed, filled as it is."""
    runs = {}
    for i, stage in enumerate(net.stages):
        for j, block in enumerate(stage):
            runs[i, j] = 0

            def count(layer, inputs, key=(i, j)):
                runs[key] += 1

            block.branch.register_forward_pre_hook(count)
    return runs


def test_blocks_are_computed_twice_only_to_train():
    net = small("ResNet18")
    runs = counted(net)
    recompute_blocks(net)
    net.train()
    x = paddle.rand([2, 3, 32, 32])
    logits = net(x)
    assert set(runs.values()) == {1}
    logits.sum().backward()
    assert set(runs.values()) == {2}
    with paddle.no_grad():
        net(x)
    assert set(runs.values()) == {3}
    freeze(net, ("stem.*",))
    net(x).sum().backward()
    assert runs.pop((0, 0)) == 4  # Paddle would lose its gradients
    assert set(runs.values()) == {5}


def by_paddle_alone(net):
    for stage in net.stages:
        for block in stage:
            block.forward = partial(paddle_recompute, block.forward)


def test_statistics_would_be_taken_in_twice():
    """Paddle's own recomputation does: that the tests above see it."""
    once = trained("ResNet18", False)
    twice = trained("ResNet18", True, by=by_paddle_alone)
    name = "stages.0.0.branch.0.norm._mean"
    assert np.abs(once[1][name] - twice[1][name]).max() > 1e-4


def test_momenta_come_back():
    norm = paddle.nn.BatchNorm2D(2, momentum=0.99)
    with recompute.statistics_kept([norm]):
        assert norm._momentum == 1
    assert norm._momentum == 0.99


def test_what_is_handed_on_has_none_of_it(workdir, run):
    assert run("train", "-c", "recipe.yaml", "-o", "train.epochs=1", "train.recompute=true")[0] == 0
    net = open_trained(None, [], "runs/small/latest.safetensors").net
    assert not [layer for layer in net.sublayers() if "forward" in vars(layer)]
    recompute_blocks(net)
    assert [layer for layer in net.sublayers() if "forward" in vars(layer)]

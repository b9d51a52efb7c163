"""Optimizers, restored from a checkpoint into another network, go on bit for bit."""

import threading
from functools import partial

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.optim import optimizers
from ppcls.optim.ema import Ema
from ppcls.optim.parameters import groups
from ppcls.train import checkpoint
from ppcls.train.checkpoint import Record
from ppcls.utils.errors import UserError
from ppcls.weights import files

NODES = [
    optimizers.SGD(weight_decay=0.1),
    optimizers.Momentum(weight_decay=0.1),
    optimizers.Adam(),
    optimizers.AdamW(),
    optimizers.RMSProp(),
    optimizers.Lamb(),
    optimizers.Lars(),
    optimizers.Lion(weight_decay=0.1),
]
RECORD = Record(recipe={}, labels=[], step=3, epoch_steps=3, data={})
PHOTOS = np.random.default_rng(0).normal(0, 1, (6, 8, 5)).astype("float32")


class Run:
    """A small network in training."""

    def __init__(self, node):
        paddle.seed(0)
        self.net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1D(4), nn.ReLU(), nn.Linear(4, 3))
        self.net[0].bias.stop_gradient = True
        self.optimizer = node.build(groups(self.net, False, {"3.*": 2.0}))
        self.average = Ema(decay=0.5).build(self.net)

    def steps(self, start, end):
        for step in range(start, end):
            self.optimizer.set_lr(0.01 * (step + 1))
            self.net(paddle.to_tensor(PHOTOS[step])).square().mean().backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            self.average.update(step + 1)

    def save(self, path):
        state = checkpoint.state_of(self.net, self.optimizer, self.average)
        writer = checkpoint.Writer()
        writer.write(path, state, RECORD, lambda: None)
        writer.wait()
        return {name: value.tobytes() for name, value in files.read(path).tensors.items()}


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.kind)
def test_three_steps_and_three_are_six(tmp_path, node):
    whole, first, second = Run(node), Run(node), Run(node)
    whole.steps(0, 6)
    first.steps(0, 3)
    first.save(tmp_path / "first")
    saved = files.read(tmp_path / "first")
    second.net.set_state_dict({k: v for k, v in saved.tensors.items() if "/" not in k})
    checkpoint.restore(tmp_path / "first", saved, second.net, second.optimizer, second.average)
    second.steps(3, 6)
    assert second.save(tmp_path / "second") == whole.save(tmp_path / "whole")
    if node.kind != "sgd":
        bare = files.Checkpoint({"x": np.zeros(1)}, "safetensors", (), {})
        with pytest.raises(UserError, match="holds no optimizer state"):
            checkpoint.restore(tmp_path / "x", bare, whole.net, whole.optimizer, None)


@pytest.fixture
def gate(monkeypatch):
    """Holds every checkpoint's writing until it is set."""
    opened = threading.Event()
    write = checkpoint.write

    def held(*arguments):
        assert opened.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write", held)
    return opened


def test_a_checkpoint_holds_what_was_when_it_was_begun(tmp_path, gate):
    value = paddle.to_tensor([1.0, 2.0])
    done = []
    writer = checkpoint.Writer()
    for number, name in enumerate(["best", "latest"]):
        writer.write(tmp_path / name, {"x": value}, RECORD, partial(done.append, name))
        value.set_value(value + 1)
        assert not list(tmp_path.iterdir()), number
    writer.settle()
    assert done == []
    gate.set()
    writer.write(tmp_path / "best", {"x": value}, RECORD, partial(done.append, "again"))
    assert done == ["best"]  # whose copy is written over
    writer.wait()
    assert done == ["best", "latest", "again"]
    found = {path.name: files.read(path).tensors["x"].tolist() for path in tmp_path.iterdir()}
    assert found == {"best": [3, 4], "latest": [2, 3]}
    writer.close()


def test_what_cannot_be_written_is_said_when_it_is_asked_for(tmp_path):
    writer = checkpoint.Writer()
    writer.write(tmp_path / "no/x", {"x": paddle.ones([2])}, RECORD, pytest.fail)
    with pytest.raises(UserError, match="cannot be written"):
        writer.wait()
    writer.write(tmp_path / "x", {"x": paddle.to_tensor([np.nan])}, RECORD, pytest.fail)
    with pytest.raises(UserError, match="x holds NaN or infinity"):
        writer.wait()
    assert not list(tmp_path.iterdir())
    writer.close()

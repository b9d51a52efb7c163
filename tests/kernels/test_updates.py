"""Optimizers in one loop over all parameters: what they compute, and that Paddle's go on so."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.kernels import start
from ppcls.optim import optimizers, rules
from ppcls.optim.parameters import Group
from ppcls.train import checkpoint
from ppcls.train.checkpoint import Record
from ppcls.weights import files

pytestmark = pytest.mark.skipif(not start.are_here(), reason="needs numba and Paddle's oneDNN")

ADAM = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "weight_decay": 0.3}
NODES = {
    "sgd": optimizers.SGD(weight_decay=0.3),
    "momentum": optimizers.Momentum(weight_decay=0.3),
    "nesterov": optimizers.Momentum(momentum=0.8, nesterov=True, weight_decay=0.3),
    "adam": optimizers.Adam(**ADAM),
    "adamw": optimizers.AdamW(**ADAM),
}
kinds = pytest.mark.parametrize("kind", NODES)

# Within a piece of the loop, on its border, and over several.
SHAPES = [(), (1,), (3, 5), (16_384 - 19,), (2, 20_000), (40,)]
DECAYED = [True, True, False, False, True, True]
SCALES = [1.0, 1.0, 0.5, 0.5, 3.0, 3.0]
RATES = (0.01, 0.005, 0.02, 0.01, 0.01, 0.03)
rng = np.random.default_rng(0)
WEIGHTS = [rng.normal(0, 1, shape) for shape in SHAPES]
GRADIENTS = [[rng.normal(0, 1, shape) for shape in SHAPES] for _ in RATES]
ALL = {(step, i) for step in range(len(RATES)) for i in range(len(SHAPES))}
# One begins late, one has none for a while.
SOME = ALL - {(step, 5) for step in range(4)} - {(2, 4), (3, 4)}


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        for i, weights in enumerate(WEIGHTS):
            parameter = self.create_parameter(weights.shape)
            parameter.set_value(weights.astype("float32"))
            self.add_parameter(str(i), parameter)

    def values(self):
        return [parameter.numpy() for parameter in self.parameters()]


@pytest.fixture
def build(monkeypatch):
    def build(kind, net, together):
        parameters = net.parameters()
        groups = [Group(parameters[i : i + 2], DECAYED[i], SCALES[i]) for i in (0, 2, 4)]
        monkeypatch.setattr(rules, "LEAST", 0 if together else 1 << 60)
        optimizer = NODES[kind].build(groups)
        assert isinstance(optimizer, rules.Together) == together
        return optimizer

    return build


def take(net, optimizer, present=ALL, steps=range(6)):
    """Steps with the gradients of GRADIENTS that are present."""
    for step in steps:
        optimizer.set_lr(RATES[step])
        for i, parameter in enumerate(net.parameters()):
            if (step, i) in present:
                parameter.grad = paddle.to_tensor(GRADIENTS[step][i].astype("float32"))
        optimizer.step()
        rules.drop_gradients(optimizer)
        assert all(parameter.grad is None for parameter in net.parameters())
    return net.values()


def expected(kind, present):
    """The weights after all steps, in float64."""
    found = []
    for i, start_at in enumerate(WEIGHTS):
        weight = np.float64(start_at)
        first = second = 0.0
        count = 0
        for step in range(6):
            rate = RATES[step] * SCALES[i]
            if (step, i) not in present:
                continue
            count += 1
            decay = 0.3 * DECAYED[i]
            gradient = GRADIENTS[step][i] + (kind != "adamw") * decay * weight
            if kind == "sgd":
                weight = weight - rate * gradient
            elif kind == "momentum":
                first = 0.9 * first + gradient
                weight = weight - rate * first
            elif kind == "nesterov":
                first = 0.8 * first + gradient
                weight = weight - rate * (gradient + 0.8 * first)
            else:
                first = 0.8 * first + 0.2 * gradient
                second = 0.95 * second + 0.05 * gradient**2
                root = np.sqrt(second / (1 - 0.95**count))
                change = first / (1 - 0.8**count) / (root + 1e-3)
                weight = weight - rate * (change + (kind == "adamw") * decay * weight)
        found.append(weight)
    return found


def assert_close(found, others):
    for one, other in zip(found, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=3e-6, atol=2e-6)


@kinds
def test_the_rule_and_what_paddle_makes_of_it(kind, build):
    ours = Net()
    found = take(ours, build(kind, ours, True), SOME)
    assert_close(found, expected(kind, SOME))
    theirs = Net()
    assert_close(found, take(theirs, build(kind, theirs, False), SOME))


@kinds
@pytest.mark.parametrize("ours_first", [True, False])
def test_each_goes_on_from_the_others_state(kind, ours_first, build):
    present = ALL if ours_first else SOME  # Paddle's takes up no parameter late
    net = Net()
    before = build(kind, net, ours_first)
    take(net, before, present, range(3))
    state = before.state_dict()
    after = build(kind, net, not ours_first)
    after.set_state_dict(state)
    assert_close(take(net, after, present, range(3, 6)), expected(kind, present))
    theirs, ours = (after, before) if ours_first else (before, after)
    shapes = [{(key, *t.shape) for key, t in o.state_dict().items()} for o in (theirs, ours)]
    assert shapes[0] == shapes[1] if ours_first else shapes[0] <= shapes[1]
    assert bool(shapes[0]) == rules.has_slots(theirs) == rules.has_slots(ours) == (kind != "sgd")


@kinds
def test_a_checkpoint_goes_on_to_the_bit_in_any_number_of_threads(kind, build, tmp_path):
    import numba

    whole = Net()
    found = take(whole, build(kind, whole, True), SOME)
    net = Net()
    optimizer = build(kind, net, True)
    before = numba.get_num_threads()
    numba.set_num_threads(2 if before == 1 and numba.config.NUMBA_NUM_THREADS > 1 else 1)
    try:
        take(net, optimizer, SOME, range(3))
    finally:
        numba.set_num_threads(before)
    record = Record(recipe={}, labels=[], step=3, epoch_steps=3, data={})
    writer = checkpoint.Writer()
    writer.write(tmp_path / "three", checkpoint.state_of(net, optimizer), record, lambda: None)
    writer.wait()
    saved = files.read(tmp_path / "three")
    later = Net()
    later.set_state_dict({key: value for key, value in saved.tensors.items() if "/" not in key})
    optimizer = build(kind, later, True)
    checkpoint.restore(tmp_path / "three", saved, later, optimizer, None)
    again = take(later, optimizer, SOME, range(3, 6))
    assert [value.tobytes() for value in again] == [value.tobytes() for value in found]


@kinds
def test_what_is_no_number_is_not_swallowed(kind, build):
    net = Net()
    optimizer = build(kind, net, True)
    optimizer.set_lr(0.01)
    for parameter in net.parameters():
        parameter.grad = paddle.zeros_like(parameter)
    bad = np.zeros(SHAPES[4], "float32")
    bad[0, 0] = np.nan
    bad[1, -1] = np.inf
    net.parameters()[4].grad = paddle.to_tensor(bad)
    optimizer.step()
    values = net.values()
    lost = ~np.isfinite(values[4])
    assert lost[0, 0]
    assert lost[1, -1]
    assert lost.sum() == 2
    assert all(np.isfinite(value).all() for i, value in enumerate(values) if i != 4)


def test_a_gradient_that_is_a_view(build):
    net = Net()
    optimizer = build("sgd", net, True)
    optimizer.set_lr(0.5)
    known = np.random.default_rng(1).normal(0, 1, (5, 3)).astype("float32")
    parameter = net.parameters()[2]
    (parameter.transpose([1, 0]) * paddle.to_tensor(known)).sum().backward()
    assert not parameter.grad.is_contiguous()
    optimizer.step()
    after = WEIGHTS[2].astype("float32") - np.float32(0.25) * known.T
    np.testing.assert_allclose(parameter.numpy(), after, rtol=1e-6, atol=1e-7)


def test_small_networks_and_other_numbers_stay_paddles(monkeypatch):
    small = [Group(Net().parameters())]
    assert not rules.run_together(small)
    monkeypatch.setattr(rules, "LEAST", 1000)
    assert rules.run_together(small)
    wide = nn.Linear(50, 50)
    wide.to(dtype="float64")
    assert not rules.run_together([Group(wide.parameters())])
    monkeypatch.setattr(start, "can_run", lambda: False)
    assert not rules.run_together(small)
    assert isinstance(optimizers.Adam().build(small), paddle.optimizer.Adam)

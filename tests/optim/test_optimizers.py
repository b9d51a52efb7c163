"""Four steps of each optimizer against its formula in numpy."""

import numpy as np
import paddle
import pytest

from ppcls.optim import optimizers
from ppcls.optim import parameters as grouping
from ppcls.optim.parameters import Group
from ppcls.utils.errors import UserError

RATES = (0.1, 0.05, 0.2, 0.1)
rng = np.random.default_rng(0)
MATRIX, BIAS = rng.normal(0, 1, (3, 2)), rng.normal(0, 1, 2)
GRADIENTS = rng.normal(0, 1, (4, 3, 2))  # of the matrix; the bias's is its first row


def run(node, decay_norms=True, lr_scale=None):
    """The matrix and the bias after four steps whose gradients are GRADIENTS."""
    layer = paddle.nn.Linear(3, 2)
    layer.weight.set_value(MATRIX.astype("float32"))
    layer.bias.set_value(BIAS.astype("float32"))
    optimizer = node.build(grouping.groups(layer, decay_norms, lr_scale or {}))
    for rate, gradient in zip(RATES, GRADIENTS.astype("float32"), strict=True):
        optimizer.set_lr(rate)
        known = paddle.to_tensor(gradient)
        ((layer.weight * known).sum() + (layer.bias * known[0]).sum()).backward()
        optimizer.step()
        optimizer.clear_grad()
    return layer.weight.numpy(), layer.bias.numpy()


def expected(rule, decayed=(True, True), scales=(1.0, 1.0)):
    """The same in float64, by a rule (weight, gradient, rate, step, state, decayed) -> weight."""
    found = []
    for start, gradients, decay, scale in (
        (MATRIX, GRADIENTS, decayed[0], scales[0]),
        (BIAS, GRADIENTS[:, 0], decayed[1], scales[1]),
    ):
        weight, state = start, {}
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            weight = rule(weight, gradient, rate * scale, step, state, decay)
        found.append(weight)
    return found


def sgd(weight, gradient, rate, step, state, decay):
    return weight - rate * (gradient + 0.3 * decay * weight)


def momentum(nesterov):
    def rule(weight, gradient, rate, step, state, decay):
        total = gradient + 0.3 * decay * weight
        state["v"] = 0.9 * state.get("v", 0) + total
        return weight - rate * (total + 0.9 * state["v"] if nesterov else state["v"])

    return rule


def adam_step(gradient, step, state, epsilon):
    state["m"] = 0.8 * state.get("m", 0) + 0.2 * gradient
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * gradient**2
    return state["m"] / (1 - 0.8**step) / (np.sqrt(state["v"] / (1 - 0.95**step)) + epsilon)


def adam(weight, gradient, rate, step, state, decay):
    return weight - rate * adam_step(gradient + 0.3 * decay * weight, step, state, 1e-3)


def adamw(weight, gradient, rate, step, state, decay):
    change = adam_step(gradient, step, state, 1e-3)
    return weight * (1 - rate * 0.3 * decay) - rate * change


def rmsprop(first):
    def rule(weight, gradient, rate, step, state, decay):
        total = gradient + 0.3 * decay * weight
        state["s"] = 0.9 * state.get("s", first) + 0.1 * total**2
        state["v"] = 0.8 * state.get("v", 0) + rate * total / np.sqrt(state["s"] + 0.05)
        return weight - state["v"]

    return rule


def lamb(always, rate_of_decay):
    def rule(weight, gradient, rate, step, state, decay):
        change = adam_step(gradient, step, state, 1e-3) + rate_of_decay * decay * weight
        ratio = np.linalg.norm(weight) / np.linalg.norm(change) if always or decay else 1.0
        return weight - rate * ratio * change

    return rule


def lars(weight, gradient, rate, step, state, decay):
    total, ratio = gradient + 0.3 * decay * weight, 1.0
    if weight.ndim > 1:
        size = np.linalg.norm(weight)
        ratio = 0.02 * size / (np.linalg.norm(gradient) + 0.3 * decay * size)
    state["v"] = 0.9 * state.get("v", 0) + rate * ratio * total
    return weight - state["v"]


def lion(weight, gradient, rate, step, state, decay):
    before = state.get("m", np.zeros_like(gradient))
    state["m"] = 0.95 * before + 0.05 * gradient
    return weight - rate * (np.sign(0.8 * before + 0.2 * gradient) + 0.3 * decay * weight)


ADAM = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
RMS = {"rho": 0.9, "epsilon": 0.05, "momentum": 0.8, "weight_decay": 0.3}
KINDS = {
    "sgd": (optimizers.SGD(weight_decay=0.3), sgd),
    "momentum": (optimizers.Momentum(weight_decay=0.3), momentum(False)),
    "nesterov": (optimizers.Momentum(nesterov=True, weight_decay=0.3), momentum(True)),
    "adam": (optimizers.Adam(**ADAM, weight_decay=0.3), adam),
    "adamw": (optimizers.AdamW(**ADAM, weight_decay=0.3), adamw),
    "rmsprop": (optimizers.RMSProp(**RMS), rmsprop(1.0)),
    "rmsprop of Paddle": (optimizers.RMSProp(**RMS, mean_square=0.0), rmsprop(0.0)),
    "lamb": (optimizers.Lamb(**ADAM, weight_decay=0.3), lamb(False, 0.3)),
    "lamb without decay": (optimizers.Lamb(**ADAM, weight_decay=0.0), lamb(True, 0.0)),
    "lars": (optimizers.Lars(trust=0.02, weight_decay=0.3), lars),
    "lion": (optimizers.Lion(beta1=0.8, beta2=0.95, weight_decay=0.3), lion),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 3.0)])
def test_the_rule_where_it_decays_and_at_which_rate(kind, decay_norms, scales):
    node, rule = KINDS[kind]
    patterns = {} if scales == (1.0, 1.0) else {"*": 0.5, "bias": 3}
    found = run(node, decay_norms, patterns)
    for ours, theirs in zip(found, expected(rule, (True, decay_norms), scales), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_a_weight_of_zero_still_moves_under_lars():
    layer = paddle.nn.Linear(3, 2, bias_attr=False)
    layer.weight.set_value(np.zeros((3, 2), "float32"))
    optimizer = optimizers.Lars().build([Group([layer.weight])])
    optimizer.set_lr(0.5)
    layer.weight.sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.numpy(), -0.5)


def test_groups_name_every_trained_parameter_once():
    net = paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Linear(4, 2)
    )
    net[0].weight.stop_gradient = True
    found = grouping.groups(net, False, {"2.*": 10})
    assert {(g.decayed, g.lr_scale, len(g.parameters)) for g in found} == {
        (False, 1.0, 3),  # convolution's bias, norm's scale and shift
        (True, 10.0, 1),
        (False, 10.0, 1),
    }
    assert len(grouping.groups(net, True, {})) == 1
    apart = grouping.groups(net, False, {}, decay_biases=True)
    assert sorted((g.decayed, len(g.parameters)) for g in apart) == [(False, 2), (True, 3)]
    apart = grouping.groups(net, True, {}, decay_biases=False)
    assert sorted((g.decayed, len(g.parameters)) for g in apart) == [(False, 2), (True, 3)]
    with pytest.raises(UserError, match=r"train.lr_scale: 'head.\*' matches no trained"):
        grouping.groups(net, True, {"head.*": 10})


def test_gradients_are_measured_and_scaled_as_one_vector():
    layer = paddle.nn.Linear(3, 2)
    idle = paddle.nn.Linear(3, 2)
    matrix, bias = GRADIENTS[0].astype("float32"), GRADIENTS[1, 0].astype("float32")
    loss = (layer.weight * paddle.to_tensor(matrix)).sum()
    (loss + (layer.bias * paddle.to_tensor(bias)).sum()).backward()
    parameters = [*layer.parameters(), *idle.parameters()]
    whole = np.concatenate([matrix.ravel(), bias])
    found = float(grouping.gradient_norm(parameters))
    assert found == pytest.approx(np.linalg.norm(whole), rel=1e-6)
    grouping.scale_gradients(parameters, 0.25)
    np.testing.assert_allclose(layer.weight.grad.numpy(), matrix / 4, rtol=1e-6)
    np.testing.assert_allclose(layer.bias.grad.numpy(), bias / 4, rtol=1e-6)


def small(regularizer=None):
    """A convolution, a norm that may forbid its own decay as PaddleClas's ResNeSt does, a layer."""
    attr = paddle.ParamAttr(regularizer=regularizer) if regularizer else None
    paddle.seed(3)
    return paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 4, 3),
        paddle.nn.BatchNorm2D(4, weight_attr=attr, bias_attr=attr),
        paddle.nn.Flatten(),
        paddle.nn.Linear(4 * 6 * 6, 2),
    )


def six_steps(net, optimizer):
    images = np.random.default_rng(5).normal(0, 1, (6, 4, 3, 8, 8)).astype("float32")
    for batch in images:
        optimizer.set_lr(0.01)
        net(paddle.to_tensor(batch)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()
    return {name: value.numpy() for name, value in net.state_dict().items()}


def test_norms_without_decay_beside_biases_with_it_are_those_of_resnest():
    """Against Paddle's Momentum and norms whose own regularizer is 0; the coefficient is raised."""
    there = small(paddle.regularizer.L2Decay(0.0))
    momentum = paddle.optimizer.Momentum(1.0, 0.9, there.parameters(), weight_decay=0.5)
    expected = six_steps(there, momentum)
    node = optimizers.Momentum(weight_decay=0.5)
    here, plain = small(), small()
    found = six_steps(here, node.build(grouping.groups(here, False, {}, decay_biases=True)))
    decayed = six_steps(plain, node.build(grouping.groups(plain, True, {})))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7)
    scale = expected["1.weight"]
    assert np.abs(decayed["1.weight"] / scale - 1).max() > 0.02

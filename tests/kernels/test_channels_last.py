"""What networks call of the kernels gives what Paddle's own operators give, there and back."""

import itertools
from functools import partial

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from ppcls.kernels import channels_last
from ppcls.kernels.start import are_here
from ppcls.models.blocks import InvertedResidual, ResidualBlock
from ppcls.models.layers import (
    ConvNorm,
    DropPath,
    GlobalMean,
    HierarchicalConv,
    MaxPool,
    MeanPool,
    Normalize,
    SplitAttention,
    SqueezeExcite,
    twice,
)

pytestmark = pytest.mark.skipif(
    not are_here(), reason="needs numba, and oneDNN of Paddle for Linux on x86"
)
# numba takes seconds for each loop where none is in the cache: what is not slow needs five of them.
slow = pytest.mark.slow
ACTS = {"none": None, "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.Silu, "swish": nn.Hardswish}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Images are served however small they are."""
    monkeypatch.setattr(channels_last, "LEAST", 0)
    monkeypatch.setattr(channels_last, "LEAST_DEPTHWISE", 0)


def randoms(seed=0):
    random = np.random.default_rng(seed)
    return lambda *shape: random.standard_normal(shape).astype(np.float32)


def fill(layer, seed=0):
    """Norms that do something, with statistics of their own."""
    draw = randoms(seed)
    for norm in layer.sublayers(include_self=True):
        if isinstance(norm, nn.BatchNorm2D):
            c = len(norm._mean)
            for part, value in (
                (norm.weight, 1 + 0.3 * draw(c)),
                (norm.bias, 0.5 * draw(c)),
                (norm._mean, 0.2 * draw(c)),
                (norm._variance, 0.5 + draw(c) ** 2),
            ):
                if part is not None:
                    part.set_value(value.astype(np.float32))
    return layer


def computed(layer, compute, values, needs):
    """By name: what comes out, and all gradients and buffers after going back from it."""
    inputs = [None if value is None else paddle.to_tensor(value) for value in values]
    for tensor, need in zip(inputs, needs, strict=True):
        if tensor is not None:
            tensor.stop_gradient = not need
    for parameter in layer.parameters():
        parameter.clear_gradient(False)
    paddle.seed(5)
    y = compute(*inputs)
    found = {"y": y.numpy(), "random": paddle.rand([2]).numpy()}
    if not y.stop_gradient:
        weights = paddle.to_tensor(randoms(9)(*y.shape))
        (y * weights).sum().backward()
    tensors = {f"input {i}": tensor for i, tensor in enumerate(inputs) if tensor is not None}
    tensors |= dict(layer.named_parameters())
    for name, tensor in tensors.items():  # a norm's statistics are parameters to Paddle
        found[f"gradient of {name}"] = None if tensor.grad is None else tensor.grad.numpy()
    return found | {name: value.numpy() for name, value in layer.state_dict().items()}


def same(layer, compute, *values, needs=None, tolerance=2e-5):
    """Check that both ways give the same, of weights and buffers that stay as they are."""
    needs = [True] * len(values) if needs is None else needs
    before = {name: value.numpy() for name, value in layer.state_dict().items()}
    found = computed(layer, compute, values, needs)
    layer.set_state_dict(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels_last, "can_run", lambda: False)
        expected = computed(layer, compute, values, needs)
    layer.set_state_dict(before)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None or found[name] is None:
            assert value is found[name] is None, name
            continue
        assert found[name].shape == value.shape, name
        off = np.linalg.norm(found[name] - value) / (np.linalg.norm(value) + 1e-6)
        assert off <= tolerance, (name, off)
    np.testing.assert_array_equal(found["random"], expected["random"])
    return found


def images(n=3, c=8, h=9, w=7, seed=1):
    return randoms(seed)(n, c, h, w)


# --------------------------------------------------------------------------
# Convolutions with norms and activations

# cin, cout, kernel, stride, groups
CONVS = {
    "stem": (3, 16, 7, 2, 1),
    "grey": (1, 8, 3, 2, 1),
    "3x3": (8, 16, 3, 1, 1),
    "wide 3x3": (32, 32, 3, 1, 1),  # blocks of channels
    "strided 3x3": (24, 17, 3, 2, 1),
    "1x1": (8, 24, 1, 1, 1),
    "strided 1x1": (16, 24, 1, 2, 1),
    "5x5": (5, 7, 5, 1, 1),
    "groups": (16, 32, 3, 1, 4),
    "strided groups": (32, 32, 3, 2, 8),
    "odd groups": (6, 9, 3, 1, 3),
    "depthwise": (16, 16, 3, 1, 16),
    "odd depthwise": (13, 13, 5, 1, 13),
    "strided depthwise": (24, 24, 5, 2, 24),
    "wide depthwise": (8, 8, 7, 1, 8),
    "multiplied depthwise": (8, 16, 3, 1, 8),
    "1x1 depthwise": (8, 8, 1, 1, 8),
}
CORE = ("grey", "3x3", "1x1", "strided groups")  # whose gradients are oneDNN's and MKL's


@pytest.mark.parametrize("padding", [None, "SAME"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in CORE else slow) for n in CONVS])
def test_convolutions(name, padding):
    cin, cout, kernel, stride, groups = CONVS[name]
    for trains, (n, h, w) in ((True, (3, 9, 12)), (True, (1, 14, 11)), (False, (2, 8, 8))):
        paddle.seed(0)
        layer = fill(ConvNorm(cin, cout, kernel, stride, groups, nn.ReLU, padding))
        # A 1x1 of one channel is undone by a norm in training: its gradient is rounding.
        training = trains and (kernel > 1 or groups < cin)
        layer.train() if training else layer.eval()
        x = images(n, cin, h, w)
        before = layer.norm._mean.numpy()
        found = same(layer, layer, x)
        moved = np.abs(found["norm._mean"] - before).max()
        assert channels_last.is_last(layer(paddle.to_tensor(x))), "it was not served"
        assert moved > 1e-3 if training else moved == 0


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("training", [True, False])
def test_activations(act, training):
    layer = fill(ConvNorm(8, 12, 3, act=ACTS[act], momentum=0.7, epsilon=1e-3))
    layer.train() if training else layer.eval()
    same(layer, layer, 3 * images())
    for p in layer.norm.parameters():
        p.stop_gradient = True
    same(layer, layer, 3 * images())


@pytest.mark.parametrize("act", [nn.Identity, nn.ReLU])
@pytest.mark.parametrize("rate", [0.0, 0.6])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_added(act, rate, training):
    layer = fill(ConvNorm(8, 12, 3, act=None))
    layer.train() if training else layer.eval()
    drop_path = DropPath(rate) if rate else nn.Identity()
    added = images(6, 12, seed=2)
    compute = partial(plus, layer, act(), drop_path)
    found = same(layer, compute, images(6), added)
    if rate:  # both kinds of images are there
        left_out = [np.allclose(y, act()(paddle.to_tensor(more)).numpy()) for y, more in
                    zip(found["y"], added, strict=True)]  # fmt: skip
        assert any(left_out)
        assert not all(left_out)
    drop_path.eval()
    same(layer, compute, images(6), added)


def checked_needs(layer, compute, values, parts, everything):
    """Whatever needs a gradient has the one that it has when all need one, and no other has one."""
    before = {name: value.numpy() for name, value in layer.state_dict().items()}
    for part in parts:
        part.stop_gradient = False
    whole = computed(layer, compute, values, [True] * len(values))
    for bits in everything:
        layer.set_state_dict(before)
        needs, trained = bits[: len(values)], bits[len(values) :]
        for part, need in zip(parts, trained, strict=True):
            part.stop_gradient = not need
        found = computed(layer, compute, values, needs)
        wanted = {f"gradient of input {i}": need for i, need in enumerate(needs)}
        wanted |= dict(zip([f"gradient of {part}" for part in NAMES], trained, strict=True))
        for name, value in found.items():
            if wanted.get(name, True) and whole[name] is not None:
                off = np.linalg.norm(value - whole[name])
                assert off <= 1e-6 * np.linalg.norm(whole[name]), (name, bits)
            else:
                assert value is None, (name, bits)
    layer.set_state_dict(before)


NAMES = ("conv.weight", "norm.weight", "norm.bias")


def plus(layer, act, drop_path, x, added):
    return layer.plus(x, added, act, drop_path)


def parts_of(layer):
    return layer.conv.weight, layer.norm.weight, layer.norm.bias


def test_what_needs_no_gradient_gets_none():
    layer = fill(ConvNorm(8, 12, 3, act=None))
    drop_path = DropPath(0.5)
    everything = list(itertools.product((True, False), repeat=5))
    values = images(4), images(4, 12, seed=2)
    for training, act in itertools.product((True, False), (nn.Identity(), nn.ReLU())):
        compute = partial(plus, layer, act, drop_path)
        layer.norm.training = training
        checked_needs(layer, compute, values, parts_of(layer), everything)
        for trained in itertools.product((True, False), repeat=2):
            # Of a norm's weight and bias Paddle's own gives right gradients to both or to none.
            for part, need in zip(parts_of(layer), (trained[0], *trained[1:] * 2), strict=True):
                part.stop_gradient = not need
            for needs in itertools.product((True, False), repeat=2):
                same(layer, compute, *values, needs=needs)


@slow
def test_what_needs_no_gradient_gets_none_with_every_activation():
    everything = list(itertools.product((True, False), repeat=4))
    for act, training in itertools.product(ACTS, (True, False)):
        layer = fill(ConvNorm(8, 12, 3, act=ACTS[act]))
        layer.norm.training = training
        checked_needs(layer, layer, (images(),), parts_of(layer), everything)


@pytest.mark.parametrize("training", [True, False])
def test_without_gradients_the_same_comes_out(training):
    layer = fill(ConvNorm(8, 8, 3, act=None))
    layer.train() if training else layer.eval()
    for act, drop_path in itertools.product((nn.Identity(), nn.ReLU()), (None, DropPath(0.5))):
        outs, buffers = [], []
        state = {name: value.numpy() for name, value in layer.state_dict().items()}
        for enabled in (True, False):
            paddle.seed(0)
            layer.set_state_dict(state)
            x = paddle.to_tensor(images())
            with paddle.set_grad_enabled(enabled):
                outs.append(layer.plus(x, x, act, drop_path or nn.Identity()).numpy())
            buffers.append(layer.norm._variance.numpy())
            np.testing.assert_array_equal(x.numpy(), images())  # and is not written to
        np.testing.assert_array_equal(*outs)
        np.testing.assert_array_equal(*buffers)


def convolved(x, kernel, stride, pad):
    """In float64, [N, C, H, W]."""
    side = kernel.shape[2]
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    rows, columns = ((size - side) // stride + 1 for size in x.shape[2:])
    out = 0.0
    for a, b in itertools.product(range(side), repeat=2):
        part = x[:, :, a : a + stride * rows : stride, b : b + stride * columns : stride]
        out = out + np.einsum("nchw,oc->nohw", part, kernel[:, :, a, b])
    return out


def test_gradients_are_the_limits_of_differences():
    """In float64 of two convolutions, a norm of each and a sum; no bend is crossed on the way."""
    draw = randoms(3)
    shapes = ((2, 3, 6, 5), (8, 3, 3, 3), (8,), (8,), (3, 8, 1, 1), (3,), (3,))
    point = [draw(*shape).astype(np.float64) for shape in shapes]
    weights = draw(2, 3, 6, 5).astype(np.float64)

    def normed(z, weight, bias):
        z = z - z.mean((0, 2, 3), keepdims=True)
        z = z / np.sqrt(z.var((0, 2, 3), keepdims=True) + 1e-5)
        return z * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)

    def loss(x, first, weight, bias, second, weight2, bias2):
        y = normed(convolved(x, first, 1, 1), weight, bias)
        y = y / (1 + np.exp(-y))
        return ((normed(convolved(y, second, 1, 0), weight2, bias2) + x) * weights).sum()

    one, two = ConvNorm(3, 8, 3, act=nn.Silu), ConvNorm(8, 3, 1, act=None)
    given = [one.conv.weight, one.norm.weight, one.norm.bias]
    given += [two.conv.weight, two.norm.weight, two.norm.bias]
    for tensor, value in zip(given, point[1:], strict=True):
        tensor.set_value(value.astype(np.float32))
    x = paddle.to_tensor(point[0].astype(np.float32))
    x.stop_gradient = False
    a, b = twice(x)
    out = two.plus(one(a), b, nn.Identity(), nn.Identity())
    found = (out * paddle.to_tensor(weights.astype(np.float32))).sum()
    assert float(found) == pytest.approx(loss(*point), abs=1e-3)
    found.backward()
    step = 1e-5
    for i, tensor in enumerate([x, *given]):
        way = draw(*shapes[i])
        ends = [[*point[:i], point[i] + s * step * way, *point[i + 1 :]] for s in (1, -1)]
        slope = (loss(*ends[0]) - loss(*ends[1])) / (2 * step)
        gradient = (tensor.grad.numpy() * way).sum()
        assert gradient == pytest.approx(slope, rel=1e-4, abs=1e-3)


# --------------------------------------------------------------------------
# All else that networks call


CASES = {
    "twice": (nn.Identity, lambda layer: lambda x: sum_of(*twice(x))),
    "one of two": (nn.Identity, lambda layer: lambda x: twice(x)[1] * 2),
    "mean": (GlobalMean, lambda layer: layer),
    "max": (lambda: MaxPool(3, 2, padding=1), lambda layer: layer),
    "squeeze-excite": (lambda: SqueezeExcite(8, 4), lambda layer: layer),
    "squeeze-excite plus": (
        lambda: SqueezeExcite(8, 4),
        lambda layer: lambda x: layer.plus(x, x, nn.ReLU(), DropPath(0.5)),
    ),
    "squeeze-excite plus, no activation": (
        lambda: SqueezeExcite(8, 4),
        lambda layer: lambda x: layer.plus(x, x * 2, nn.Identity(), DropPath(0.5)),
    ),
    "mean pool": (lambda: MeanPool(3, 2, padding=1), lambda layer: layer),
    "mean pool, all places": (
        lambda: MeanPool(3, 1, padding=1, exclusive=False),
        lambda layer: layer,
    ),
    "mean pool, rounded up": (lambda: MeanPool(2, 2, ceil_mode=True), lambda layer: layer),
    "hierarchical, chained": (lambda: HierarchicalConv(16, 1, 4, True, None), lambda layer: layer),
    "hierarchical": (
        lambda: HierarchicalConv(16, 2, 4, False, MeanPool(3, 2, padding=1)),
        lambda layer: layer,
    ),
    "split attention": (lambda: SplitAttention(8, 2), lambda layer: layer),
    "split attention of one": (lambda: SplitAttention(8, 1), lambda layer: layer),
    "basic block": (lambda: ResidualBlock(8, 8), lambda layer: layer),
    "projected block": (
        lambda: ResidualBlock(8, 16, 2, mid=8, projects=True, averages=True),
        lambda layer: layer,
    ),
    "gated block": (lambda: ResidualBlock(8, 8, mid=8, squeezed=4), lambda layer: layer),
    "inverted residual": (
        lambda: InvertedResidual(
            partial(ConvNorm, act=nn.Silu), 8, 24, 8, 3, gate=lambda c: SqueezeExcite(c, 4)
        ),
        lambda layer: layer,
    ),
}
CHEAP = ("twice", "one of two", "basic block")


def sum_of(a, b):
    return a * 2 + b


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in CHEAP else slow) for name in CASES]
)
def test_layers(name):
    make, way = CASES[name]
    paddle.seed(0)
    layer = fill(make())
    c = 16 if "hier" in name else 8
    for training, needs in itertools.product((True, False), repeat=2):
        layer.train() if training else layer.eval()
        for n, h, w in ((4, 9, 12), (2, 6, 5)) if training else ((1, 7, 8),):
            same(layer, way(layer), images(n, c, h, w), needs=[needs], tolerance=1e-4)


@slow
def test_a_gate_or_an_input_that_needs_no_gradient():
    layer = SqueezeExcite(8, 4)
    for p in layer.parameters():
        p.stop_gradient = True
    for x_needs, added_needs in itertools.product((True, False), repeat=2):
        compute = partial(plus, layer, nn.ReLU(), nn.Identity())
        same(layer, compute, images(), images(seed=2), needs=(x_needs, added_needs))


@pytest.mark.parametrize("least", [pytest.param(0, marks=slow), 10**9])
@pytest.mark.parametrize("turned", [False, True])
def test_normalize(monkeypatch, least, turned):
    monkeypatch.setattr(channels_last, "LEAST", least)
    draw = randoms(0)
    layer = Normalize(draw(3) * 0.02, draw(3))
    values = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
    pixels = paddle.to_tensor(values)
    pixels = pixels.transpose([0, 2, 1, 3]) if turned else pixels
    found = layer(pixels)
    assert channels_last.is_last(found) == (not least)
    own = pixels.transpose([0, 3, 1, 2]).astype("float32") * layer.scale + layer.offset
    np.testing.assert_array_equal(found.numpy(), own.numpy())


def test_depthwise_convolutions_are_served_of_smaller_images(monkeypatch):
    monkeypatch.setattr(channels_last, "LEAST", 1 << 14)
    monkeypatch.setattr(channels_last, "LEAST_DEPTHWISE", 1 << 8)
    depthwise, full = ConvNorm(8, 8, 3, groups=8), ConvNorm(8, 8, 3)
    small, large = (paddle.to_tensor(images(4, 8, side, side)) for side in (6, 8))
    assert [channels_last.is_last(full(x)) for x in (small, large)] == [False, False]
    assert [channels_last.is_last(depthwise(x)) for x in (small, large)] == [False, True]


# --------------------------------------------------------------------------
# How tensors lie in memory


def views():
    """The same images, laid out in several ways."""
    x = images(3, 8, 9, 7)
    plain = paddle.to_tensor(x)
    draw = randoms(4)
    wide = np.concatenate([draw(3, 2, 9, 7), x, draw(3, 1, 9, 7)], 1)
    more = np.concatenate([draw(2, 8, 9, 7), x], 0)
    large = np.pad(x, [(0, 0), (0, 0), (1, 2), (3, 0)], constant_values=9)
    last = paddle.to_tensor(np.ascontiguousarray(more.transpose(0, 2, 3, 1)))
    return {
        "contiguous": plain,
        "channels last": channels_last.last(plain),
        "images of more": paddle.to_tensor(more)[2:],
        "images of more, channels last": last.transpose([0, 3, 1, 2])[2:],
        "channels of more": paddle.to_tensor(wide)[:, 2:10],
        "channels of more, channels last": channels_last.last(paddle.to_tensor(wide))[:, 2:10],
        "pixels of more": channels_last.last(paddle.to_tensor(large))[:, :, 1:10, 3:],
        "turned": paddle.to_tensor(np.ascontiguousarray(x.swapaxes(2, 3))).transpose([0, 1, 3, 2]),
        "images in the middle": paddle.to_tensor(x.swapaxes(0, 1).copy()).transpose([1, 0, 2, 3]),
    }


def test_inputs_may_lie_in_memory_as_they_like():
    layer = fill(ConvNorm(8, 8, 3, act=None))
    layer.eval()
    expected = None
    for name, x in views().items():
        np.testing.assert_array_equal(x.numpy(), images(3, 8, 9, 7), err_msg=name)
        x.stop_gradient = False
        a, b = twice(x)
        y = layer.plus(a, b, nn.ReLU(), nn.Identity())
        (y * y).sum().backward()
        found = y.numpy(), x.grad.numpy()
        expected = expected or found
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_gradients_may_lie_in_memory_as_they_like():
    layer = fill(ConvNorm(8, 8, 3))
    expected = None
    for name, g in views().items():
        x = paddle.to_tensor(images(seed=7))
        x.stop_gradient = False
        layer.clear_gradients()
        paddle.autograd.backward([layer(x)], [g])
        found = x.grad.numpy(), layer.conv.weight.grad.numpy(), layer.norm.bias.grad.numpy()
        expected = expected or found
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
    ones = layer(paddle.to_tensor(images()))
    ones.sum().backward()  # its gradient is one number for all


OPERATORS = {
    "add": lambda x, y: x + y,
    "multiply": lambda x, y: y * x,
    "relu": lambda x, y: F.relu(x) + F.sigmoid(y),
    "conv": lambda x, y: F.conv2d(x, paddle.ones([2, 8, 3, 3]), padding=1),
    "depthwise": lambda x, y: F.conv2d(x, paddle.ones([8, 1, 3, 3]), groups=8),
    "norm": lambda x, y: F.batch_norm(x, y[0, :, 0, 0] * 0, y[0, :, 0, 0] * 0 + 1),
    "pool": lambda x, y: F.max_pool2d(x, 3, 2) + F.avg_pool2d(y, 3, 2),
    "adaptive": lambda x, y: F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(y, 1),
    "sums": lambda x, y: x.sum([2, 3]) + y.mean([0, 1]).sum() + y.max(1).sum(),
    "shapes": lambda x, y: x.flatten(1) + y.reshape([3, -1]),
    "matmul": lambda x, y: paddle.matmul(x, y.transpose([0, 1, 3, 2])),
    "concat": lambda x, y: paddle.concat([x, y], 1),
    "split": lambda x, y: paddle.split(x, 2, 1)[1] + paddle.chunk(y, 2, 1)[0],
    "stack": lambda x, y: paddle.stack([x, y]),
    "slices": lambda x, y: x[:, 2:5, 1:, :3] + y[:, :3, 1:, 2:5],
    "gather": lambda x, y: paddle.index_select(x, paddle.to_tensor([2, 0, 2])) + y,
    "interpolate": lambda x, y: F.interpolate(x, scale_factor=2) + F.interpolate(y, [18, 14]),
    "dropout": lambda x, y: F.dropout(x, 0.5) + F.dropout(y, 0.5, axis=0),
    "pad": lambda x, y: F.pad(x, [1, 2, 0, 1]),
    "in place": lambda x, y: F.relu_(x * 1) + (y * 1).add_(x),
    "cast": lambda x, y: x.astype("float64").sum() + y.astype("int32").sum(),
    "copies": lambda x, y: x.clone() + y.detach() + paddle.to_tensor(x.numpy()),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_paddles_own_take_what_is_channels_last(name):
    found = []
    for way in (channels_last.last, lambda x: x):
        x, y = (way(paddle.to_tensor(images(3, 8, 9, 7, seed))) for seed in (1, 2))
        x.stop_gradient = y.stop_gradient = False
        paddle.seed(0)
        out = OPERATORS[name](x, y)
        if out.dtype == paddle.float32:
            (out * paddle.to_tensor(randoms(5)(*out.shape))).sum().backward()
        grads = [paddle.zeros([1]) if t.grad is None else t.grad for t in (x, y)]
        found.append([part.numpy() for part in (out, *grads)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


# --------------------------------------------------------------------------
# What is no number, what others put in, memory


def loss_of(layers, x):
    for layer in layers:
        x = layer(x)
    return float(x.sum())


@slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found_in_the_loss(value):
    for act in ACTS.values():
        layers = [fill(ConvNorm(3, 8, 3, 2, act=act)), MaxPool(3, 2, padding=1)]
        layers += [fill(ConvNorm(8, 8, 3, act=act)), GlobalMean()]
        x = images(2, 3, 20, 20)
        assert np.isfinite(loss_of(layers, paddle.to_tensor(x)))
        for spot in ((0, 0, 0, 0), (1, 2, 19, 19), (1, 1, 7, 8)):
            wrong = x.copy()
            wrong[spot] = value
            assert not np.isfinite(loss_of(layers, paddle.to_tensor(wrong)))
            for layer in layers:
                fill(layer)  # the statistics are lost
        parts = layers[2].conv.weight, layers[2].norm.weight, layers[2].norm.bias
        for part in parts:
            kept = part.numpy()
            wrong = kept.copy()
            wrong.flat[3] = value
            part.set_value(wrong)
            found = loss_of(layers, paddle.to_tensor(x))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(channels_last, "can_run", lambda: False)
                expected = loss_of(layers, paddle.to_tensor(x))
            assert np.isfinite(found) <= np.isfinite(expected)
            assert not (np.isnan(value) and np.isfinite(found))
            part.set_value(kept)
            for layer in layers:
                fill(layer)


@slow
def test_a_nan_comes_through_frozen_norms():
    for act in ACTS.values():
        layers = [fill(ConvNorm(3, 8, 3, 2, act=act)), MaxPool(3, 2, padding=1)]
        layers += [fill(ConvNorm(8, 8, 3, act=act)), GlobalMean()]
        for layer in layers:
            layer.eval()
        for spot in itertools.product((0, 1), (0, 2), (0, 9, 10, 19), (0, 7, 8, 19)):
            x = images(2, 3, 20, 20)
            x[spot] = np.nan
            assert not np.isfinite(loss_of(layers, paddle.to_tensor(x))), (act, spot)


def test_a_nan_in_what_is_added():
    layer = ConvNorm(8, 8, 3, act=None)
    for act in (nn.Identity(), nn.ReLU()):
        more = images()
        more[1, 5, 3, 3] = np.nan
        x = paddle.to_tensor(images())
        out = layer.plus(x, paddle.to_tensor(more), act, nn.Identity())
        assert np.isnan(out.numpy()).sum() == 1


class Other(nn.Conv2D):
    def forward(self, x):
        return super().forward(x) * 2


PARTS = {
    "dilation": ("conv", lambda: nn.Conv2D(8, 8, 3, padding=2, dilation=2, bias_attr=False)),
    "two paddings": ("conv", lambda: nn.Conv2D(8, 8, 3, padding=[1, 2], bias_attr=False)),
    "valid": ("conv", lambda: nn.Conv2D(8, 8, 3, padding="VALID", bias_attr=False)),
    "bias": ("conv", lambda: nn.Conv2D(8, 8, 3, padding=1)),
    "mirrored": (
        "conv",
        lambda: nn.Conv2D(8, 8, 3, padding=1, padding_mode="reflect", bias_attr=False),
    ),
    "another": ("conv", lambda: Other(8, 8, 3, padding=1, bias_attr=False)),
    "oblong": ("conv", lambda: nn.Conv2D(8, 8, (3, 1), (1, 2), padding=1, bias_attr=False)),
    "group norm": ("norm", lambda: nn.GroupNorm(2, 8)),
    "global": ("norm", lambda: nn.BatchNorm2D(8, use_global_stats=True)),
    "no parameters": ("norm", lambda: nn.BatchNorm2D(8, weight_attr=False, bias_attr=False)),
    "no norm": ("norm", nn.Identity),
    "tanh": ("act", nn.Tanh),
    "leaky": ("act", nn.LeakyReLU),
    "hard swish": ("act", nn.Hardswish),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_others_put_in(name):
    layer = ConvNorm(8, 8, 3)
    place, make = PARTS[name]
    setattr(layer, place, make())
    fill(layer)
    same(layer, layer, images())
    same(layer, lambda x: layer.plus(x, layer(x) * 2, nn.Silu(), nn.Dropout(0.5)), images())
    same(layer, lambda x: layer.plus(x, layer(x) * 2, nn.ReLU(), DropPath(0.5)), images())


BLOCKS = {
    "basic": lambda: ResidualBlock(8, 8, drop_path=0.5),
    "gated": lambda: ResidualBlock(8, 8, mid=8, squeezed=4, drop_path=0.5, projects=True),
    "inverted": lambda: InvertedResidual(
        ConvNorm, 8, 16, 8, 3, gate=lambda c: SqueezeExcite(c, 4), drop_path=0.5
    ),
    "attentive": lambda: ResidualBlock(8, 8, mid=8, radix=2),
    "hierarchical": lambda: ResidualBlock(8, 8, mid=8, scales=4, chained=True),
}
blocks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "basic" else slow) for name in BLOCKS]
)


@blocks
def test_hooks_are_called(name):
    block = BLOCKS[name]()
    x = paddle.to_tensor(images())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels_last, "can_run", lambda: False)
        expected = calls_of(block, x)
    for path, number in calls_of(block, x).items():
        assert number == expected[path], path


def calls_of(net, x):
    """How often hooks of each layer are called, one layer after the other having them."""
    found = {}
    for name, layer in net.named_sublayers(include_self=True):
        counts = [0, 0]

        def before(*_, counts=counts):
            counts[0] += 1

        def after(*_, counts=counts):
            counts[1] += 1

        hooks = [
            layer.register_forward_pre_hook(before),
            layer.register_forward_post_hook(after),
        ]
        net(x)
        for hook in hooks:
            hook.remove()
        found[name] = counts
    return found


def allocated():
    """Bytes of Paddle's tensors."""
    return paddle.base.core.host_memory_stat_current_value("Allocated", 0)  # type: ignore


@pytest.mark.parametrize("training", [True, False])
@blocks
def test_no_tensor_is_kept(name, training):
    block = nn.Sequential(BLOCKS[name](), BLOCKS[name]())
    block.train() if training else block.eval()
    for needs, back, frozen in itertools.product((True, False), repeat=3):
        for norm in block.sublayers():
            if isinstance(norm, nn.BatchNorm2D):
                norm.weight.stop_gradient = norm.bias.stop_gradient = frozen
        x = paddle.to_tensor(images())
        x.stop_gradient = not needs
        losses, found = [], []
        for _ in range(4):
            loss = block(x).mean()
            if back:
                loss.backward()
            losses.append(loss.detach())
            del loss
            found.append(allocated())
            block.clear_gradients()
            x.clear_gradient()
        grown = np.diff(found)[1:]
        assert (grown <= 64).all(), grown  # a loss of 4 bytes, which is kept here
    kept = []
    for _ in range(3):
        kept.append(block(x).mean())  # as a meter may
        kept[-1].backward()
        found.append(allocated())
    assert np.diff(found)[-1] <= 64

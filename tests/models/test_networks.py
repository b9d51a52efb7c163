"""What holds for every network, tried on small ones of the same structure."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.models import registry
from ppcls.models.efficientnet_specs import EfficientNetSpec

SIDE = 72  # not a multiple of 32: sizes round up


def shrunk(spec):
    """Few blocks and channels; everything else stays. One block at least is not projected."""
    if isinstance(spec, EfficientNetSpec):
        widths = (8, 8, 16, 16, 24, 24, 32)
        return replace(spec, depths=(1, 2, 1, 1, 1, 1, 1), widths=widths, stem=8, head=40)
    return replace(
        spec,
        depths=(2, 1, 1, 1),
        widths=(16, 32, 48, 64),
        mids=spec.mids and (8, 16, 16, 32),
        groups=tuple(min(groups, 2) for groups in spec.groups),
        stem=replace(spec.stem, widths=(8,) * len(spec.stem.widths)),
    )


SMALL = {}  # every name's structure, and the names that share it; none depends on the resolution
for name in registry.list_models():
    SMALL.setdefault(replace(shrunk(registry.spec_of(name)), resolution=SIDE), []).append(name)

every_structure = pytest.mark.parametrize(
    "spec", [pytest.param(spec, id=names[0]) for spec, names in SMALL.items()]
)
ONE_OF_EACH_KIND = ("ResNet18", "SE_ResNeXt50_vd_32x4d", "RegNetX_4GF", "EfficientNetB0")
kinds = pytest.mark.parametrize("name", ONE_OF_EACH_KIND)


def images(count=2, channels=3):
    values = np.random.default_rng(0).standard_normal((count, channels, SIDE, SIDE))
    return paddle.to_tensor(values.astype(np.float32))


@every_structure
def test_shapes(spec):
    net = registry.network(spec, num_classes=7)
    net.eval()
    with paddle.no_grad():
        features, logits = net.features(images()), net(images())
    assert (logits.dtype, logits.shape) == (paddle.float32, [2, 7])
    assert isinstance(net.head, nn.Linear)
    if isinstance(spec, EfficientNetSpec):
        strides, ends = (2, 4, 8, 16, 32), (0, 1, 2, 4, 6)
        widths = [spec.widths[i] for i in ends]
    else:
        strides, widths = (4, 8, 16, 32), spec.widths
    expected = [[2, w, -(-SIDE // s), -(-SIDE // s)] for w, s in zip(widths, strides, strict=True)]
    assert [feature.shape for feature in features] == expected


@every_structure
def test_every_parameter_gets_a_finite_gradient(spec):
    paddle.seed(0)
    net = registry.network(spec, num_classes=5)
    nn.functional.cross_entropy(net(images(4)), paddle.arange(4)).backward()
    trainable = {name: p for name, p in net.named_parameters() if not p.stop_gradient}
    assert len(trainable) < len(net.state_dict())  # batch norm's statistics are not trained
    without = [name for name, p in trainable.items() if p.grad is None]
    assert not without
    assert all(paddle.isfinite(p.grad).all() for p in trainable.values())
    assert float(paddle.abs(net.stem.parameters()[0].grad).max()) > 0


@kinds
@pytest.mark.parametrize("channels", [1, 4])
def test_other_image_channels_and_one_class(name, channels):
    net = registry.network(shrunk(registry.spec_of(name)), num_classes=1, in_channels=channels)
    assert net(images(2, channels)).shape == [2, 1]


def test_build_passes_its_numbers_on():
    net = registry.build("RegNetX_200MF", num_classes=3, in_channels=1)
    assert net.head.weight.shape == [368, 3]
    assert net(images(2, 1)).shape == [2, 3]


@kinds
def test_two_networks_share_nothing(name):
    spec = shrunk(registry.spec_of(name))
    first, second = registry.network(spec), registry.network(spec)
    before = {key: value.numpy().copy() for key, value in second.state_dict().items()}
    for value in first.state_dict().values():
        value.set_value(paddle.zeros_like(value))
    assert all((value.numpy() == before[key]).all() for key, value in second.state_dict().items())
    names = [p.name for net in (first, second) for p in net.state_dict().values()]
    assert len(set(names)) == len(names)


@kinds
def test_a_state_dict_carries_the_whole_network(name):
    spec = shrunk(registry.spec_of(name))
    first, second = registry.network(spec), registry.network(spec)
    first(images(4))  # moves batch norm's statistics
    first.eval()
    second.eval()
    assert (first(images()) != second(images())).any()
    assert second.set_state_dict(first.state_dict()) == ([], [])
    assert (first(images()) == second(images())).all()


@kinds
def test_the_seed_fixes_the_weights(name):
    spec = shrunk(registry.spec_of(name))
    nets = []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        nets.append(registry.network(spec).state_dict())
    first, same, other = nets
    assert all((first[key] == same[key]).all() for key in first)
    assert (first["head.weight"] != other["head.weight"]).any()


@kinds
def test_norms_start_as_the_identity_and_biases_at_zero(name):
    net = registry.network(shrunk(registry.spec_of(name)))
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for layer in norms:
        assert (layer.weight == 1).all()
        assert (layer.bias == 0).all()
    others = [layer for layer in net.sublayers() if isinstance(layer, nn.Conv2D | nn.Linear)]
    assert len(norms) > 5
    assert all((layer.bias == 0).all() for layer in others if layer.bias is not None)


def test_lite_networks_use_relu6_and_no_gate():
    layers = registry.network(shrunk(registry.spec_of("EfficientNetLite0"))).sublayers()
    kinds = {type(layer) for layer in layers}
    assert nn.ReLU6 in kinds
    assert not kinds & {nn.Silu, nn.ReLU, nn.Sigmoid}


def test_batch_norm_constants():
    """TensorFlow's for EfficientNets, the usual ones for residual networks."""
    for name, constants in {"ResNet18": (0.9, 1e-5), "EfficientNetB0": (0.99, 1e-3)}.items():
        norm = registry.network(shrunk(registry.spec_of(name))).stem.sublayers()
        found = {(n._momentum, n._epsilon) for n in norm if isinstance(n, nn.BatchNorm2D)}
        assert found == {constants}


@pytest.mark.parametrize("name", ["Res2Net50_26w_4s", "ResNeSt50", "EfficientNetB0"])
def test_networks_export_for_any_batch_and_image_size(name):
    net = registry.network(shrunk(registry.spec_of(name)), num_classes=3)
    net.eval()
    x = images()
    expected = net(x).numpy()
    shape = [None, 3, None, None]
    static = paddle.jit.to_static(net, [paddle.static.InputSpec(shape, "float32")], full_graph=True)
    np.testing.assert_allclose(static(x).numpy(), expected, rtol=1e-5, atol=1e-6)

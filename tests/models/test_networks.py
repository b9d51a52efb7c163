"""What holds for every name of a network; the suite tries light ones, `slow` all."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from golden_fill import blank
from paddle import nn

import ppcls

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/complexity.json").read_text())
ONE_OF_EACH_STRUCTURE = (
    "ResNet18",
    "ResNet18_vd",
    "ResNeXt50_32x4d",
    "SE_ResNet18_vd",
    "Res2Net50_14w_8s",
    "ResNeSt50",
    "RegNetX_200MF",
    "EfficientNetB0",
    "EfficientNetB0_small",
    "EfficientNetLite0",
    "PPLCNet_x0_25",
    "MobileNetV3_small_x0_35",
    "MobileNetV3_large_x0_35",
)
SMALLEST_OF_EACH_FAMILY = (
    "ResNet18",
    "SE_ResNet18_vd",
    "RegNetX_200MF",
    "EfficientNetB0",
    "PPLCNet_x0_25",
    "MobileNetV3_small_x0_35",
)
SIDE = 72  # not a multiple of 32: sizes round up
CLASSES, OTHERS = 5, 3

HEAVY = ("ResNeXt50_32x4d", "Res2Net50_14w_8s", "ResNeSt50")  # seconds each
LIGHT = set(ONE_OF_EACH_STRUCTURE) - set(HEAVY)

every_name = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in LIGHT else pytest.mark.slow)
        for name in ppcls.list_models()
    ],
)
LIKE_OTHERS = ("SE_ResNet18_vd",)  # ResNet18 with gates, as EfficientNetB0 has them
families = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ())
        for name in SMALLEST_OF_EACH_FAMILY
    ],
)


def images(count=2, channels=3, side=SIDE):
    values = np.random.default_rng(0).standard_normal((count, channels, side, side))
    return paddle.to_tensor(values.astype(np.float32))


def numbers(net):
    """The state of a network as arrays of its own."""
    return {key: value.numpy().copy() for key, value in net.state_dict().items()}


def logits_of(net, given=None):
    net.eval()
    with paddle.no_grad():
        return net(images() if given is None else given).numpy()


@every_name
def test_what_a_network_gives_learns_and_hands_on(name):
    """In one test, for what takes long is building it."""
    paddle.seed(0)
    net = ppcls.create_model(name, CLASSES)
    check_size(name, net)
    check_gradients(net)
    net.clear_gradients(set_to_zero=False)  # the largest have 3 GB of them
    logits = check_outputs(name, net)
    state = numbers(net)
    del net

    with blank():
        again = ppcls.create_model(name, CLASSES, weights=state)
        other = ppcls.create_model(name, OTHERS, weights=state, new_head=True)
    np.testing.assert_array_equal(logits_of(again), logits)
    del again
    assert logits_of(other).shape == (2, OTHERS)
    found = numbers(other)
    assert found.keys() == state.keys()
    differing = {key for key, value in found.items() if not np.array_equal(value, state[key])}
    shapes = {key for key, value in found.items() if value.shape != state[key].shape}
    assert differing - {"head.bias"} == {"head.weight"}
    assert shapes == {"head.weight", "head.bias"}


def check_outputs(name, net):
    """Finite logits, and features at the strides that are documented; the logits."""
    net.eval()
    with paddle.no_grad():
        features = net.features(images())
        logits = net(images())
        classified = net.classify(features)
    assert (logits.dtype, logits.shape) == (paddle.float32, [2, CLASSES])
    assert paddle.isfinite(logits).all()
    assert (classified == logits).all()
    told = net.feature_info
    assert tuple(feature.stride for feature in told)[-4:] == (4, 8, 16, 32)
    sides = [-(-SIDE // feature.stride) for feature in told]
    shapes = [[2, one.channels, side, side] for one, side in zip(told, sides, strict=True)]
    assert [feature.shape for feature in features] == shapes
    assert isinstance(net.head, nn.Linear)
    return logits.numpy()


def check_size(name, net):
    """As many numbers to train as PaddleClas's network of 1000 classes, but for the head."""
    trained = [value for value in net.state_dict().values() if not value.stop_gradient]
    head = net.head.weight.shape[0] + 1  # and the bias
    counted = sum(value.size for value in trained) + (1000 - CLASSES) * head
    if name in GOLDEN:
        assert counted == GOLDEN[name]["params"]
    names = [value.name for value in net.state_dict().values()]
    assert len(set(names)) == len(names)


def check_gradients(net):
    net.train()
    nn.functional.cross_entropy(net(images(4)), paddle.arange(4)).backward()
    trained = {name: value for name, value in net.named_parameters() if not value.stop_gradient}
    assert len(trained) < len(net.state_dict())  # batch norm's statistics are not trained
    assert not [name for name, value in trained.items() if value.grad is None]
    assert all(paddle.isfinite(value.grad).all() for value in trained.values())
    assert float(net.stem.parameters()[0].grad.abs().max()) > 0


@families
@pytest.mark.parametrize("channels", [1, 4])
def test_other_image_channels_and_one_class(name, channels):
    net = ppcls.create_model(name, 1, in_channels=channels)
    assert logits_of(net, images(2, channels)).shape == (2, 1)


@families
def test_two_networks_share_nothing_and_the_seed_fixes_the_weights(name):
    nets = []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        nets.append(ppcls.create_model(name, CLASSES))
    first, same, other = (numbers(net) for net in nets)
    assert all((first[key] == same[key]).all() for key in first)
    assert (first["head.weight"] != other["head.weight"]).any()
    for value in nets[0].state_dict().values():
        value.set_value(paddle.zeros_like(value))
    assert all((value.numpy() == same[key]).all() for key, value in nets[1].state_dict().items())
    names = [p.name for net in nets for p in net.state_dict().values()]
    assert len(set(names)) == len(names)


@families
def test_statistics_are_handed_on(name):
    net = ppcls.create_model(name, CLASSES)
    fresh = numbers(net)
    with paddle.no_grad():
        net(images(4))  # moves batch norm's statistics
    moved = numbers(net)
    assert any((moved[key] != fresh[key]).any() for key in fresh)
    with blank():
        again = ppcls.create_model(name, CLASSES, weights=moved)
    np.testing.assert_array_equal(logits_of(again), logits_of(net))


@families
def test_norms_start_as_the_identity_and_biases_at_zero(name):
    net = ppcls.create_model(name, CLASSES)
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for layer in norms:
        assert (layer.weight == 1).all()
        assert (layer.bias == 0).all()
    others = [layer for layer in net.sublayers() if isinstance(layer, nn.Conv2D | nn.Linear)]
    assert len(norms) > 5
    assert all((layer.bias == 0).all() for layer in others if layer.bias is not None)


def test_lite_networks_use_relu6_and_no_gate():
    layers = ppcls.create_model("EfficientNetLite0", CLASSES).sublayers()
    kinds = {type(layer) for layer in layers}
    assert nn.ReLU6 in kinds
    assert not kinds & {nn.Silu, nn.ReLU, nn.Sigmoid}


def test_batch_norm_constants():
    """TensorFlow's for EfficientNets, the usual ones for residual networks."""
    for name, constants in {"ResNet18": (0.9, 1e-5), "EfficientNetB0": (0.99, 1e-3)}.items():
        stem = ppcls.create_model(name, CLASSES).stem.sublayers()
        found = {(n._momentum, n._epsilon) for n in stem if isinstance(n, nn.BatchNorm2D)}
        assert found == {constants}


@families
def test_features_without_a_classifier(name, capfd):
    net = ppcls.create_model(name, CLASSES)
    state = numbers(net)
    with blank():
        pooled = ppcls.create_model(name, 0, state)
        stages = ppcls.create_model(name, weights=state, features_only=True)
    assert "".join(capfd.readouterr()).count("classifier of 5 classes left out") == 2
    for one in (net, pooled, stages):
        one.eval()
    assert stages.feature_info == net.feature_info
    assert not [key for key in stages.state_dict() if not key.startswith(("stem.", "stages."))]
    with paddle.no_grad():
        width = net.head.weight.shape[0]
        assert pooled(images()).shape == [2, width]
        assert (net.head(pooled(images())) == net(images())).all()
        for found, expected in zip(stages(images()), net.features(images()), strict=True):
            assert (found == expected).all()


def test_what_images_go_through_is_as_the_weights_say():
    assert ppcls.create_model("EfficientNetB1", CLASSES).preprocess.crop == 240
    fixed = ppcls.create_model("RegNetX_200MF", CLASSES).preprocess
    assert (fixed.resize, fixed.crop, fixed.interpolation) == (256, 224, "bilinear")
    assert ppcls.create_model("RegNetX_200MF", CLASSES, in_channels=1).preprocess.mean == (0.5,)
    assert ppcls.create_model("RegNetX_200MF", CLASSES, in_channels=2).preprocess is None
    lite = ppcls.create_model("EfficientNetLite0", weights=True).preprocess
    assert lite.std == (0.5019607843137255,) * 3
    assert lite.interpolation == "bicubic"


BRANCHING = ("EfficientNetB0",)  # by sizes that an export leaves open


@pytest.mark.usefixtures("no_stacks")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in BRANCHING else pytest.mark.slow)
        for name in ONE_OF_EACH_STRUCTURE
    ],
)
def test_one_of_each_structure_exports_for_any_batch_and_image_size(name, tmp_path, run):
    paddle.seed(0)
    net = ppcls.create_model(name, CLASSES)
    with paddle.no_grad():
        net(images(4))  # statistics that are not those of a fresh network
    paddle.save(net.state_dict(), str(tmp_path / "own.pdparams"))
    recipe = {
        "model": {"name": name, "num_classes": CLASSES},
        "preprocess": {"resize": SIDE, "crop": SIDE},
        "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 0.1}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = tmp_path / "exported"
    arguments = ("--weights", tmp_path / "own.pdparams", "--output", folder, "--dynamic-size")
    assert run("export", "-c", tmp_path / "recipe.yaml", *arguments, "--logits")[0] == 0
    static = paddle.jit.load(str(folder / "inference"))
    for given in (images(), images(3, side=96)):
        expected = logits_of(net, given)
        error = np.abs(logits_of(static, given) - expected).max()
        assert error < 1e-5 * np.abs(expected).max()

"""Counted parameters and multiply-adds against figures counted elsewhere.

`golden/complexity.json` was counted on PaddleClas's networks. The extra networks' figures are those
of their authors: RegNetX pycls's model zoo (millions of parameters, billions of multiply-adds, one
digit), ResNeSt timm's model cards, EfficientNet-Lite the exact counts in TensorFlow's own tests.
"""

import json
from pathlib import Path

import paddle
import pytest
from deep_networks import is_deep
from paddle import nn

import ppcls
from ppcls.models import complexity, registry
from ppcls.models.families.efficientnet import STAGES, EfficientNetSpec
from ppcls.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_stacks")

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/complexity.json").read_text())

REGNETX = {  # parameters, multiply-adds
    "RegNetX_200MF": (2.7, 0.2),
    "RegNetX_400MF": (5.2, 0.4),
    "RegNetX_600MF": (6.2, 0.6),
    "RegNetX_800MF": (7.3, 0.8),
    "RegNetX_1600MF": (9.2, 1.6),
    "RegNetX_3200MF": (15.3, 3.2),
    "RegNetX_4GF": (22.1, 4.0),
    "RegNetX_6400MF": (26.2, 6.5),
    "RegNetX_8GF": (39.6, 8.0),
    "RegNetX_12GF": (46.1, 12.1),
    "RegNetX_16GF": (54.3, 15.9),
    "RegNetX_32GF": (107.8, 31.7),
}
RESNEST = {"ResNeSt101": 48.3, "ResNeSt200": 70.2, "ResNeSt269": 110.9}
LITE = {
    "EfficientNetLite0": 4652008,
    "EfficientNetLite1": 5416680,
    "EfficientNetLite2": 6092072,
    "EfficientNetLite3": 8197096,
    "EfficientNetLite4": 13006568,
}


def cropped(spec):
    """Multiply-adds of the outputs that PaddleClas computes and throws away.

    Where "SAME" padding of a strided convolution is uneven, it pads both sides alike, computes one
    row and one column too many and crops them. Paddle's own "SAME" does not.
    """
    if not isinstance(spec, EfficientNetSpec) or spec.padding is None:
        return 0
    mids = [cin * s.expand for cin, s in zip((spec.stem, *spec.widths), STAGES, strict=False)]
    depthwise = [m * s.kernel**2 for m, s in zip(mids, STAGES, strict=True) if s.stride == 2]
    total, side = 0, spec.resolution
    for weights in (3 * spec.stem * 3**2, *depthwise):
        out = (side + 1) // 2
        if side % 2 == 0:
            total += weights * ((out + 1) ** 2 - out**2)
        side = out
    return total


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if is_deep(n) else ()) for n in GOLDEN]
)
def test_counts_equal_those_of_paddleclas(name):
    golden = GOLDEN[name]
    counted = complexity.count_by_name(name)
    assert registry.resolution(name) == golden["input_size"]
    assert counted.params == golden["params"]
    assert counted.macs + cropped(registry.spec_of(name)) == golden["macs"]


@pytest.mark.parametrize("name", REGNETX)
def test_regnets_have_their_published_size(name):
    counted = complexity.count_by_name(name)
    assert (round(counted.params / 1e6, 1), round(counted.macs / 1e9, 1)) == REGNETX[name]


@pytest.mark.parametrize("name", RESNEST)
def test_resnests_have_their_published_size(name):
    assert round(complexity.count_by_name(name).params / 1e6, 1) == RESNEST[name]


@pytest.mark.parametrize("name", LITE)
def test_efficientnet_lites_have_their_published_size(name):
    assert complexity.count_by_name(name).params == LITE[name]


@pytest.mark.parametrize(
    "name", ["ResNet18", "EfficientNetB0", "RegNetX_200MF", "MobileNetV3_small_x0_35"]
)
def test_a_network_that_runs_counts_the_same(name):
    side = registry.resolution(name)
    assert complexity.count(ppcls.create_model(name), (3, side, side)) == complexity.count_by_name(
        name
    )


def test_hand_counted_layers():
    net = nn.Sequential(
        nn.Conv2D(4, 6, 3, groups=2),  # 6x6 outputs of 6 channels, 2 * 9 multiply-adds each
        nn.BatchNorm2D(6),
        nn.Flatten(),
        nn.Linear(216, 5),
    )
    params = (6 * 2 * 9 + 6) + 2 * 6 + (216 * 5 + 5)
    assert complexity.count(net, (4, 8, 8)) == complexity.Complexity(params, 216 * 18 + 216 * 5)


def test_counting_leaves_the_network_as_it_was():
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Dropout())
    net[1].eval()
    before = {key: value.numpy() for key, value in net.state_dict().items()}
    first = complexity.count(net, (3, 8, 8))
    assert net.training
    assert [layer.training for layer in net] == [True, False, True]
    assert all((value.numpy() == before[key]).all() for key, value in net.state_dict().items())
    net(paddle.ones([1, 3, 8, 8]))  # were the hooks still there, this would be counted too
    assert complexity.count(net, (3, 8, 8)) == first


def number():
    """Of the next linear layer; Paddle names parameters "linear_7.w_0"."""
    return int(nn.Linear(1, 1).weight.name.split(".")[0].removeprefix("linear_"))


def test_counting_leaves_paddles_mode_and_numbering_as_they_were(monkeypatch):
    before = number()
    complexity.count_by_name("RegNetX_200MF")
    assert paddle.in_dynamic_mode()
    assert number() == before + 1

    def broken(layer, images):
        raise RuntimeError("no memory")

    monkeypatch.setattr(nn.AdaptiveAvgPool2D, "forward", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        complexity.count_by_name("RegNetX_200MF")
    assert paddle.in_dynamic_mode()
    assert number() == before + 2


def test_unknown_name():
    with pytest.raises(UserError, match="did you mean 'ResNet50_vd'"):
        complexity.count_by_name("ResNet50vd")

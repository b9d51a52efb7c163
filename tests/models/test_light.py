"""PP-LCNet and MobileNetV3: sizes by hand, both ways of building them, and what parts they have."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import paddle
import pytest
from paddle import nn

import ppcls
from ppcls.models import complexity, registry
from ppcls.models.layers import DownscalingDropout, SqueezeExcite
from ppcls.utils.errors import UserError
from ppcls.weights.convert import convert

# --------------------------------------------------------------------------
# Parameters and multiply-adds, by the papers' tables and arithmetic alone

PPLCNET = [  # kernel, channels put out, stride, squeeze-excite (arXiv:2109.15099, table 1)
    (3, 32, 1, False),
    (3, 64, 2, False),
    (3, 64, 1, False),
    (3, 128, 2, False),
    (3, 128, 1, False),
    (3, 256, 2, False),
    *[(5, 256, 1, False)] * 5,
    (5, 512, 2, True),
    (5, 512, 1, True),
]
MOBILENET = {  # kernel, channels inside, channels put out, squeeze-excite, stride
    "large": [  # arXiv:1905.02244, table 1
        (3, 16, 16, False, 1),
        (3, 64, 24, False, 2),
        (3, 72, 24, False, 1),
        (5, 72, 40, True, 2),
        (5, 120, 40, True, 1),
        (5, 120, 40, True, 1),
        (3, 240, 80, False, 2),
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
        (5, 672, 160, True, 2),
        (5, 960, 160, True, 1),
        (5, 960, 160, True, 1),
    ],
    "small": [  # table 2
        (3, 16, 16, True, 2),
        (3, 72, 24, False, 2),
        (3, 88, 24, False, 1),
        (5, 96, 40, True, 2),
        (5, 240, 40, True, 1),
        (5, 240, 40, True, 1),
        (5, 120, 48, True, 1),
        (5, 144, 48, True, 1),
        (5, 288, 96, True, 2),
        (5, 576, 96, True, 1),
        (5, 576, 96, True, 1),
    ],
}
CLASSES = 1000


class Count:
    """Adds up parameters and multiply-adds layer by layer, from an image of 224 pixels on."""

    def __init__(self, width):
        self.width = width
        self.side = 224
        self.params = 0
        self.macs = 0

    def wide(self, channels):
        """To the nearest multiple of 8, or the next one where that would take over a tenth."""
        exact = channels * self.width
        near = max(8, 8 * int((exact + 4) / 8))
        return near if near >= 0.9 * exact else near + 8

    def conv(self, weights, channels, stride=1):
        """A convolution of so many weights, and a norm of two numbers a channel."""
        self.side = -(-self.side // stride)
        self.params += weights + 2 * channels
        self.macs += weights * self.side**2

    def gate(self, channels):
        squeezed = channels // 4
        self.params += 2 * channels * squeezed + squeezed + channels
        self.macs += 2 * channels * squeezed

    def end(self, channels, last=1280):
        """A convolution of the pooled features without a bias, and the classifier with one."""
        self.params += channels * last + last * CLASSES + CLASSES
        self.macs += channels * last + last * CLASSES


def count_of_pplcnet(width):
    count = Count(width)
    cin = count.wide(16)
    count.conv(3 * 3**2 * cin, cin, 2)
    for kernel, whole, stride, gated in PPLCNET:
        cout = count.wide(whole)
        count.conv(cin * kernel**2, cin, stride)
        if gated:
            count.gate(cin)
        count.conv(cin * cout, cout)
        cin = cout
    count.end(cin)
    return count


def count_of_mobilenet(kind, width):
    count = Count(width)
    cin = count.wide(16)
    count.conv(3 * 3**2 * cin, cin, 2)
    for kernel, inside, whole, gated, stride in MOBILENET[kind]:
        mid = count.wide(inside)
        cout = count.wide(whole)
        count.conv(cin * mid, mid)
        count.conv(mid * kernel**2, mid, stride)
        if gated:
            count.gate(mid)
        count.conv(mid * cout, cout)
        cin = cout
    mid = count.wide({"large": 960, "small": 576}[kind])
    count.conv(cin * mid, mid)
    count.end(mid)
    return count


def scale_of(name):
    return float(name.rpartition("_x")[2].replace("_", "."))


PPLCNETS = ppcls.list_models("PPLCNet*")
MOBILENETS = ppcls.list_models("MobileNetV3*")


@pytest.mark.usefixtures("no_stacks")
@pytest.mark.parametrize("name", PPLCNETS + MOBILENETS)
def test_sizes_by_hand(name):
    if name in PPLCNETS:
        expected = count_of_pplcnet(scale_of(name))
    else:
        expected = count_of_mobilenet(name.split("_")[1], scale_of(name))
    counted = complexity.count_by_name(name)
    assert (counted.params, counted.macs) == (expected.params, expected.macs)


def test_all_published_widths_are_there():
    assert [scale_of(name) for name in PPLCNETS] == [0.25, 0.35, 0.5, 0.75, 1, 1.5, 2, 2.5]
    for kind in ("small", "large"):
        names = ppcls.list_models(f"MobileNetV3_{kind}*")
        assert [scale_of(name) for name in names] == [0.35, 0.5, 0.75, 1, 1.25]


# --------------------------------------------------------------------------
# Names of other projects


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("lcnet_100", "PPLCNet_x1_0"),
        ("lcnet_050.ra2_in1k", "PPLCNet_x0_5"),
        ("lcnet_075", "PPLCNet_x0_75"),
        ("lcnet_035", "PPLCNet_x0_35"),
        ("lcnet_150", "PPLCNet_x1_5"),
        ("PP-LCNet_x2_5", "PPLCNet_x2_5"),
        ("PPLCNet_x1_0_ssld", "PPLCNet_x1_0"),
        ("mobilenetv3_large_100", "MobileNetV3_large_x1_0"),
        ("mobilenetv3_small_075.lamb_in1k", "MobileNetV3_small_x0_75"),
        ("mobilenetv3_small_050", "MobileNetV3_small_x0_5"),
        ("tf_mobilenetv3_large_075", "MobileNetV3_large_x0_75"),
        ("mobilenet_v3_small", "MobileNetV3_small_x1_0"),
        ("mobilenet_v3_large", "MobileNetV3_large_x1_0"),
        ("MobileNetV3_large_x1_0_ssld", "MobileNetV3_large_x1_0"),
    ],
)
def test_names_of_others_lead_here(wrong, right):
    with pytest.raises(UserError, match=f"did you mean '{right}'"):
        registry.spec_of(wrong)


def test_their_successors_are_others():
    for name in ("mobilenetv4_conv_small", "mobilenetv2_100", "PPLCNetV2_base"):
        with pytest.raises(UserError, match="its family is not here"):
            registry.spec_of(name)


# --------------------------------------------------------------------------
# As timm has them


def settled(net):
    """The network with the statistics of noise, so that its logits tell images apart."""
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0
    noise = np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)
    net.train()
    with paddle.no_grad():
        net(paddle.to_tensor(noise))
    return net


def arrays(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def logits_of(net, side=64):
    net.eval()
    images = np.random.default_rng(1).standard_normal((2, 3, side, side)).astype(np.float32)
    with paddle.no_grad():
        return net(paddle.to_tensor(images)).numpy()


def test_pplcnet_goes_to_timm_which_computes_the_same():
    """timm's bias of the last convolution is 0 then, and its classifier has what ours scales by."""
    spec = registry.spec_of("PPLCNet_x0_25")
    net = settled(ppcls.create_model("PPLCNet_x0_25", 5))
    there = convert(arrays(net), spec, "timm")
    assert there["conv_head.bias"].shape == (1280,)
    assert not there["conv_head.bias"].any()
    np.testing.assert_allclose(there["classifier.weight"].T, 0.8 * net.head.weight.numpy())
    again = ppcls.create_model("PPLCNet_x0_25", 5, there)
    assert again.spec.as_in_timm
    expected = logits_of(net)
    spread = np.abs(expected[0] - expected[1]).max()
    assert spread > 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(logits_of(again), expected, rtol=0, atol=1e-5 * spread)


def test_a_bias_of_timms_has_no_place_at_paddleclas(capfd):
    spec = registry.spec_of("PPLCNet_x0_25")
    net = registry.network(replace(spec, as_in_timm=True), 5)
    there = convert(arrays(net), spec, "timm")
    assert ppcls.create_model("PPLCNet_x0_25", 5, there).spec.as_in_timm
    assert "built with a bias in the last convolution and a dropout" in "".join(capfd.readouterr())
    with pytest.raises(UserError, match="PaddleClas builds this network without a bias in the la"):
        convert(arrays(net), spec, "paddleclas")


def test_the_papers_mobilenet_is_told_from_paddleclass(capfd):
    """timm's has other gates and widths: one is not the other, in no direction."""
    spec = registry.spec_of("MobileNetV3_small_x1_0")
    ours = ppcls.create_model("MobileNetV3_small_x1_0", 5)
    with pytest.raises(UserError, match="timm/torchvision builds this network with the paper's"):
        convert(arrays(ours), spec, "timm")
    net = registry.network(replace(spec, as_in_paper=True), 5)
    there = convert(arrays(net), spec, "timm")
    again = ppcls.create_model("MobileNetV3_small_x1_0", 5, there)
    assert "built with the paper's gates, widths, first block" in "".join(capfd.readouterr())
    np.testing.assert_array_equal(logits_of(again), logits_of(net))
    # Its own weights say it, too, in whatever file.
    kept = ppcls.create_model("MobileNetV3_small_x1_0", 5, arrays(again))
    np.testing.assert_array_equal(logits_of(kept), logits_of(net))
    with pytest.raises(UserError, match="PaddleClas builds this network without the paper's"):
        convert(arrays(net), spec, "paddleclas")
    without = {name: value for name, value in arrays(net).items() if name != "as_in_paper"}
    with pytest.raises(UserError, match="not weights of this network"):
        ppcls.create_model("MobileNetV3_small_x1_0", 5, without)


# --------------------------------------------------------------------------
# Their parts


def test_evaluation_scales_what_training_drops():
    layer = DownscalingDropout(0.25)
    ones = paddle.ones([64, 1024])
    dropped = layer(ones).numpy()
    assert set(np.unique(dropped)) == {0.0, 1.0}
    assert dropped.mean() == pytest.approx(0.75, abs=0.01)
    layer.eval()
    assert (layer(ones) == 0.75).all()


def test_gates_are_paddleclass_or_the_papers():
    """At -2.75 PaddlePaddle's older hard sigmoid is 0, the paper's, and PP-LCNet's, is not."""
    at = paddle.to_tensor([-2.75, 0.0, 2.75])
    older = [0.0, 0.5, 1.0]
    papers = [0.25 / 6, 0.5, 5.75 / 6]
    mobilenet = registry.spec_of("MobileNetV3_small_x0_35")
    for spec, count, expected in (
        (mobilenet, 9, older),
        (replace(mobilenet, as_in_paper=True), 9, papers),
        (registry.spec_of("PPLCNet_x0_25"), 2, papers),
    ):
        layers = registry.network(spec, 2).sublayers()
        gates = [layer.gate[4] for layer in layers if isinstance(layer, SqueezeExcite)]
        assert len(gates) == count
        for gate in gates:
            np.testing.assert_allclose(gate(at).numpy(), expected, rtol=1e-6)


def test_features_stand_at_each_stride():
    for name, strides, last in (
        ("PPLCNet_x1_0", (2, 4, 8, 16, 32), 512),
        ("MobileNetV3_large_x1_0", (2, 4, 8, 16, 32), 160),
        ("MobileNetV3_small_x1_0", (4, 8, 16, 32), 96),
    ):
        info = registry.spec_of(name).feature_info
        assert tuple(one.stride for one in info) == strides
        assert info[-1].channels == last
        assert all(a.channels <= b.channels for a, b in pairwise(info))
    assert ppcls.create_model("MobileNetV3_small_x0_35", 0).head.__class__.__name__ == "NoHead"


def test_branches_are_left_out_where_there_are_branches():
    net = ppcls.create_model("MobileNetV3_large_x0_35", 2, drop_path=0.28)
    blocks = [block for stage in net.stages for block in stage]
    found = {i: block.drop_path.rate for i, block in enumerate(blocks) if block.residual}
    assert found == pytest.approx({i: 0.02 * i for i in (0, 2, 4, 5, 7, 8, 9, 11, 13, 14)})
    with pytest.raises(UserError, match="PP-LCNet has no branches to leave out"):
        ppcls.create_model("PPLCNet_x0_25", 2, drop_path=0.1)
    ppcls.create_model("PPLCNet_x0_25", 2, drop_path=0.0)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("PPLCNet_x1_0", {"blocks2": -5, "blocks5": -2, "blocks5[5]": -2, "blocks5[2]": None}),
        ("MobileNetV3_large_x1_0", {"blocks[0]": -5, "blocks[5]": -3, "blocks[11]": -2}),
        ("MobileNetV3_large_x1_0", {"blocks[14]": -1, "blocks[9]": None, "blocks[1]": None}),
    ],
)
def test_layers_of_paddleclass_configs(name, stages):
    spec = registry.spec_of(name)
    family = registry.family_of(spec)
    assert {key: family.projects["paddleclas"].stage(key, spec) for key in stages} == stages

"""A family of networks is one file: a new one, beside ours, works with all generic tools."""

import subprocess
import sys

FAMILY = r"""
from dataclasses import dataclass
from functools import partial

from ppcls.models.spec import Family, Names, StagedSpec, scaled


@dataclass(frozen=True, kw_only=True)
class LightSpec(StagedSpec):
    expand: int = 2
    padding_counts: bool = False
    marks = {"padding_counts": "something counted"}

    @property
    def strides(self):
        return (1,) + (2,) * (len(self.widths) - 1)

    def build(self, num_classes, in_channels):
        from paddle import nn

        from ppcls.models.blocks import DepthwiseSeparable, InvertedResidual, StagedNetwork
        from ppcls.models.layers import ACTIVATIONS, ConvNorm, HardSigmoid, SqueezeExcite, conv2d

        conv = partial(ConvNorm, act=ACTIVATIONS["hardswish"])
        gate = lambda channels: SqueezeExcite(channels, channels // 4, gate=HardSigmoid)
        stem = conv(in_channels, 8, 3, 2)
        cin, stages = 8, []
        for stride, depth, width in zip(self.strides, self.depths, self.widths, strict=True):
            blocks = [DepthwiseSeparable(conv, cin, width, 5, stride, gate=gate)]
            for _ in range(depth - 1):
                mid = self.expand * width
                blocks.append(InvertedResidual(conv, width, mid, width, 3, gate=gate))
            stages.append(nn.Sequential(*blocks))
            cin = width
        neck = nn.Sequential(conv2d(cin, 24, 1, bias=True), nn.Hardswish())
        return StagedNetwork(self, stem, stages, 24, num_classes, neck=neck, dropout=0.2)


def timm_layer(path, spec):
    match path:
        case ["stem", kind]:
            return f"conv_stem.{kind}"
        case ["stages", s, b, "branch", *inside]:
            return f"blocks.{s}.{b}.{'.'.join(inside)}"
        case ["neck", "0"]:
            return "conv_head"
    return "classifier"


SPECS = {
    f"Light_x{width:g}": LightSpec(depths=(1, 3), widths=(scaled(8, width), scaled(16, width)))
    for width in (1, 2)
}
FAMILY = Family(
    titles=("Light",),
    words="the light networks",
    paper="2611.00001",
    specs=SPECS,
    groups={"Light": "Light"},
    series=(r"_x.*", ""),
    projects={"timm": Names(timm_layer, r"blocks\.(\d)\.\d+\.")},
    convs=("stem", "stages.1.1.branch.0"),
    elsewhere=((r"light(\d)net", r"lightx\1"),),
    counted={"Light_x1": (1, 2)},
    weights={"Light_x1": {"mine": {"url": "https://example.org/light.pdparams", "top1": 0.5}}},
)
"""

USE = """
import sys

from ppcls.models import families

families.__path__.append(sys.argv[1])
from ppcls.models import registry
from ppcls.recipe import Recipe
from ppcls.config.load import from_plain
from ppcls.utils.errors import UserError
from ppcls.weights import dialects, store

assert registry.list_models("light*") == ["Light_x1", "Light_x2"]
assert registry.FAMILIES[-1].words == "the light networks"
for wrong in ("light1net", "light_X1"):
    try:
        registry.spec_of(wrong)
    except UserError as error:
        assert "did you mean 'Light_x1'?" in str(error), error
train = {"epochs": 1, "batch_size": 1, "schedule": {"lr": 1}}
recipe = {"model": {"name": "Light_x2"}, "train": train}
assert from_plain(Recipe, recipe, "a test").model.name == "Light_x2"
assert store.counted()["Light_x1"] == {"params": 1, "macs": 2}
assert store.read_registry()["Light_x1"]["mine"]["top1"] == 0.5
assert "paddle" not in sys.modules

import numpy as np
import paddle

import ppcls
from ppcls.models import complexity
from ppcls.weights.convert import convert

net = ppcls.create_model("Light_x1", 3)
net.eval()
side = net.preprocess.crop
counted = complexity.count_by_name("Light_x1")
assert complexity.count(ppcls.create_model("Light_x1"), (3, side, side)) == counted
assert [(one.name, one.channels, one.stride) for one in net.feature_info] == [
    ("stages.0", 8, 2), ("stages.1", 16, 4)
]
images = paddle.rand([2, 3, 40, 40])
assert [one.shape for one in net.features(images)] == [[2, 8, 20, 20], [2, 16, 10, 10]]
spec = registry.spec_of("Light_x1")
state = {name: value.numpy() for name, value in net.state_dict().items()}
there = convert(state, spec, "timm")
assert there["classifier.weight"].shape == (3, 24)
assert "blocks.1.2.1.conv.weight" in there and "conv_head.bias" in there
again = ppcls.create_model("Light_x1", 3, there)
again.eval()
assert (again(images) == net(images)).all()
try:
    convert(state, spec, "paddleclas")
except UserError as error:
    assert str(error) == "PaddleClas has no such network"
else:
    raise AssertionError
from ppcls.models.fuse import fused
with fused(net), paddle.no_grad():
    np.testing.assert_allclose(net(images), again(images), atol=1e-5)
print("all of it")
"""


def test_one_file_is_all_that_a_family_takes(tmp_path):
    (tmp_path / "light.py").write_text(FAMILY)
    command = [sys.executable, "-c", USE, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.endswith("all of it\n"), done.stderr

"""The layers of efficientnet-pytorch's networks by its names; the Lite packages have the same."""

import re

from ppcls.errors import UserError
from ppcls.models.efficientnet_specs import EfficientNetSpec
from ppcls.weights.blocks import Spec, number, roles

BLOCK = re.compile(r"_blocks\.\d+()\.")  # a block's name; the group: it tells no stage

PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def built(spec: Spec) -> Spec:
    """The spec itself, or UserError: it is no EfficientNet."""
    if isinstance(spec, EfficientNetSpec):
        return spec
    raise UserError("efficientnet-pytorch has EfficientNets alone")


def layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    assert isinstance(spec, EfficientNetSpec)
    norm = path[-1] == "norm"
    match path:
        case ["stem", _]:
            return "_bn0" if norm else "_conv_stem"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"_blocks.{number(spec, s, b)}.{'_se_reduce' if gate == '1' else '_se_expand'}"
        case ["stages", s, b, "branch", k, _]:
            return f"_blocks.{number(spec, s, b)}.{PARTS[roles(spec, s)[int(k)]][norm]}"
        case ["expand", _]:
            return "_bn1" if norm else "_conv_head"
    return "_fc"

"""The layers of timm's networks by its names; torchvision's ResNet and ResNeXt have the same.

Of timm's EfficientNets those called tf_… are meant: names do not tell the others, whose padding and
batch norm's constants are not TensorFlow's.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from ppcls.errors import UserError
from ppcls.models.efficientnet_specs import EfficientNetSpec, scaled
from ppcls.weights.blocks import Spec, roles

BLOCK = re.compile(r"(?:layer|s|blocks\.)(\d)\.b?\d+\.")  # a block's name; the group: its stage


def built(spec: Spec) -> Spec:
    """The spec as timm builds it.

    Raises:
        UserError: it rounds this network's squeeze-excite to other widths.
    """
    if isinstance(spec, EfficientNetSpec):
        return spec
    ours = [width // spec.se for width in spec.widths] if spec.se else []
    rounded = [scaled(width, 1 / spec.se) for width in spec.widths] if spec.se else []
    if ours != rounded:
        raise UserError(
            "timm rounds the channels of squeeze-excite to multiples of 8, a stage "
            f"{listing(rounded)}; this network has {listing(ours)}"
        )
    return replace(
        spec,
        first_projects=spec.mids is not None or spec.stem.widths[-1] != spec.widths[0],
        first_chains=spec.scales == 1,
        padding_counts=spec.scales > 1 or spec.radix > 0,
    )


def listing(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def layer(path: list[str], spec: Spec) -> str:
    """The name of the layer that stands at `path` in our network of this spec."""
    if isinstance(spec, EfficientNetSpec):
        return efficientnet(path, spec)
    if not spec.stem.pool:
        return regnet(path)
    norm = path[-1] == "norm"
    last = len(spec.stem.widths) - 1
    match path:
        case ["stem", i, _] if norm and int(i) == last:
            return "bn1"
        case ["stem", i, _]:
            return f"conv1.{3 * int(i) + norm}" if last else "conv1"
        case ["stages", s, b, "shortcut", *_]:
            return f"layer{int(s) + 1}.{b}.downsample.{(spec.shortcut == 'avg') + norm}"
        case ["stages", s, b, "branch", k, *inside]:
            return f"layer{int(s) + 1}.{b}.{in_branch(min(int(k) + 1, 3), inside)}"
    return "fc"


def in_branch(k: int, inside: list[str]) -> str:
    match inside:
        case ["gate", gate]:
            return "se.fc1" if gate == "1" else "se.fc2"
        case ["convs", part, kind]:
            return f"convs.{part}" if kind == "conv" else f"bns.{part}"
        case ["conv", kind]:
            return "conv2.conv" if kind == "conv" else "conv2.bn0"
        case ["squeeze", kind]:
            return "conv2.fc1" if kind == "conv" else "conv2.bn1"
        case ["excite"]:
            return "conv2.fc2"
    return f"conv{k}" if inside == ["conv"] else f"bn{k}"


def regnet(path: list[str]) -> str:
    kind = "bn" if path[-1] == "norm" else "conv"
    match path:
        case ["stem", _, _]:
            return f"stem.{kind}"
        case ["stages", s, b, "branch", k, _]:
            return f"s{int(s) + 1}.b{int(b) + 1}.conv{int(k) + 1}.{kind}"
        case ["stages", s, b, "shortcut", *_]:
            return f"s{int(s) + 1}.b{int(b) + 1}.downsample.{kind}"
    return "head.fc"


def efficientnet(path: list[str], spec: EfficientNetSpec) -> str:
    match path:
        case ["stem", kind]:
            return "conv_stem" if kind == "conv" else "bn1"
        case ["stages", s, b, "branch", _, "gate", gate]:
            return f"blocks.{s}.{b}.se.{'conv_reduce' if gate == '1' else 'conv_expand'}"
        case ["stages", s, b, "branch", k, kind]:
            role = roles(spec, s)[int(k)]
            parts = [part for part in roles(spec, s) if part != "gate"]
            convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
            if len(parts) == 2:  # where nothing is expanded, the one 1x1 is plain
                convs["project"] = "conv_pw"
            own = convs[role] if kind == "conv" else f"bn{parts.index(role) + 1}"
            return f"blocks.{s}.{b}.{own}"
        case ["expand", kind]:
            return "conv_head" if kind == "conv" else "bn2"
    return "classifier"


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of ours to timm's, which has Res2Net's convolutions before their norms."""
    blocks = groupby(names, key=lambda name: re.sub(r"\.(convs|bns)\..*", ".", name))
    return [name for _, block in blocks for name in sorted(block, key=lambda n: ".bns." in n)]

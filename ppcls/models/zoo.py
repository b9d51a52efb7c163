"""Every network by its name. Names and specs are looked up without importing Paddle."""

import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

from ppcls.errors import UserError
from ppcls.models import efficientnet_specs, residual_specs
from ppcls.models.efficientnet_specs import EfficientNetSpec
from ppcls.models.residual_specs import ResidualSpec

if TYPE_CHECKING:
    from paddle import nn

Spec = ResidualSpec | EfficientNetSpec

SPECS: dict[str, Spec] = {**residual_specs.SPECS, **efficientnet_specs.SPECS}


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "*_vd" in any case; numbers sort as numbers."""
    names = [name for name in SPECS if fnmatch.fnmatchcase(name.lower(), pattern.lower())]
    return sorted(names, key=lambda name: [int(n) if n.isdigit() else n for n in split(name)])


def split(name: str) -> list[str]:
    """Text and numbers in turns, text first: "ResNet50_vd" is ["resnet", "50", "_vd"]."""
    return re.split(r"(\d+)", name.lower())


def spec_of(name: str) -> Spec:
    """The network's spec.

    Raises:
        UserError: no network has this name; the nearest ones are given.
    """
    if name in SPECS:
        return SPECS[name]
    by_lower = {known.lower(): known for known in SPECS}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3)
    names = ", ".join(repr(by_lower[key]) for key in near)
    hint = f"did you mean {names}?" if near else "`ppcls models` lists all names"
    raise UserError(f"unknown model {name!r}; {hint}")


def resolution(name: str) -> int:
    """Side in pixels of the square images the network's published figures were counted at."""
    return spec_of(name).resolution


def build(name: str, num_classes: int = 1000, in_channels: int = 3) -> "nn.Layer":
    """A network with fresh weights, drawn from Paddle's generator (`paddle.seed` fixes them).

    It maps float32 images [N, in_channels, H, W] to float32 logits [N, num_classes].

    Raises:
        UserError: the name is unknown, or a number is below 1.
    """
    spec = spec_of(name)
    check_numbers(name, num_classes, in_channels)
    return network(spec, num_classes, in_channels)


def check_numbers(name: str, num_classes: int, in_channels: int) -> None:
    if num_classes < 1 or in_channels < 1:
        raise UserError(f"{name}: {num_classes=} and {in_channels=} must be at least 1")


def network(spec: Spec, num_classes: int = 1000, in_channels: int = 3) -> "nn.Layer":
    """The network a spec describes; `dataclasses.replace` makes a spec of one's own."""
    if isinstance(spec, EfficientNetSpec):
        from ppcls.models.efficientnet import EfficientNet

        return EfficientNet(spec, num_classes, in_channels)
    from ppcls.models.residual import ResidualNet

    return ResidualNet(spec, num_classes, in_channels)

"""Networks of one's own: `@ppcls.register_model`, and then their name is one like ours."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ppcls.models import registry
from ppcls.models.spec import Spec
from ppcls.utils.errors import UserError
from ppcls.utils.text import visible

if TYPE_CHECKING:
    from paddle import nn

Factory = TypeVar("Factory", bound=Callable[..., Any])
NAME = re.compile(r"\w[\w.+-]*")  # which folders of runs may have


@dataclass(frozen=True, kw_only=True)
class OwnSpec(Spec):
    """A network that a class or function of one's own makes."""

    name: str
    factory: Callable[..., Any]

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        """As of every spec; of 0 classes the classifier is taken out.

        Raises:
            UserError: it takes no other channels or no drop path, has no classifier to be taken
                out, or is no `nn.Layer`.
        """
        from paddle import nn

        from ppcls.models.layers import NoHead, head_name, layer_at

        options: dict[str, Any] = {"in_channels": in_channels}
        if not accepts(self.factory, "in_channels"):
            if in_channels != 3:
                raise UserError(f"{self.name}: takes no in_channels: its images have 3")
            del options["in_channels"]
        if self.drop_path is not None:
            if not accepts(self.factory, "drop_path"):
                raise UserError(f"{self.name}: takes no drop_path: leave model.drop_path out")
            options["drop_path"] = self.drop_path
        net = self.factory(num_classes=num_classes or 1, **options)
        if not isinstance(net, nn.Layer):
            kind = type(net).__name__
            raise UserError(f"{self.name}: should give a paddle.nn.Layer, not {kind}")
        if not num_classes:
            head = head_name(net)
            if not head:
                raise UserError(f"{self.name}: has no linear layer that classifies, to be left out")
            *path, last = head.split(".")
            setattr(layer_at(net, ".".join(path)) if path else net, last, NoHead())
        return net


def register_model(name: str | Any = None, *, resolution: int = 224) -> Any:
    """Make a class or function of one's own a network that commands and recipes know by name.

        @ppcls.register_model("MyNet", resolution=64)
        class MyNet(nn.Layer):
            def __init__(self, num_classes, in_channels=3): ...

    It maps float32 images [N, in_channels, H, W] to float32 logits [N, num_classes]. The classifier
    is the last linear layer, of its `head` where it has one. What stages give to distillation and
    `features_only`, a `features(images)` gives, of which `classify(features)` gives the logits.

    Args:
        name: default: that of the class or function.
        resolution: side of the images it is made for, pixels.

    Raises:
        UserError: another network has the name, or it takes no number of classes.
    """
    if name is not None and not isinstance(name, str):  # @register_model without brackets
        return register_model()(name)

    def register(factory: Factory) -> Factory:
        own = name if name is not None else getattr(factory, "__name__", "")
        add(OwnSpec(name=own, factory=factory, resolution=resolution))
        return factory

    return register


def add(spec: OwnSpec) -> None:
    if not NAME.fullmatch(spec.name):
        raise UserError(
            f"register_model: {visible(spec.name)!r} should be letters, digits, _, -, + and dots"
        )
    size = spec.resolution
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"register_model: {spec.name}: resolution={size!r} should be in pixels")
    if not accepts(spec.factory, "num_classes"):
        raise UserError(
            f"register_model: {spec.name}: should take num_classes, as in "
            f"def {spec.name}(num_classes, in_channels=3)"
        )
    there = registry.SPECS.get(spec.name)
    if there is not None and not (isinstance(there, OwnSpec) and same(there, spec)):
        whose = f"of {origin(there)}" if isinstance(there, OwnSpec) else "of ppcls"
        raise UserError(
            f"register_model: {spec.name} is a network {whose} already: give another name"
        )
    registry.SPECS[spec.name] = spec


def accepts(factory: Callable[..., Any], option: str) -> bool:
    """Whether it can be called with an argument of this name."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # no Python function, or nothing to call
        return False
    several = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    found = parameters.get(option)
    return several if found is None else found.kind is not found.POSITIONAL_ONLY


def same(first: OwnSpec, second: OwnSpec) -> bool:
    """Whether they are one, or one that its module defines again."""
    return first.factory is second.factory or origin(first) == origin(second)


def origin(spec: OwnSpec) -> str:
    factory = spec.factory
    named = getattr(factory, "__qualname__", type(factory).__name__)
    return f"{getattr(factory, '__module__', '')}.{named}"

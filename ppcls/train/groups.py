"""Which parameters an optimizer treats alike, and the size of their gradients."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppcls.errors import UserError

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Parameters with the same weight decay and learning rate."""

    parameters: list[Tensor]
    decayed: bool = True
    lr_scale: float = 1.0


def groups(
    net: nn.Layer,
    decay_norms: bool,
    lr_scale: Mapping[str, float],
    decay_biases: bool | None = None,
) -> list[Group]:
    """The trained parameters of a network, split where they are to be treated apart.

    Args:
        decay_norms: decay the parameters of norms.
        lr_scale: shell pattern of names → factor; of several that match, the last counts.
        decay_biases: decay the other parameters of one dimension; None: as `decay_norms`.

    Raises:
        UserError: a pattern matches no trained parameter.
    """
    trained = {name: p for name, p in net.named_parameters() if not p.stop_gradient}
    for pattern in lr_scale:
        if not fnmatch.filter(trained, pattern):
            tops = ", ".join(dict.fromkeys(name.split(".")[0] + ".*" for name in trained))
            raise UserError(
                f"train.lr_scale: {pattern!r} matches no trained parameter; there are {tops}"
            )
    normed = of_norms(net)
    biases = decay_norms if decay_biases is None else decay_biases
    found: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in trained.items():
        factors = [f for pattern, f in lr_scale.items() if fnmatch.fnmatchcase(name, pattern)]
        decayed = decay_norms if id(parameter) in normed else biases or len(parameter.shape) > 1
        found.setdefault((decayed, factors[-1] if factors else 1.0), []).append(parameter)
    return [Group(parameters, *key) for key, parameters in found.items()]


def of_norms(net: nn.Layer) -> set[int]:
    """The ids of the parameters that belong to layers which normalise."""
    from paddle import nn

    kinds = (
        nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm,
        nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D,
    )  # fmt: skip
    layers = [layer for layer in net.sublayers(include_self=True) if isinstance(layer, kinds)]
    return {id(p) for layer in layers for p in layer.parameters(include_sublayers=False)}


def for_paddle(
    groups: Sequence[Group], decay: float | None, none: float | None = None
) -> list[Any]:
    """The groups as Paddle's optimizers take them; `none`: how they write no decay."""
    return [
        {
            "params": group.parameters,
            "weight_decay": decay if group.decayed and decay else none,
            "learning_rate": group.lr_scale,
        }
        for group in groups
    ]


def gradient_norm(parameters: Sequence[Tensor]) -> float:
    """The norm of all gradients taken as one vector."""
    import paddle

    with paddle.no_grad():
        squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
        return float(paddle.stack(squares).sum().sqrt())


def scale_gradients(parameters: Sequence[Tensor], factor: float) -> None:
    import paddle

    with paddle.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.scale_(factor)

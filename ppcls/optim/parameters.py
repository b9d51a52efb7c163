"""Which parameters train and which are frozen, which decay, and at what rate."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from ppcls.utils.errors import UserError
from ppcls.utils.text import decimal

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


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients taken as one vector, float32 []."""
    import paddle

    with paddle.no_grad():
        squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
        return paddle.stack(squares).sum().sqrt()


def scale_gradients(parameters: Sequence[Tensor], factor: float | Tensor) -> None:
    """Multiply all gradients in place; a factor on the device, float32 [], is not read."""
    import paddle

    with paddle.no_grad():
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if isinstance(factor, int | float):
                parameter.grad.scale_(factor)
            else:
                parameter.grad.multiply_(factor)


# --------------------------------------------------------------------------
# Parts of a network that training leaves as they are

STATISTICS = ("_mean", "_variance")  # of batch norms, which Paddle lists with the parameters
SLACK = 1e-9  # for products of decimal fractions that should be whole numbers


def as_list(value: Any) -> Any:
    """One entry may stand without a list, and nothing for none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def checked(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        share = share_of(entry)
        if entry.endswith("%") and (share is None or not 0 <= share < 1):
            raise ValueError(
                f"{entry!r} should be a share from 0% to below 100%, such as 50%: the first half "
                "of the network's blocks; all of them are ['stem.*', 'stages.*']"
            )
    return entries


# Shares of the network, as in "50%", and names of parameters, as in "stem.*" and "stages.0.*".
Freeze = Annotated[tuple[str, ...], BeforeValidator(as_list), AfterValidator(checked)]


def share_of(entry: str) -> float | None:
    """The share that an entry means; None where it is none."""
    percent = decimal(entry.removesuffix("%").strip()) if entry.endswith("%") else None
    return None if percent is None else percent / 100


def freeze(net: nn.Layer, entries: Sequence[str]) -> list[nn.Layer]:
    """Stop the gradient of every parameter that an entry names.

    An entry is a shell pattern of names, as in "stages.0.*", or a share of the network's blocks in
    their order, as in "50%": the stem and as many whole blocks as fit into it, never the last one.

    Returns:
        The layers in which nothing is left to train, whole blocks among them; they are kept in
        evaluation mode, so that the statistics of frozen batch norms stay as they are, and frozen
        blocks drop nothing.

    Raises:
        UserError: a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, parameter in net.named_parameters() if not parameter.stop_gradient]
    patterns = []
    for entry in entries:
        share = share_of(entry)
        if share is not None:
            patterns += first_blocks(net, share)
            continue
        if not fnmatch.filter(names, entry):
            tops = ", ".join(dict.fromkeys(name.split(".")[0] + ".*" for name in names))
            raise UserError(
                f"model.freeze: {entry!r} matches no parameter; there are {tops}; a share such as "
                "50% fits every network"
            )
        patterns.append(entry)
    for name, parameter in net.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.stop_gradient = True
    if all(parameter.stop_gradient for parameter in net.parameters()):
        head = head_of(net) or "those of the classifier"
        raise UserError(f"model.freeze: nothing is left to train; leave out {head}")
    return [layer for layer in net.sublayers() if is_frozen(layer)] if patterns else []


def first_blocks(net: nn.Layer, share: float) -> list[str]:
    """Patterns of the stem and the first blocks of a network, of 0 of nothing.

    Raises:
        UserError: it has no stages, as a network of one's own may have none.
    """
    from ppcls.models.layers import has_stages

    if not has_stages(net):
        raise UserError(
            f"model.freeze: {type(net).__name__} has no stages of blocks, of which to freeze a "
            "share: name parameters, as in ['body.*']"
        )
    blocks = [
        f"stages.{stage}.{block}.*"
        for stage, blocks in enumerate(net.stages)
        for block in range(len(blocks))
    ]
    count = math.floor(share * len(blocks) + SLACK)
    return ["stem.*", *blocks[:count]] if share else []


def is_frozen(layer: nn.Layer) -> bool:
    own = layer.parameters()
    return bool(own) and all(parameter.stop_gradient for parameter in own)


def parameter_count(net: nn.Layer) -> int:
    """How many numbers a network learns, whether they are frozen or not."""
    named = net.named_parameters()
    return sum(value.size for name, value in named if name.split(".")[-1] not in STATISTICS)


def trained_count(net: nn.Layer) -> int:
    """How many numbers of a network training changes."""
    return sum(parameter.size for parameter in net.parameters() if not parameter.stop_gradient)


def random_ones(net: nn.Layer) -> list[str]:
    """Names of parameters that training leaves and whose values differ, as no constant's do."""
    frozen = [(name, value) for name, value in net.named_parameters() if value.stop_gradient]
    return [name for name, value in frozen if float(value.min()) != float(value.max())]


def only_head(net: nn.Layer) -> bool:
    """Whether the classifier is all that training changes."""
    head = head_of(net)
    trained = [name for name, value in net.named_parameters() if not value.stop_gradient]
    return bool(head) and all(fnmatch.fnmatchcase(name, head) for name in trained)


def head_of(net: nn.Layer) -> str | None:
    """A pattern of the names of the classifier's parameters; None where it is not known."""
    from ppcls.models.layers import head_name

    name = head_name(net)
    return f"{name}.*" if name else None

"""Weights into a network: all of them, or an error that says which do not fit."""

from collections.abc import Mapping

import numpy as np
from paddle import nn

from ppcls.errors import UserError
from ppcls.weights import dialects

OPTIMIZER = "optimizer/"  # what the slots of an optimizer start with in a run's checkpoint


def put(net: nn.Layer, tensors: Mapping[str, np.ndarray], source: str, new_head: bool) -> list[str]:
    """Set every parameter and statistic of `net`; nothing is set when anything does not fit.

    Args:
        net: a network of `ppcls.models`, whose classifier is `net.head`.
        tensors: name → array in a known dialect; `source` names them in errors.
        new_head: keep the network's own classifier where its size differs.

    Returns:
        Notes for the log.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each named.
    """
    native = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    weights = {name: v for name, v in tensors.items() if not name.startswith(OPTIMIZER)}
    try:
        weights = dialects.to_native(weights, native)
    except UserError as error:
        raise UserError(f"{source}: not weights of this network: {error}") from None
    wrong = [name for name in native if weights[name].shape != native[name]]
    notes = []
    if wrong and all(name.startswith("head.") for name in wrong):
        found, own = weights["head.bias"].shape[0], native["head.bias"][0]
        if not new_head:
            raise UserError(
                f"{source}: its classifier has {found} classes, this network's has {own}: "
                f"-o model.num_classes={found}, or when training -o model.new_head=true"
            )
        weights = {name: value for name, value in weights.items() if name not in wrong}
        notes.append(f"{source}: classifier of {found} classes left out; the new one has {own}")
    elif wrong:
        name = wrong[0]
        raise UserError(
            f"{source}: not weights of this network: {name} should have shape "
            f"{list(native[name])}, not {list(weights[name].shape)} ({len(wrong)} such tensors)"
        )
    assign(net, weights)
    return notes


def assign(net: nn.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the parameters and statistics that `arrays` names; shapes have been checked."""
    own = net.state_dict()
    for name, value in arrays.items():
        own[name].set_value(value)

"""Parts of a network that training leaves as they are."""

import fnmatch

from paddle import nn

from ppcls.errors import UserError


def freeze(net: nn.Layer, patterns: tuple[str, ...]) -> list[nn.Layer]:
    """Stop the gradient of every parameter whose name matches a shell pattern, as in "stages.0.*".

    Returns:
        The layers in which nothing is left to train, whole blocks among them; they are kept in
        evaluation mode, so that the statistics of frozen batch norms stay as they are, and frozen
        blocks drop nothing.

    Raises:
        UserError: a pattern matches no parameter.
    """
    names = [name for name, parameter in net.named_parameters() if not parameter.stop_gradient]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            tops = ", ".join(dict.fromkeys(name.split(".")[0] + ".*" for name in names))
            raise UserError(f"model.freeze: {pattern!r} matches no parameter; there are {tops}")
    for name, parameter in net.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.stop_gradient = True
    if all(parameter.stop_gradient for parameter in net.parameters()):
        raise UserError("model.freeze: nothing is left to train; leave out head.*")
    return [layer for layer in net.sublayers() if is_frozen(layer)] if patterns else []


def is_frozen(layer: nn.Layer) -> bool:
    own = layer.parameters()
    return bool(own) and all(parameter.stop_gradient for parameter in own)

"""Weights into a network: all of them, or an error that says which do not fit."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from paddle import nn

from ppcls.models.residual_specs import ResidualSpec, built_otherwise
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural
from ppcls.weights import dialects, files
from ppcls.weights.dialects import Spec
from ppcls.weights.pickles import Stored

OPTIMIZER = "optimizer/"  # what the slots of an optimizer start with in a run's checkpoint


class OtherClasses(UserError):  # noqa: N818  a kind of user's mistake
    """Weights of so many classes (`found`) for a network of others."""

    def __init__(self, text: str, found: int):
        super().__init__(text)
        self.found = found


def arrays(weights: Mapping[str, Any], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors of any framework as arrays, floats of any width as float32, and notes of the casts.

    Raises:
        UserError: one holds NaN or infinity, or no numbers.
    """
    stored = {}
    for name, value in weights.items():
        try:
            array = np.asarray(value)
        except (RuntimeError, TypeError, ValueError) as error:  # ragged lists, tensors with grads
            raise UserError(f"{source}: {name!r} gives no array: {error}") from None
        dtype = array.dtype.name
        if not isinstance(name, str) or (array.dtype.kind not in "fiub" and dtype != "bfloat16"):
            raise UserError(f"{source}: {name!r} should name an array of numbers, not {dtype}")
        bits = array.view(np.uint16) if dtype == "bfloat16" else array.view()
        stored[name] = Stored(dtype, array.shape, lambda bits=bits: bits)
    entries, unwrapped = files.network_alone(stored)
    tensors, casts = files.load_all(entries, source)
    return tensors, [*unwrapped, *casts]


def structure(spec: Spec, tensors: Mapping[str, np.ndarray], source: str) -> Spec:
    """The spec of the network to build for these tensors, as their dialect builds it.

    Raises:
        UserError: no dialect has their names, or their project no such network.
    """
    try:
        return dialects.structure(tensors, spec)
    except UserError as error:
        raise UserError(f"{source}: not weights of this network: {error}") from None


def put(net: nn.Layer, tensors: Mapping[str, np.ndarray], source: str, new_head: bool) -> list[str]:
    """Set every parameter and statistic of `net`; nothing is set when anything does not fit.

    Args:
        net: a network of `ppcls.models`, whose spec is what `structure` gave for the tensors.
        tensors: name → float32 array in a known dialect; `source` names them in errors.
        new_head: keep the network's own classifier where its size differs.

    Returns:
        Notes for the log.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each named.
    """
    native = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    given = {name: v for name, v in tensors.items() if not name.startswith(OPTIMIZER)}
    try:
        weights = dialects.to_native(given, net.spec, native)
    except UserError as error:
        raise UserError(f"{source}: not weights of this network: {error}") from None
    notes = about(net.spec, dialects.recognise(given), source)
    found = weights["head.bias"].shape[0]
    own = native["head.bias"][0]
    if found != own:
        if not new_head:
            raise OtherClasses(
                f"{source}: its classifier has {plural(found, 'class')}, "
                f"this network's has {own}: "
                f"-o model.num_classes={found}, or when training -o model.new_head=true",
                found,
            )
        del weights["head.weight"], weights["head.bias"]
        left = f"classifier of {plural(found, 'class')} left out"
        notes.append(f"{source}: {left}; the new one has {own}")
    assign(net, weights)
    return notes


def about(spec: Spec, dialect: str, source: str) -> list[str]:
    """What to say of tensors that came under another project's names."""
    if dialect == dialects.NATIVE:
        return []
    title = dialects.DIALECTS[dialect].title
    otherwise = built_otherwise(spec) if isinstance(spec, ResidualSpec) else []
    built = f"; built {dialects.as_built(spec, otherwise)}" if otherwise else ""
    return [f"{source}: with {title}'s names{built}"]


def assign(net: nn.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the parameters and statistics that `arrays` names; shapes have been checked."""
    own = net.state_dict()
    for name, value in arrays.items():
        own[name].set_value(value)


# --------------------------------------------------------------------------
# Weights and images that any framework can make: what networks compute from them is comparable


def fill(name: str, shape: Sequence[int]) -> np.ndarray:
    """Float32 values that depend on a tensor's name and shape only.

    The spread keeps activations near one: variances in [0.5, 1.5), scales in [0.5, 1), kernels
    normal with variance 1 / fan-in, linear weights with 0.02, means and biases with 0.1.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.split(".")[-1]
    if leaf in ("_variance", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("_mean", "running_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    std = 0.02 if len(shape) == 2 else np.prod(shape[1:]) ** -0.5
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def image(side: int) -> np.ndarray:
    """One float32 image [1, 3, side, side] of normal noise."""
    return np.random.default_rng(2020).standard_normal((1, 3, side, side), dtype=np.float32)

"""Weights into a network: all of them, or an error that says which do not fit."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from paddle import nn

from ppcls.models.layers import NoHead, head_name, layer_at
from ppcls.models.spec import Spec
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural
from ppcls.weights import dialects, files
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


def put(
    net: nn.Layer,
    tensors: Mapping[str, np.ndarray],
    source: str,
    new_head: bool,
    spec: Spec | None = None,
) -> list[str]:
    """Set every parameter and statistic of `net`; nothing is set when anything does not fit.

    Args:
        tensors: name → float32 array in a known dialect; `source` names them in errors.
        new_head: keep the network's own classifier where its size differs.
        spec: what `structure` gave for the tensors, and `net` was built of; None: `net.spec`.

    Returns:
        Notes for the log.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each named.
    """
    structure: Spec = spec or net.spec
    native = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    given = {name: v for name, v in tensors.items() if not name.startswith(OPTIMIZER)}
    head = head_name(net)
    left = None
    try:
        dialect = dialects.dialect_of(given, structure)
        if head and isinstance(layer_at(net, head), NoHead):
            left = without_head(given, dialects.layer_name(dialect, head, structure))
        weights = dialects.to_native(given, structure, native, head)
    except UserError as error:
        raise UserError(f"{source}: not weights of this network: {error}") from None
    notes = about(structure, dialect, source)
    if left:
        notes.append(f"{source}: classifier of {plural(left, 'class')} left out")
    if f"{head}.weight" in native:
        notes += fit_head(weights, f"{head}.", native[f"{head}.weight"][1], source, new_head)
    assign(net, weights)
    return notes


def fit_head(
    weights: dict[str, np.ndarray], start: str, own: int, source: str, new_head: bool
) -> list[str]:
    """Take out a classifier that has other classes than the network's `own`, with a note; or raise.

    Args:
        start: what the names of the classifier's tensors begin with.
    """
    found = weights[f"{start}weight"].shape[1]
    if found == own:
        return []
    if not new_head:
        raise OtherClasses(
            f"{source}: its classifier has {plural(found, 'class')}, "
            f"this network's has {own}: "
            f"-o model.num_classes={found}, or when training -o model.new_head=true",
            found,
        )
    for part in ("weight", "bias"):
        weights.pop(f"{start}{part}", None)
    return [f"{source}: classifier of {plural(found, 'class')} left out; the new one has {own}"]


def without_head(given: dict[str, np.ndarray], layer: str) -> int | None:
    """Take the classifier's tensors away; how many classes it has, None where there are none."""
    bias = given.pop(f"{layer}.bias", None)
    weight = given.pop(f"{layer}.weight", None)
    if bias is not None and bias.ndim == 1:
        return len(bias)
    return weight.shape[-1] if weight is not None and weight.ndim == 2 else None


def about(spec: Spec, dialect: str, source: str) -> list[str]:
    """What to say of tensors that came under another project's names."""
    if dialect == dialects.NATIVE:
        return []
    title = dialects.DIALECTS[dialect].title
    otherwise = dialects.otherwise(spec)
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

"""Which project's names a checkpoint uses, and its tensors under ours.

The networks here create their parameters in the order in which the projects below list theirs, so a
foreign checkpoint is matched in order; every shape and the kind of every tensor is checked.
"""

from collections.abc import Mapping

import numpy as np

from ppcls.errors import UserError

Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
SHOWN = 5  # names of a kind shown in an error


def recognise(names: list[str], native: Shapes) -> str:
    """`native`, `paddleclas` or `efficientnet-pytorch`, from the parameter names.

    Raises:
        UserError: the names are of none of them.
    """
    if len(native.keys() & set(names)) > len(native) // 2:
        return "native"
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    if "_conv_stem.weight" in names and "running_mean" in leaves:
        return "efficientnet-pytorch"
    if "_mean" in leaves and "_variance" in leaves:
        return "paddleclas"
    shown = ", ".join(names[:SHOWN])
    raise UserError(
        f"its names ({shown}, ...) are not those of ppcls, PaddleClas or the Lite files"
    )


def to_native(tensors: Tensors, native: Shapes) -> dict[str, np.ndarray]:
    """The tensors under native names and in native layouts, in whichever dialect they come.

    Args:
        native: name → shape of the network's own state, in its order.

    Raises:
        UserError: tensors missing, unexpected or misshapen, each listed by name.
    """
    dialect = recognise(list(tensors), native)
    if dialect == "native":
        return by_name(tensors, native)
    kept = {name: value for name, value in tensors.items() if not name.endswith("_tracked")}
    return in_order(kept, native, transposed=dialect == "efficientnet-pytorch")


def by_name(tensors: Tensors, native: Shapes) -> dict[str, np.ndarray]:
    missing = [name for name in native if name not in tensors]
    unexpected = [name for name in tensors if name not in native]
    complain("missing", missing)
    complain("unexpected", unexpected)
    return {name: tensors[name] for name in native}


def in_order(tensors: Tensors, native: Shapes, transposed: bool) -> dict[str, np.ndarray]:
    """Pair both lists; `transposed`: fully connected weights are [out, in], as in PyTorch."""
    if len(tensors) != len(native):
        raise UserError(f"it has {len(tensors)} tensors, this network {len(native)}")
    result = {}
    for (name, value), (own, shape) in zip(tensors.items(), native.items(), strict=True):
        leaf = name.rsplit(".", 1)[-1]
        if STATISTICS.get(leaf, leaf) != own.rsplit(".", 1)[-1]:
            raise UserError(f"{name} stands where this network has {own}: of another structure")
        result[own] = in_layout(value, shape, transposed)
    return result


def in_layout(value: np.ndarray, shape: tuple[int, ...], transposed: bool) -> np.ndarray:
    """A matrix turned to [in, out], or to the 1x1 convolution that stands in its place here."""
    if value.ndim != 2:
        return value
    matrix = value.T if transposed else value
    return matrix.T[:, :, None, None] if len(shape) == 4 else matrix


def complain(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise UserError(f"{what} tensors: {', '.join(names[:SHOWN])}{more}")

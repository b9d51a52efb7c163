"""Checkpoints from one project's names to another's."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle

from ppcls.models import registry
from ppcls.models.spec import Spec
from ppcls.utils.errors import UserError
from ppcls.utils.text import from_json, plural
from ppcls.weights import dialects, files
from ppcls.weights.load import OPTIMIZER

MODEL = "model"  # the metadata key of a network's name
RUN = "ppcls"  # that of the record in a run's checkpoint

WRITERS = {  # the other kinds have no metadata
    ".safetensors": files.write_safetensors,
    ".pdparams": lambda path, tensors, metadata: files.write_pdparams(path, tensors),
    ".npz": lambda path, tensors, metadata: files.write_npz(path, tensors),
}


def convert(tensors: Mapping[str, np.ndarray], spec: Spec, to: str) -> dict[str, np.ndarray]:
    """The tensors of a network under the names, and in the layouts and order, of `to`.

    Args:
        tensors: name → float32 array in any dialect; slots of an optimizer are left out.
        spec: that of the network's name; the tensors may be those of one built otherwise.
        to: a key of `dialects.DIALECTS`.

    Raises:
        UserError: tensors that do not fit the network, or a project that builds it otherwise.
    """
    given = {name: v for name, v in tensors.items() if not name.startswith(OPTIMIZER)}
    if not registry.family_of(spec):
        dialects.names_of(to, spec)  # which there are none of but its own
        return given
    spec = dialects.structure(given, spec)
    weights = dialects.to_native(given, spec, shapes(spec, given))
    return dialects.from_native(weights, spec, to)


def shapes(spec: Spec, tensors: Mapping[str, np.ndarray]) -> dialects.Shapes:
    """Name → shape of the network's state, with the tensors' numbers of classes and channels."""
    with paddle.LazyGuard():  # allocates nothing
        state = registry.network(spec).state_dict()
    native = {name: tuple(value.shape) for name, value in state.items()}
    dialect = dialects.recognise(tensors)
    names = {p.ours: name for name, p in dialects.places(dialect, spec, native).items()}
    stem = next(name for name in native if name.startswith("stem."))
    bias = tensors.get(names["head.bias"])
    kernel = tensors.get(names[stem])
    if bias is not None and bias.ndim == 1:
        native["head.bias"] = bias.shape
        native["head.weight"] = (native["head.weight"][0], *bias.shape)
    if kernel is not None and kernel.ndim == 4:
        width, _, *sides = native[stem]
        native[stem] = (width, kernel.shape[1], *sides)
    return native


def convert_file(source: Path, target: Path, to: str, model: str | None = None) -> list[str]:
    """Read a checkpoint and write it in the dialect `to`, as the kind that `target` ends in.

    Args:
        model: the network's name; None: as the checkpoint's record says.

    Returns:
        Notes for the user.

    Raises:
        UserError: files that cannot be read or written, or what `convert` raises.
    """
    if target.suffix not in WRITERS:
        raise UserError(f"{target}: should end in {', '.join(WRITERS)}")
    checkpoint = files.read(source)
    name = model or recorded_name(checkpoint, source)
    if not name:
        raise UserError(f"{source}: does not say which network it is of: add --model NAME")
    spec = registry.spec_of(name)
    try:
        tensors = convert(checkpoint.tensors, spec, to)
    except UserError as error:
        raise UserError(f"{source}: cannot be converted as {name}: {error}") from None
    WRITERS[target.suffix](target, tensors, {MODEL: name})
    title = dialects.DIALECTS[to].title
    return [
        *checkpoint.notes,
        f"{target}: {plural(len(tensors), 'tensor')} of {name} with {title}'s names",
    ]


def recorded_name(checkpoint: files.Checkpoint, path: Path) -> str | None:
    """The network's name, where a file that `convert_file` or training wrote says it."""
    if RUN not in checkpoint.metadata:
        return checkpoint.metadata.get(MODEL)
    try:
        return from_json(checkpoint.metadata[RUN])["recipe"]["model"]["name"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: written by another version of ppcls: add --model NAME") from None

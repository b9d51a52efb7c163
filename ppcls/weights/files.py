"""Checkpoint files of Paddle, PyTorch, safetensors and numpy, read and written as plain numpy.

No file can run code, and neither paddle nor torch is imported.
"""

import difflib
import json
import math
import os
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ppcls.errors import UserError
from ppcls.utils.files import require_plain, write_whole
from ppcls.utils.text import at_most, from_json, plural, quoted, visible
from ppcls.weights.formats import SAFETENSORS, check_count, parse
from ppcls.weights.pickles import Array, Items, Refused, Stored, checked_shape

# Where training scripts put the network in a larger checkpoint, the averaged one first.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")

STUDENT = "student"  # what learnt, in a checkpoint of several networks, in any case

SHOWN = 20  # entries that one message lists

WRAPPERS = 4  # so many names in front of a network's own are taken off, at most

# Paddle's own entries in a state dict: parameter names, and tensors cut up at 2**30 bytes.
PARAMETER_NAMES = "StructuredToParameterName@@"
RECORD = "ppcls"  # the metadata key of what a run's checkpoint says about itself
CUT_TENSORS = "UnpackBigParamInfor@@"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        tensors: name to read-only array in the file's order; floats are float32, others as stored.
        metadata: the texts in the header of a .safetensors file.
        kind: "pdparams", "torch", "safetensors" or "npz".
        notes: what was cast, chosen or left out, for the log.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    kind: str
    notes: tuple[str, ...]


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any supported kind; `path` may lack its `.pdparams`.

    Raises:
        UserError: no such file, not a checkpoint, damaged, asking to run code, without tensors, or
            with a tensor that holds NaN or infinity.
    """
    path = Path(path)
    try:
        path = find(path)
        with path.open("rb") as file:
            kind, tree, metadata = parse(file, path)
            entries, notes = select(tree, path)
            del tree
            entries, unwrapped = network_alone(entries)
            check_count(sum(math.prod(stored.shape) for stored in entries.values()), path)
            tensors, casts = load_all(entries, path)
    except UserError:
        raise
    except Refused as error:
        raise UserError(
            f"{path}: refused: {clip(error)}; only tensors in plain containers are read, "
            "so save the state dict alone, or as .safetensors"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or clip(error)}") from error
    except Exception as error:  # a damaged file can break its format at any point, in any way
        reason = f"{type(error).__name__} {clip(error)}".strip()
        raise UserError(
            f"{path}: cut short or damaged ({reason}); copy or download it again"
        ) from error
    return Checkpoint(tensors, metadata, kind, (*notes, *unwrapped, *casts))


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the header of a .safetensors file, {} of any other; no tensor is read."""
    if not os.path.isfile(path):  # a pipe would be waited for
        return {}
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except Exception:  # whatever is wrong with it, whoever reads its tensors says so
        return {}


def record_of(path: Path) -> dict[str, Any]:
    """What a run's checkpoint says about itself, {} of any other file; no tensor is read."""
    try:
        found = from_json(metadata_of(path).get(RECORD, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def clip(text: object) -> str:
    """At most 200 characters on one line: the text may come from a hostile file."""
    return visible(" ".join(str(text)[:1000].split()))


def find(path: Path) -> Path:
    """The file meant by `path`, or a UserError that suggests its neighbours."""
    for file in (path, path.parent / f"{path.name}.pdparams"):
        if os.path.exists(file):
            require_plain(file, seekable=True)
        if os.path.isfile(file):
            if not file.stat().st_size:
                raise UserError(f"{file}: is empty; copy or download it again")
            return file
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; name the checkpoint file in it")
    if not os.path.isdir(path.parent):
        raise UserError(f"{path}: no such file, nor a folder {path.parent}")
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), 3, 0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "check the path"
    raise UserError(f"{path}: no such file; {hint}")


def select(tree: Any, path: Path) -> tuple[dict[str, Stored], list[str]]:
    """The state dict in what was read, and notes of what is left out."""
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a {type_name(tree)}, not tensors by name")
    entries, others = split(tree)
    if entries:
        return entries, left_out(others)
    # One dict may stand under any number of keys: it is looked into once.
    found = {id(value): split(value) for value in distinct(others.values())}
    inner = {key: found[id(value)] for key, value in others.items() if id(value) in found}
    inner = {key: value for key, value in inner.items() if value[0]}
    if not inner:
        raise UserError(f"{path}: no tensors in it; its entries: {listing(others) or 'none'}")
    known = [key for key in NESTED if key in inner] or [key for key in inner if is_student(key)]
    if not known and len(inner) > 1:
        names = at_most(list(map(quoted, inner)))
        raise UserError(f"{path}: holds several state dicts ({names}); save one of them alone")
    key = (known or list(inner))[0]
    entries, inner_others = inner[key]
    del others[key]
    return entries, [f"read its entry {quoted(key)}", *left_out(others), *left_out(inner_others)]


def distinct(values: Iterable) -> Iterator[dict]:
    """The dicts among the values, each once."""
    seen = set()
    for value in values:
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            yield value


def is_student(name: Any) -> bool:
    return isinstance(name, str) and name.lower() == STUDENT


def network_alone(entries: dict[str, Stored]) -> tuple[dict[str, Stored], list[str]]:
    """The tensors of one network without what their names begin with, and notes about it.

    Of several networks that learnt together, as PaddleClas saves a distillation, the student's; a
    wrapper, as of data parallelism (`module.`, `_layers.`), is what all names have in front.
    """
    notes = []
    for _ in range(WRAPPERS):
        firsts = Counter(name.partition(".")[0] for name in entries)
        student = next((first for first in firsts if is_student(first)), None)
        first = student or next(iter(firsts), "")
        start = f"{first}."
        inner = {n.removeprefix(start): v for n, v in entries.items() if n.startswith(start)}
        whole = len(inner) == len(entries)
        if not inner or not all("." in name for name in inner) or not (whole or student):
            return entries, notes
        others = at_most([quoted(f"{other}.") for other in firsts if other != first])
        begin = quoted(start)
        if whole:
            notes.append(f"read without {begin}, with which all names begin")
        else:
            notes.append(
                f"read the {len(inner)} tensors whose names begin with {begin}, the network that "
                f"is taught; left out: {others}"
            )
        entries = inner
    return entries, notes


def split(tree: dict) -> tuple[dict[str, Stored], dict]:
    """The tensors of a state dict, its cut ones put together, and all other entries."""
    entries, others = {}, {}
    for name, value in tree.items():
        tensor = as_stored(value)
        if isinstance(name, str) and tensor:
            entries[name] = tensor
        else:
            others[name] = value
    others.pop(PARAMETER_NAMES, None)
    for name, layout in others.pop(CUT_TENSORS, Items()).items():
        slices = layout["slices"]
        if type(name) is not str or not all(type(part) is str for part in slices):
            raise ValueError("parts of a tensor that have no names")
        parts = [entries.pop(part) for part in slices]
        entries[name] = joined(parts, checked_shape(layout["OriginShape"]))
    return entries, others


def as_stored(value: Any) -> Stored | None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]  # a parameter's name and tensor, in a nested object of Paddle's
    if isinstance(value, Array):
        return value.stored
    return value if isinstance(value, Stored) else None


def joined(parts: list[Stored], shape: tuple[int, ...]) -> Stored:
    def numbers() -> np.ndarray:
        return np.concatenate([part.read() for part in parts]).reshape(shape)

    return Stored(parts[0].dtype, shape, numbers)


def left_out(others: Mapping) -> list[str]:
    return [f"left out, being no tensors: {listing(others)}"] if others else []


def listing(others: Mapping) -> str:
    """Up to twenty names and types."""
    shown = [f"{quoted(k)} ({type_name(v)})" for k, v in islice(others.items(), SHOWN)]
    return ", ".join(shown) + (f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else "")


def type_name(value: Any) -> str:
    return "dict" if isinstance(value, dict) else type(value).__name__


def load_all(
    entries: dict[str, Stored], source: str | Path
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the tensors and note their casts; empties `entries`, so that what was cast is freed.

    Raises:
        UserError: a tensor holds NaN or infinity.
    """
    tensors, casts, broken = {}, Counter(), []
    for name in list(entries):
        stored = entries.pop(name)
        tensors[name] = plain(stored)
        if tensors[name].dtype.name != stored.dtype:
            casts[stored.dtype] += 1
        if tensors[name].dtype.kind == "f" and not np.isfinite(tensors[name]).all():
            broken.append(name)
    if broken:
        names = ", ".join(map(quoted, broken[:3])) + (" …" if len(broken) > 3 else "")
        raise UserError(
            f"{source}: NaN or infinity in {len(broken)} of "
            f"{plural(len(tensors), 'tensor')} ({names}); "
            "use a checkpoint from before training diverged"
        )
    total = len(tensors)
    notes = [
        f"cast {n} of {plural(total, 'tensor')} from {dtype} to float32"
        for dtype, n in casts.items()
    ]
    return tensors, notes


def plain(stored: Stored) -> np.ndarray:
    """The tensor as a contiguous, native, read-only array, a float of any width as float32."""
    array = stored.read()
    if stored.dtype == "bfloat16":  # the upper half of a float32
        array = array.astype(np.uint32, order="C")
        array = np.left_shift(array, 16, out=array).view(np.float32)
    dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported as infinity
        array = array.astype(dtype, order="C", copy=False)
    array.flags.writeable = False
    return array


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write tensors of any numpy number type, in their order but wider types first; atomic.

    Raises:
        UserError: the file cannot be written; what stood at `path` is then still there.
    """
    names = {numpy_name: name for name, numpy_name in SAFETENSORS.items()}
    # Readers map the file, and want every tensor at a multiple of its item's size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in ordered:
        span = [end, end := end + array.nbytes]
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": array.shape,
            "data_offsets": span,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with write_whole(Path(path)) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            file.write(little.reshape(-1).view(np.uint8).data)


def write_pdparams(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write what `paddle.save` does for a state dict, so that `paddle.load` gives tensors; atomic.

    Raises:
        UserError: the file cannot be written; what stood at `path` is then still there.
    """
    names = {name: name for name in tensors}
    with write_whole(Path(path)) as file:
        pickle.dump({**tensors, PARAMETER_NAMES: names}, file, protocol=4)


def write_npz(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write numpy's archive of arrays; atomic.

    Raises:
        UserError: the file cannot be written; what stood at `path` is then still there.
    """
    with write_whole(Path(path)) as file:
        np.savez(file, **tensors)  # type: ignore[arg-type]

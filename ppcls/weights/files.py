"""Checkpoint files of all kinds, read safely, and safetensors written whole."""

import difflib
import io
import json
import math
import os
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import safe_open

from ppcls.utils.errors import UserError
from ppcls.utils.files import require_plain, write_whole
from ppcls.utils.text import at_most, from_json, plural, quoted, visible
from ppcls.weights import pickles
from ppcls.weights.pickles import Array, Items, Refused, Stored, bits, checked_shape, load

SHORTEST_MEMBER = 30  # bytes of a zip's member beside its name and content

SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}

# A pickle of protocol 2 or later, or the start of a dict or a name in the text of 0 and 1.
PICKLE = re.compile(rb"\x80[\x02-\x05]|\(d|\}[q(.]|c[\w.]+\n[\w.]+\n")


LONGEST_HEADER = 100_000_000  # bytes, as the safetensors package has it


def parse(file: BinaryIO, path: Path) -> tuple[str, Any, dict[str, str]]:
    """The file's kind, its object, and its metadata; `Stored` tensors need `file` to stay open.

    Raises:
        UserError: the content is of no known kind.
        Refused: it asks for more than plain data.
        Exception: of many kinds, where it is damaged.
    """
    head = file.read(200)
    file.seek(0)
    if head[:2] == b"PK":
        archive = zipfile.ZipFile(file)
        check_members(archive, path.stat().st_size)
        kind, tree = parse_zip(archive, path)
        return kind, tree, {}
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LONGEST_HEADER:
        return "safetensors", *parse_safetensors(file, path)
    if not PICKLE.match(head):
        raise not_a_checkpoint(path, f"begins with {head[:12]!r}")
    first = load(file)
    if type(first) is int and first == pickles.MAGIC:
        return "torch", pickles.load_stream(file), {}
    return "pdparams", first, {}


def not_a_checkpoint(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: not a checkpoint ({reason}); "
        "expected a .pdparams, .safetensors, .pth or .npz file"
    )


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """ValueError where members are not in the file, lie in each other, or have one name."""
    members = archive.infolist()
    if len(archive.NameToInfo) < len(members):
        raise ValueError("two members with one name")
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise ValueError(f"members that lie in each other: {quoted(member.filename)}")
        end = member.header_offset + SHORTEST_MEMBER + member.compress_size
        if end > size:
            raise EOFError(quoted(member.filename))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"its {quoted(member.filename)} is packed as no such file is")


def parse_zip(archive: zipfile.ZipFile, path: Path) -> tuple[str, Any]:
    names = archive.namelist()
    found = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(found) == 1:
        return "torch", pickles.load_zip(archive, found[0])
    if names and not any(name.endswith(".npy") for name in names):
        raise not_a_checkpoint(path, "a zip archive of something else")
    check_count(sum(info.file_size for info in archive.infolist()) // 4, path)
    return "npz", {name.removesuffix(".npy"): parse_npy(archive, name) for name in names}


def parse_npy(archive: zipfile.ZipFile, name: str) -> Any:
    """The array of numbers as `Stored`; text, complex numbers and other files as they are."""
    data = archive.read(name)
    if not name.endswith(".npy"):
        return data
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # of records alone, whose fields have names that are no latin-1
        return data
    if dtype.hasobject:
        raise Refused("it holds a numpy array of Python objects")
    if dtype.kind not in "biuf":
        return np.frombuffer(data, np.uint8)
    # What is declared is held against what is there before memory is taken for it.
    shape = checked_shape(shape)
    array = np.frombuffer(data, dtype, offset=file.tell()).reshape(
        shape, order="F" if fortran else "C"
    )
    return Stored(array.dtype.name, shape, lambda: array)


def check_count(count: int, path: Path) -> None:
    """Refuse small files that declare huge tensors: at most 16 bytes of float32 for a byte."""
    size = path.stat().st_size
    if count > 4 * size + 2**24:
        declared = plural(count, "number") if count < 2**64 else "more than 2**64 numbers"
        raise Refused(f"it declares {declared} in {plural(size, 'byte')}")


def parse_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The package checks the header; the numbers are read here, since numpy has no bfloat16."""
    with safe_open(path, framework="np"):
        pass
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    metadata = header.pop("__metadata__", None) or {}
    tree = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in SAFETENSORS:
            raise Refused(f"its tensor {quoted(name)} is of type {quoted(entry['dtype'])}")
        dtype = SAFETENSORS[entry["dtype"]]
        shape = checked_shape(entry["shape"])
        start = 8 + size + entry["data_offsets"][0]

        def numbers(dtype=dtype, shape=shape, start=start) -> np.ndarray:
            file.seek(start)
            return np.fromfile(file, bits(dtype), math.prod(shape)).reshape(shape)

        tree[name] = Stored(dtype, shape, numbers)
    return tree, metadata


# --------------------------------------------------------------------------
# Checkpoint files of Paddle, PyTorch, safetensors and numpy, read and written as plain numpy

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
    entries = {}
    others = {}
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
    tensors = {}
    casts = Counter()
    broken = []
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

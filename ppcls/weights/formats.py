"""What kind of checkpoint a file is, by its content, and its entries with tensors not yet read."""

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import safe_open

from ppcls.errors import UserError
from ppcls.utils.text import plural, quoted
from ppcls.weights import torch_files
from ppcls.weights.pickles import Refused, Stored, bits, checked_shape, load

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
    if type(first) is int and first == torch_files.MAGIC:
        return "torch", torch_files.load_stream(file), {}
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
        return "torch", torch_files.load_zip(archive, found[0])
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
        dtype, shape = SAFETENSORS[entry["dtype"]], checked_shape(entry["shape"])
        start = 8 + size + entry["data_offsets"][0]

        def numbers(dtype=dtype, shape=shape, start=start) -> np.ndarray:
            file.seek(start)
            return np.fromfile(file, bits(dtype), math.prod(shape)).reshape(shape)

        tree[name] = Stored(dtype, shape, numbers)
    return tree, metadata

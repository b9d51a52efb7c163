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
from ppcls.utils.text import plural
from ppcls.weights import torch_files
from ppcls.weights.pickles import Refused, Stored, bits, load

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
        kind, tree = parse_zip(zipfile.ZipFile(file), path)
        return kind, tree, {}
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27:
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


def parse_zip(archive: zipfile.ZipFile, path: Path) -> tuple[str, Any]:
    names = archive.namelist()
    pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(pickles) == 1:
        return "torch", torch_files.load_zip(archive, pickles[0])
    if names and not any(name.endswith(".npy") for name in names):
        raise not_a_checkpoint(path, "a zip archive of something else")
    check_count(sum(info.file_size for info in archive.infolist()) // 4, path)
    return "npz", {name.removesuffix(".npy"): parse_npy(archive, name) for name in names}


def parse_npy(archive: zipfile.ZipFile, name: str) -> Any:
    """The array of numbers as `Stored`; text, complex numbers and other files as they are."""
    if not name.endswith(".npy"):
        return archive.read(name)
    try:
        array = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise Refused("it holds a numpy array of Python objects") from error
        raise
    numbers = array.dtype.kind in "biuf"
    return Stored(array.dtype.name, array.shape, lambda: array) if numbers else array


def check_count(count: int, path: Path) -> None:
    """Refuse small files that declare huge tensors: at most 16 bytes of float32 for a byte."""
    size = path.stat().st_size
    if count > 4 * size + 2**24:
        raise Refused(f"it declares {plural(count, 'number')} in {plural(size, 'byte')}")


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
            raise Refused(f"its tensor {name!r} is of type {entry['dtype']}")
        dtype, shape = SAFETENSORS[entry["dtype"]], tuple(entry["shape"])
        start = 8 + size + entry["data_offsets"][0]

        def numbers(dtype=dtype, shape=shape, start=start) -> np.ndarray:
            file.seek(start)
            return np.fromfile(file, bits(dtype), math.prod(shape)).reshape(shape)

        tree[name] = Stored(dtype, shape, numbers)
    return tree, metadata

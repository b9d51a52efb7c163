"""Pickles and PyTorch files read as inert data, without a call into their code.

Pickles read as inert data: containers, numbers, text and arrays, without a call into their code.

A name in a pickle is looked up in a closed table of stand-ins of our own; the real `numpy.dtype`,
`_codecs.encode` and so on are never reached. The unpickler is the one Python has in Python, because
opcodes can be taken away from it: no instances, no extension registry, no sets, and no state set
on anything but a stand-in. Its memo is a dict too, where ten bytes make the C one take 64 GB. And
its work can be counted, which `pickle.Unpickler` with its `find_class` cannot do: one opcode of two
bytes may copy all that the file holds. No more opcodes than MOST_STEPS are done, and what calls
copy is bounded by the file's size.
"""

import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from ppcls.utils.text import plural, quoted

# Opcodes of one pickle: a tensor takes about 40, the largest checkpoints have some 5,000 tensors.
MOST_STEPS = 1_000_000
# Items and bytes that calls of a pickle may copy, for each of its bytes, and besides. numpy's
# arrays in protocols 0 to 2 are text that is encoded once; nothing else of real files is copied.
COPIES = 2
MORE_COPIES = 1 << 20
MOST_DIMENSIONS = 32  # of a tensor; numpy had no more before its version 2


class Refused(Exception):  # noqa: N818
    """The file asks for something other than plain data; the text says for what."""


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint: what is declared, and `read()` for its values.

    `dtype` is numpy's name or "bfloat16", whose bits `read` gives as uint16.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def bits(dtype: str) -> np.dtype:
    """The little-endian numpy type that holds a `Stored.dtype`."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


class Items(dict):
    """A dict or OrderedDict of the file. Hashing a deep tuple can crash Python: keys are plain."""

    def __init__(self, pairs: Iterable = ()):
        super().__init__()
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key, value):
        if not isinstance(key, (str, bytes, int, float, type(None))):
            raise Refused(f"its pickle uses a {type(key).__name__} as a key")
        if isinstance(key, int) and key.bit_length() > 64:  # whose hash is computed each time
            raise Refused(f"its pickle uses {quoted(key)} as a key")
        super().__setitem__(key, value)

    def set_state(self, state: Any) -> None:
        """Attributes of an OrderedDict, such as the `_metadata` that torch adds, are not needed."""


class NumberType:
    """Stands in for `numpy.dtype`: booleans, integers, floats; no objects, no text, no records."""

    def __init__(self, code: Any, align: Any = None, copy: Any = None):
        if not (isinstance(code, str) and re.fullmatch("[biuf][1248]", code)):
            raise Refused(f"it holds a numpy array of type {quoted(code)}, not of numbers")
        self.numpy = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """State: version, byte order, subtype, names, fields, and more that numbers do not use."""
        if any(part is not None for part in state[2:5]):
            raise Refused("it holds a numpy array of records")
        if type(state[1]) is not str or state[1] not in tuple("<>|="):
            raise ValueError("a byte order that is none")
        self.numpy = self.numpy.newbyteorder(state[1])


class Array:
    """Stands in for `numpy.ndarray`, which is made empty and then given its state."""

    def __init__(self, *arguments: Any):
        self.stored: Stored | None = None

    def set_state(self, state: Any) -> None:
        """State: version, shape, type, whether in Fortran order, bytes or their latin-1 text."""
        _, shape, kind, fortran, data = state
        self.stored = from_bytes(data, kind, shape, "F" if fortran else "C")


class Scalar:
    """Stands in for a numpy scalar, whose value nobody needs."""

    def __init__(self, kind: Any, data: Any = b""):
        pass


def checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape as a tuple, or ValueError where it is too long or a size is no sane integer."""
    if type(shape) not in (tuple, list) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"a shape of more than {MOST_DIMENSIONS} dimensions, or none")
    if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise ValueError("a shape that is no shape")
    return tuple(shape)


def from_bytes(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> Stored:
    """What numpy asks for in protocol 5; numpy refuses bytes that do not fit the shape."""
    data = encode(data, "latin1") if isinstance(data, str) else data
    shape = checked_shape(shape)
    array = np.frombuffer(data, kind.numpy).reshape(shape, order="F" if order == "F" else "C")
    if axes is not None:
        array = array.transpose(checked_shape(axes))
    # Paddle has no uint16: it writes the bits of bfloat16 under that name.
    dtype = "bfloat16" if array.dtype.name == "uint16" else array.dtype.name
    return Stored(dtype, array.shape, lambda: array)


def encode(text: Any, codec: Any) -> bytes:
    """How protocols 0 to 2 write bytes."""
    if codec != "latin1":
        raise Refused(f"its pickle encodes text as {quoted(codec)}")
    return str.encode(text, "latin1")


def empty_bytes() -> bytes:
    """How protocols 0 to 2 write no bytes."""
    return b""


def plain_tuple(items: Any) -> tuple:
    """How `paddle.save` writes a tensor in a nested object: the tuple of its name and array."""
    return tuple(items)


PLAIN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Items,
    ("builtins", "tuple"): plain_tuple,
    ("__builtin__", "tuple"): plain_tuple,
    ("builtins", "bytes"): empty_bytes,
    ("__builtin__", "bytes"): empty_bytes,
    ("_codecs", "encode"): encode,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): NumberType,
    # numpy 1, then numpy 2
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.multiarray", "scalar"): Scalar,
    ("numpy._core.multiarray", "scalar"): Scalar,
    ("numpy.core.numeric", "_frombuffer"): from_bytes,
    ("numpy._core.numeric", "_frombuffer"): from_bytes,
}


def load(
    file: BinaryIO,
    names: Mapping[tuple[str, str], Any] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The next pickle in the file, of any protocol, leaving the file just behind it.

    Args:
        names: stand-ins for further (module, name) pairs.
        persistent: gives the object for a persistent id; without it such ids are refused.

    Raises:
        Refused: it asks for anything else.
        Exception: of many kinds, where the pickle is damaged.
    """
    bounded = Within(file)
    unpickler = InertUnpickler(bounded, encoding="latin1")
    unpickler.dispatch = Counted(InertUnpickler.dispatch)  # type: ignore
    unpickler.copies = COPIES * bounded.size + MORE_COPIES
    unpickler.names = {**PLAIN, **(names or {})}
    unpickler.persistent = persistent
    return unpickler.load()


class Within:
    """A file whose reads are held against what is left of it, before memory is taken for them."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.readline = file.readline
        start = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        self.size = self.end - file.seek(start)

    def read(self, size: int) -> bytes:
        if size > self.size and size > self.end - self.file.tell():
            raise EOFError
        return self.file.read(size)


class Counted:
    """The functions of the opcodes, as many times as MOST_STEPS."""

    def __init__(self, functions: Mapping[int, Any]):
        self.functions = functions
        self.steps = 0

    def __getitem__(self, opcode: int) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Refused(f"its pickle takes more than {plural(MOST_STEPS, 'step')}")
        return self.functions[opcode]


def extent(value: Any) -> int:
    """How many items or bytes there are to copy of a value, those of its own items left out."""
    return len(value) if isinstance(value, (str, bytes, bytearray, list, tuple, dict)) else 0


class InertUnpickler(pickle._Unpickler):
    """Python's unpickler with a closed table of names and fewer opcodes; see `load`."""

    names: Mapping[tuple[str, str], Any]
    persistent: Callable[[Any], Any] | None
    copies: int  # that may still be made
    # Set by the base class, whose stubs leave them out.
    stack: list
    pop_mark: Callable[[], list]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise Refused(f"its pickle asks for {quoted(f'{module}.{name}')}")
        return self.names[module, name]

    def load_global(self) -> None:
        module = self.readline()
        name = self.readline()
        if not name.endswith(b"\n"):  # a file cut short here would seem to ask for something odd
            raise EOFError
        self.stack.append(self.find_class(module[:-1].decode(), name[:-1].decode()))

    def spend(self, given: Any) -> None:
        """Count what a call may copy: what it is given, and what is in that."""
        self.copies -= extent(given)
        if self.copies >= 0 and isinstance(given, (list, tuple)):
            self.copies -= sum(map(extent, given))
        if self.copies < 0:
            raise Refused("its pickle copies what it holds again and again")

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.spend(arguments)
        self.stack[-1] = self.stack[-1](*arguments)

    def persistent_load(self, pid: Any) -> Any:
        if not self.persistent:
            raise Refused("its pickle refers to objects outside itself")
        self.spend(pid)
        return self.persistent(pid)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (Items, NumberType, Array)):
            raise Refused(f"its pickle sets the state of a {type(self.stack[-1]).__name__}")
        if not isinstance(self.stack[-1], Items):
            self.spend(state)
        self.stack[-1].set_state(state)

    def load_empty_dict(self) -> None:
        self.stack.append(Items())

    def load_dict(self) -> None:
        values = self.pop_mark()
        self.stack.append(Items(zip(values[::2], values[1::2], strict=True)))

    def load_bytearray(self) -> None:
        # Reading first keeps a false length from being filled with zeros.
        (size,) = struct.unpack("<Q", self.read(8))
        self.stack.append(self.read(size))

    def refuse(self) -> None:
        raise Refused("its pickle makes sets or instances of classes")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.GLOBAL[0]: load_global,
        pickle.BUILD[0]: load_build,
        pickle.EMPTY_DICT[0]: load_empty_dict,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray,
        **dict.fromkeys(
            (
                *(pickle.INST[0], pickle.OBJ[0], pickle.NEWOBJ[0], pickle.NEWOBJ_EX[0]),
                *(pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]),
                *(pickle.EMPTY_SET[0], pickle.ADDITEMS[0], pickle.FROZENSET[0]),
            ),
            refuse,
        ),
    }


# --------------------------------------------------------------------------
# PyTorch's two file layouts, read without PyTorch: the zip of 1.6 and later, and the older stream

FETCHES = 4  # times that the bytes of a file may be read for its tensors

# The first object of the older layout.
MAGIC = 0x1950A86A20F9469CFC6C

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True)
class Storage:
    """A run of `size` numbers in the file."""

    dtype: str
    key: str
    size: int


class Storages:
    """Stand-ins for what a torch pickle names; `fetch(storage)` gives a storage's bytes.

    Args:
        size: bytes of the file, of which a few times as many are fetched at most.
    """

    def __init__(self, fetch: Callable[[Storage], bytes], size: int):
        self.fetch = fetch
        self.left = FETCHES * size
        self.last: np.ndarray | None = None  # kept: many tensors may be views of one storage
        self.little_endian = True
        self.known: dict[str, Storage] = {}
        self.cache: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()

    def load(self, file: BinaryIO) -> Any:
        names = {("torch", name): dtype for name, dtype in STORAGES.items()}
        names |= {
            ("torch._utils", "_rebuild_tensor"): self.tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): parameter,
        }
        return load(file, names, self.storage)

    def storage(self, persistent_id: Any) -> Storage:
        """The id is ("storage", type, key, device, size) and, in the older layout, a view of it."""
        word, dtype, key, _, size, *view = persistent_id
        known = type(word) is str and type(dtype) is str and dtype in STORAGES.values()
        if not known or word != "storage" or any(part is not None for part in view):
            raise Refused(f"it stores a {quoted(word)} of a kind that is not read")
        checked_shape((size,))
        storage = Storage(dtype, storage_key(key), size)
        if self.known.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {quoted(key)} is declared in two ways")
        return storage

    def tensor(self, storage: Storage, offset: int, shape: Any, strides: Any, *more: Any) -> Stored:
        """`more`: requires_grad, hooks and, where a sign or conjugate is pending, flags."""
        if len(more) > 2 and more[2]:
            raise Refused("it holds a tensor with a negation or conjugation pending")
        if type(storage) is not Storage:
            raise ValueError("a tensor without a storage")
        itemsize = bits(storage.dtype).itemsize
        checked_shape((offset,))
        step = [stride * itemsize for stride in checked_shape(strides)]
        shape = checked_shape(shape)

        def read() -> np.ndarray:
            base = self.numbers(storage)
            # numpy checks that the view stays inside its buffer.
            return np.ndarray(shape, base.dtype, base, offset * itemsize, step)

        return Stored(storage.dtype, shape, read)

    def numbers(self, storage: Storage) -> np.ndarray:
        base = self.cache.get(storage.key)
        if base is None:
            dtype = bits(storage.dtype)
            self.left -= storage.size * dtype.itemsize
            if self.left < 0:
                raise Refused("its tensors take turns with storages that have to be read each time")
            data = self.fetch(storage)
            if len(data) != storage.size * dtype.itemsize:
                raise ValueError(f"storage {quoted(storage.key)} has {plural(len(data), 'byte')}")
            base = np.frombuffer(data, dtype if self.little_endian else dtype.newbyteorder(">"))
            self.cache[storage.key] = base
        self.last = base
        return base


def storage_key(key: Any) -> str:
    """The name of a storage, which older versions wrote as a number."""
    if type(key) is int and 0 <= key < 2**64:
        return str(key)
    if type(key) is not str:
        raise ValueError("a storage's key that is no text")
    return key


def parameter(data: Any, *more: Any) -> Any:
    """A parameter is its tensor; `more` is requires_grad and hooks."""
    return data


def load_zip(archive: zipfile.ZipFile, pickle_name: str) -> Any:
    """The object in the zip layout; its tensors can be read while `archive` is open."""
    root = pickle_name.removesuffix("data.pkl")
    size = sum(info.file_size for info in archive.infolist())
    storages = Storages(lambda storage: stored(archive, f"{root}data/{storage.key}"), size)
    if f"{root}byteorder" in archive.namelist():
        storages.little_endian = stored(archive, f"{root}byteorder") != b"big"
    return storages.load(io.BytesIO(stored(archive, pickle_name)))


def stored(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise Refused(f"its {quoted(name)} is compressed, which PyTorch never does")
    return archive.read(name)


def load_stream(file: BinaryIO) -> Any:
    """The object in the older layout, behind its magic number; the tensors need `file` open."""
    places: dict[str, int] = {}
    start = file.tell()

    def fetch(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.size * bits(storage.dtype).itemsize)

    size = file.seek(0, io.SEEK_END)
    file.seek(start)
    storages = Storages(fetch, size)
    load(file)  # the version of the layout, always 1001
    storages.little_endian = load(file)["little_endian"]
    value = storages.load(file)
    order = "<q" if storages.little_endian else ">q"
    keys = load(file)
    if type(keys) is not list:
        raise ValueError("a list of storages that is none")
    for key in keys:
        storage = storages.known[storage_key(key)]
        (size,) = struct.unpack(order, file.read(8))
        if size != storage.size:
            raise ValueError(f"storage {quoted(key)} has {size} numbers, not {storage.size}")
        places[storage.key] = file.tell()
        end = file.seek(size * bits(storage.dtype).itemsize, io.SEEK_CUR)
        if end > file.seek(0, io.SEEK_END):
            raise EOFError
        file.seek(end)
    return value

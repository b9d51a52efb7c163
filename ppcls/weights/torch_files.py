"""PyTorch's two file layouts, read without PyTorch: the zip of 1.6 and later, and the older stream.

Both hold a pickle whose tensors name a storage by key, and the raw storages beside it. A storage is
read when a tensor of it is, and shared while the tensors that view it live.
"""

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import numpy as np

from ppcls.utils.text import plural, quoted
from ppcls.weights.pickles import Refused, Stored, bits, checked_shape, load

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

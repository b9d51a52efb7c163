"""`.pdiparams` files: what is where, and whether all is there.

Paddle itself loads one that is cut short without a word.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ppcls.errors import UserError

# Bytes of a number, by Paddle's code of its type: bool, int16/32/64, float16/32/64, (u)int8, bf16.
BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2}

MOST_DIMENSIONS = 32  # of a tensor; Paddle has no more than 9


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's numbers are in the file."""

    dims: tuple[int, ...]
    bytes_each: int
    start: int

    @property
    def bytes(self) -> int:
        return self.bytes_each * math.prod(self.dims)


def check(path: Path) -> None:
    """Refuse a file that ends inside a tensor, or holds none.

    Raises:
        UserError: so it is.
    """
    size, end = path.stat().st_size, 0
    for tensor in walk(path):
        if tensor is None:
            return  # Paddle may know it
        end = tensor.start + tensor.bytes
    if not size or end != size:
        raise UserError(f"{path}: cut short, {size} bytes are there; export it or copy it again")


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a whole file, in its order."""
    for tensor in walk(path):
        if tensor is None:
            raise UserError(f"{path}: has a kind of tensor that is not known here")
        yield tensor


def walk(path: Path) -> Iterator[Tensor | None]:
    """The tensors in order, of which the last may end after the file; None, and no more, where one
    is of a kind not known here.
    """
    end, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            tensor = next_tensor(file)
            yield tensor
            if tensor is None:
                return
            end = tensor.start + tensor.bytes


def next_tensor(file: BinaryIO) -> Tensor | None:
    """The tensor that starts here; None for one of an unknown kind.

    It is: uint32 0, uint64 0 (no sequences), uint32 0, int32 length of its description, that
    description (a protocol buffer: 1 is its type, 2 its dimensions), its numbers.
    """
    head = file.read(20)
    if len(head) < 20:
        return Tensor((1,), 1, file.tell())  # ends after the file does
    version, sequences, tensor_version, length = struct.unpack("<IQIi", head)
    if version or sequences or tensor_version or not 0 <= length < 1 << 16:
        return None
    kind, dims, message = None, [], file.read(length)
    if len(message) < length:
        return Tensor((1,), 1, file.tell())
    for field, value in numbers(message):
        if field == 1:
            kind = value
        elif field == 2:
            dims.append(value)
        if len(dims) > MOST_DIMENSIONS:
            return None
    return Tensor(tuple(dims), BYTES[kind], file.tell()) if kind in BYTES else None


def numbers(message: bytes) -> Iterator[tuple[int, int]]:
    """(field, value) of a protocol buffer of plain and packed numbers."""
    place = 0
    while place < len(message):
        key, place = number(message, place)
        if key & 7 == 2:  # packed
            length, place = number(message, place)
            end = min(place + length, len(message))
            while place < end:
                value, place = number(message, place)
                yield key >> 3, value
        else:
            value, place = number(message, place)
            yield key >> 3, value


def number(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128 or shift > 63:  # it has ten bytes at most
            break
    return value, place

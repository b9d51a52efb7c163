"""What an ONNX file says of itself, without ONNX's own package: the texts in it, and its inputs.

A file of ours has its `inference.yml` among its texts, so that it says what it is wherever it is
moved, and what programs of others need, as JSON (`Manifest.to_texts`).
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ppcls.utils.errors import UserError

KEY = "ppcls"
PROPERTIES = 14  # the field of a model's protocol buffer with a key and a value for each text
GRAPH, GIVEN = 7, 11  # the fields with the network, and in it with each of its inputs
NAME, TYPE = 1, 2  # of an input
SIDES = (1, 2, 1)  # the way in its type to each side: of the tensor, its shape, a dimension
SIZE = 1  # of a side that is not free
VARINT, EIGHT, TEXT, FOUR = 0, 1, 2, 5  # how a field's value is written
LONGEST = 1 << 24  # bytes of an entry
LONGEST_NUMBER = 10  # bytes
LARGEST = 1 << 31  # above all sizes


def read(path: Path) -> str | None:
    """The text of ours, the last one there; None where the file has none, or is no ONNX file.

    The weights in it are passed over, not read.
    """
    found = None
    try:
        with path.open("rb") as file:
            for field, kind, value in entries(file, os.fstat(file.fileno()).st_size):
                if field == PROPERTIES and kind == TEXT and value <= LONGEST:
                    parts = dict(fields(file.read(value)))
                    if parts.get(1) == KEY.encode():
                        found = parts.get(2, b"")
    except (ValueError, IndexError, OverflowError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return None if found is None else found.decode("utf-8", "replace")


def inputs(path: Path) -> dict[str, tuple[int | None, ...]]:
    """What the network takes, by name: the size of each side, None where any will do. {} where the
    file is no ONNX file. The weights are passed over, as `read` does.
    """
    found = {}
    try:
        with path.open("rb") as file:
            for end in inside(file, os.fstat(file.fileno()).st_size, GRAPH, GIVEN):
                name = ""
                sides: tuple[int | None, ...] = ()
                for field, kind, value in entries(file, end):
                    if field == NAME and kind == TEXT and value <= LONGEST:
                        name = file.read(value).decode("utf-8", "replace")
                    elif field == TYPE and kind == TEXT:
                        ends = inside(file, file.tell() + value, *SIDES)
                        sides = tuple(side(file, last) for last in ends)
                found[name] = sides
    except (ValueError, IndexError, OverflowError):
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return found


def side(file: BinaryIO, end: int) -> int | None:
    """The size of a side, whose entry begins here; None: it is free."""
    sizes = [value for field, kind, value in entries(file, end) if (field, kind) == (SIZE, VARINT)]
    return sizes[-1] if sizes and 0 < sizes[-1] < LARGEST else None


def add(path: Path, texts: Mapping[str, str]) -> None:
    """Give the file texts by their keys: fields of a protocol buffer may stand in any order."""
    written = bytearray()
    for pair in texts.items():
        entry = b"".join(
            encoded(number << 3 | TEXT) + encoded(len(part)) + part
            for number, part in enumerate((p.encode("utf-8", "surrogateescape") for p in pair), 1)
        )
        written += encoded(PROPERTIES << 3 | TEXT) + encoded(len(entry)) + entry
    with path.open("ab") as file:
        file.write(written)


def entries(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields up to `end`: number, kind, and its number or, of a text, how long it is; the file
    then stands where it begins, and may be read from.

    Raises:
        ValueError: this is no protocol buffer.
    """
    place = file.tell()
    while place < end:
        file.seek(place)
        key = number(file)
        field, kind = key >> 3, key & 7
        value = number(file) if kind in (VARINT, TEXT) else 0
        place = file.tell()
        if kind == TEXT:
            place += value
        elif kind in (EIGHT, FOUR):
            place += 8 if kind == EIGHT else 4
        elif kind != VARINT:
            raise ValueError(key)
        yield field, kind, value


def inside(file: BinaryIO, end: int, *fields: int) -> Iterator[int]:
    """The ends of the entries that lie in these fields, one in the other; the file then stands at
    the beginning of each.
    """
    for field, kind, value in entries(file, end):
        if field == fields[0] and kind == TEXT:
            last = file.tell() + value
            if fields[1:]:
                yield from inside(file, last, *fields[1:])
            else:
                yield last


def number(file: BinaryIO) -> int:
    """A number of seven bits a byte, the lowest first."""
    value = 0
    for place in range(LONGEST_NUMBER):
        byte = file.read(1)[0]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value
    raise ValueError(value)


def fields(entry: bytes) -> list[tuple[int, bytes]]:
    """The texts of an entry by field."""
    found = []
    place = 0
    while place < len(entry):
        length = entry[place + 1] & 127
        after = place + 2
        shift = 7
        while entry[after - 1] >= 128:
            length |= (entry[after] & 127) << shift
            shift += 7
            after += 1
        found.append((entry[place] >> 3, entry[after : after + length]))
        place = after + length
    return found


def encoded(value: int) -> bytes:
    result = bytearray()
    while value >= 128:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)

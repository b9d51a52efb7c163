"""The texts that an ONNX file carries with it, read and added without ONNX's own package.

A file of ours has its `inference.yml` among them, so that it says what it is wherever it is moved,
and what programs of others need, as JSON (`Manifest.to_texts`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ppcls.utils.errors import UserError

KEY = "ppcls"
PROPERTIES = 14  # the field of a model's protocol buffer with a key and a value for each text
VARINT, EIGHT, TEXT, FOUR = 0, 1, 2, 5  # how a field's value is written
LONGEST = 1 << 24  # bytes of an entry
LONGEST_NUMBER = 10  # bytes


def read(path: Path) -> str | None:
    """The text of ours, the last one there; None where the file has none, or is no ONNX file.

    The weights in it are passed over, not read.
    """
    found = None
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while (place := file.tell()) < size:
                field, entry = next_field(file)
                if entry is not None and field == PROPERTIES:
                    parts = dict(fields(entry))
                    if parts.get(1) == KEY.encode():
                        found = parts.get(2, b"")
                if file.tell() <= place:
                    break
    except (ValueError, IndexError, OverflowError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return None if found is None else found.decode("utf-8", "replace")


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


def next_field(file: BinaryIO) -> tuple[int, bytes | None]:
    """The number of the field that begins here and, where it is an entry, its bytes.

    Raises:
        ValueError: this is no protocol buffer.
    """
    key = number(file)
    field, kind = key >> 3, key & 7
    if kind == TEXT:
        length = number(file)
        if field == PROPERTIES and length <= LONGEST:
            return field, file.read(length)
        file.seek(length, os.SEEK_CUR)
    elif kind == VARINT:
        number(file)
    elif kind in (EIGHT, FOUR):
        file.seek(8 if kind == EIGHT else 4, os.SEEK_CUR)
    else:
        raise ValueError(key)
    return field, None


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

"""Messages between the process that speaks HTTP and its workers: a JSON header, then bytes.

On a stream: uint32 length of the header, uint32 length of the bytes, both little-endian; the
header; the bytes. The header's `kind` says what it is:

- to a worker: `open` (what to serve), `images` or `tensor` (a request), `cancel`, `end`;
- from it: `ready` or `failed`, `answers` (of whole requests), `beat` (it lives).
"""

import asyncio
import json
import socket
import struct
from typing import Any

LENGTHS = struct.Struct("<II")
LONGEST = (1 << 32) - 1  # bytes behind a header


def encode(header: dict[str, Any], *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """A message in pieces, to be sent one after the other."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return [LENGTHS.pack(len(text), sum(map(len, parts))) + text, *parts]


async def read(stream: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next message.

    Raises:
        EOFError: the other side is gone.
    """
    try:
        header, rest = LENGTHS.unpack(await stream.readexactly(LENGTHS.size))
        text = await stream.readexactly(header)
        return json.loads(text), await stream.readexactly(rest) if rest else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError from None


def receive(connection: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """As `read`, waiting in the calling thread."""
    header, rest = LENGTHS.unpack(receive_exactly(connection, LENGTHS.size))
    text = receive_exactly(connection, header)
    return json.loads(bytes(text)), receive_exactly(connection, rest)


def receive_exactly(connection: socket.socket, count: int) -> memoryview:
    found = memoryview(bytearray(count))
    place = 0
    while place < count:
        try:
            came = connection.recv_into(found[place:])
        except ConnectionError:
            came = 0
        if not came:
            raise EOFError
        place += came
    return found

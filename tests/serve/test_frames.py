"""Messages between the processes of a service: what goes in comes out, in pieces of any size."""

import asyncio
import socket
import threading

import pytest

from ppcls.serve import frames

MESSAGES = [
    ({"kind": "end"}, b""),
    ({"kind": "images", "sizes": [1, 0, 3], "topk": None, "text": "蚂蚁 \n"}, b"\0abc"),
    ({"kind": "tensor", "shape": [1, 3]}, bytes(range(256)) * 4000),
]


def whole(header, rest):
    return b"".join(frames.encode(header, rest))


def test_a_thread_reads_what_was_written():
    here, there = socket.socketpair()
    data = b"".join(whole(*message) for message in MESSAGES)
    writer = threading.Thread(target=here.sendall, args=(data,))
    writer.start()
    for header, rest in MESSAGES:
        found, bytes_found = frames.receive(there)
        assert found == header
        assert bytes(bytes_found) == rest
    writer.join()
    here.close()
    with pytest.raises(EOFError):
        frames.receive(there)
    there.close()


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_task_reads_what_comes_in_pieces(size):
    async def read_all():
        stream = asyncio.StreamReader()
        data = b"".join(whole(*message) for message in MESSAGES[:2])
        for start in range(0, len(data), size):
            stream.feed_data(data[start : start + size])
        stream.feed_eof()
        found = [await frames.read(stream) for _ in MESSAGES[:2]]
        with pytest.raises(EOFError):
            await frames.read(stream)
        return found

    assert asyncio.run(read_all()) == MESSAGES[:2]


def test_several_parts_are_one_after_the_other():
    async def read(pieces):
        stream = asyncio.StreamReader()
        for piece in pieces:
            stream.feed_data(piece)
        return await frames.read(stream)

    pieces = frames.encode({"sizes": [2, 3]}, b"ab", memoryview(b"cde"))
    assert asyncio.run(read(pieces)) == ({"sizes": [2, 3]}, b"abcde")


@pytest.mark.parametrize("left", [1, 8, 9, 20])
def test_an_end_within_a_message_is_the_end(left):
    """A process that is killed while it writes leaves a beginning."""
    data = whole({"kind": "answers"}, b"0123456789")[:left]

    async def read():
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        await frames.read(stream)

    with pytest.raises(EOFError):
        asyncio.run(read())
    here, there = socket.socketpair()
    here.sendall(data)
    here.close()
    with pytest.raises(EOFError):
        frames.receive(there)
    there.close()

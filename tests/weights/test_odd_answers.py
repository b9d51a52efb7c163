"""Addresses that are none and answers that nobody asked for: one line each, soon."""

import re
import socket
import threading
from contextlib import closing

import numpy as np
import pytest
from safetensors.numpy import save

from ppcls import create_model
from ppcls.recipe import Data
from ppcls.train.open_data import open_part
from ppcls.utils.errors import UserError
from ppcls.utils.web import Patience
from ppcls.weights.download import fetch

ADDRESSES = [
    "http://a..b/x.pdparams",
    "http://" + "a" * 70 + ".example/x.pdparams",
    "http://.example/x.pdparams",
    "http://127.0.0.1:99999/x.pdparams",
    "http://127.0.0.1:²/x.pdparams",
    "http://127.0.0.1:-1/x.pdparams",
    "http://[::1/x.pdparams",
    "http://[zz]/x.pdparams",
    "http:///x.pdparams",
    "http://\udcff/x.pdparams",
    "http://h/\udcff.pdparams",
    "http://h\0/x.pdparams",
    "http://h/",
    "http://\u2100/x.pdparams",
    # the system is asked for it, and asked again after a while
    pytest.param("https://xn--/x.pdparams", marks=pytest.mark.slow),
    "hf://a",
    "hf://a/b\0",
    "hf:///",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(web, monkeypatch, address):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        create_model("ResNet18", weights=address)
    text = str(caught.value)
    assert len(text) < 2000
    assert len(text.splitlines()) == 1
    if address.startswith("http"):
        with pytest.raises(UserError):
            open_part("data.train", address.replace("pdparams", "tar"), Data(), multilabel=False)


HEAD = "Content-Length: 4\r\nConnection: close\r\n\r\nbody"
ANSWERS = {
    "206 with an odd range": f"206 Partial Content\r\nContent-Range: bytes 7-9/20\r\n{HEAD}",
    "206 without a range": f"206 Partial Content\r\n{HEAD}",
    "206 of digits": f"206 Partial Content\r\nContent-Range: bytes {'9' * 400}-1/*\r\n{HEAD}",
    "206 of all": f"206 Partial Content\r\nContent-Range: bytes 0-3/4\r\n{HEAD}",
    "416": f"416 Range Not Satisfiable\r\nContent-Range: bytes */²\r\n{HEAD}",
    "a page": f"200 OK\r\nContent-Type: text/html\r\n{HEAD}",
    "nothing": "200 OK\r\nContent-Length: 0\r\n\r\n",
    "nothing at all": "",
    "no status": "x\r\n\r\n",
    "a status of letters": "2²0 OK\r\n\r\n",
    "length of letters": "200 OK\r\nContent-Length: ²\r\n\r\n<html>",
    "length below nothing": "200 OK\r\nContent-Length: -5\r\n\r\n<html>",
    "length without end": f"200 OK\r\nContent-Length: {'9' * 400}\r\n\r\n<html>",
    "a reason with an escape": f"404 \x1b[31mred\r\n{HEAD}",
    "another scheme": "302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "a host that is none": "302 Found\r\nLocation: http://a..b/\r\nContent-Length: 0\r\n\r\n",
    "a bracket": "302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
    "a port": "302 Found\r\nLocation: http://h:99999/\r\nContent-Length: 0\r\n\r\n",
    "no place": "302 Found\r\nContent-Length: 0\r\n\r\n",
    "itself": "302 Found\r\nLocation: /x.pdparams\r\nContent-Length: 0\r\n\r\n",
    "packed, but not": f"200 OK\r\nContent-Encoding: gzip\r\n{HEAD}",
    "chunks that are none": "200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a long header": "200 OK\r\nX: " + "y" * 100_000 + "\r\n\r\n",
    "many headers": "200 OK\r\n" + "X: y\r\n" * 300 + "\r\n",
}


@pytest.fixture
def answering():
    """A server that answers every request with the same bytes; its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(text):
        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(10_000)
                    connection.sendall(text.encode("latin-1") if text else b"")

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/x.pdparams"

    yield answer
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(web, answering, name):
    text = ANSWERS[name]
    url = answering(f"HTTP/1.1 {text}" if text else "")

    def download_and_read():
        fetch(url, patience=Patience(pauses=(0, 0, 0)))
        create_model("ResNet18", weights=url)  # of the file, where there was one

    with pytest.raises(UserError) as caught:
        download_and_read()
    assert str(caught.value).startswith(url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_a_download_that_was_begun_and_noted_oddly_begins_anew(web, tmp_path):
    web.body = save({"head.weight": np.zeros([2, 3], np.float32)})
    url = web.url("x.safetensors")
    for note in ("[" * 100_000, "[1]", '{"etag": "\\"1\\""}', '{"etag": 5, "size": "x"}', "\xff"):
        with pytest.raises(UserError, match=r"x\.safetensors"):  # it is no ResNet18's
            create_model("ResNet18", weights=url)
        (file,) = tmp_path.rglob("x.safetensors")
        assert file.read_bytes() == web.body
        for kept in file.parent.iterdir():
            kept.unlink()
        file.with_name("x.safetensors.part").write_bytes(b"half")
        file.with_name("x.safetensors.part.json").write_text(note)


def test_what_was_noted_of_a_file(web, tmp_path):
    web.body = save({"head.weight": np.zeros([2, 3], np.float32)})
    url = web.url("x.safetensors")
    with pytest.raises(UserError):
        create_model("ResNet18", weights=url)
    (note,) = tmp_path.rglob("x.safetensors.json")
    for text in ("[" * 100_000, "[]", "null", "\0", ""):
        note.write_text(text)
        with pytest.raises(UserError, match=re.escape(note.name)):
            create_model("ResNet18", weights=url)

"""Patterns, addresses, standard input and lists of paths as images."""

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

import ppcls
from ppcls.utils.errors import UserError


@pytest.fixture(scope="session")
def predictor(exported):
    return ppcls.Predictor(exported, engine="onednn")


@pytest.fixture
def predict(exported, run):
    return lambda *words: run("predict", "--model-dir", exported, "--engine", "onednn", *words)


@pytest.fixture
def data(images):
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(data, tmp_path, monkeypatch):
    """`photos/` of the working folder with images at three depths, one of an odd name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "ant/b.png", "ant/deep/c.JPG", "ant/odd[1].png", "ant/notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "photos"


def paths(found):
    return [one.path for one in found]


def test_patterns(predictor, photos):
    assert paths(predictor.predict("photos/*.png")) == ["photos/a.png"]
    every = ["photos/a.png", "photos/ant/b.png", "photos/ant/deep/c.JPG", "photos/ant/odd[1].png"]
    assert paths(predictor.predict("photos/**")) == every
    assert paths(predictor.predict("photos/**/*.png")) == [every[0], every[1], every[3]]
    assert paths(predictor.predict("photos/a*/deep")) == [every[2]]  # a folder
    assert paths(predictor.predict("photos/ant/odd[1].png")) == [every[3]]  # a file's own name
    with pytest.raises(UserError, match=r"photos/\*\.gif: no such file, and no image matches"):
        predictor.predict("photos/*.gif")


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        status, kind, body = self.server.pages.get(self.path, (404, "text/plain", b"no"))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


@pytest.fixture
def site(data):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.pages = {
        "/a.png": (200, "image/png", data),
        "/photo?id=1": (200, "application/octet-stream", data),
        "/page": (200, "text/html; charset=utf-8", b"<html>"),
        "/hidden.png": (200, "image/png", b"<!DOCTYPE html><html>"),
        "/cut.png": (200, "image/png", data[: len(data) // 2]),
        "/moved": (302, "text/plain", b"/a.png"),
        "/file": (302, "text/plain", b"file:///etc/hostname"),
    }
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_addresses(predictor, site, photos):
    expected = predictor.predict("photos/a.png")[0].scores
    given = [f"{site}/a.png", f"{site}/photo?id=1", f"{site}/moved"]
    found = predictor.predict(given)
    assert paths(found) == given
    assert all(one.scores == pytest.approx(expected) for one in found)


def test_addresses_that_answer_otherwise(predict, site, tmp_path):
    wrong = {
        "gone.png": "HTTP 404",
        "page": "a web page, not",
        "hidden.png": "a web page, not an image",
        "cut.png": "truncated or damaged",
        "file": "file:///etc/hostname",
    }
    for page, words in wrong.items():
        code, _, err = predict(f"{site}/{page}")
        assert code == 2
        (line,) = err.splitlines()
        assert line.startswith(f"error: {site}/{page}: ")
        assert words in line
    given = [f"{site}/{page}" for page in wrong]
    save = tmp_path / "x.json"
    code, _, _ = predict(*given, f"{site}/a.png", "--on-error", "skip", "--save", save)
    assert code == 0
    records = json.loads(save.read_text())
    assert [bool(record["error"]) for record in records] == [True] * len(wrong) + [False]


def test_no_addresses_offline(predictor, site, monkeypatch):
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    with pytest.raises(UserError, match=r"a\.png: not downloaded: unset PPCLS_OFFLINE"):
        predictor.predict(f"{site}/a.png")


def test_a_list_of_addresses(predictor, site, tmp_path):
    (tmp_path / "list.txt").write_text(f"{site}/a.png 1\n{site}/moved\n")
    found = predictor.predict(tmp_path / "list.txt")
    assert paths(found) == [f"{site}/a.png", f"{site}/moved"]


class Piped:
    """Standard input with these bytes."""

    def __init__(self, data, terminal=False):
        self.buffer = io.BytesIO(data)
        self.isatty = lambda: terminal


def test_an_image_on_standard_input(predict, photos, data, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", Piped(data))
    code, out, err = predict("-", "photos/a.png", "--save", tmp_path / "x.json")
    assert (code, err) == (0, "")
    first, second = json.loads((tmp_path / "x.json").read_text())
    assert (first["path"], second["path"]) == ("-", "photos/a.png")
    assert first["scores"] == second["scores"]
    assert "\n-: " in out

    for given, terminal, words in (
        ((b"", ("-",)), False, "-: empty file"),
        ((b"no image", ("-",)), False, "-: not a JPEG, PNG"),
        ((data, ("-",)), True, "pipe an image into it"),
        ((data, ("-", "-")), False, "can be read only once"),
        ((data, ("-", "--list", "-")), False, "can be read only once"),
        ((data, ("-", "--save", "y.csv", "--resume")), False, "--resume: standard input (-)"),
    ):
        monkeypatch.setattr(sys, "stdin", Piped(given[0], terminal))
        code, _, err = predict(*given[1])
        assert code == 2
        assert words in err
        assert len(err.splitlines()) == 1


def test_paths_on_standard_input(predict, photos, monkeypatch, tmp_path):
    text = b"photos/a.png\n\nphotos/ant\n"
    monkeypatch.setattr(sys, "stdin", Piped(text))
    code, out, _ = predict("--list", "-")
    assert code == 0
    assert out.count(".png: ") + out.count(".JPG: ") == 4
    (tmp_path / "odd.list").write_bytes(text)
    assert predict("--list", "odd.list")[1].count(" ms]") == 4
    code, _, err = predict("--list", "none.list")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = predict()
    assert code == 2
    assert "nothing to predict: name images" in err

"""A service in a process of its own, over a small network that is exported once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import small_network
from photos import write_photo
from quick_export import export

from ppcls.export import Form

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
READY = re.compile(r"^ready: (https?://\S+?),", re.MULTILINE)
PATIENCE = 120  # seconds for what takes one or two


class Served:
    """A running service: where it is, and what it says."""

    def __init__(self, folder: Path, arguments: tuple, environment: dict[str, str]):
        self.stopped = False
        self.log = folder / "said.txt"
        self.accesses = folder / "access.jsonl"
        paths = [str(ROOT), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                     "PPCLS_HOME": str(folder / "home"), **environment},
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, condition, what: str):
        """What `condition` gives, once that is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := condition():
                return found
            assert self.process.poll() is None, f"it ended before {what}:\n{self.said}"
            time.sleep(0.02)
        raise AssertionError(f"no {what}:\n{self.said}")

    def wait_until_ready(self) -> None:
        self.address = self.wait(lambda: READY.search(self.said), "service")[1]
        self.host, port = self.address.split("//")[1].rsplit(":", 1)
        self.port = int(port)

    def client(self, **options) -> httpx.Client:
        own = {"verify": False, "trust_env": False, "timeout": PATIENCE}
        return httpx.Client(base_url=self.address, **(own | options))

    def lines(self, request_id: str) -> list[dict]:
        """What the access log has of a request, which it writes after the answer."""

        def found():
            text = self.accesses.read_text() if self.accesses.exists() else ""
            rows = [json.loads(line) for line in text.splitlines() if request_id in line]
            return [row for row in rows if row["id"] == request_id]

        return self.wait(found, f"line about {request_id}")

    def stop(self) -> None:
        if self.process.poll() is None and not self.stopped:
            self.stopped = True
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Let it end, in good order."""
        self.stop()
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        assert code == 0, self.said
        assert "Traceback" not in self.said, self.said
        assert "error:" not in self.said, self.said


@pytest.fixture(scope="session")
def small():
    """The network that the services have, as training leaves it."""
    return small_network.trained()


@pytest.fixture(scope="session")
def exported(small, export_as, tmp_path_factory):
    """Its export for ONNX Runtime, which starts fastest: float32 [N, 3, 32, 32] in."""
    return export_as(small, tmp_path_factory.mktemp("exported"), Form(("onnx",)))


@pytest.fixture(scope="session")
def export_as():
    """`export_as(trained, place, form)` makes `place / "small"`."""
    return exported_to


def exported_to(trained, place, form):
    photos = [place / f"{seed}.png" for seed in range(3)]
    for seed, photo in enumerate(photos):
        write_photo(photo, seed)
    return export(trained, place / "small", [str(photo) for photo in photos], form)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Five images in files, 40 pixels wide and 48 high."""
    paths = [tmp_path_factory.mktemp("photos") / f"{seed}.png" for seed in range(5)]
    for seed, path in enumerate(paths, 10):
        write_photo(path, seed)
    return paths


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """`serve(*arguments, **environment)` starts `ppcls serve` at any free port; it ends here."""
    yield from starter(tmp_path_factory)


@pytest.fixture(scope="session")
def serve_long(tmp_path_factory):
    """The same, for a service that many files ask."""
    yield from starter(tmp_path_factory)


@pytest.fixture(scope="module")
def serve_limited(tmp_path_factory):
    """`serve_limited(folder, limits)`: the same, with limits that have no option, as JSON."""
    yield from starter(tmp_path_factory, (HERE / "limited.py",))


def starter(tmp_path_factory, command=("-m", "ppcls", "serve", "--port", "0")):
    running = []

    def start(*arguments, **environment):
        place = tmp_path_factory.mktemp("served")
        own = (*command, *arguments)
        if command[0] == "-m" and "--access-log" not in arguments:
            own += ("--access-log", place / "access.jsonl")
        found = Served(place, own, environment)
        running.append(found)
        found.wait_until_ready()
        return found

    yield start
    for found in running:
        found.stop()
    for found in running:
        found.end()


@pytest.fixture(scope="session")
def service(serve_long, exported):
    """One that many tests ask; it takes bodies of 2 MB, and images of a million pixels."""
    limits = ("--max-body", "2000000", "--max-pixels", "1000000")
    return serve_long(exported, "--engine", "onnxruntime", *limits)


@pytest.fixture
def client(service):
    with service.client() as client:
        yield client

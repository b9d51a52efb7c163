"""`ppcls serve` as a process: it starts, takes signals, and ends in good order."""

import base64
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import made_engine
import psutil
import pytest
from made_engine import image, probability

SOON = 60.0  # seconds, on a busy machine
KEY = "a-key-that-may-change-models"


def environment(tmp_path):
    root = Path(made_engine.__file__).parents[1]
    places = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PPCLS_HOME": str(tmp_path)}
    return os.environ | own


def command(*arguments):
    own = ["--engine", "made_engine.Made", "--use", "made_engine", "--threads", "1"]
    given = [*own, "--port", "0", "--max-batch", "2", "--max-delay", "0", *map(str, arguments)]
    return [sys.executable, "-m", "ppcls", "serve", *given]


class Served:
    """A service's process, and its standard output as it comes."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.port = 0

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait_for(self, words):
        end = time.monotonic() + SOON
        while words not in self.text:
            assert time.monotonic() < end, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.02)

    def ready(self):
        self.wait_for("ready: ")
        line = next(line for line in self.lines if line.startswith("ready: "))
        self.port = int(line.partition(",")[0].rpartition(":")[2])
        return self

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, *lights, **given):
        data = {"images": [base64.b64encode(image(v, v, v)).decode() for v in lights]}
        return httpx.post(f"{self.address}/predict", json=data | given, timeout=SOON)

    def workers(self):
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [one.pid for one in found if "ppcls.serve.worker" in " ".join(one.cmdline())]

    def metric(self, name):
        text = httpx.get(f"{self.address}/metrics", timeout=SOON).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for key, _, value in lines if key.startswith(name))

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(SOON)


@contextmanager
def served(tmp_path, *arguments):
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(tmp_path / "home"),
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        yield Served(process).ready()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def assert_right(answer, weight, *lights):
    assert answer.status_code == 200, answer.text
    for one, light in zip(answer.json()["predictions"], lights, strict=True):
        wanted = probability(weight, light)
        scores = dict(zip(one["classes"], one["scores"], strict=True))
        assert scores == {0: pytest.approx(1 - wanted), 1: pytest.approx(wanted)}


def until_gone(*pids):
    end = time.monotonic() + SOON
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path):
    return made_engine.write(tmp_path / "made", 1.0)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_drains(folder, tmp_path, number):
    """To all of its processes, as terminals and systemd send it: requests are answered first."""
    with served(tmp_path, folder) as service, ThreadPoolExecutor(8) as pool:
        pids = service.workers()
        slow = base64.b64encode(image(*made_engine.SLEEPS)).decode()
        sent = [pool.submit(service.ask, 50, images=[slow] * 3) for _ in range(3)]
        end = time.monotonic() + SOON
        while service.metric("ppcls_queue_images") < 9:
            assert time.monotonic() < end
        for pid in [service.process.pid, *pids]:
            os.kill(pid, number)
        for one in sent:
            assert len(one.result().json()["predictions"]) == 3
        assert service.process.wait(SOON) == 0
        until_gone(*pids)
        assert "ending" in service.text
        with pytest.raises(httpx.ConnectError):
            service.ask(50)


@pytest.mark.slow
def test_two_models_and_reloads_by_signal_and_by_http(folder, tmp_path):
    other = made_engine.write(tmp_path / "other", 3.0)
    keys = tmp_path / "keys.txt"
    keys.write_text(f"{KEY} ann admin\n")
    with served(tmp_path, folder, f"second={other}", "--keys", keys) as service:
        headers = {"Authorization": f"Bearer {KEY}"}

        def ask(name):
            data = {"images": [base64.b64encode(image(60, 60, 60)).decode()], "model": name}
            address = f"{service.address}/predict"
            return httpx.post(address, json=data, headers=headers, timeout=SOON)

        def load(name, **parameters):
            address = f"{service.address}/v2/repository/models/{name}/load"
            data = {"parameters": parameters}
            return httpx.post(address, json=data, headers=headers, timeout=SOON)

        assert_right(ask("made"), 1.0, 60)
        assert_right(ask("second"), 3.0, 60)
        made_engine.write(folder, -1.0)
        os.kill(service.process.pid, signal.SIGHUP)
        end = time.monotonic() + SOON
        while ask("second").json()["version"] != "2":
            assert time.monotonic() < end
        assert_right(ask("made"), -1.0, 60)
        new = made_engine.write(tmp_path / "new", 0.5)
        answer = load("second", folder=str(new))
        assert answer.status_code == 200
        assert_right(ask("second"), 0.5, 60)
        assert ask("second").json()["digest"] == answer.json()["parameters"]["digest"]
        (folder / "inference.yml").unlink()
        answer = load("made")
        assert answer.status_code == 409
        assert str(folder) in answer.json()["detail"]
        assert_right(ask("made"), -1.0, 60)
        pids = service.workers()
        assert service.end() == 0
        until_gone(*pids)


def test_a_killed_service_leaves_no_worker(folder, tmp_path):
    """And while it lives, it says what a worker died of."""
    with served(tmp_path, folder) as service:
        (first,) = service.workers()
        os.kill(first, signal.SIGKILL)
        service.wait_for(f"worker {first} of version 1")
        service.wait_for("died (by SIGKILL)")
        assert_right(service.ask(60), 1.0, 60)
        pids = service.workers()
        assert pids != [first]
        service.process.kill()
        service.process.wait()
        until_gone(*pids)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs Linux")
def test_a_reader_that_stops_stops_no_service(folder, tmp_path):
    """Nobody reads standard output, whose pipe is soon full: what does not fit is dropped."""
    end, start = os.pipe()
    fcntl.fcntl(start, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        command(folder), stdout=start, stderr=subprocess.DEVNULL, env=environment(tmp_path / "home")
    )
    os.close(start)
    try:
        text = b""
        while b"ready: " not in text or b"/docs" not in text:
            text += os.read(end, 4096)
        port = int(text.partition(b"ready: ")[2].partition(b",")[0].rpartition(b":")[2])
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SOON) as client:
            for turn in range(60):
                answer = client.get(
                    "/v2/models/" + 400 * "x" + str(turn), headers={"X-Request-Id": 100 * "i"}
                )
                assert answer.status_code == 404
            for _ in range(3):
                process.send_signal(signal.SIGHUP)  # which has something to say, too
                time.sleep(0.2)
            assert client.post("/predict", content=image(9, 9, 9)).status_code == 200
        process.terminate()
        assert process.wait(SOON) == 0
    finally:
        process.kill()
        process.wait()
        os.close(end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_costs_lines_of_the_log_and_no_answer(folder, tmp_path):
    with served(tmp_path, folder, "--access-log", "/dev/full") as service:
        assert_right(service.ask(60), 1.0, 60)
        end = time.monotonic() + SOON
        while not service.metric('ppcls_log_dropped{log="access"}'):  # another thread writes
            assert time.monotonic() < end
        assert_right(service.ask(60), 1.0, 60)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(folder, tmp_path):
    with served(tmp_path, folder, "--hang", "60") as service, ThreadPoolExecutor(1) as pool:
        pids = service.workers()
        stuck = base64.b64encode(image(*made_engine.HANGS)).decode()
        asked = pool.submit(service.ask, 50, images=[stuck])
        end = time.monotonic() + SOON
        while not service.metric("ppcls_queue_images"):
            assert time.monotonic() < end
        start = time.monotonic()
        service.process.terminate()
        service.wait_for("ending")
        assert service.end() == 0
        assert time.monotonic() - start < 25  # it would have waited for longer than 30
        until_gone(*pids)
        assert asked.exception() or asked.result().status_code == 503


@pytest.mark.slow
def test_it_ends_while_it_still_opens(tmp_path):
    folder = made_engine.write(tmp_path / "made", 1.0, opening=1000)
    process = subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, text=True, env=environment(tmp_path / "home")
    )
    service = Served(process)
    try:
        service.wait_for("opening")
        end = time.monotonic() + SOON
        while not service.workers():
            assert time.monotonic() < end
        pids = service.workers()
        assert service.end(signal.SIGINT) == 0
        until_gone(*pids)
    finally:
        process.kill()
        process.wait()


def refused(tmp_path, *arguments):
    """The one line of a service that does not start."""
    done = subprocess.run(
        command(*arguments), check=False, capture_output=True, text=True, timeout=SOON,
        env=environment(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_folder_that_cannot_be_opened_is_one_line(folder, tmp_path):
    (folder / made_engine.NETWORK).write_text("")
    assert f"{folder / made_engine.NETWORK}: is empty" in refused(tmp_path, folder)


def test_a_port_that_is_taken_is_one_line(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(tmp_path, folder, "--port", port)
    assert f"--port {port} on 127.0.0.1: cannot be listened on" in line


@pytest.mark.slow
def test_the_access_log_is_a_line_of_json_and_can_be_put_away(folder, tmp_path):
    log = tmp_path / "access.jsonl"
    with served(tmp_path, folder, "--access-log", log) as service:
        service.ask(60)
        assert service.metric("ppcls_requests_total{") >= 1
        log.rename(tmp_path / "old.jsonl")
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + SOON
        while not log.exists():
            assert time.monotonic() < end
        service.ask(70)
        service.end()
    old, new = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "old.jsonl", log)
    )
    assert [line["path"] for line in old] == ["/predict", "/metrics"]
    assert [(line["path"], line["status"], line["images"]) for line in new] == [
        ("/predict", 200, 1)
    ]

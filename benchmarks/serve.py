"""How much of the bare engine's speed does `ppcls serve` keep, and how long does a request wait?

By turns, on one machine: the engine alone on prepared batches; `Predictor` over the same JPEGs;
`ppcls serve` with many clients that each send the next photo when they have their answer (closed
loop), and with 80 % of them; with requests that come at 80 % of that speed whatever the answers do
(open loop), evenly, and at random (Poisson), where queues alone make p99 some three times p50; and
one request at a time, beside `Predictor` called for one photo. The clients are a process of their
own on the same cores: their share of the processors' time is stated.

    python benchmarks/serve.py [--model ResNet50_vd EfficientNetLite0] [--clients 64] [--turns 3]
    python benchmarks/serve.py --litserve PYTHON --paddlex PYTHON   beside them, in the same run

`--litserve` and `--paddlex` name Pythons in which these are installed (LitServe beside ppcls;
`paddlex` with its plugin `serving`); without them they are left out.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LOAD = 0.8  # of the clients, or of the closed loop's speed
LOADS = {
    "closed": "closed loop, all clients",
    "most": f"closed loop, {LOAD:.0%} of the clients",
    "even": f"open loop, evenly, {LOAD:.0%} of that speed",
    "random": f"open loop, at random, {LOAD:.0%} of that speed",
}
ALONE = 60  # requests one after the other, each turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["ResNet50_vd", "EfficientNetLite0"])
    parser.add_argument("--model-dir", nargs="+", default=[], help="exported folders instead")
    parser.add_argument("--photos", type=Path, help="a folder; else scikit-learn's two, 500 x 375")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--litserve", help="a Python with litserve and ppcls")
    parser.add_argument("--paddlex", help="a Python with paddlex and its serving plugin")
    parser.add_argument("--serve", nargs="*", default=[], help="options of ppcls serve")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role[0]](*options.role[1:])
        return
    print(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(options.photos, Path(folder))
        exported = [Path(one) for one in options.model_dir]
        exported = exported or [export(name, Path(folder)) for name in options.model]
        for one in exported:
            measure(one, photos, options)


def processor() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.machine()


def make_photos(given: Path | None, folder: Path) -> Path:
    """A folder of JPEG files."""
    if given:
        return given
    import cv2

    from ppcls.data import builtin

    place = folder / "photos"
    place.mkdir()
    for source in builtin.sample_images():
        small = cv2.resize(cv2.imread(str(source)), (500, 375), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(place / source.name), small)
    return place


def export(name: str, folder: Path) -> Path:
    """An export of a network, with random weights where its own are not here: speed is the same."""
    weights = ["--weights", "imagenet"] if name == "EfficientNetLite0" else []
    target = folder / name
    command = [sys.executable, "-m", "ppcls", "export", "-c", name, *weights]
    command += ["--format", "paddle", "onnx", "openvino", "--output", str(target)]
    if not weights:
        fresh = folder / f"{name}.safetensors"
        subprocess.run([sys.executable, __file__, "--role", "fresh", name, str(fresh)], check=True)
        command += ["--weights", str(fresh)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


# --------------------------------------------------------------------------- parts, as processes


def fresh(name: str, path: str) -> None:
    """Write random weights of a network."""
    import paddle

    import ppcls
    from ppcls.weights.files import write_safetensors

    paddle.seed(0)
    net = ppcls.create_model(name)
    write_safetensors(path, {key: one.numpy() for key, one in net.state_dict().items()}, {})


def bare(folder: str, photos: str) -> None:
    """For each line on standard input, `engine`, `predictor` or `alone`, and seconds: measure."""
    from ppcls.inference.auto import example
    from ppcls.inference.predictor import Predictor
    from ppcls.serve.curve import plan

    predictor = Predictor(folder)
    how = plan(predictor, None, None)
    files = [path.read_bytes() for path in sorted(Path(photos).iterdir())]
    about = {"engine": str(how.beside.settings), "batch": how.batch, "streams": how.streams}
    print(json.dumps(about), flush=True)

    def engine(seconds: float) -> dict[str, float]:
        images = example(predictor.folder, how.batch)
        end = time.perf_counter() + seconds
        counts = [0] * how.streams

        def work(place: int) -> None:
            while time.perf_counter() < end:
                how.beside.run_all(images)
                counts[place] += how.batch

        start = time.perf_counter()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(how.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"rate": sum(counts) / (time.perf_counter() - start)}

    def whole(seconds: float) -> dict[str, float]:
        count = max(100, int(how.rate * seconds))
        given = list(itertools.islice(itertools.cycle(files), count))
        start = time.perf_counter()
        for _ in predictor.stream(given):
            pass
        return {"rate": count / (time.perf_counter() - start)}

    def alone(seconds: float) -> dict[str, float]:
        times = []
        for data in itertools.islice(itertools.cycle(files), ALONE):
            start = time.perf_counter()
            predictor.predict(data)
            times.append(time.perf_counter() - start)
        return {"median": float(np.median(times))}

    for line in sys.stdin:
        what, seconds = line.split()
        found = {"engine": engine, "predictor": whole, "alone": alone}[what](float(seconds))
        print(json.dumps(found), flush=True)


class Client(asyncio.Protocol):
    """A connection that sends a request, waits for its answer, and is told when it has it."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self.came += data
        end = self.came.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.came[:end]).lower()
        place = head.find(b"content-length:")
        size = int(head[place + 15 :].split(b"\r\n", 1)[0])
        if len(self.came) < end + 4 + size:
            return
        del self.came[: end + 4 + size]
        if self.answered and not self.answered.done():
            self.answered.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answered and not self.answered.done():
            self.answered.set_result(0)


def requests_of(photos: str, kind: str) -> list[bytes]:
    """Whole HTTP requests, one a photo."""
    found = []
    for path in sorted(Path(photos).iterdir()):
        data = path.read_bytes()
        address, media = "/predict", b"image/jpeg"
        if kind == "paddlex":
            import base64

            data = json.dumps({"image": base64.b64encode(data).decode()}).encode()
            address, media = "/image-classification", b"application/json"
        elif kind == "litserve":
            mark = b"----ppcls"
            data = (
                b"--" + mark + b'\r\nContent-Disposition: form-data; name="request"; '
                b'filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
                + data
                + b"\r\n--"
                + mark
                + b"--\r\n"
            )
            media = b"multipart/form-data; boundary=" + mark
        head = f"POST {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        found.append(head.encode() + b"Content-Type: " + media + b"\r\n\r\n" + data)
    return found


def client(port: str, photos: str, kind: str) -> None:
    """For each line on standard input, `closed CLIENTS SECONDS` (or `most`), `even RATE SECONDS`,
    `random RATE SECONDS` or `alone 1 1`: measure.
    """
    requests = requests_of(photos, kind)
    with suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    for line in sys.stdin:
        what, number, seconds = line.split()
        used = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        found = asyncio.run(ask(what, float(number), float(seconds), int(port), requests))
        took = time.perf_counter() - start
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        times = np.array([seconds for seconds, status in found if status == 200] or [np.nan])
        print(
            json.dumps(
                {
                    "rate": len(times) / took,
                    "median": float(np.median(times)),
                    "p99": float(np.quantile(times, 0.99)),
                    "wrong": sum(status != 200 for _, status in found),
                    "cpu": cpu / took,
                }
            ),
            flush=True,
        )


async def ask(
    what: str, number: float, seconds: float, port: int, requests: list[bytes]
) -> list[tuple[float, int]]:
    """(seconds, status) of each request."""
    loop = asyncio.get_running_loop()
    found: list[tuple[float, int]] = []
    given = itertools.cycle(requests)
    end = loop.time() + seconds

    async def connect() -> Client:
        _, protocol = await loop.create_connection(Client, "127.0.0.1", port)
        return protocol

    async def one_after_the_other(most: float) -> None:
        own = await connect()
        count = 0
        while loop.time() < end and count < most:
            if own.transport.is_closing():  # not every server keeps them
                own = await connect()
            start = time.perf_counter()  # the loop's own time counts whole milliseconds
            status = await own.ask(next(given))
            found.append((time.perf_counter() - start, status))
            count += 1
        own.transport.close()

    if what == "alone":
        end = float("inf")
        await one_after_the_other(ALONE)
    elif what in ("closed", "most"):
        await asyncio.gather(*(one_after_the_other(float("inf")) for _ in range(int(number))))
    else:
        free = [await connect() for _ in range(64)]
        tasks = []

        async def once(start: float) -> None:
            own = free.pop() if free else await connect()
            if own.transport.is_closing():
                own = await connect()
            status = await own.ask(next(given))
            found.append((time.perf_counter() - start, status))
            free.append(own)

        at = time.perf_counter()
        end = at + seconds
        chance = random.Random(0)
        while at < end:
            at += chance.expovariate(number) if what == "random" else 1 / number
            await asyncio.sleep(at - time.perf_counter())
            tasks.append(asyncio.ensure_future(once(at)))
        await asyncio.gather(*tasks)
        for own in free:
            own.transport.close()
    return found


ROLES = {"bare": bare, "client": client, "fresh": fresh}


# --------------------------------------------------------------------------- measuring


class Part:
    """A process of `ROLES` that answers a line with a line of JSON."""

    def __init__(self, *words: str, python: str = sys.executable):
        command = [python, __file__, "--role", *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):  # others are words for people
                return json.loads(line)
        raise SystemExit(f"{self.process.args}: ended without an answer")

    def ask(self, *words: object) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Served:
    """A server under test, and its client."""

    def __init__(
        self, name: str, command: list[str], port: int, photos: Path, cwd: Path | None = None
    ):
        self.name = name
        self.port = port
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with this object
        # PaddleX looks for its servers of models first, which takes long where there is no network.
        offline = {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | offline
        self.process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            env=environment,
            cwd=cwd,
        )
        self.client = Part("client", str(port), str(photos), name)
        self.found: dict[str, list[dict[str, Any]]] = {}

    def wait(self) -> bool:
        """Whether it answers, within two minutes."""
        for _ in range(240):
            if self.process.poll() is not None:
                break
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if not self.client.ask("alone", 1, 1)["wrong"]:
                    return True
            time.sleep(0.5)
        self.log.seek(0)
        print(f"{self.name}: does not answer; its last words: {self.log.read()[-500:]}")
        return False

    def ask(self, what: str, number: float, seconds: float) -> None:
        before = cpu_of(self.process.pid)
        start = time.perf_counter()
        found = self.client.ask(what, number, seconds)
        took = time.perf_counter() - start
        found["server"] = {
            k: (v - before.get(k, 0)) / took for k, v in cpu_of(self.process.pid).items()
        }
        self.found.setdefault(what, []).append(found)

    def end(self) -> None:
        self.client.end()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def cpu_of(pid: int) -> dict[int, float]:
    """Seconds of the processors that a process and those below it have had, by process."""
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(fields[1])
            used[int(place.name)] = (int(fields[11]) + int(fields[12])) / tick
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: used[one] for one in found if one in used}


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def servers(folder: Path, photos: Path, options: argparse.Namespace) -> list[Served]:
    found = []
    port = free_port()
    command = [sys.executable, "-m", "ppcls", "serve", str(folder), "--port", str(port)]
    found.append(Served("ppcls", [*command, "--access-log", "none", *options.serve], port, photos))
    if options.litserve:
        port = free_port()
        script = str(ROOT / "benchmarks/serve_litserve.py")
        command = [options.litserve, script, str(folder.resolve()), str(port)]
        found.append(Served("litserve", command, port, photos))
    if options.paddlex:
        port = free_port()
        text = (
            "pipeline_name: image_classification\nSubModules:\n  ImageClassification:\n"
            f"    module_name: image_classification\n    model_name: {paddlex_name(folder)}\n"
            f"    model_dir: {folder.resolve()}\n    batch_size: 1\n    topk: 5\n"
        )
        place = Path(tempfile.mkdtemp())
        (place / "pipeline.yaml").write_text(text)
        command = [options.paddlex, "-m", "paddlex", "--serve", "--pipeline", "pipeline.yaml"]
        command += ["--port", str(port), "--device", "cpu"]
        found.append(Served("paddlex", command, port, photos, place))
    return found


def paddlex_name(folder: Path) -> str:
    from ppcls.inference import manifest

    found = manifest.read(folder)
    return found.paddlex or found.model


def measure(folder: Path, photos: Path, options: argparse.Namespace) -> None:
    """All parts by turns, and what they came to."""
    engine = Part("bare", str(folder), str(photos))
    print(f"\n{folder.name}: {engine.read()}", flush=True)
    started = servers(folder, photos, options)
    bare: dict[str, list[float]] = {"engine": [], "predictor": [], "alone": []}
    try:
        there = [served for served in started if served.wait()]
        for _ in range(options.turns):
            bare["engine"].append(engine.ask("engine", options.seconds)["rate"])
            bare["predictor"].append(engine.ask("predictor", options.seconds)["rate"])
            for served in there:
                served.ask("closed", options.clients, options.seconds)
            for served in there:
                served.ask("most", LOAD * options.clients, options.seconds)
                rate = LOAD * float(np.median([one["rate"] for one in served.found["closed"]]))
                served.ask("even", rate, options.seconds)
                served.ask("random", rate, options.seconds)
            bare["alone"].append(engine.ask("alone", 0)["median"])
            for served in there:
                served.ask("alone", 1, 0)
        report(bare, there, options)
    finally:
        for served in started:
            served.end()
        engine.end()


def report(bare: dict[str, list[float]], there: list[Served], options: argparse.Namespace) -> None:
    rate, whole, alone = (float(np.median(bare[key])) for key in ("engine", "predictor", "alone"))
    print(
        f"engine alone {rate:.1f} images/s; Predictor over JPEG files {whole:.1f}; "
        f"one photo {1000 * alone:.1f} ms"
    )
    for served in there:
        found = {
            what: {
                key: float(np.median([one[key] for one in served.found[what]]))
                for key in ("rate", "median", "p99", "cpu")
            }
            for what in ("closed", "most", "even", "random", "alone")
        }
        closed, single = found["closed"], found["alone"]
        wrong = sum(one["wrong"] for parts in served.found.values() for one in parts)
        share = closed["cpu"] / (os.cpu_count() or 1)
        kept = closed["rate"] / rate
        cores = [
            [round(core, 2) for core in sorted(one["server"].values(), reverse=True)[:3]]
            for one in served.found["closed"]
        ]
        print(
            f"{served.name}, {options.clients} clients: {closed['rate']:.1f} images/s, {kept:.3f} "
            f"of the engine, {closed['rate'] / whole:.3f} of Predictor; the clients take "
            f"{share:.1%} of the cores, without which it is {kept / (1 - share):.3f} of the engine"
        )
        for what, words in LOADS.items():
            one = found[what]
            print(
                f"  {words}: {one['rate']:.1f} images/s, p50 {1000 * one['median']:.1f} ms, p99 "
                f"{1000 * one['p99']:.1f} ms, {one['p99'] / one['median']:.2f} times that"
            )
        print(
            f"  one at a time: {1000 * single['median']:.1f} ms, {single['median'] / alone:.3f} of "
            f"Predictor\n  wrong: {wrong}; cores that its processes took: {cores}",
            flush=True,
        )


if __name__ == "__main__":
    main()

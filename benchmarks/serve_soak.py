"""Does `ppcls serve` lose, mix up or hold a request, whatever happens to it, and does it grow?

Client processes send images of many sizes and formats, broken ones and bombs among them, in all
forms that the service takes, and now and then hang up. Meanwhile its workers are killed and
stopped, and versions are reloaded, by signal and over HTTP, between two networks. Each answer must
be that of `Predictor` for the digest that it names. For the last part of the requests nothing
happens to the workers, so that their memory can be compared. Prints what came of it; exits with 1
where a request was lost, wrong or stuck, or memory has grown. Linux alone:

    python benchmarks/serve_soak.py --requests 100000 --kills 50 --reloads 100
"""

import argparse
import base64
import http.client
import io
import json
import math
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from ppcls.data.preprocess import Preprocess
from ppcls.inference import selfcheck
from ppcls.inference.manifest import FILE, Manifest
from ppcls.inference.predictor import Predictor
from ppcls.utils.errors import UserError

SIDE = 64  # of the network's images
CLASSES = 10
NAME = "soak"
KEY = "the-key-of-the-soak-test"
STUCK = 90.0  # seconds for which a client waits; the service gives up after 30
CLOSE = 1e-6  # of probabilities, which batches of other sizes change in the last bits
QUIET = 0.7  # share of the requests after which nothing happens to the workers any more
# Shares of the requests after which no more are sent for a moment, to look at memory: then the
# front process is warm, and the worker that stays.
WARM = 0.2
WARM_WORKER = 0.8
REST = 2.0  # seconds
SHOWN = 0.1  # of the requests, after which memory is printed
MOST_ERRORS = 0.01  # share of answers that may say "ask again" or "not tried again"
BROKEN, BOMB, HANG_UP = 0.05, 0.01, 0.02  # shares of the requests
QUEUE = f'ppcls_queue_images{{model="{NAME}"}}'
# What a service may answer in place of a prediction while its workers are killed.
BUSY = {"busy", "starting", "late", "engine"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--clients", type=int, default=2, help="processes")
    parser.add_argument("--threads", type=int, default=8, help="of each client")
    parser.add_argument("--images", type=Path, help="a folder of images; default: made")
    parser.add_argument("--exports", type=Path, nargs=2, help="two exported folders of one size")
    parser.add_argument("--seed", type=int, default=0)
    text = "percent by which memory may grow; -1: it is not looked at"
    parser.add_argument("--memory", type=float, default=2.0, help=text)
    text = "options of ppcls serve, behind --; default: --engine onnxruntime --threads 1"
    parser.add_argument("options", nargs="*", help=text)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        return Soak(given, Path(place)).run()


# --------------------------------------------------------------------------- what is served


def write_network(folder: Path, seed: int) -> None:
    """A small convolutional network with random weights, in ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random_ = np.random.default_rng(seed)
    shapes = {"first": (12, 3, 5, 5), "second": (24, 12, 3, 3), "last": (CLASSES, 24)}
    weights = [
        numpy_helper.from_array(
            random_.normal(0, 2 / math.sqrt(math.prod(shape[1:])), shape).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "last"], ["g"], transB=1),
        helper.make_node("Softmax", ["g"], ["h"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )
    opset = [helper.make_opsetid("", 13)]
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "inference.onnx"
    )
    names = tuple(f"class {number}" for number in range(CLASSES))
    about = Manifest(NAME, Preprocess(resize=SIDE + 8, crop=SIDE), names)
    (folder / FILE).write_text(about.to_yaml())
    with Predictor(folder, engine="onnxruntime", threads=1) as predictor:
        preprocess = predictor.manifest.preprocess
        pixels = preprocess.normalize(selfcheck.images(preprocess))
        answers = predictor.probabilities(predictor.engine.run(pixels))
    about.about[selfcheck.KEY] = selfcheck.record(answers, about.preprocess)
    (folder / FILE).write_text(about.to_yaml())


# --------------------------------------------------------------------------- what is sent


def made_images(random_: np.random.Generator) -> list[bytes]:
    """Images of many sizes and formats."""
    found = []
    for kind, mode, options in (
        ("JPEG", "RGB", {"quality": 85}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("GIF", "P", {}),
    ):
        for side in (9, 40, 90, 200, 500):
            width, height = (int(side * random_.uniform(0.7, 1.4)) + 1 for _ in range(2))
            grid = random_.integers(0, 256, (4, 5, 3), np.uint8)
            image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            file = io.BytesIO()
            image.convert(mode).save(file, kind, **options)
            found.append(file.getvalue())
    return found


def broken_images(whole: list[bytes], random_: np.random.Generator) -> list[bytes]:
    found = [b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + bytes(100)]
    for data in whole[::2]:
        found.append(data[: int(random_.integers(1, len(data)))])
        changed = bytearray(data)
        for place in random_.integers(0, len(data), 8):
            changed[place] ^= 0xFF
        found.append(bytes(changed))
    return found


def bombs() -> list[bytes]:
    """Small files with a great many pixels, or that say so."""
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    whole = bytearray(file.getvalue())
    found = [bytes(whole)]
    for side in (40_000, 2_000_000_000):
        whole[16:24] = struct.pack(">II", side, side)
        whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
        found.append(bytes(whole))
    return found


@dataclass
class Image_:  # noqa: N801
    """An image to send, and what is to come back, by digest: probabilities, or None: an error."""

    data: bytes
    answers: dict[str, list[float] | None]


def expected(images: list[bytes], folders: list[Path]) -> list[Image_]:
    found = [Image_(data, {}) for data in images]
    for folder in folders:
        with Predictor(folder, engine="onnxruntime", threads=1) as predictor:
            digest = predictor.folder.digest()
            for one in found:
                try:
                    answer = predictor.predict(one.data, topk=1 << 30)[0]
                except UserError:
                    one.answers[digest] = None
                    continue
                scores = dict(zip(answer.classes, answer.scores, strict=True))
                one.answers[digest] = [scores[number] for number in range(len(scores))]
    return found


# --------------------------------------------------------------------------- clients


@dataclass
class Job:
    """What one client process is to do."""

    number: int
    seed: int
    port: int
    requests: int
    threads: int
    whole: list[Image_]
    broken: list[Image_]
    bombs: list[Image_]


@dataclass
class Outcome:
    """What came of requests: right, wrong, lost, stuck, hung up, or the kind of an error."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    exact: int = 0  # images whose probabilities had the very bits of Predictor's
    close: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, note: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if note and len(self.notes) < 20:
                self.notes.append(f"{what}: {note}")


class LostError(Exception):
    """No answer came; args: what, and more of it."""


class Client:
    """A thread that sends one request after the other."""

    def __init__(self, job: Job, number: int, outcome: Outcome, going: Any, done: Any):
        self.job = job
        self.going = going
        self.random = random.Random(f"{job.seed} {job.number} {number}")
        self.outcome = outcome
        self.done = done
        self.connection = self.connected()

    def connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.job.port, timeout=STUCK)

    def run(self, count: int) -> None:
        for _ in range(count):
            try:
                self.one()
            except LostError as error:
                self.outcome.add(*error.args)
            except Exception as error:
                self.outcome.add("wrong", f"{type(error).__name__}: {error}")
            self.going.wait()
            with self.done.get_lock():
                self.done.value += 1
        self.connection.close()

    def one(self) -> None:
        chance = self.random.random()
        if chance < HANG_UP:
            self.hang_up()
            return
        images = self.random.choices(self.job.whole, k=self.random.choice((1, 1, 1, 1, 2, 3, 7)))
        if chance < HANG_UP + BROKEN:
            images[self.random.randrange(len(images))] = self.random.choice(self.job.broken)
        elif chance < HANG_UP + BROKEN + BOMB:
            images = [self.random.choice(self.job.bombs)]
        form = self.random.choice((self.raw, self.form, self.json, self.infer, self.infer_binary))
        form(images[:1] if form == self.raw else images)

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        headers |= {"Authorization": f"Bearer {KEY}"}
        try:
            self.connection.request("POST", path, body, headers)
            answer = self.connection.getresponse()
            data = answer.read()
        except TimeoutError:
            self.connection = self.connected()
            raise LostError("stuck", path) from None
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = self.connected()
            raise LostError("lost", f"{path}: {type(error).__name__}: {error}") from None
        if answer.headers.get_content_subtype() not in ("json", "problem+json", "octet-stream"):
            raise ValueError(f"{path}: {answer.status} {data[:200]!r}")
        return answer.status, answer, data

    def raw(self, images: list[Image_]) -> None:
        path = f"/predict?topk={CLASSES}"
        kind = {"Content-Type": "application/octet-stream"}
        self.predicted(images, *self.send(path, images[0].data, kind))

    def form(self, images: list[Image_]) -> None:
        mark = "----a-boundary-that-no-image-has"
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="topk"\r\n\r\n{CLASSES}\r\n'.encode()
        ]
        for number, image in enumerate(images):
            head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; '
            parts += [f'{head}filename="{number}"\r\n\r\n'.encode(), image.data, b"\r\n"]
        body = b"".join([*parts, f"--{mark}--\r\n".encode()])
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        self.predicted(images, *self.send("/predict", body, kind))

    def json(self, images: list[Image_]) -> None:
        texts = [base64.b64encode(image.data).decode() for image in images]
        body = json.dumps({"images": texts, "topk": CLASSES}).encode()
        kind = {"Content-Type": "application/json"}
        self.predicted(images, *self.send("/predict", body, kind))

    def predicted(self, images: list[Image_], status: int, _: Any, data: bytes) -> None:
        found = json.loads(data)
        if status != 200:
            self.refused(images, status, found)
            return
        rows: list[list[float] | None] = []
        for one in found["predictions"]:
            if "error" in one:
                rows.append(None)
                continue
            scores = dict(zip(one["classes"], one["scores"], strict=True))
            rows.append([scores[number] for number in range(len(scores))])
        self.judge(images, found["digest"], rows)

    def infer(self, images: list[Image_]) -> None:
        texts = [base64.b64encode(image.data).decode() for image in images]
        input_ = {"name": "images", "datatype": "BYTES", "shape": [len(images)], "data": texts}
        asked = {"inputs": [input_], "outputs": [{"name": "probabilities"}]}
        path = f"/v2/models/{NAME}/infer"
        status, _, data = self.send(path, json.dumps(asked).encode(), {})
        found = json.loads(data)
        if status != 200:
            self.refused(images, status, found)
            return
        (output,) = found["outputs"]
        rows = np.array(output["data"]).reshape(output["shape"]).tolist()
        self.judge(images, found["parameters"]["digest"], rows)

    def infer_binary(self, images: list[Image_]) -> None:
        rest = b"".join(struct.pack("<I", len(image.data)) + image.data for image in images)
        asked = {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "BYTES",
                    "shape": [len(images)],
                    "parameters": {"binary_data_size": len(rest)},
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
        head = json.dumps(asked).encode()
        kind = {"Inference-Header-Content-Length": str(len(head))}
        status, answer, data = self.send(f"/v2/models/{NAME}/infer", head + rest, kind)
        if status != 200:
            self.refused(images, status, json.loads(data))
            return
        length = int(answer.headers["Inference-Header-Content-Length"])
        found = json.loads(data[:length])
        rows = np.frombuffer(data[length:], "<f4").reshape(found["outputs"][0]["shape"]).tolist()
        self.judge(images, found["parameters"]["digest"], rows)

    def judge(self, images: list[Image_], digest: str, rows: list[list[float] | None]) -> None:
        """Hold an answer against Predictor's."""
        if len(rows) != len(images):
            raise ValueError(f"{len(rows)} answers to {len(images)} images")
        for image, row in zip(images, rows, strict=True):
            wanted = image.answers[digest]
            if wanted is None or row is None:
                if wanted is not row:
                    raise ValueError(f"of {digest}: {row} in place of {wanted}")
                continue
            if len(row) != len(wanted):
                raise ValueError(f"{len(row)} classes in place of {len(wanted)}")
            difference = float(np.abs(np.array(row) - wanted).max())
            if not difference <= CLOSE:
                raise ValueError(f"of {digest}: a probability differs by {difference}")
            with self.outcome.lock:
                self.outcome.exact += row == wanted
                self.outcome.close += row != wanted
        self.outcome.add("right")

    def refused(self, images: list[Image_], status: int, found: dict[str, Any]) -> None:
        kind = found["type"].rpartition("#")[2]
        broken = any(None in image.answers.values() for image in images)
        if kind == "image" and broken:
            self.outcome.add("right")
        elif kind in BUSY:
            self.outcome.add(f"{status} {kind}", found["detail"])
        else:
            self.outcome.add("wrong", f"{status} {found['detail']}")

    def hang_up(self) -> None:
        """Send a request, or a part of it, and go."""
        data = self.random.choice(self.job.whole).data
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: image/x\r\nContent-Length: {len(data)}\r\n\r\n"
        whole = head.encode() + data
        length = self.random.choice((len(whole), self.random.randrange(1, len(whole))))
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.job.port), 30) as one:
            one.sendall(whole[:length])
            time.sleep(self.random.choice((0.0, 0.001, 0.01)))
        self.outcome.add("hung up")


def work(job: Job, going: Any, done: Any, answers: Any) -> None:
    """A client process."""
    outcome = Outcome()
    shares = [job.requests // job.threads] * job.threads
    shares[0] += job.requests % job.threads
    clients = [Client(job, number, outcome, going, done) for number in range(job.threads)]
    threads = [
        threading.Thread(target=client.run, args=(share,))
        for client, share in zip(clients, shares, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put((outcome.counts, outcome.notes, outcome.exact, outcome.close))


# --------------------------------------------------------------------------- the whole


class Soak:
    """The service, what happens to it, and what came of that."""

    def __init__(self, given: argparse.Namespace, place: Path):
        self.given = given
        self.place = place
        self.random = random.Random(given.seed)
        self.lines: list[str] = []
        self.rests: list[tuple[int, dict[int, int]]] = []  # bytes of the front process, of workers
        self.shown = 0.0  # the share at which memory is printed next
        self.happened: Counter[str] = Counter()

    def run(self) -> int:
        folders = self.given.exports or [self.place / "a", self.place / "b"]
        if not self.given.exports:
            for seed, folder in enumerate(folders):
                write_network(folder, seed)
        self.folders = [folder.resolve() for folder in folders]
        random_ = np.random.default_rng(self.given.seed)
        whole = made_images(random_)
        if self.given.images:
            found = sorted(path for path in self.given.images.rglob("*") if path.is_file())
            whole = [path.read_bytes() for path in found[:200]]
        broken = expected(broken_images(whole, random_), self.folders)
        good = [one for one in expected(whole, self.folders) if None not in one.answers.values()]
        # More pixels than the service takes, whatever Predictor would say.
        large = [Image_(data, {"": None}) for data in bombs()]
        self.served = self.place / NAME
        self.served.symlink_to(self.folders[0])
        self.start()
        try:
            return self.follow(good, broken, large)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()

    def start(self) -> None:
        keys = self.place / "keys"
        keys.write_text(f"{KEY} soak admin\n")
        options = self.given.options or ["--engine", "onnxruntime", "--threads", "1"]
        options += ["--port", "0", "--keys", keys, "--access-log", "none", "--hang", "5"]
        command = [sys.executable, "-m", "ppcls", "serve", f"{NAME}={self.served}", *options]
        root = str(Path(__file__).resolve().parent.parent)
        places = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": places},
        )
        ready = threading.Event()

        def read() -> None:
            for line in self.process.stdout or ():
                self.lines.append(line.rstrip())
                if found := re.match(r"ready: http://127\.0\.0\.1:(\d+)", line):
                    self.port = int(found[1])
                    ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(120):
            raise SystemExit("\n".join(["the service is not ready:", *self.lines]))

    def follow(self, whole: list[Image_], broken: list[Image_], large: list[Image_]) -> int:
        given = self.given
        context = multiprocessing.get_context("spawn")
        self.done = context.Value("q", 0)
        self.going = context.Event()
        self.going.set()
        answers = context.Queue()
        shares = [given.requests // given.clients] * given.clients
        shares[0] += given.requests % given.clients
        begun = time.monotonic()
        clients = []
        for number, share in enumerate(shares):
            job = Job(number, given.seed, self.port, share, given.threads, whole, broken, large)
            clients.append(context.Process(target=work, args=(job, self.going, self.done, answers)))
        for client in clients:
            client.start()
        happens = [self.kill] * given.kills + [self.reload] * given.reloads
        self.random.shuffle(happens)
        count = len(happens)
        events = [(QUIET * number / count, what) for number, what in enumerate(happens)]
        events += [(WARM, self.rest), (WARM_WORKER, self.rest), (1.0, self.rest)]
        for share, what in sorted(events, key=lambda one: one[0]):
            self.wait_for(share, clients)
            what()
        outcome = Outcome()
        for _ in clients:
            counts, notes, exact, close = answers.get(timeout=STUCK)
            outcome.counts.update(counts)
            outcome.notes += notes
            outcome.exact += exact
            outcome.close += close
        for client in clients:
            client.join()
        return self.report(outcome, time.monotonic() - begun)

    def wait_for(self, share: float, clients: list[Any]) -> None:
        """Until that share of the requests is done, looking at memory meanwhile."""
        while self.share < share and any(client.is_alive() for client in clients):
            self.look()
            time.sleep(0.1)

    @property
    def share(self) -> float:
        return self.done.value / self.given.requests

    def look(self) -> tuple[int, dict[int, int]]:
        """Memory, printed where the share of the requests has grown by so much."""
        workers = {pid: memory(pid) for pid in self.workers()}
        front = memory(self.process.pid)
        if self.share >= self.shown:
            sizes = ", ".join(f"{size / 1e6:.1f}" for size in workers.values())
            print(f"{self.share:5.0%}: front {front / 1e6:.1f} MB, workers {sizes} MB", flush=True)
            self.shown = self.share + SHOWN
        return front, workers

    def rest(self) -> None:
        """Hold the clients until nothing is under way, and look at memory."""
        self.going.clear()
        end = time.monotonic() + STUCK
        while self.metrics()[QUEUE] and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(REST)
        self.rests.append(self.look())
        self.going.set()

    def workers(self) -> list[int]:
        pid = self.process.pid
        with suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return [int(one) for one in text.split()]
        return []

    # ------------------------------------------------------------------ what happens to it

    def kill(self) -> None:
        """Any of its processes but the first, in any state; sometimes it is only stopped."""
        found = self.workers()
        if not found:
            self.happened["no worker was there to be killed"] += 1
            return
        number = signal.SIGSTOP if self.random.random() < 0.1 else signal.SIGKILL
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(found), number)
        self.happened["stopped" if number == signal.SIGSTOP else "killed"] += 1

    def reload(self) -> None:
        """The other network, in place and by signal, or by its folder and over HTTP."""
        folder = self.random.choice(self.folders)
        if self.random.random() < 0.5:
            aside = self.place / "aside"
            aside.symlink_to(folder)
            os.replace(aside, self.served)
            self.process.send_signal(signal.SIGHUP)
            self.happened["reloads by SIGHUP"] += 1
            return
        threading.Thread(target=self.load, args=(folder,), daemon=True).start()
        self.happened["reloads over HTTP"] += 1

    def load(self, folder: Path) -> None:
        body = json.dumps({"parameters": {"folder": str(folder)}})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            headers = {"Authorization": f"Bearer {KEY}"}
            connection.request("POST", f"/v2/repository/models/{NAME}/load", body, headers)
            answer = connection.getresponse()
            answer.read()
            self.happened[f"answers to loads: {answer.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            self.happened[f"loads without an answer: {type(error).__name__}"] += 1
        finally:
            connection.close()

    # ------------------------------------------------------------------ what came of it

    def metrics(self) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
        text = connection.getresponse().read().decode()
        connection.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if line[:1] != "#")
        return {name: float(value) for name, _, value in lines}

    def report(self, outcome: Outcome, seconds: float) -> int:
        counts = outcome.counts
        total = sum(counts.values())
        print(f"{total:,} requests in {seconds:.0f} s, {total / seconds:.0f}/s")
        for what, count in sorted(counts.items(), key=lambda one: -one[1]):
            print(f"  {what}: {count:,}")
        print(f"images with the bits of Predictor: {outcome.exact:,}; within {CLOSE}: ", end="")
        print(f"{outcome.close:,}")
        for what, count in sorted(self.happened.items()):
            print(f"{what}: {count}")
        metrics = self.metrics()
        for name, value in sorted(metrics.items()):
            if re.match(r"ppcls_(worker_restarts|reloads|hung_up|refused)_total", name):
                print(f"{name} {value:.0f}")
        problems = [f"{counts[what]} {what}" for what in ("lost", "wrong", "stuck") if counts[what]]
        if total != self.given.requests:
            problems.append(f"{self.given.requests - total} requests have no outcome")
        errors = sum(count for what, count in counts.items() if what[0].isdigit())
        if errors > max(3, MOST_ERRORS * total):
            problems.append(f"{errors} answers were no predictions")
        if waiting := metrics[QUEUE]:
            problems.append(f"{waiting:.0f} images wait for ever")
        problems += self.growth()
        self.process.terminate()
        left = self.workers()
        try:
            if code := self.process.wait(60):
                problems.append(f"it ended with exit code {code}")
        except subprocess.TimeoutExpired:
            problems.append("it does not end")
        problems += [f"worker {pid} is left over" for pid in left if Path(f"/proc/{pid}").exists()]
        if problems:
            print("\n".join([*outcome.notes[:20], "", "what the service said:"]))
            print("\n".join(line for line in self.lines if "Corrupt JPEG" not in line))
            print("; ".join(problems))
        return 1 if problems else 0

    def growth(self) -> list[str]:
        """Print memory after warm-up and at the end; what has grown by more than it may."""
        problems = []
        warm, later, last = self.rests
        found = [("front process", warm[0], last[0])]
        for pid, size in last[1].items():
            found.append((f"worker {pid}", later[1].get(pid, 0), size))
        for name, before, after in found:
            if not before or not after:
                print(f"memory of {name}: not seen long enough")
                continue
            percent = 100 * (after / before - 1)
            print(f"memory of {name}: {before / 1e6:.1f} MB warm, {after / 1e6:.1f} MB at the end")
            print(f"  {percent:+.1f} %")
            if 0 <= self.given.memory < percent:
                problems.append(f"{name} has grown by {percent:.1f} %")
        return problems


def memory(pid: int) -> int:
    """Bytes that a process holds; 0 where it is gone."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


if __name__ == "__main__":
    sys.exit(main())

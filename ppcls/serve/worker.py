"""The process that runs one model: it decodes images, makes batches and predicts.

Started by `model.Worker` with one end of a socket, over which `frames` go. Whatever happens to it,
a broken image that ends a decoder's library included, happens to no other process.
"""

import ctypes
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppcls.data import decode
from ppcls.data.preprocess import Preprocess
from ppcls.inference.inputs import Content, open_with_sides
from ppcls.inference.looks import looks_of
from ppcls.inference.manifest import FILE as MANIFEST
from ppcls.inference.predictor import MANY_CLASSES, Predictor, best_of
from ppcls.inference.selfcheck import check
from ppcls.serve import frames
from ppcls.serve.batching import Batcher, Item, Request
from ppcls.serve.curve import Plan, plan, resume_plan
from ppcls.serve.watch import How, Watch, how_of
from ppcls.utils import environment, guard, modules
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import be_quiet, print_error

BEAT = 0.5  # seconds
MOST_MAPS = 10  # classes of an image
SMALL = 1 << 20  # bytes of a file, and pixels of an image, that are decoded in a few milliseconds
OPENINGS = 3  # times that a folder is opened which is replaced meanwhile
GONE = 3  # exit code where the other process is gone …
BROKEN = 4  # … and where a thread has ended that it cannot do without
PR_SET_PDEATHSIG = 1
# Packages of the engines that `--engine auto` measures.
MODULES = {
    "paddle": "paddle",
    "onednn": "paddle",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


@dataclass(frozen=True)
class Failure:
    """Why an image has no answer; `kind`: image (it is broken), late, or engine (our fault)."""

    kind: str
    text: str


class Server:
    """A model, opened, and its threads."""

    def __init__(
        self,
        connection: socket.socket,
        predictor: Predictor,
        how: Plan,
        pixels: int,
        drift: How | None = None,
    ):
        self.connection = connection
        self.watch = Watch(drift, self.tell_drift) if drift else None
        self.sending = threading.Lock()
        self.predictor = predictor
        self.plan = how
        self.most_pixels = pixels
        self.batcher = Batcher(how.batch, how.delay, how.streams)
        self.requests: dict[int, Request] = {}
        self.busy: dict[int, float] = {}  # thread → since when it is at one thing
        self.decoders = ThreadPoolExecutor(environment.core_count(), "ppcls-decode")
        self.runners = [
            threading.Thread(target=self.run_batches, name=f"ppcls-run-{i}", daemon=True)
            for i in range(how.streams)
        ]
        for thread in self.runners:
            thread.start()
        threading.Thread(target=self.beat, daemon=True).start()

    def send(self, header: dict[str, Any], *parts: bytes) -> None:
        pieces = frames.encode(header, *parts)
        with self.sending:
            for piece in pieces:
                self.connection.sendall(piece)

    def tell_drift(self, found: dict[str, Any]) -> None:
        with suppress(OSError):
            self.send({"kind": "drift", "found": found})

    def beat(self) -> None:
        """Tell that this process lives, how long its threads are at what they do, and its size."""
        before = awake = time.monotonic()
        while True:
            now = time.monotonic()
            if now - before > 2 * BEAT:  # all of it stood still, not only what it does
                awake = now
            since = max(awake, min(list(self.busy.values()), default=now))
            with suppress(OSError):
                beat = {"kind": "beat", "busy": now - since, "memory": memory()}
                self.send(beat | ({"drift": self.watch.count} if self.watch else {}))
            before = time.monotonic()
            time.sleep(BEAT)

    def follow(self) -> None:
        """Do what is asked for until the other side ends it or is gone."""
        while True:
            try:
                header, rest = frames.receive(self.connection)
            except EOFError:
                os._exit(GONE)
            kind = header["kind"]
            if kind == "end":
                self.finish()
                return
            if kind == "cancel":
                request = self.requests.get(header["id"])
                if request:
                    request.cancelled = True
            elif kind == "images":
                self.take_images(header, rest)
            else:
                self.take_tensor(header, rest)

    def finish(self) -> None:
        """Answer what has come, and end."""
        self.decoders.shutdown()
        self.batcher.close()
        for thread in self.runners:
            thread.join()
        # An engine's own end may take long, or fail, and nothing is left that it could harm.
        os._exit(0)

    def take(self, header: dict[str, Any], count: int) -> Request:
        request = Request(
            header["id"],
            [None] * count,
            header.get("topk"),
            header.get("threshold"),
            header["until"],
            time.monotonic(),
            header.get("whole", False),
            count,
            names=header.get("names", ()),
            explain=header.get("explain", False),
        )
        self.requests[request.number] = request
        self.batcher.announce(count)
        return request

    def take_images(self, header: dict[str, Any], rest: memoryview) -> None:
        sizes = header["sizes"]
        request = self.take(header, len(sizes))
        start = 0
        for place, size in enumerate(sizes):
            data = bytes(rest[start : start + size])
            start += size
            sides = None
            if len(self.requests) == 1 == len(sizes) and size < SMALL:
                sides = sides_of(data, request.name(place))
                if math.prod(sides) < SMALL:  # handing it to another thread would take longer
                    self.decode(request, place, data, sides)
                    return
            self.decoders.submit(self.decode, request, place, data, sides)

    def take_tensor(self, header: dict[str, Any], rest: memoryview) -> None:
        rows = np.frombuffer(rest, header["dtype"]).reshape(header["shape"])
        request = self.take(header, len(rows))
        self.batcher.put(*(Item(request, i, row, True) for i, row in enumerate(rows)))

    def decode(
        self, request: Request, place: int, data: bytes, sides: tuple[int, int] | None
    ) -> None:
        """Prepare an image; `sides`: width and height, where they are known already."""
        own = threading.get_ident()
        self.busy[own] = start = time.monotonic()
        try:
            if request.is_over(start):
                raise TimeoutError
            image = Content(request.name(place), data)
            width, height = sides or sides_of(data, image)
            if width * height > self.most_pixels:
                raise DataError(
                    f"{image}: {width:,} x {height:,} pixels, more than the "
                    f"{self.most_pixels:,} that this service takes; send a smaller one"
                )
            preprocess = self.predictor.manifest.preprocess
            pixels, upright = open_with_sides(image, preprocess)
            seen = shares_seen(preprocess, *upright) if request.explain else ()
            looks = looks_of(pixels) if self.watch else None
        except TimeoutError:
            self.fail(request, place, Failure("late", "it came too late"))
        except UserError as error:
            self.fail(request, place, Failure("image", "; ".join(error.lines)))
        except BaseException as error:  # a thread of the pool would keep it to itself
            self.fail(request, place, Failure("engine", guard.gist(error)))
        else:
            request.decoding = max(request.decoding, time.monotonic() - start)
            self.batcher.put(Item(request, place, pixels, seen=seen, looks=looks))
        finally:
            self.busy.pop(own, None)

    def fail(self, request: Request, place: int, failure: Failure) -> None:
        """An image that does not come to the engine."""
        self.batcher.miss()
        if request.answer(place, failure):
            self.send_answers([request])

    def run_batches(self) -> None:
        try:
            self.run_until_closed()
        except BaseException as error:  # without this thread images would wait for ever
            print_error(f"a worker ends: {guard.gist(error)} ({guard.kept(error)})")
            os._exit(BROKEN)

    def run_until_closed(self) -> None:
        own = threading.get_ident()
        while True:
            items, alone = self.batcher.take()
            if not items:
                return
            now = time.monotonic()
            late = [item for item in items if item.request.is_over(now)]
            items = [item for item in items if not item.request.is_over(now)]
            failure = Failure("late", "it came too late")
            whole = [item.request for item in late if item.request.answer(item.place, failure)]
            seen: list[tuple[list[Item], np.ndarray, np.ndarray | None]] = []
            if items:
                self.busy[own] = now
                whole += self.run_batch(items, alone, seen)
                self.busy.pop(own, None)
            self.send_answers(whole)
            if self.watch:  # nobody waits for it
                for ran, rows, pooled in seen:
                    self.watch.take(rows, pooled, self.looks(ran))

    def run_batch(
        self,
        items: list[Item],
        alone: bool,
        seen: list[tuple[list[Item], np.ndarray, np.ndarray | None]],
    ) -> list[Request]:
        """Predict; returns the requests that have all their answers now.

        Args:
            seen: images, probabilities and features are added to it, for the watch over drift.
        """
        start = time.monotonic()
        engine = self.plan.alone if alone else self.plan.beside
        found: list[Any]
        try:
            outputs = engine.run_all(self.batch(items))
            rows = self.predictor.probabilities(outputs[0])
            several = len(items)
            pooled: Any = [None] * several
            if self.predictor.needs_features or (self.watch and self.watch.needs_features):
                pooled = self.predictor.pooled(outputs)
            maps: Any = [None] * several
            if self.predictor.manifest.maps and any(item.request.explain for item in items):
                maps = self.predictor.class_maps(outputs)
            found = [self.result(*one) for one in zip(items, rows, pooled, maps, strict=True)]
            if self.watch:
                seen.append((items, rows, pooled if self.watch.needs_features else None))
        except Exception as error:  # engines and memory have kinds of their own
            if len(items) > 1:  # one of them may be why, or that they are many
                return [whole for item in items for whole in self.run_batch([item], alone, seen)]
            reason = "; ".join(error.lines) if isinstance(error, UserError) else guard.gist(error)
            found = [Failure("engine", reason)]
            items[0].request.failed = reason
        seconds = time.monotonic() - start
        whole = []
        for item, answer in zip(items, found, strict=True):
            request = item.request
            request.begun = min(start, request.begun or start)
            request.engine = max(request.engine, seconds)
            request.batch = max(request.batch, len(items))
            if request.answer(item.place, answer):
                whole.append(request)
        return whole

    def batch(self, items: list[Item]) -> np.ndarray:
        """What the network takes; `items` are of one kind."""
        pixels = [item.pixels for item in items]
        if items[0].is_tensor:
            return np.stack(pixels)
        about = self.predictor.manifest
        return about.preprocess.network_input(pixels, about.input)

    def looks(self, items: list[Item]) -> np.ndarray:
        """How images look, float32 [N, LOOKS]; of a client's tensor, the pixels it was made of."""
        preprocess = self.predictor.manifest.preprocess
        return np.stack(
            [
                looks_of(preprocess.from_network_input(item.pixels))
                if item.looks is None
                else item.looks
                for item in items
            ]
        )

    def result(
        self,
        item: Item,
        row: np.ndarray,
        features: np.ndarray | None,
        maps: np.ndarray | None,
    ) -> dict[str, Any] | Failure:
        """The classes of an image, the likeliest first, by its probabilities."""
        request = item.request
        name = request.name(item.place)
        if not np.isfinite(row).all():
            return Failure("engine", str(self.predictor.not_finite(name)))
        found = classes_of(self.predictor, row, request.topk, request.threshold, features)
        if request.explain and maps is not None:
            found["maps"] = [in_digits(maps[index]) for index in found["classes"][:MOST_MAPS]]
            found["seen"] = item.seen
        if request.whole:
            found["whole"] = self.predictor.scores(row).astype("<f4").tobytes()
        return found

    def send_answers(self, requests: list[Request]) -> None:
        """Of whole requests, in one message."""
        if not requests:
            return
        answers = []
        parts: list[bytes] = []
        now = time.monotonic()
        for request in requests:
            self.requests.pop(request.number, None)
            images = []
            for found in request.answers:
                if isinstance(found, Failure):
                    images.append({"error": found.text, "kind": found.kind})
                    continue
                rest = found.pop("whole", None)
                parts += [rest] if rest else []
                images.append(found)
            waited = (request.begun or now) - request.arrived - request.decoding
            answer = {
                "id": request.number,
                "images": images,
                "waited": max(0.0, waited),
                "decode": request.decoding,
                "engine": request.engine,
                "batch": request.batch,
            }
            if request.failed:
                answer["failed"] = request.failed
            answers.append(answer | ({"whole": True} if request.whole else {}))
        with suppress(OSError):  # the other side is gone; `follow` sees it, too
            self.send({"kind": "answers", "answers": answers}, *parts)


def classes_of(
    predictor: Predictor,
    row: np.ndarray,
    topk: int | None,
    threshold: float | None,
    features: np.ndarray | None = None,
) -> dict[str, Any]:
    """Classes, labels and scores as `Predictor.predict` gives them, with set and state where it is
    calibrated, and the decision where it decides by costs.

    Args:
        row: probabilities [classes].
        features: [D], where the predictor needs them.
        threshold: of scores that are named; with several labels, in place of the export's.
    """
    manifest = predictor.manifest
    topk = topk or predictor.named
    if threshold is not None and manifest.task == "multilabel":
        classes = best_of(row, topk or MANY_CLASSES)
        classes = classes[row[classes] > threshold]
        labels = [predictor.label(index) for index in classes]
        return {"classes": classes.tolist(), "labels": labels, "scores": row[classes].tolist()}
    found = predictor.prediction(None, row, topk or MANY_CLASSES, 0.0, features)
    count = len(found.scores)
    if threshold is not None:
        count = sum(score >= threshold for score in found.scores)
    answer = {
        "classes": found.classes[:count],
        "labels": found.labels[:count],
        "scores": found.scores[:count],
    }
    if found.state is not None:
        answer |= {"set": found.set, "state": found.state}
    return answer if found.decision is None else answer | {"decision": found.decision}


def in_digits(values: np.ndarray) -> list[list[float]]:
    """A map's rows, in numbers that are short; UserError for what are none."""
    if not np.isfinite(values).all():
        raise UserError("the network's maps are not finite; export it again from whole weights")
    return [[float(f"{value:.4g}") for value in row] for row in values.tolist()]


def shares_seen(preprocess: Preprocess, height: int, width: int) -> list[float]:
    """What of an image comes to the network: top, left, bottom, right, in shares of its sides."""
    pairs = zip(preprocess.seen(height, width), (height, width, height, width), strict=True)
    return [round(place / side, 6) for place, side in pairs]


def sides_of(data: bytes, name: str) -> tuple[int, int]:
    """Width and height that an image says it has; 0 for a broken one, which decoding names."""
    try:
        return decode.open_image(data, name).size
    except Exception:
        return 0, 0


def memory() -> int:
    """Bytes of memory that this process holds."""
    fields = environment.read("proc/self/statm").split()
    if len(fields) > 1:
        return int(fields[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # not on Linux; the most it had
    return peak if sys.platform == "darwin" else peak * 1024


def about(
    predictor: Predictor, digest: str, how: Plan, checked: dict[str, Any], drift: How | None
) -> dict[str, Any]:
    """What the other process tells of the model."""
    manifest = predictor.manifest
    engine = predictor.engine
    return {
        "model": manifest.model,
        "digest": digest,
        "classes": list(manifest.labels),
        "task": manifest.task,
        "topk": manifest.topk,
        "calibrated": predictor.calibration is not None,
        "drift": drift.about() if drift else None,
        "engine": str(engine.settings),
        "framework": engine.settings.engine,
        "shape": [None, *engine.shape[1:]],
        "dtype": "uint8" if manifest.input == "uint8" else "float32",
        "batch": how.batch,
        "streams": how.streams,
        "delay": how.delay,
        "rate": how.rate,
        "seconds": {str(size): seconds for size, seconds in how.seconds.items()},
        "check": checked,
        "outputs": checked["outputs"],
        "maps": manifest.maps._asdict() if manifest.maps else None,
        "ppcls": environment.own_version(),
    }


def open_predictor(header: dict[str, Any]) -> tuple[Predictor, str]:
    """What an `open` message names, and the digest of its network's files.

    Raises:
        UserError: it cannot be opened, or is replaced again and again.
    """
    from ppcls.prediction import Predictor  # which opens checkpoints, too

    modules.use(*header["use"])
    folder = Path(header["folder"])
    for _ in range(OPENINGS):
        before = stamps(folder)
        predictor = Predictor(folder, **header["options"])
        digest = predictor.folder.digest()
        # Else the engine may have read one network, and the digest be that of another.
        used = {path.name for path in predictor.folder.files} | {MANIFEST}
        after = stamps(folder)
        if all(before.get(name) == after.get(name) for name in used):
            return predictor, digest
        predictor.close()
    raise UserError(f"{folder}: is being replaced while it is opened; load it once it is whole")


def stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    """What changes with each file of a folder, by its name; of an ONNX file, its own."""
    found = {}
    with suppress(OSError):
        for path in folder.iterdir() if folder.is_dir() else [folder]:
            state = path.stat()
            found[path.name] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def has_measured(predictor: Predictor) -> bool:
    """Whether this process has more engines in its memory than it uses, from choosing one."""
    used = MODULES.get(predictor.engine.settings.engine, "")
    return any(name in sys.modules for name in set(MODULES.values()) - {used})


def end_with_parent() -> None:
    """Be killed where the process that started this one ends, however that happens, on Linux."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve at the other end of the socket whose number is the program's only argument."""
    end_with_parent()
    connection = socket.socket(fileno=int(sys.argv[1]))
    be_quiet()
    # Of images that are refused for that, once they have said how large they are.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        header, _ = frames.receive(connection)
        server = opened(connection, header)
    except (EOFError, ConnectionError):
        os._exit(GONE)
    if server:
        server.follow()


def opened(connection: socket.socket, header: dict[str, Any]) -> Server | None:
    """What an `open` message asks for; None where it cannot be had, which then is told."""

    def send(message: dict[str, Any]) -> None:
        for piece in frames.encode(message):
            connection.sendall(piece)

    try:
        predictor, digest = open_predictor(header)
        if header["measures"] and has_measured(predictor):
            send({"kind": "again"})
            return None
        checked = check(predictor)
        known = header["known"]
        if known:
            how = resume_plan(predictor, known)
        else:
            how = plan(predictor, header["batch"], header["delay"])
        drift = how_of(predictor, header["drift"])
        ready = {"kind": "ready", **about(predictor, digest, how, checked, drift)}
    except UserError as error:
        send({"kind": "failed", "lines": error.lines})
        return None
    except ConnectionError:
        raise
    except Exception as error:
        where = guard.kept(error)
        send({"kind": "failed", "lines": [f"{header['folder']}: {guard.gist(error)} ({where})"]})
        return None
    send(ready)
    return Server(connection, predictor, how, header["pixels"], drift)


if __name__ == "__main__":
    main()

"""Exported models without weights, the machine, reading of images, engines timed by turns."""

import ctypes
import gc
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls import __version__
from ppcls.api import create_model
from ppcls.bench.plan import Cell, Conditions, Model
from ppcls.data import decode
from ppcls.data.preprocess import Preprocess
from ppcls.inference import exported_model, manifest
from ppcls.inference.auto import PACKAGES, example, installed_version, processor, settle
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import ExportedModel, open_exported
from ppcls.inference.predictor import softmax
from ppcls.metrics import relative_error
from ppcls.models import registry
from ppcls.models.fuse import save_program
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.opencv import cv2
from ppcls.weights.load import fill, image

LOGITS = "expected.npy"  # of the dynamic network for `compared`, on a CPU


def export(model: Model, target: Path) -> None:
    """Write the network with filled weights, giving logits, and its own logits; once."""
    if (target / manifest.FILE).is_file():
        return
    target.mkdir(parents=True, exist_ok=True)
    side = model.preprocess.height  # as of all networks that are named, and their width
    with on_cpu():
        net = make(model.network, side)
        with paddle.no_grad():
            logits = [net(paddle.to_tensor(one[None])).numpy() for one in compared(side)]
        np.save(target / LOGITS, np.concatenate(logits))
        save_program(net, target / exported_model.NAME, [None, 3, side, side], "float32", fold=net)
    about = manifest.Manifest(model.network, model.preprocess, output="logits")
    (target / manifest.FILE).write_text(about.to_yaml(), encoding="utf-8")


@contextmanager
def on_cpu() -> Iterator[None]:
    """Paddle computes on the CPU, whatever else is there: what others are held against."""
    before = paddle.get_device()
    paddle.set_device("cpu")
    try:
        yield
    finally:
        paddle.set_device(before)


def compared(side: int) -> np.ndarray:
    """The images that engines are compared on, float32 [2, 3, side, side]: one, and its mirror
    image, so that a row that answers for another one is found.
    """
    one = image(side)
    return np.concatenate([one, one[..., ::-1]])


def make(name: str, side: int) -> nn.Layer:
    """The network, its weights filled, in evaluation mode."""
    net = create_model(name)
    for key, value in net.state_dict().items():
        value.set_value(fill(key, value.shape))
    net.eval()
    kept = registry.spec_of(name).kept_statistics
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for norm in norms:
        norm._momentum = kept
        norm.train()
    noise = np.random.default_rng(0).standard_normal((2, 3, side, side), dtype=np.float32)
    with paddle.no_grad():
        net(paddle.to_tensor(noise))
    net.eval()
    return net


# --------------------------------------------------------------------------
# The machine: what it is, what is installed, its peak, and the memory held

try:
    import psutil
except ImportError:
    raise UserError("the benchmark needs psutil; pip install 'ppcls[deploy]'") from None

LOOK = 0.5
LIBRARIES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def describe_machine(device: str) -> dict[str, str | int]:
    about: dict[str, str | int] = {
        "processor": processor(),
        "cores": environment.core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return about | ({"gpu": gpu_name()} if device == "gpu" else {})


def gpu_name() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--device gpu: nvidia-smi does not tell which one ({error})") from None


def versions() -> dict[str, str]:
    """Of what the figures depend on, as far as it is installed."""
    found = {name: installed_version(name) for name in ("numpy", "paddle2onnx", *PACKAGES)}
    own = {"ppcls": __version__, "python": platform.python_version()}
    return own | {name: version for name, version in found.items() if version}


def peak(threads: int) -> float:
    """GFLOP/s of numpy's float32 matrix product with so many threads, measured now."""
    program = [sys.executable, str(Path(__file__).with_name("peak.py"))]
    variables = {**dict.fromkeys(LIBRARIES, str(threads)), environment.SAFE_PATH: "1"}
    done = subprocess.run(
        program, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def busy() -> float:
    """Percent of all cores that others use, while this process waits for `LOOK` seconds."""
    return psutil.cpu_percent(interval=LOOK)


def resident() -> int:
    """Bytes of memory this process holds, after what it freed went back to the system."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim:
            trim(0)
    return psutil.Process().memory_info().rss


# --------------------------------------------------------------------------
# The time that images take before and after the network

MADE = (375, 500)  # pixels of a made-up image, as large as ImageNet's are on average
BATCH = 8
CLASSES = 1000
TOPK = 5
SECONDS = 0.5
MOST = 64  # images of a folder


def make_image(folder: Path) -> Path:
    """A JPEG that is about as detailed, and as large, as images are."""
    noise = np.random.default_rng(0).standard_normal((*MADE, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    pixels = np.clip(128 + 48 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    path = folder / "photo.jpg"
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    return path


def describe_images(preprocess: Preprocess, given: Path | None) -> dict[str, Any]:
    """What the times depend on."""
    used = {
        **preprocess.sizes(),
        "interpolation": preprocess.interpolation,
        "backend": preprocess.backend,
    }
    made = f"a made-up image of {MADE[1]} x {MADE[0]}"
    return {**used, "channels": preprocess.channels, "photos": str(given or made)}


def time_images(
    preprocess: Preprocess, images: Sequence[Path], seconds: float = SECONDS
) -> dict[str, float]:
    """Milliseconds an image, one thread: decoding, resizing and cropping; normalising and stacking
    in batches of 8; softmax and the five best of 1,000 classes in batches of 8. Each for
    so many `seconds`.
    """
    pixels = [preprocess(decode.read(image, preprocess.channels)) for image in images[:MOST]]
    batch = [pixels[i % len(pixels)] for i in range(BATCH)]
    logits = np.random.default_rng(0).standard_normal((BATCH, CLASSES), dtype=np.float32)

    def read() -> None:
        for one in images[:MOST]:
            preprocess(decode.read(one, preprocess.channels))

    def normalize() -> None:
        preprocess.normalize(np.stack(batch))

    return {
        "read_ms": milliseconds(read, seconds) / len(pixels),
        "normalize_ms": milliseconds(normalize, seconds) / BATCH,
        "postprocess_ms": milliseconds(lambda: best(logits), seconds) / BATCH,
    }


def best(logits: np.ndarray) -> np.ndarray:
    return np.argsort(-softmax(logits), axis=1, kind="stable")[:, :TOPK]


def milliseconds(run: Callable[[], Any], seconds: float) -> float:
    """Median of runs within `seconds`, at least one, after an untimed one."""
    run()
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


# --------------------------------------------------------------------------
# Measuring one network's cells, in a process of its own: see `run.in_child`

HELD = 4  # times its weights, in bytes, that an engine holds while it opens a network …
HELD_MAKING = 3  # … and Paddle while it makes and exports one
BYTES = 4  # of a float32
SLOW = 1.0  # seconds of a run that idle threads of the engine before cannot change much …
SPIN = 0.25  # … once they were given so many seconds to end
LEAST_RUNS = 2  # timed, of runs that are not slow
ENDLESS = 4.0  # seconds of a run of which the first one counts: what it prepares is little of it
LONGEST = 30.0  # seconds that a batch may take, by what fewer images took
LIMITS = {"fp32": 1e-4}  # relative error of logits, by precision


@dataclass(frozen=True)
class Job:
    """A network, the cells to measure, and the folder it is or will be in."""

    model: Model
    cells: tuple[Cell, ...]
    conditions: Conditions
    folder: Path
    peaks: dict[int, float]  # threads → GFLOP/s
    busy: float  # percent of the machine that others use


@dataclass(frozen=True)
class Now:
    """What is worked on: to blame if the process dies."""

    cells: tuple[Cell, ...]


Result = tuple[Cell, dict[str, Any]]


@dataclass
class Subject:
    """The network in hand."""

    job: Job
    folder: ExportedModel
    images: np.ndarray | None  # to compare on, and …
    expected: np.ndarray | None  # … what the dynamic network gives for them, where it is known
    macs: int | None


@dataclass
class Contender:
    """An engine with the cells it is opened for."""

    settings: Settings
    cells: list[Cell]
    engine: Engine | None = None
    resident: int = 0  # bytes by which opening and the runs so far raised the process's
    per_image: float = 0  # bytes
    seconds: float = 0  # of an image, at best
    error: float | None = None  # relative, of the first image


@dataclass
class Turns:
    """The times of a cell."""

    cell: Cell
    engine: Engine
    images: np.ndarray
    resident: int
    slow: bool
    times: list[float] = field(default_factory=list)  # seconds
    error: float | None = None  # relative, at this batch size

    def take(self, seconds: float) -> None:
        """Untimed runs, for the engine before has left threads spinning; then timed ones."""
        if self.slow:
            time.sleep(SPIN)
        else:
            settle(self.engine, self.images)
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            self.engine.run(self.images)
            self.times.append(time.perf_counter() - start)
            if time.perf_counter() >= end:
                return

    def enough(self, conditions: Conditions) -> bool:
        total = conditions.rounds * conditions.seconds
        return len(self.times) >= (1 if self.slow else LEAST_RUNS) and sum(self.times) >= total


def serve(job: Job, sender: Connection) -> None:
    """Send a `Now` before each step, and each cell with what was found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    for message in work(job):
        sender.send(message)


def work(job: Job) -> Iterator[Now | Result]:
    yield Now(job.cells)
    try:
        subject = prepare(job)
    except (
        Exception
    ) as error:  # of any kind: Paddle, paddle2onnx, the disk; the next network counts
        yield from ((cell, failed(error)) for cell in job.cells)
        return
    contenders = group(job.cells, job.conditions.device)
    needed = HELD * subject.folder.size()
    together = len(contenders) * needed <= environment.free_memory()
    for rivals in [contenders] if together else [[c] for c in contenders]:
        opened = []
        for contender in rivals:
            yield Now(tuple(contender.cells))
            try:
                refuse_without(needed, "opening it")
                open_contender(subject, contender)
                opened.append(contender)
            except Exception as error:  # engines have many kinds
                yield from ((cell, failed(error)) for cell in contender.cells)
        for batch in sorted({cell.batch for contender in opened for cell in contender.cells}):
            yield from measure(subject, opened, batch)
        for contender in rivals:
            contender.engine = None


def prepare(job: Job) -> Subject:
    """Export the network if it is one by name, and count its multiply-adds."""
    from ppcls.models import complexity

    model = job.model
    known = job.model.network in registry.SPECS
    counted = complexity.count_by_name(model.network) if known else None
    macs = counted.macs if counted else None
    if model.folder:
        same_size = known and registry.resolution(model.network) == model.preprocess.crop
        return Subject(job, open_exported(model.folder), None, None, macs if same_size else None)
    assert counted
    refuse_without(HELD_MAKING * BYTES * counted.params, "making it")
    export(model, job.folder)
    gc.collect()  # networks have cycles, and engines need the memory
    expected = np.load(job.folder / LOGITS)
    images = compared(model.preprocess.height)[: len(expected)]
    return Subject(job, open_exported(job.folder), images, expected, macs)


def group(cells: Iterable[Cell], device: str) -> list[Contender]:
    """Cells by what opens together: all batch sizes, but on a GPU, where one is built for, each."""
    largest = max(cell.batch for cell in cells)
    found: dict[Settings, Contender] = {}
    for cell in cells:
        settings = cell.settings(device, cell.batch if device == "gpu" else largest)
        found.setdefault(settings, Contender(settings, [])).cells.append(cell)
    return list(found.values())


def open_contender(subject: Subject, contender: Contender) -> None:
    before = resident()
    contender.engine = open_engine(subject.folder, contender.settings)
    contender.resident = resident() - before
    if subject.images is not None:
        contender.error, _ = run_compared(subject, contender, 1)


def run_first(contender: Contender, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Output and seconds of a run; what it does to the process's memory is kept."""
    assert contender.engine
    before = resident()
    begin = time.perf_counter()
    output = contender.engine.run(images)
    seconds = time.perf_counter() - begin
    grown = resident() - before
    contender.resident += grown
    contender.per_image = max(contender.per_image, grown / len(images))
    own = seconds / len(images)
    contender.seconds = min(contender.seconds or own, own)
    return output, seconds


def run_compared(subject: Subject, contender: Contender, batch: int) -> tuple[float, float]:
    """A batch of the images to compare on, over and over: the relative error of the worst of them,
    and the seconds it took.
    """
    assert subject.images is not None
    assert subject.expected is not None
    turns = math.ceil(batch / len(subject.images))
    images, expected = (
        np.concatenate([part] * turns)[:batch] for part in (subject.images, subject.expected)
    )
    logits, seconds = run_first(contender, images)
    if logits.shape != expected.shape:
        raise UserError(f"gives {list(logits.shape)} for {list(expected.shape)}")
    errors = [relative_error(*pair) for pair in zip(logits, expected, strict=True)]
    return float(np.max(errors)), seconds  # no number where one of them is none


def measure(subject: Subject, opened: list[Contender], batch: int) -> Iterator[Now | Result]:
    """The contenders by turns, each time in another order, on batches of one size."""
    conditions = subject.job.conditions
    images = example(subject.folder, batch)
    by_cell = {cell: c for c in opened for cell in c.cells if cell.batch == batch}
    every: list[Turns] = []
    for cell, contender in by_cell.items():
        yield Now((cell,))
        try:
            every.append(start(subject, contender, cell, images))
        except Exception as error:
            yield cell, failed(error)
    for round in range(conditions.rounds):
        first = round % max(1, len(every))
        for turns in every[first:] + every[:first]:
            if turns.enough(conditions):
                continue
            yield Now((turns.cell,))
            try:
                turns.take(conditions.seconds)
            except Exception as error:
                every.remove(turns)
                yield turns.cell, failed(error)
    for turns in every:
        contender = by_cell[turns.cell]
        contender.seconds = min(contender.seconds, min(turns.times) / batch)
        found = summary(turns, contender, subject)
        yield turns.cell, found | {"interleaved": len(opened) > 1}


def start(subject: Subject, contender: Contender, cell: Cell, images: np.ndarray) -> Turns:
    """The first run at a batch size, which also tells its memory, and whether it agrees."""
    assert contender.engine
    if contender.seconds * cell.batch > LONGEST:
        raise UserError(f"skipped: a batch takes longer than {LONGEST:g} seconds")
    refuse_without(math.ceil(contender.per_image * cell.batch), f"a batch of {cell.batch}")
    error = None
    if subject.images is None:
        _, seconds = run_first(contender, images)
    else:
        error, seconds = run_compared(subject, contender, cell.batch)
    times = [seconds] if seconds > ENDLESS else []
    return Turns(cell, contender.engine, images, contender.resident, seconds > SLOW, times, error)


def refuse_without(needed: int, what: str) -> None:
    free = environment.free_memory()
    if needed > free:
        raise UserError(
            f"skipped: {what} takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )


def summary(turns: Turns, contender: Contender, subject: Subject) -> dict[str, Any]:
    """The figures of a cell; of times the percentiles over all rounds."""
    cell = turns.cell
    median = float(np.median(turns.times))
    peak = subject.job.peaks.get(cell.threads)
    gflops = 2 * subject.macs * cell.batch / median / 1e9 if subject.macs else None
    p90, p99 = (1000 * float(np.percentile(turns.times, q)) for q in (90, 99))
    limit = LIMITS.get(cell.precision, math.inf)
    known = [error for error in (contender.error, turns.error) if error is not None]
    error = float(np.max(known)) if known else None
    return {
        "median_ms": round(1000 * median, 3),
        "p90_ms": round(p90, 3),
        "p99_ms": round(p99, 3),
        "runs": len(turns.times),
        "images_per_second": round(cell.batch / median, 2),
        "resident_mib": round(turns.resident / 2**20),
        "gflops": round(gflops, 2) if gflops else None,
        "peak_gflops": round(peak, 1) if peak else None,
        "others_percent": subject.job.busy,
        "relative_error": error and float(f"{error:.3g}"),
        "agrees": None if error is None else error <= limit,
    }


def failed(error: Exception) -> dict[str, Any]:
    reason = " ".join(str(error).split())
    named = isinstance(error, UserError)
    return {"failed": (reason if named else f"{type(error).__name__}: {reason}")[:500]}

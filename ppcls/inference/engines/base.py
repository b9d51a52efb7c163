"""What every engine has in common, and copies of one for threads that last."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

Given = ParamSpec("Given")
Result = TypeVar("Result")

mark = threading.local()


def is_lasting() -> bool:
    """Whether the calling thread is one of these."""
    return getattr(mark, "lasting", False)


class LastingThreads:
    """Up to so many threads, started as they are needed; they end with `close` or with this object.

    A process made by a fork starts threads of its own.
    """

    def __init__(self, count: int, name: str):
        self.count = count
        self.name = name
        self.closed = False
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.process = os.getpid()
        self.executor: ThreadPoolExecutor | None = None

    def submit(
        self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> "Future[Result]":
        """Raises: UserError: closed."""
        if self.process != os.getpid():
            self.forget()
        with self.lock:
            if self.closed:
                raise UserError("the predictor is closed; open another one")
            if self.executor is None:
                self.executor = ThreadPoolExecutor(self.count, self.name, self.begin)
            return self.executor.submit(work, *args, **kwargs)

    @staticmethod
    def begin() -> None:
        mark.lasting = True

    def close(self) -> None:
        """What has begun is waited for, what has not is cancelled."""
        if self.process != os.getpid():
            self.forget()
        with self.lock:
            executor = self.executor
            self.executor = None
            self.closed = True
        if executor:
            executor.shutdown(cancel_futures=True)


# --------------------------------------------------------------------------
# Copies of an opened network, for callers in any number of threads: few, and all of them kept

Call = Callable[[np.ndarray], list[np.ndarray]]  # images to outputs, in their order
Output = TypeVar("Output")


@dataclass(eq=False)
class Copy:
    """What one caller at a time runs; `warm` after its first run, which is slower than others."""

    run: Call
    warm: bool = False


class Copies:
    """Lent to one caller each; made when all are lent, up to `limit`; further callers wait."""

    def __init__(self, first: Call, make: Callable[[], Call], limit: int):
        self.make = make
        self.limit = limit
        self.free = [Copy(first)]
        self.made = 1
        self.changed = threading.Condition()

    def use(self, work: Callable[[Copy], Output]) -> Output:
        with self.lent() as copy:
            return work(copy)

    @contextmanager
    def lent(self) -> Iterator[Copy]:
        with self.changed:
            while not self.free and self.made >= self.limit:
                self.changed.wait()
            copy = self.free.pop() if self.free else None
            self.made += copy is None
        try:
            if copy is None:
                copy = Copy(self.make())
            yield copy
        finally:
            with self.changed:
                if copy is None:
                    self.made -= 1
                else:
                    self.free.append(copy)
                self.changed.notify()

    def close(self) -> None:
        pass


class CopiesOfThreads:
    """Copies that belong to threads, since their library is slow to take them to another.

    The thread that opened the network has its own, and so have threads that are known to last. All
    others hand their work to up to `limit` threads that are kept for it.
    """

    def __init__(self, first: Call, make: Callable[[], Call], limit: int):
        self.make = make
        self.limit = limit
        self.unused = [Copy(first)]
        self.made = 0
        self.lock = threading.Lock()
        self.local = threading.local()
        self.local.opened_it = True
        self.threads = LastingThreads(limit, "ppcls-engine")

    def use(self, work: Callable[[Copy], Output]) -> Output:
        if getattr(self.local, "opened_it", False) or is_lasting():
            return work(self.own())
        return self.threads.submit(lambda: work(self.own())).result()

    def own(self) -> Copy:
        """The calling thread's."""
        if not hasattr(self.local, "copy"):
            with self.lock:  # the library's own copying is not meant for several threads at once
                self.local.copy = self.unused.pop() if self.unused else Copy(self.make())
                self.made += 1
        return self.local.copy

    def close(self) -> None:
        self.threads.close()


# --------------------------------------------------------------------------
# What every engine has in common

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """How a network is run.

    Attributes:
        engine: a name in `ENGINES`.
        device: cpu or gpu.
        precision: of the arithmetic: fp32, bf16 or fp16; networks in int8 ignore it.
        threads: of the CPU, for each batch.
        streams: batches that run at the same time, each called from a thread of its own.
        batch: images a run, which engines that build for one size are built for.
    """

    engine: str
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    streams: int = 1
    batch: int = 8

    def __str__(self) -> str:
        threads = plural(self.threads, "thread")
        return f"{self.engine} ({self.precision}, {threads if self.device == 'cpu' else 'GPU'})"


@dataclass(frozen=True)
class Opened:
    """What an engine's file gives: the call, and the input it takes, None for what is free.

    `copy` makes another call for another thread, None: the one serves several at a time; with
    `of_threads` each stays with the thread that first used it. `graph`: it is launched as one CUDA
    graph; `why`: why it is not, "" where it is, or where there are no such graphs.
    """

    call: Call
    shape: tuple[int | None, ...]
    dtype: str
    copy: Callable[[], Call] | None = None
    of_threads: bool = False
    graph: bool = False
    why: str = ""


class Engine:
    """A network, opened: `run` maps arrays to arrays, from any thread.

    Callers at the same time share few copies of the network: as many as its settings ask for, or as
    the cores can serve; `copies.made` counts them.
    """

    def __init__(self, path: Path, settings: Settings, opened: Opened):
        self.path = path
        self.settings = settings
        self.shape = opened.shape
        self.dtype = opened.dtype
        self.graph = opened.graph
        self.why = opened.why
        kind = CopiesOfThreads if opened.of_threads else Copies
        at_once = 1 if settings.device == "gpu" else environment.core_count() // settings.threads
        limit = max(1, at_once, settings.streams)
        self.copies = kind(opened.call, opened.copy or (lambda: opened.call), limit)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images as the network takes them, [N, …], to its output, float32 [N, classes].

        Raises:
            UserError: images of another shape or dtype than the network takes, or the engine
                cannot run it on them.
        """
        return self.run_all(images)[0]

    def run_all(self, images: np.ndarray) -> list[np.ndarray]:
        """As `run`, to all outputs: features float32 [N, D] come second where the network has
        them.
        """
        self.check(images)
        return self.attempt(lambda copy: copy.run(np.ascontiguousarray(images)), images)

    def run_timed(self, images: np.ndarray) -> tuple[list[np.ndarray], float]:
        """As `run_all`, and its seconds, without waiting, making a copy and its first run."""
        self.check(images)

        def timed(copy: Copy) -> tuple[list[np.ndarray], float]:
            if not copy.warm:
                copy.run(np.zeros(images.shape, images.dtype))
                copy.warm = True
            start = time.perf_counter()
            output = copy.run(np.ascontiguousarray(images))
            return output, time.perf_counter() - start

        return self.attempt(timed, images)

    def check(self, images: np.ndarray) -> None:
        """UserError for images of another shape or dtype than the network takes."""
        fits = len(images.shape) == len(self.shape) and all(
            want in (None, have)
            for want, have in zip(self.shape[1:], images.shape[1:], strict=True)
        )
        if not fits or images.dtype != self.dtype or not len(images):
            wanted = ", ".join("any" if side is None else str(side) for side in self.shape[1:])
            raise UserError(
                f"{self.path}: the network takes {self.dtype} [N, {wanted}], not "
                f"{images.dtype} {list(images.shape)}; use the --crop it was exported with"
            )

    def attempt(self, work: Callable[[Copy], Result], images: np.ndarray) -> Result:
        try:
            return self.copies.use(work)
        except UserError:
            raise
        except Exception as error:  # engines have kinds of their own, without a common base
            reason = " ".join(str(error).split())[-200:]
            raise UserError(
                f"{self.path}: engine {self.settings.engine} cannot run this network on "
                f"{images.dtype} {list(images.shape)} ({reason})"
            ) from None

    def close(self) -> None:
        """End the threads that were kept for it."""
        self.copies.close()


def free(shape: object) -> tuple[int | None, ...]:
    """A shape as engines give it; -1, names and the like become None, as does the batch."""
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape]  # type: ignore
    return (None, *sides[1:])


def in_batches(call: Call, size: int | None) -> Call:
    """A call for any number of images, of one for just so many; None: it takes any number."""
    if size is None:
        return call

    def whole(images: np.ndarray) -> list[np.ndarray]:
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = np.zeros((size, *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            parts.append([output[: len(part)] for output in call(filled)])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return whole


def at_most(call: Call, size: int) -> Call:
    """A call for any number of images, of one for up to so many."""

    def whole(images: np.ndarray) -> list[np.ndarray]:
        if len(images) <= size:
            return call(images)
        parts = [call(images[start : start + size]) for start in range(0, len(images), size)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return whole


def need(module: str, package: str, extra: str, engine: str) -> None:
    """UserError unless the module is installed."""
    if find_spec(module) is None:
        raise UserError(
            f"engine {engine}: {package} is not installed; pip install 'ppcls[{extra}]'"
        )


def refuse_precision(settings: Settings, *known: str) -> None:
    """UserError unless the engine has the precision on the device."""
    if settings.precision not in known:
        raise UserError(
            f"engine {settings.engine}: has no {settings.precision} on a "
            f"{settings.device.upper()}, only {' and '.join(known)}"
        )


# --------------------------------------------------------------------------
# TensorRT, which Paddle and ONNX Runtime call

TENSORRT = 10  # the major version that both call; version 11 has lost what they set
OLDEST_GPU = (7, 5)  # compute capability of the oldest GPUs that TensorRT goes on with …
LAST_FOR_OLDER = (10, 4)  # … and its last version for older ones (V100 is 7.0)
TURNING = 3  # runs that show whether a CUDA graph computes what is put into it
# Why a network is not launched as one CUDA graph.
NOT_ONE = "the network is not one engine of TensorRT's"
SEVERAL_IMAGES = "only an engine for one image has one"
STALE = "its CUDA graph does not answer each image by what is in it"


def refuse_tensorrt(engine: str, version: tuple[int, ...], major: int = TENSORRT) -> None:
    """UserError where this version of TensorRT is not one that the engine, or the GPU, can use."""
    known = ".".join(map(str, version[:2]))
    if version[0] != major:
        wanted = "tensorrt>=10,<11" if major == TENSORRT else f"tensorrt>={major},<{major + 1}"
        raise UserError(
            f"engine {engine}: calls TensorRT {major}, and {known} is installed; "
            f"pip install '{wanted}' (docs/gpu.md has which for what)"
        )
    capability = compute_capability()
    if capability and capability < OLDEST_GPU and version[:2] > LAST_FOR_OLDER:
        own = ".".join(map(str, capability))
        last = ".".join(map(str, LAST_FOR_OLDER))
        raise UserError(
            f"engine {engine}: TensorRT {known} has no support for this GPU (compute capability "
            f"{own}), {last} is the last one that had; pip install 'tensorrt>=10,<10.5'"
        )


def tensorrt_version() -> tuple[int, ...] | None:
    """Of TensorRT's Python package, which loads its libraries, too; None where there is none."""
    try:
        found = str(import_module("tensorrt").__version__)
    except Exception:  # whatever it meets where its libraries or a driver are missing
        return None
    return tuple(map(int, re.findall(r"\d+", found)[:3]))


def compute_capability() -> tuple[int, ...] | None:
    """Of the first GPU, as NVIDIA's driver says it: (7, 0) is a V100; None where it says none."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else None


def graph_holds(call: Call, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a call that replays a CUDA graph computes what it is given, each time.

    The first run of one is not replayed, and later ones compute on what lies where the first had
    its input: a graph whose input has moved goes on answering the first images.
    """
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 1, *shape))
    first, other = pixels.astype(dtype) if dtype == "uint8" else pixels.astype(dtype) / 128 - 1
    expected = call(first)
    for _ in range(TURNING):
        found = call(other)
        if all(np.array_equal(*pair) for pair in zip(found, expected, strict=True)):
            return False
        again = zip(call(first), expected, strict=True)
        if not all(np.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in again):
            return False
    return True

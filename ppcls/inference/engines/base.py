"""What every engine has in common."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np

from ppcls.inference.engines.pool import Call, Copies, CopiesOfThreads, Copy
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("fp32", "bf16", "fp16")

Result = TypeVar("Result")


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
    `of_threads` each stays with the thread that first used it.
    """

    call: Call
    shape: tuple[int | None, ...]
    dtype: str
    copy: Callable[[], Call] | None = None
    of_threads: bool = False


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
        self.check(images)
        return self.attempt(lambda copy: copy.run(np.ascontiguousarray(images)), images)

    def run_timed(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """As `run`, and its seconds, without waiting, making a copy and the copy's first run."""
        self.check(images)

        def timed(copy: Copy) -> tuple[np.ndarray, float]:
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

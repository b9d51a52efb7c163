"""What every engine has in common."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np

from ppcls.errors import UserError
from ppcls.utils.text import plural

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
        batch: photos a run, which engines that build for one size are built for.
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
    """What an engine's file gives: the call, and the input it takes, None for what is free."""

    call: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int | None, ...]
    dtype: str


class Engine:
    """A network, opened: `run` maps arrays to arrays."""

    def __init__(self, path: Path, settings: Settings, opened: Opened):
        self.path, self.settings = path, settings
        self.call, self.shape, self.dtype = opened.call, opened.shape, opened.dtype

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images as the network takes them, [N, …], to its output, float32 [N, classes].

        Raises:
            UserError: images of another shape or dtype than the network takes, or the engine
                cannot run it on them.
        """
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
        try:
            return self.call(np.ascontiguousarray(images))
        except Exception as error:  # engines have kinds of their own, without a common base
            reason = " ".join(str(error).split())[-200:]
            raise UserError(
                f"{self.path}: engine {self.settings.engine} cannot run this network on "
                f"{images.dtype} {list(images.shape)} ({reason})"
            ) from None


Own = TypeVar("Own")


def per_thread(make: Callable[[], Own]) -> Callable[[], Own]:
    """A function that gives each thread its own, made when the thread first asks."""
    local = threading.local()

    def own() -> Own:
        if not hasattr(local, "own"):
            local.own = make()
        return local.own

    return own


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

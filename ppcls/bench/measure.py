"""Measuring one network's cells, in a process of its own: see `run.in_child`."""

import gc
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ppcls import environment
from ppcls.bench import machine
from ppcls.bench.plan import Cell, Conditions, Model
from ppcls.errors import UserError
from ppcls.figures import relative_error
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.folder import Folder, open_folder
from ppcls.inference.timing import example, settle
from ppcls.models import zoo

HELD = 4  # times its weights, in bytes, that an engine holds while it opens a network …
HELD_MAKING = 3  # … and Paddle while it makes and exports one
BYTES = 4  # of a float32
SLOW = 1.0  # seconds of a run that idle threads of the engine before cannot change much …
SPIN = 0.25  # … once they were given so many seconds to end
LEAST_RUNS = 2  # timed, of runs that are not slow
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
    folder: Folder
    image: np.ndarray | None  # one image and …
    expected: np.ndarray | None  # … what the dynamic network gives for it, where it is known
    macs: int | None


@dataclass
class Contender:
    """An engine with the cells it is opened for."""

    settings: Settings
    cells: list[Cell]
    engine: Engine | None = None
    resident: int = 0  # bytes by which opening and the runs so far raised the process's
    per_image: float = 0  # bytes
    error: float | None = None  # relative


@dataclass
class Turns:
    """The times of a cell."""

    cell: Cell
    engine: Engine
    images: np.ndarray
    resident: int
    slow: bool
    times: list[float] = field(default_factory=list)  # seconds

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

    model, known = job.model, job.model.network in zoo.SPECS
    counted = complexity.count_by_name(model.network) if known else None
    macs = counted.macs if counted else None
    if model.folder:
        same_size = known and zoo.resolution(model.network) == model.preprocess.crop
        return Subject(job, open_folder(model.folder), None, None, macs if same_size else None)
    from ppcls.bench import made
    from ppcls.weights.fill import image

    assert counted
    refuse_without(HELD_MAKING * BYTES * counted.params, "making it")
    made.export(model, job.folder)
    gc.collect()  # networks have cycles, and engines need the memory
    expected = np.load(job.folder / made.LOGITS)
    return Subject(job, open_folder(job.folder), image(model.preprocess.crop), expected, macs)


def group(cells: Iterable[Cell], device: str) -> list[Contender]:
    """Cells by what opens together: all batch sizes, but on a GPU, where one is built for, each."""
    largest = max(cell.batch for cell in cells)
    found: dict[Settings, Contender] = {}
    for cell in cells:
        settings = cell.settings(device, cell.batch if device == "gpu" else largest)
        found.setdefault(settings, Contender(settings, [])).cells.append(cell)
    return list(found.values())


def open_contender(subject: Subject, contender: Contender) -> None:
    before = machine.resident()
    contender.engine = open_engine(subject.folder, contender.settings)
    contender.resident = machine.resident() - before
    if subject.image is not None and subject.expected is not None:
        logits, _ = run_first(contender, subject.image)
        contender.error = relative_error(logits, subject.expected)


def run_first(contender: Contender, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Output and seconds of a run; what it does to the process's memory is kept."""
    assert contender.engine
    before = machine.resident()
    begin = time.perf_counter()
    output = contender.engine.run(images)
    seconds = time.perf_counter() - begin
    grown = machine.resident() - before
    contender.resident += grown
    contender.per_image = max(contender.per_image, grown / len(images))
    return output, seconds


def measure(subject: Subject, opened: list[Contender], batch: int) -> Iterator[Now | Result]:
    """The contenders by turns, each time in another order, on batches of one size."""
    conditions = subject.job.conditions
    images = example(subject.folder, batch)
    by_cell = {cell: c for c in opened for cell in c.cells if cell.batch == batch}
    every: list[Turns] = []
    for cell, contender in by_cell.items():
        yield Now((cell,))
        try:
            every.append(start(contender, cell, images))
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
        found = summary(turns, by_cell[turns.cell], subject)
        yield turns.cell, found | {"interleaved": len(opened) > 1}


def start(contender: Contender, cell: Cell, images: np.ndarray) -> Turns:
    """The first run at a batch size, which also tells its memory."""
    assert contender.engine
    refuse_without(math.ceil(contender.per_image * cell.batch), f"a batch of {cell.batch}")
    _, seconds = run_first(contender, images)
    return Turns(cell, contender.engine, images, contender.resident, seconds > SLOW)


def refuse_without(needed: int, what: str) -> None:
    free = environment.free_memory()
    if needed > free:
        raise UserError(
            f"skipped: {what} takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )


def summary(turns: Turns, contender: Contender, subject: Subject) -> dict[str, Any]:
    """The figures of a cell; of times the percentiles over all rounds."""
    cell, median = turns.cell, float(np.median(turns.times))
    peak = subject.job.peaks.get(cell.threads)
    gflops = 2 * subject.macs * cell.batch / median / 1e9 if subject.macs else None
    p90, p99 = (1000 * float(np.percentile(turns.times, q)) for q in (90, 99))
    limit = LIMITS.get(cell.precision, math.inf)
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
        "relative_error": contender.error and float(f"{contender.error:.3g}"),
        "agrees": None if contender.error is None else contender.error <= limit,
    }


def failed(error: Exception) -> dict[str, Any]:
    reason = " ".join(str(error).split())
    named = isinstance(error, UserError)
    return {"failed": (reason if named else f"{type(error).__name__}: {reason}")[:500]}

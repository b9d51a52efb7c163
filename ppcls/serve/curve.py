"""How a model is run under load: sizes of batches and numbers of threads, measured at the start."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcls.inference.auto import example
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.predictor import LARGE, Predictor
from ppcls.utils import environment
from ppcls.utils.errors import UserError

MOST = 16  # images a batch that are tried
ROUNDS, SECONDS = 3, 0.3  # of each size at least so many runs, and so long …
ENOUGH_ROUNDS, LEAST = 100, 0.05  # … or so many, for so long: fast networks are known sooner
ENOUGH = 0.97  # of the best speed: the smallest batch that reaches it is taken
GAIN = 1.03  # of several batches at a time over one on all threads, from which it is worth it


@dataclass(frozen=True)
class Plan:
    """How batches are run.

    Attributes:
        alone: what runs a batch when there is no other, on all threads.
        beside: what runs batches beside each other, on a thread each; the same as `alone` where
            that is no faster.
        streams: batches at a time.
        batch: images that a batch has at most.
        delay: seconds that a batch waits at most for images on their way.
        rate: images a second.
        seconds: of a batch by its size.
    """

    alone: Engine
    beside: Engine
    streams: int
    batch: int
    delay: float
    rate: float
    seconds: dict[int, float]


def plan(predictor: Predictor, batch: int | None, delay: float | None) -> Plan:
    """Measure, which is the warm-up, too.

    Args:
        batch: images a batch at most; None: as few as are nearly as fast as any.
        delay: seconds; None: what a full batch saves over as many single images, for waiting
            longer costs an image more than it gains.
    """
    alone = predictor.engine
    sizes = sizes_up_to(batch or MOST)
    times = {size: seconds_of(alone, predictor, size, 1) for size in sizes}
    beside, streams = alone, 1
    speeds = {size: size / times[size] for size in sizes}
    threads = predictor.threads or environment.threads()
    if alone.settings.device == "cpu" and threads > 1 and predictor.folder.size() < LARGE:
        settings = replace(alone.settings, threads=1, streams=threads)
        other = opened(predictor, settings)
        if other:
            pairs = {size: seconds_of(other, predictor, size, threads) for size in sizes}
            rates = {size: threads * size / pairs[size] for size in sizes}
            if max(rates.values()) >= GAIN * max(speeds.values()):
                beside, streams, speeds = other, threads, rates
            else:
                other.close()
    best = max(speeds.values())
    size = batch or next(size for size in sizes if speeds[size] >= ENOUGH * best)
    warm(beside, predictor, size)
    if delay is None:
        fitting = max(one for one in sizes if one <= size)
        delay = max(0.0, fitting * times[1] - times[fitting])
    return Plan(alone, beside, streams, size, delay, max(speeds.values()), times)


def resume_plan(predictor: Predictor, known: dict[str, Any]) -> Plan:
    """As a worker before this one measured it; engines are only warmed up."""
    alone = beside = predictor.engine
    streams = known["streams"]
    if streams > 1:
        settings = replace(alone.settings, threads=1, streams=streams)
        beside = open_engine(predictor.folder, settings)
        warm(alone, predictor, known["batch"])
    warm(beside, predictor, known["batch"])
    seconds = {int(size): found for size, found in known["seconds"].items()}
    return Plan(alone, beside, streams, known["batch"], known["delay"], known["rate"], seconds)


def opened(predictor: Predictor, settings: Settings) -> Engine | None:
    try:
        return open_engine(predictor.folder, settings)
    except UserError:  # it has no memory for a second one, say
        return None


def sizes_up_to(most: int) -> list[int]:
    found = [1]
    while 2 * found[-1] <= most:
        found.append(2 * found[-1])
    return found


def seconds_of(engine: Engine, predictor: Predictor, size: int, callers: int) -> float:
    """Median seconds of a batch of `size`, of each of so many callers at a time."""
    images = example(predictor.folder, size)

    def work(_: int) -> list[float]:
        found: list[float] = []
        engine.run_all(images)
        while not is_enough(len(found), sum(found)):
            start = time.perf_counter()
            engine.run_all(images)
            found.append(time.perf_counter() - start)
        return found

    if callers == 1:
        return float(np.median(work(0)))
    with ThreadPoolExecutor(callers) as pool:
        return float(np.median([one for times in pool.map(work, range(callers)) for one in times]))


def is_enough(runs: int, seconds: float) -> bool:
    """Whether so many runs, which took so long, say how long one takes."""
    return runs >= ROUNDS and seconds >= (LEAST if runs >= ENOUGH_ROUNDS else SECONDS)


def warm(engine: Engine, predictor: Predictor, most: int) -> None:
    """Run each size that may come once: engines prepare themselves for a size then."""
    for size in range(1, most + 1):
        engine.run_all(example(predictor.folder, size))

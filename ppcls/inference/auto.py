"""`--engine auto`: which engine is fastest on this machine, measured by turns and remembered."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ppcls.data.preprocess import width_by_height
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.table import ENGINES, installed, open_engine
from ppcls.inference.exported_model import ExportedModel
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file, write_text
from ppcls.utils.log import say
from ppcls.utils.text import from_json

SETTLE = 0.05  # seconds of untimed runs after another engine ran, whose idle threads still spin

Clock = Callable[[], float]  # seconds since any time


def settle(
    engine: Engine,
    images: np.ndarray,
    clock: Clock = time.perf_counter,
    seconds: float = SETTLE,
) -> None:
    """Run for a moment untimed."""
    start = clock()
    while True:
        engine.run_all(images)
        if clock() - start > seconds:
            return


def timed(
    engine: Engine,
    images: np.ndarray,
    seconds: float,
    clock: Clock = time.perf_counter,
    runs: float = math.inf,
) -> list[float]:
    """Seconds of each of the runs of a turn of so many seconds, or of so many runs if sooner."""
    times: list[float] = []
    while sum(times) < seconds and len(times) < runs:
        start = clock()
        engine.run_all(images)
        times.append(clock() - start)
    return times


def example(folder: ExportedModel, batch: int) -> np.ndarray:
    """Noise as images would come: uint8 [N, H, W, C], or normalised float32 [N, C, H, W]."""
    preprocess = folder.manifest.preprocess
    shape = (batch, preprocess.height, preprocess.width, preprocess.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return preprocess.network_input(pixels, folder.manifest.input)


TIMED = (1, 8)  # batch sizes
SHORT_TURNS = 15  # that networks take in being timed beside each other …
SHORT = 0.001  # … seconds each, at least one run


def milliseconds(
    opened: Mapping[str, tuple[Engine, ExportedModel]], clock: Clock = time.perf_counter
) -> dict[str, dict[str, float]]:
    """By batch size the median of each network in its engine, timed by turns, on noise."""
    measured = {}
    for batch in TIMED:
        given = {name: example(folder, batch) for name, (_, folder) in opened.items()}
        times: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(SHORT_TURNS):
            for name, (engine, _) in opened.items():
                settle(engine, given[name], clock)
                times[name] += timed(engine, given[name], SHORT, clock)
        medians = {name: round(1000 * float(np.median(own)), 2) for name, own in times.items()}
        measured[f"batch {batch}"] = medians
    return measured


# --------------------------------------------------------------------------
# `--engine auto`: the fastest engine here, found by measuring once and remembered

FILE = "engines.json"  # in the folder's cache
TURNS = 5  # of two engines that are compared, each …
SECONDS = 0.1  # … so long …
RUNS = 20  # … or so many runs if sooner …
SLOWER = 1.1  # … unless after two all turns of one are so many times slower than any of the other
# Largest difference from the first engine's outputs, relative to their largest number.
AGREE = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 2e-2}
# The least that is allowed on GPUs: from Ampere on they multiply float32 with 10 bits (TF32) unless
# NVIDIA_TF32_OVERRIDE=0 says otherwise; ONNX Runtime is told not to.
AGREE_ON_GPU = 1e-2
# What is tried, by device; the first is what the others' outputs are held against.
CANDIDATES = {
    "cpu": ("onednn", "onnxruntime", "openvino"),
    "gpu": ("paddle", "onnxruntime", "tensorrt", "onnxruntime-tensorrt"),
}
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True)
class Trial:
    """How engines are opened and timed against each other.

    Attributes:
        open: what opens a folder with an engine; UserError where that cannot run it.
        seconds: of timed runs in a turn.
        settling: seconds of untimed runs before them.
    """

    open: Callable[[ExportedModel, Settings], Engine] = open_engine
    clock: Clock = time.perf_counter
    seconds: float = SECONDS
    settling: float = SETTLE


def choose(
    folder: ExportedModel, wanted: Settings, threads: int | None, trial: Trial | None = None
) -> Engine:
    """Open the folder with the engine, and on a CPU the number of threads, that is fastest.

    Args:
        wanted: device, precision and batch size to choose for.
        threads: CPU threads; None: all cores, or one where that is faster.
        trial: default: `open_engine`, timed by this machine's clock.

    Raises:
        UserError: no engine that is installed can run this network.
    """
    trial = trial or Trial()
    key = situation(folder, wanted, threads)
    known = read(folder).get(key)
    if known:
        found = replace(wanted, engine=known["engine"], threads=known["threads"])
        with suppress(UserError):  # else measured anew
            return trial.open(folder, found)
    say(f"{folder.path}: measuring which engine is fastest here, once")
    engine, measured = measure(folder, list(candidates(wanted, threads)), threads is None, trial)
    remember(folder, key, asdict(engine.settings) | {"milliseconds": measured})
    return engine


def candidates(wanted: Settings, threads: int | None) -> Iterator[Settings]:
    """What is installed, on all cores unless `threads` says otherwise."""
    for name in CANDIDATES[wanted.device]:
        if installed(name):
            yield replace(wanted, engine=name, threads=threads or environment.threads())


def measure(
    folder: ExportedModel, tried: list[Settings], fewer: bool, trial: Trial
) -> tuple[Engine, dict[str, float]]:
    """The fastest, and milliseconds of each.

    Found by duels, so that no more than two are open at a time; with `fewer`, the winner meets
    itself on one thread at the end, which is faster where the cores are busy with other work.
    """
    contest = Contest(folder, example(folder, tried[0].batch if tried else 1), trial)
    for settings in tried:
        contest.enter(settings)
    best = contest.best
    if best and fewer and best.settings.threads > 1:
        contest.enter(replace(best.settings, threads=1))
    if contest.best is None:
        known = "; ".join(dict.fromkeys(contest.refused))
        reason = known or "none is installed, pip install 'ppcls[deploy]'"
        raise UserError(f"{folder.path}: no engine here can run it: {reason}")
    if not contest.measured:
        contest.time([contest.best])
    return contest.best, contest.measured


class Contest:
    """Engines by turns against the fastest so far.

    Attributes:
        best: the fastest so far.
        measured: milliseconds of each that has been timed.
        refused: why others were not.
    """

    def __init__(self, folder: ExportedModel, images: np.ndarray, trial: Trial):
        self.folder = folder
        self.images = images
        self.trial = trial
        self.best: Engine | None = None
        self.expected: np.ndarray | None = None  # what the first gave
        self.measured: dict[str, float] = {}
        self.refused: list[str] = []

    def enter(self, settings: Settings) -> None:
        """Open an engine and, where it gives what the first did, time it against the best."""
        try:
            engine = self.trial.open(self.folder, settings)
            output = engine.run(self.images)
        except UserError as error:
            self.refused += error.lines
            return
        expected = self.expected = output if self.expected is None else self.expected
        difference = float(np.abs(output - expected).max() / (np.abs(expected).max() or 1))
        allowed = max(AGREE[settings.precision], AGREE.get(self.folder.manifest.precision, 0))
        if settings.device == "gpu":
            allowed = max(allowed, AGREE_ON_GPU)
        if not difference <= allowed:  # also when it is not a number
            say(f"note: {settings} is left out: its outputs differ by {difference:.1e}")
            self.refused.append(f"outputs of {settings} differ by {difference:.1e}")
            return
        self.best = self.time([self.best, engine]) if self.best else engine

    def time(self, rivals: list[Engine]) -> Engine:
        """The fastest of these."""
        times = duel(rivals, self.images, self.trial)
        for engine, milliseconds in zip(rivals, times, strict=True):
            self.measured[str(engine.settings)] = round(milliseconds, 2)
        return rivals[int(np.argmin(times))]


def duel(engines: list[Engine], images: np.ndarray, trial: Trial) -> list[float]:
    """Median milliseconds of each, measured by turns."""
    turns: list[list[list[float]]] = [[] for _ in engines]
    for turn in range(TURNS):
        for engine, own in zip(engines, turns, strict=True):
            settle(engine, images, trial.clock, trial.settling)
            own.append(timed(engine, images, trial.seconds, trial.clock, RUNS))
        if turn and is_plain([[float(np.median(times)) for times in own] for own in turns]):
            break
    return [1000 * float(np.median(np.concatenate(own))) for own in turns]


def is_plain(medians: list[list[float]]) -> bool:
    """Whether the fastest was faster in each of its turns than others in any of theirs."""
    fastest, *others = sorted(medians, key=np.median)
    return all(min(own) > SLOWER * max(fastest) for own in others)


# --------------------------------------------------------------------------- what is remembered


def situation(folder: ExportedModel, wanted: Settings, threads: int | None) -> str:
    """What the choice depends on: the machine, what is installed, and what is asked for."""
    return ", ".join(
        [
            processor(),
            f"{environment.threads()} of {environment.core_count()} cores",
            *(f"{name} {found}" for name in PACKAGES if (found := installed_version(name))),
            f"device {wanted.device}",
            wanted.precision,
            f"batch {wanted.batch}",
            f"image {width_by_height(folder.manifest.preprocess.crop)}",
            f"threads {threads or 'any'}",
        ]
    )


def processor() -> str:
    lines = environment.read("proc/cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read(folder: ExportedModel) -> dict[str, Any]:
    """Choices by situation; {} where there are none or they cannot be read."""
    try:
        choices = from_json(read_file(folder.cache() / FILE))
    except (OSError, ValueError):
        return {}
    return choices if isinstance(choices, dict) and all(map(whole, choices.values())) else {}


def whole(choice: Any) -> bool:
    if not isinstance(choice, dict) or not isinstance(choice.get("engine"), str):
        return False
    threads = choice.get("threads")
    counts = type(threads) is int and 0 < threads <= environment.MOST_THREADS
    return choice["engine"] in ENGINES and counts


def remember(folder: ExportedModel, key: str, choice: dict[str, Any]) -> None:
    text = json.dumps(read(folder) | {key: choice}, indent=1) + "\n"
    try:
        write_text(folder.cache() / FILE, text)
    except UserError as error:
        say(f"note: the choice of an engine cannot be kept ({error})")

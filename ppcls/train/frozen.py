"""Frozen parts of a run, in whatever engine of inference runs them fastest.

What nothing trains and what stays in evaluation mode, a network's frozen start or a teacher, is an
inference inside each step. It is exported, opened with the engines that are installed, held against
Paddle's own layers and timed beside them on the run's first images. Gradients begin behind it.
"""

import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.data.preprocess import Preprocess, resize
from ppcls.inference import formats
from ppcls.inference.engines.base import Engine, Settings
from ppcls.inference.engines.paddle_inference import threads_kept
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import NAME, ONNX, ExportedModel
from ppcls.inference.manifest import Manifest
from ppcls.kernels import channels_last
from ppcls.models.blocks import StagedNetwork, Stages
from ppcls.models.fuse import save_program
from ppcls.models.layers import DownscalingDropout, DropPath
from ppcls.train.distributed import Processes
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.modules import in_line
from ppcls.utils.text import plural

KEY = "train.frozen_engine"
AUTO = "auto"
NONE = "none"  # Paddle's own layers, as in training
# What the key may name, and what inference calls it.
ENGINES = {"paddle": "onednn", "onnxruntime": "onnxruntime", "openvino": "openvino"}
# What making ONNX of Paddle's program needs, and opening that.
ONNX_NEEDS = ("paddle2onnx", "polygraphy", "onnx")
NEEDS = {"onnxruntime": ("onnxruntime", *ONNX_NEEDS), "openvino": ("openvino", *ONNX_NEEDS)}

TOLERANCE = 1e-4  # largest difference from Paddle's layers, relative to their largest value
WORTH = 30.0  # seconds of the run that a part must take before engines are tried
WORTH_KEEPING = 10.0  # seconds of the run that a part must take before its features are kept
FASTER = 1.15  # times as fast an engine must be to be taken
ROUNDS = 3  # in which each is timed
SLOWER = 1.5  # times the best after a round: not timed again
SHARE = 1 / 4  # of the free memory, or of the free disk, that may be taken to keep outputs

RANDOM = (nn.Dropout, nn.Dropout2D, nn.AlphaDropout, DropPath, DownscalingDropout)

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images to the outputs


class Frozen:
    """Layers that nothing trains, run by Paddle as they stand or by an engine of inference."""

    def __init__(self, layer: nn.Layer, name: str):
        """Layers that map images uint8 [N, H, W, C] to a tensor or several, under a name."""
        self.layer = layer
        self.name = name
        self.engine: Engine | None = None
        self.keeping: dict[bool, Keeping] = {}  # of images of training, and of evaluation

    @property
    def plain(self) -> bool:
        """Whether the layers run as they would without this class."""
        return self.engine is None and not self.keeping

    def __call__(self, images: Tensor, training: bool = True) -> list[Tensor]:
        """What the layers make of images of training, or of evaluation."""
        if keeping := self.keeping.get(training):
            return [paddle.to_tensor(keeping(images.numpy(), self.run))]
        if self.engine:
            return [paddle.to_tensor(output) for output in self.run(images.numpy())]
        return listed(self.layer(images))

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """As calling it, from arrays to arrays, each time anew."""
        return in_engine(self.engine, images) if self.engine else self.by_paddle(images)

    def by_paddle(self, images: np.ndarray) -> list[np.ndarray]:
        """What the layers themselves make of images."""
        with paddle.no_grad(), evaluating(self.layer):
            return [output.numpy() for output in listed(self.layer(paddle.to_tensor(images)))]


def in_engine(engine: Engine, images: np.ndarray) -> list[np.ndarray]:
    """What an engine makes of images, after which Paddle has the threads that it had."""
    with threads_kept():
        return engine.run_all(images)


@contextmanager
def evaluating(layer: nn.Layer) -> Iterator[None]:
    """While entered, a layer and all in it are in evaluation mode."""
    modes = {one: one.training for one in layer.sublayers(include_self=True)}
    layer.eval()
    try:
        yield
    finally:
        for one, training in modes.items():
            one.training = training


def listed(found: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


# --------------------------------------------------------------------------
# The frozen start of a network, and the network that has one


class Start(nn.Layer):
    """`Normalize`, the stem and the first blocks of a network.

    Args:
        network: `Normalize` and the network.
        blocks: how many, counted through all stages.
        features: give what ends the stages, too, as `features` of the network does.
        pooled: go on to the pooled features, where all blocks are in it.
    """

    def __init__(self, network: nn.Sequential, blocks: int, features: bool, pooled: bool):
        super().__init__()
        self.normalize = network[0]
        net = network[1]
        self.stem = net.stem
        every = [block for stage in net.stages for block in stage]
        self.blocks = nn.LayerList(every[:blocks])
        self.pool = nn.Sequential(net.expand, net.pool, net.neck, nn.Flatten(1)) if pooled else None
        numbers = np.cumsum([len(stage) for stage in net.stages]).tolist()
        ends = [number for number, end in zip(numbers, net.ends, strict=True) if end]
        self.kept = [
            n in ends or n == blocks if features else n == blocks for n in range(blocks + 1)
        ]
        self.ends = blocks in ends  # whether the last output is one of the features

    def forward(self, images):
        """Images uint8 [N, H, W, C] to the list of features, what the last block gives at its end;
        or to the pooled features [N, width].
        """
        outputs = []
        x = self.stem(self.normalize(images))
        if self.kept[0]:
            outputs.append(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.kept[i + 1]:
                outputs.append(x)
        if self.pool is not None:
            return self.pool(x)
        return outputs


class FrozenStart(nn.Sequential):
    """`Normalize` and a network whose first layers are frozen, which may run in an engine.

    It is to training and evaluation what `Normalize.before` gives.
    """

    def __init__(self, network: nn.Sequential, start: Start):
        super().__init__(*network)
        self.start = Frozen(start, "frozen start")
        self.blocks = len(start.blocks)
        self.ends = start.ends
        self.pooled = start.pool is not None

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [N, H, W, C] to logits [N, classes]."""
        normalize, net = self
        if self.start.plain:
            return net(normalize(images))
        found = self.made(images)
        if self.pooled:
            return net.logits(found[0])
        return net.classify([net.through(found[-1], self.blocks)[0]])

    def made(self, images: Tensor) -> list[Tensor]:
        """What the start makes of images, laid out for what computes the rest."""
        found = self.start(images, self.training)
        if not self.pooled and channels_last.serves_images(images):
            return [channels_last.last(x) for x in found]
        return found

    def features(self, images: Tensor) -> list[Tensor]:
        """What the network's `features` gives for images uint8 [N, H, W, C]."""
        normalize, net = self
        if self.start.plain:
            return net.features(normalize(images))
        found = self.made(images)
        rest = net.through(found[-1], self.blocks)[1]
        return [*(found if self.ends else found[:-1]), *rest]


def with_frozen_start(
    network: nn.Sequential, frozen: Sequence[nn.Layer], features: bool = False
) -> nn.Sequential:
    """`Normalize` and a network, as a `FrozenStart` where its stem and first blocks are frozen.

    Args:
        frozen: layers of the network in which nothing trains, kept in evaluation mode.
        features: whether losses look at the features of its stages.
    """
    net = network[1]
    if not is_staged(net):
        return network
    known = {id(layer) for layer in frozen}

    def fixed(layer: nn.Layer) -> bool:
        return id(layer) in known or (
            not layer.parameters()
            and not any(isinstance(one, RANDOM) for one in layer.sublayers(include_self=True))
        )

    if id(net.stem) not in known:
        return network
    every = [block for stage in net.stages for block in stage]
    moving = (i for i, block in enumerate(every) if not fixed(block))
    blocks = next(moving, len(every))
    pooled = blocks == len(every) and not features and all(map(fixed, (net.expand, net.neck)))
    return FrozenStart(network, Start(network, blocks, features, pooled))


def is_staged(net: nn.Layer) -> bool:
    """Whether a network goes through its stages as those of the families do."""
    own: Any = type(net)
    return (
        isinstance(net, StagedNetwork)
        and own.features is Stages.features
        and all(
            getattr(own, name) is getattr(StagedNetwork, name)
            for name in ("forward", "classify", "pooled", "logits")
        )
    )


# --------------------------------------------------------------------------
# What a part makes of images that look the same each time, kept


class Keeping:
    """What a part makes of images, by what their pixels are; computed once.

    Args:
        images: how many there are.
        shape: of what it makes of one, float32.
        folder: where the file is that holds them; None: in memory.
    """

    def __init__(self, images: int, shape: tuple[int, ...], folder: Path | None):
        self.shape = (images, *shape)
        self.folder = folder
        self.numbers: dict[bytes, int] = {}  # of rows, by digests of images
        self.rows: np.ndarray | None = None
        self.computed = 0  # images that were run

    def __call__(self, images: np.ndarray, run: Run) -> np.ndarray:
        """The output [N, …] for uint8 [N, H, W, C], of which `run` makes what is not known."""
        if self.rows is None:
            self.rows = self.room()
        digests = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        found = np.empty((len(images), *self.shape[1:]), np.float32)
        new = [i for i, digest in enumerate(digests) if digest not in self.numbers]
        if new:
            self.computed += len(new)
            found[new] = run(images[new])[0]
        for i in set(range(len(images))).difference(new):
            found[i] = self.rows[self.numbers[digests[i]]]
        for i in new:
            number = len(self.numbers)
            if digests[i] not in self.numbers and number < len(self.rows):
                self.rows[number] = found[i]
                self.numbers[digests[i]] = number
        return found

    def room(self) -> np.ndarray:
        """An array for all rows; where the disk has no room for it, for none."""
        if self.folder is None:
            return np.empty(self.shape, np.float32)
        try:
            # Without a name from the start, so that nothing is left of it whatever ends the run.
            with tempfile.TemporaryFile(dir=self.folder) as file:
                if hasattr(os, "posix_fallocate"):  # a write to a map must not find a full disk
                    os.posix_fallocate(file.fileno(), 0, 4 * math.prod(self.shape))
                return np.memmap(file, np.float32, "w+", shape=self.shape)
        except OSError as error:
            say(f"note: {self.folder}: no room to keep features ({error.strerror or error})")
            return np.empty((0, *self.shape[1:]), np.float32)


def independent(run: Run, images: np.ndarray, most: int) -> bool:
    """Whether what comes of an image is the same to the bit, whatever stands beside it.

    `most`: the largest batch.
    """
    whole = run(images)[0]
    count = len(images)
    numbers = np.arange(max(count, most)) % count
    batches = [numbers[count - 1 :: -1], numbers[: count // 2], numbers[:1], numbers[1:count]]
    batches.append(numbers)
    return all(
        np.array_equal(run(images[batch])[0], whole[batch]) for batch in batches if len(batch)
    )


# --------------------------------------------------------------------------
# Which engine runs a part


@dataclass(frozen=True)
class Choice:
    """What engines are chosen by.

    Attributes:
        asked: the value of the key.
        known: what the run that goes on has chosen, by the parts' names.
        images: of the run's first batch, uint8 [N, H, W, C].
        sizes: height and width of all images that the run will show, the last of evaluation's.
        showings: how many images each process shows in the whole run.
        alike: how many images of training and of evaluation there are that look the same each time.
    """

    asked: str
    images: np.ndarray
    sizes: Sequence[tuple[int, int]]
    showings: int
    known: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[int, int] = (0, 0)
    clock: Callable[[], float] = time.perf_counter


def choose(parts: Sequence[tuple[Frozen, Choice]], processes: Processes) -> dict[str, str]:
    """Open an engine for each part where one is to run it; returns which, by the parts' names.

    The first process chooses for all.

    Raises:
        UserError: in all processes, for an engine that is named and cannot be had.
    """
    names: dict[str, str] = {}
    mistake = ""
    if processes.first:
        try:
            names = {part.name: choose_one(part, choice) for part, choice in parts}
        except UserError as error:
            mistake = str(error)
    (mistake, names), *_ = processes.gather((mistake, names))
    if mistake:
        raise UserError(mistake)
    if not processes.first:
        for part, choice in parts:
            if names[part.name] != NONE:
                with Files(part, choice) as files, threads_kept():
                    part.engine = files.open(names[part.name])
    return names


def choose_one(part: Frozen, choice: Choice) -> str:
    """The name of what runs a part, opened; UserError for one that is named and cannot be had."""
    if choice.asked == NONE:
        return NONE
    known = choice.known.get(part.name)
    if choice.asked == AUTO and known == NONE:
        return NONE
    named = choice.asked if choice.asked != AUTO else known
    with Files(part, choice) as files:
        if named:
            try:
                part.engine, difference = checked(part, files, named, choice)
            except UserError as error:
                if choice.asked != AUTO:
                    raise UserError(f"{KEY}: {error}") from None
                say(
                    f"note: {part.name}: {named} ran it before and cannot now ({error}): the "
                    "run's numbers may differ in the last bits from here on"
                )
            else:
                say(f"{part.name}: run by {named}, {within(difference)}")
                return named
        return fastest(part, files, choice)


def within(difference: float) -> str:
    return f"equal to Paddle's own layers within {difference:.0e} of the largest value"


class Files:
    """A part in the forms that engines read, in a folder that is there while this is entered."""

    def __init__(self, part: Frozen, choice: Choice):
        self.part = part
        self.channels = choice.images.shape[-1]
        self.sizes = set(choice.sizes)

    def __enter__(self) -> "Files":
        self.folder = tempfile.TemporaryDirectory(prefix="ppcls-frozen-")
        self.path = Path(self.folder.name)
        return self

    def __exit__(self, *error: object) -> None:
        self.folder.cleanup()

    def open(self, name: str) -> Engine:
        """UserError: it is not installed, or cannot run the part."""
        missing = [module for module in NEEDS.get(name, ()) if find_spec(module) is None]
        if missing:
            raise UserError(f"{name} needs {missing[0]}: pip install 'ppcls[deploy]'")
        program = self.path / f"{NAME}.json"
        onnx = self.path / ONNX
        about = Manifest(self.part.name, Preprocess(), input="uint8", output="logits")
        settings = Settings(ENGINES[name], threads=environment.threads())
        try:
            if not program.is_file():
                self.export(self.path / NAME)
            if name == "paddle":
                return open_engine(ExportedModel(self.path, about, program), settings)
            if not onnx.is_file():
                formats.to_onnx(program, program.with_suffix(".pdiparams"), onnx)
            return open_engine(ExportedModel(self.path, about, onnx=onnx), settings)
        except UserError:
            raise
        except Exception as error:  # exporting and engines have many kinds of errors
            raise UserError(f"{name} cannot run the {self.part.name}: {in_line(error)}") from None

    def export(self, path: Path) -> None:
        high, wide = next(iter(self.sizes)) if len(self.sizes) == 1 else (None, None)
        layer = self.part.layer
        with evaluating(layer):
            save_program(layer, path, [None, high, wide, self.channels], "uint8", fold=layer)


def checked(part: Frozen, files: Files, name: str, choice: Choice) -> tuple[Engine, float]:
    """An engine for a part, and the largest relative difference from Paddle's own layers.

    Raises:
        UserError: it cannot be had, or differs by more than TOLERANCE.
    """
    with threads_kept():
        engine = files.open(name)
    largest = 0.0
    for images in views(choice):
        outputs = in_engine(engine, images)
        wanted = part.by_paddle(images)
        for found, want in zip(outputs, wanted, strict=True):
            difference = np.abs(found - want).max() / (np.abs(want).max() or 1.0)
            if not difference <= TOLERANCE:  # also when it is not a number
                raise Unequal(
                    f"what {name} gives differs from Paddle's own layers by {difference:.0e} of "
                    "the largest value"
                )
            largest = max(largest, float(difference))
    return engine, largest


class Unequal(UserError):  # noqa: N818  its text is what counts
    """An engine gives other numbers than Paddle."""


def views(choice: Choice) -> list[np.ndarray]:
    """The first images as they are, and one of them in every other size of the run."""
    images = choice.images
    others = set(choice.sizes) - {images.shape[1:3]}
    resized = [resize(images[0], wide, high, "bilinear", "cv2") for high, wide in sorted(others)]
    return [images, *(image[None] for image in resized)]


def fastest(part: Frozen, files: Files, choice: Choice) -> str:
    """The name of what runs a part fastest, opened where that is an engine."""
    timed(part.by_paddle, choice.images[:1], choice.clock)  # the first is slow
    per_image = timed(part.by_paddle, choice.images, choice.clock) / len(choice.images)
    if per_image * choice.showings < WORTH:
        return NONE
    say(f"{part.name}: trying which engine runs it fastest ({KEY})")
    engines = {}
    differences = {}
    for name in ENGINES:
        try:
            engines[name], differences[name] = checked(part, files, name, choice)
        except Unequal as error:
            say(f"note: {part.name}: left out: {error}")
        except UserError:
            continue
    runs: dict[str, Run] = {NONE: part.by_paddle}
    runs |= {name: partial(in_engine, engine) for name, engine in engines.items()}
    times = duel(runs, part.by_paddle, choice)
    best = min(times, key=times.__getitem__)
    gain = times[NONE] / times[best]
    count = plural(len(choice.images), "image")
    if gain < FASTER:
        say(f"{part.name}: run by Paddle's own layers, than which no engine here is much faster")
        return NONE
    part.engine = engines[best]
    say(
        f"{part.name}: run by {best}, {gain:.1f} times as fast as Paddle's own layers "
        f"({1000 * times[best]:.0f} ms for {count}), {within(differences[best])}"
    )
    return best


def timed(run: Run, images: np.ndarray, clock: Callable[[], float]) -> float:
    start = clock()
    run(images)
    return clock() - start


def duel(runs: Mapping[str, Run], before: Run, choice: Choice) -> dict[str, float]:
    """The least seconds of each on the images, by turns, each after Paddle has worked a little.

    So it is in training: Paddle's threads still spin when an engine begins.
    """
    times: dict[str, float] = {}
    left = dict(runs)
    for _ in range(ROUNDS):
        for name, run in left.items():
            before(choice.images[:1])
            seconds = timed(run, choice.images, choice.clock)
            times[name] = min(seconds, times.get(name, math.inf))
        limit = SLOWER * min(times.values())
        left = {name: run for name, run in left.items() if name == NONE or times[name] <= limit}
    return times


# --------------------------------------------------------------------------
# Whether features are kept


def keep(part: Frozen, choice: Choice, batch: int, folder: Path, share: float) -> None:
    """Let a part keep what it makes of images that look the same each time, where that fits.

    Args:
        batch: the largest.
        folder: the run's, for a file where memory is too small.
        share: of free memory or disk that may be taken.
    """
    if not sum(choice.alike) or len(part.run(choice.images)) > 1:
        return
    seconds = timed(part.run, choice.images, choice.clock) / len(choice.images)
    if seconds * choice.showings < WORTH_KEEPING:
        return
    if not independent(part.run, choice.images, batch):
        say(f"note: {part.name}: computed each time, as the batch counts in the last bits here")
        return
    inside = share * environment.free_memory()
    outside = share * free_disk(folder)
    for training, count in zip((True, False), choice.alike, strict=True):
        high, wide = choice.sizes[0 if training else -1]
        image = resize(choice.images[0], wide, high, "bilinear", "cv2")
        shape = part.run(image[None])[0].shape[1:]
        size = 4 * count * math.prod(shape)
        if not count or size > max(inside, outside):
            continue
        within = size <= inside
        part.keeping[training] = Keeping(count, shape, None if within else folder)
        inside -= size * within
        outside -= size * (not within)
        say(
            f"{part.name}: what it makes of {plural(count, 'image')} of "
            f"{'training' if training else 'evaluation'} is computed once and kept in "
            f"{'memory' if within else folder} ({size / 1e6:,.1f} MB)"
        )


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is or will be."""
    there = next(
        (path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/")
    )
    return shutil.disk_usage(there).free

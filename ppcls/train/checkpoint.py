"""A run's state in one file: weights by name, optimizer slots, and a JSON record as metadata.

The file is a safetensors file. Weights stand under their own names, optimizer slots under
`optimizer/<parameter>/<slot>`, so that a checkpoint serves as weights, too. Where a run keeps a
moving average of its weights, that stands under the weights' names, for it is what the run's scores
are of and what it hands on; the weights in training are the slot `trained`. So are those of layers
that train beside the network and are never handed on, under `optimizer/beside/…`. Everything else
that a run needs (order of images, augmentation, dropout, learning rate) is computed from the step
and the record.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from pydantic import TypeAdapter

from ppcls.config.tree import Tree
from ppcls.kernels.channels_last import numbers
from ppcls.models import fake_quantize
from ppcls.optim.ema import Average
from ppcls.optim.rules import Optimizer, has_slots
from ppcls.recipe import Recipe
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_whole, writing
from ppcls.utils.text import composed, from_json, visible
from ppcls.weights import files
from ppcls.weights.load import OPTIMIZER

# a run's checkpoints
LATEST = "latest.safetensors"
BEST = "best.safetensors"
RECORD = files.RECORD  # the metadata key of the record
BESIDE = "beside/"  # begins the names of layers that train beside the network
RANGE = "range"  # the slot of what a layer's inputs were seen to be, in quantization-aware training
TRAINED = "trained"  # the slot of the weights in training, where there is an average of them


IMAGENET_CLASSES = 1000  # what released weights have where nothing says otherwise


@dataclass(frozen=True)
class Trained:
    """A network with weights; `names` are its class names, () when unknown."""

    recipe: Recipe
    net: nn.Layer
    names: tuple[str, ...]
    source: Path  # the file its weights come from
    scores: dict[str, float]  # of the checkpoint's last evaluation, {} when unknown
    thresholds: tuple[float, ...] = ()  # of the classes in multilabel, () when unknown

    @property
    def classes(self) -> int:
        return self.recipe.model.num_classes or IMAGENET_CLASSES


@dataclass(frozen=True)
class Record:
    """What a checkpoint says about itself."""

    recipe: dict[str, Any]  # plain, resolved
    labels: list[str]  # class names; empty: unknown
    step: int  # steps done
    epoch_steps: int
    data: dict[str, str]  # "train" and "eval": how many images, and their digest
    best: dict[str, float] = field(default_factory=dict)  # scores of the best evaluation so far
    scores: dict[str, float] = field(default_factory=dict)  # scores of these weights, if evaluated
    versions: dict[str, str] = field(default_factory=dict)
    evaluations: list[dict[str, float]] = field(default_factory=list)  # scores and their "step"
    thresholds: list[float] = field(default_factory=list)  # of the classes, where several may be
    processes: int = 1  # that trained together
    divided: bool = False  # whether they shared the images of one process's step
    step_images: int = 0  # of all processes; 0: what the recipe says for so many
    loss_scale: dict[str, float] = field(default_factory=dict)  # of float16
    teachers: list[str] = field(default_factory=list)  # their digests
    engines: dict[str, str] = field(default_factory=dict)  # that run frozen parts, by the part

    @property
    def images_per_step(self) -> int:
        """How many images a step learns from, in all processes; it stays so for the whole run."""
        train = self.recipe["train"]
        sharing = 1 if self.divided else self.processes
        return self.step_images or train["batch_size"] * train.get("accumulate", 1) * sharing


def state_of(
    net: nn.Layer,
    optimizer: Optimizer | None,
    average: Average | None = None,
    beside: nn.Layer | None = None,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint; without optimizer: weights only.

    Args:
        average: of the network's weights, which is what the checkpoint hands on.
        beside: layers that train beside the network.
    """
    state = net.state_dict()
    found = dict(average.held if average else state)
    if optimizer:
        found |= slots(names(net, beside), optimizer)
        for name, value in {**(state if average else {}), **state_beside(beside)}.items():
            found[f"{OPTIMIZER}{name}/{TRAINED}"] = value
        for path, one in fake_quantize.ranges_of(net).items():
            found[f"{OPTIMIZER}{path}/{RANGE}"] = one.seen
    return found


def write(path: Path, tensors: Mapping[str, np.ndarray], record: Record) -> None:
    """Write a checkpoint, whole or not at all. UserError: it cannot be, or is not worth it."""
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise UserError(
                f"after step {record.step}, {name} holds NaN or infinity, so {path} was not "
                "written (an earlier one stays): lower train.schedule.lr or lengthen its warmup"
            )
    files.write_safetensors(path, tensors, {RECORD: json.dumps(asdict(record))})


@dataclass
class Written:
    """A checkpoint that is being written, and what is to be done when it is."""

    path: Path
    ended: Future[None]
    then: Callable[[], None]


COPIERS = min(4, environment.core_count())


class Writer:
    """Writes checkpoints from copies, in a thread of its own, while training goes on.

    They are written one after the other. What was to follow one of them, and what went wrong with
    it, comes to the thread that trains, when that asks.
    """

    def __init__(self):
        self.thread: ThreadPoolExecutor | None = None
        self.copiers: ThreadPoolExecutor | None = None
        self.pending: deque[Written] = deque()
        self.copies: dict[Path, dict[str, np.ndarray]] = {}  # of the last one at each path

    def write(
        self, path: Path, state: Mapping[str, Tensor], record: Record, then: Callable[[], None]
    ) -> None:
        """Copy the tensors and begin; waits only for what is still being written to this path.

        Raises:
            UserError: an earlier one could not be written.
        """
        while any(one.path == path for one in self.pending):
            self.take()
        copies = self.copies.setdefault(path, {})
        pairs = []
        for name, value in state.items():
            source = numbers(value) if value.place.is_cpu_place() else value.numpy()
            if name in copies:  # memory that is there already takes a fifth of the time
                pairs.append((copies[name], source))
            else:
                copies[name] = source.copy()
        self.copy(pairs)
        self.thread = self.thread or ThreadPoolExecutor(1, "ppcls-checkpoint")
        self.pending.append(Written(path, self.thread.submit(write, path, copies, record), then))

    def copy(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Each second array over the first, in several threads: one moves half as much a second."""
        parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(COPIERS)]
        sizes = [0] * COPIERS
        for pair in pairs:
            least = sizes.index(min(sizes))
            parts[least].append(pair)
            sizes[least] += pair[0].nbytes
        self.copiers = self.copiers or ThreadPoolExecutor(COPIERS, "ppcls-copy")
        for done in [self.copiers.submit(copy_all, part) for part in parts]:
            done.result()

    def settle(self) -> None:
        """Do what was to follow those that are written by now. UserError: one could not be."""
        while self.pending and self.pending[0].ended.done():
            self.take()

    def wait(self) -> None:
        """All are written, and what was to follow is done. UserError: one could not be."""
        while self.pending:
            self.take()

    def take(self) -> None:
        first = self.pending.popleft()
        first.ended.result()
        first.then()

    def close(self) -> None:
        """Wait for the thread to end; what was to follow is not done."""
        self.pending.clear()
        for threads in (self.thread, self.copiers):
            if threads:
                threads.shutdown()


def copy_all(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    for target, source in pairs:
        np.copyto(target, source)


def keep(folder: Path, step: int, count: int) -> None:
    """Keep the checkpoint just written under its step's name, too; of these the last `count`."""
    kept = folder / f"step-{step:08d}.safetensors"
    with writing(str(kept), "latest.safetensors is whole: make room, then --resume"):
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(folder / LATEST)  # which the next save replaces, not writes into
        except OSError:  # a file system without links
            with write_whole(kept) as file, (folder / LATEST).open("rb") as source:
                shutil.copyfileobj(source, file)
    for old in sorted(folder.glob("step-*.safetensors"))[:-count]:
        old.unlink()


def read_record(path: Path, metadata: Mapping[str, str]) -> Record:
    """The record in the header of a checkpoint that training wrote."""
    if RECORD not in metadata:
        raise UserError(
            f"{path}: weights alone, no state of a run to resume; "
            f"to start a new run from them: -o model.weights={path}"
        )
    try:
        record = Record(**from_json(metadata[RECORD]))
        TypeAdapter(Record).validate_python(asdict(record))
        for part in ("model", "data", "preprocess", "train"):
            if not isinstance(record.recipe.get(part), dict):
                raise ValueError(f"its recipe has no {part}")
        Tree(record.recipe).rename(Recipe.renamed)  # as of version 0.1
        names = [composed(name) for name in record.labels]
        # Version 0.1 counted photos.
        data = {key: text.replace(" photos (", " images (") for key, text in record.data.items()}
        return replace(record, labels=names, data=data)
    except (TypeError, ValueError) as error:
        reason = visible(" ".join(str(error).split()))
        raise UserError(f"{path}: written by another version of ppcls ({reason})") from None


def restore(
    path: Path,
    checkpoint: files.Checkpoint,
    net: nn.Layer,
    optimizer: Optimizer,
    average: Average | None,
    beside: nn.Layer | None = None,
) -> None:
    """Put a checkpoint's slots where they came from; `net` has the checkpoint's weights."""
    saved = {k: v for k, v in checkpoint.tensors.items() if k.startswith(OPTIMIZER)}
    if not saved and has_slots(optimizer):
        raise UserError(f"{path}: holds no optimizer state; resume from latest.safetensors")
    parameters = {path: name for name, path in names(net, beside).items()}
    state = {}
    trained = {}
    ranges = {}
    for key, value in saved.items():
        name, slot = key.removeprefix(OPTIMIZER).rsplit("/", 1)
        tensor = paddle.to_tensor(value)
        if slot == TRAINED:
            trained[name] = tensor
        elif slot == RANGE:
            ranges[name] = tensor
        else:
            tensor.name = state_key = f"{parameters[name]}_{slot}"
            state[state_key] = tensor
    optimizer.set_state_dict(state)
    if average:
        average.restore(trained)
    for name, value in state_beside(beside).items():
        value.set_value(trained[name])
    fake_quantize.restore(net, ranges)


def names(net: nn.Layer, beside: nn.Layer | None) -> dict[str, str]:
    """The paths of all parameters by the names that Paddle numbers."""
    found = {parameter.name: path for path, parameter in net.named_parameters()}
    others = beside.named_parameters() if beside else []
    return found | {parameter.name: BESIDE + path for path, parameter in others}


def state_beside(beside: nn.Layer | None) -> dict[str, Tensor]:
    """Parameters and statistics of layers that train beside the network, by path."""
    state = beside.state_dict() if beside else {}
    return {BESIDE + name: value for name, value in state.items()}


def slots(paths: Mapping[str, str], optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter path; Paddle names them by a process-wide counter."""
    state = {k: v for k, v in optimizer.state_dict().items() if isinstance(v, paddle.Tensor)}
    found = {}
    for key, value in state.items():
        name = key
        while name not in paths:
            name = name.rpartition("_")[0]
            assert name, "an optimizer slot belongs to no parameter"
        found[f"{OPTIMIZER}{paths[name]}/{key.removeprefix(name + '_')}"] = value
    return found

"""One optimizer step: the objective, narrow floats, gradients, the update.

Narrow floats where the device computes in them; weights and optimizer stay float32.

The network runs under `paddle.amp.auto_cast`, which casts a weight when it is used: the float32
weights are the master copy, and checkpoints are the same at every precision. The loss is float32.
Level O1 casts what is known to gain (matrix products, convolutions), O2 all but a black list.

The loss scale of float16 (arXiv:1710.03740) is our own and not Paddle's GradScaler, which is off on
a CPU, looks into Paddle's own optimizers, and would be one more thing to keep in a checkpoint.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.data.loader import Batch
from ppcls.optim.parameters import gradient_norm, scale_gradients
from ppcls.optim.rules import Optimizer, drop_gradients
from ppcls.tasks import Step
from ppcls.train.distributed import Processes
from ppcls.utils.device import on_device
from ppcls.utils.errors import UserError

FIRST_SCALE = 2.0**16
LARGEST_SCALE = 2.0**32
PATIENCE = 2000  # steps without overflow before the scale doubles

Outputs = TypeVar("Outputs")
Kind = Literal["fp32", "bf16", "fp16"]
Level = Literal["O1", "O2"]
NAMES: Mapping[Kind, Literal["float32", "bfloat16", "float16"]]
NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class LossScale:
    """What the loss is multiplied by, so that float16 gradients neither vanish nor overflow."""

    def __init__(self):
        self.value = FIRST_SCALE
        self.good = 0

    def settle(self, finite: bool) -> None:
        """After a step: halved when gradients overflowed, doubled when none has for long."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good == PATIENCE:
            self.value = min(LARGEST_SCALE, self.value * 2)
            self.good = 0

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.value = state["value"]
        self.good = int(state["good"])


class Precision:
    """How a run's network computes; `kind` is fp32 where the device has nothing narrower."""

    def __init__(self, asked: Kind, level: Level):
        self.kind: Kind = asked if supported(asked) else "fp32"
        self.asked: Kind = asked
        self.level: Level = level
        self.scale = LossScale() if self.kind == "fp16" else None

    def note(self) -> str:
        """What to tell of it, if anything."""
        if self.kind != self.asked:
            return (
                f"train.precision: {self.asked} needs a GPU that computes in {NAMES[self.asked]}; "
                "Paddle casts nothing here, so this run is in float32"
            )
        return f"precision {self.kind}, level {self.level}" if self.kind != "fp32" else ""

    def around(self, network: Callable[[Tensor], Outputs]) -> Callable[[Tensor], Outputs]:
        """The network in this precision, with float32 outputs: a tensor, or several."""
        if self.kind == "fp32":
            return network

        def narrow(images: Tensor) -> Outputs:
            with paddle.amp.auto_cast(level=self.level, dtype=NAMES[self.kind]):
                found = network(images)
            return paddle.utils.map_structure(lambda out: out.astype("float32"), found)  # type: ignore

        return narrow


def supported(kind: Kind) -> bool:
    """Whether the current device computes in it; Paddle's autocasting does nothing on a CPU."""
    if kind == "fp32" or not paddle.get_device().startswith("gpu"):
        return kind == "fp32"
    check = paddle.amp.is_bfloat16_supported if kind == "bf16" else paddle.amp.is_float16_supported
    return check()


# --------------------------------------------------------------------------
# One optimizer step: forward and backward over one or several batches, clipping, the update


class Teacher(Protocol):
    """What teaches: its name, and the file or folder that it comes from."""

    name: str
    source: Path

    def digest(self) -> str:
        """Changes with any bit of it."""
        ...


@dataclass
class Objective:
    """What a run's model learns from.

    Attributes:
        step: from images, targets and the batch they are of to loss and logits.
        layers: train and are saved beside the model, and are never handed on.
        teachers: say what images show, and stay as they are.
        peer: the name of a second student, which is among the layers.
    """

    step: Step
    layers: nn.LayerList = field(default_factory=nn.LayerList)
    teachers: Sequence[Teacher] = ()
    peer: str = ""

    def __post_init__(self):
        self.digests = [teacher.digest() for teacher in self.teachers]

    def about(self) -> list[str]:
        """A line on each teacher."""
        lines = [f"teacher {teacher.name}, {teacher.source}" for teacher in self.teachers]
        return [*lines, f"{self.peer} trains beside it"] if self.peer else lines

    def require(self, digests: Sequence[str]) -> None:
        """UserError unless these are the teachers that the run began with."""
        for teacher, now, before in zip(self.teachers, self.digests, digests, strict=True):
            if now != before:
                raise UserError(
                    f"task.teacher: {teacher.source} is not what it was when the run began: put "
                    "the earlier file back, or start a new run"
                )

    def check(self) -> None:
        """Teachers are what they were when the run began, to the bit."""
        for teacher, digest in zip(self.teachers, self.digests, strict=True):
            assert teacher.digest() == digest, f"the teacher {teacher.source} changed in the run"


class NotFinite(Exception):  # noqa: N818  the trainer makes an error of it
    """A loss or gradient is no number.

    `late`: how many steps were done after the one that gave it, 0 where nothing was updated.
    """

    def __init__(self, what: str, value: float, late: int = 0):
        self.what = what
        self.value = value
        self.late = late


@dataclass(frozen=True)
class StepResult:
    """What a step came to in all processes: mean loss, right answers out of how many, images."""

    loss: float
    right: float
    known: int  # images with labels
    images: int


@dataclass
class Unread:
    """A step of this process whose numbers lie on the device, which may not have them yet.

    Attributes:
        images: of all processes.
        shares: of each batch in them.
        losses: float32 [], of each batch.
        right: of each batch how right each image is, [N].
        known: of each batch which images have labels, int64 [K].
        norm: of the gradient, float32 [], where it is clipped.
    """

    images: int
    shares: list[float] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    known: list[np.ndarray] = field(default_factory=list)
    norm: Tensor | None = None

    def numbers(self) -> list[float]:
        """The sums of losses, right answers and images with labels; waits for the device."""
        loss = 0.0
        right = 0.0
        for own, share, values, known in zip(
            self.losses, self.shares, self.right, self.known, strict=True
        ):
            loss += float(own) * share
            right += float(values.numpy()[known].sum())
        return [loss, right, float(sum(map(len, self.known)))]


class TrainStep:
    """From batches to changed weights; the gradient is that of the mean over all their images."""

    def __init__(
        self,
        step: Step,
        right: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None = None,
        scale: LossScale | None = None,
        processes: Processes | None = None,
        reducer: paddle.DataParallel | None = None,
    ):
        """A step of one process, or of several together.

        Args:
            step: from images, targets and the batch they are of to loss and logits.
            right: how right each of the logits [N, classes] is for its target, [N].
            parameters: those that are trained.
            clip_norm: the longest that all gradients together may be.
            scale: of the loss, in float16.
            reducer: what `step` computes with and adds up the gradients of all processes, where
                each of them has a batch; None: they are added up after the backward pass.
        """
        self.step = step
        self.right = right
        self.optimizer = optimizer
        self.parameters = parameters
        self.clip_norm = clip_norm
        self.scale = scale
        self.processes = processes or Processes()
        self.reducer = reducer

    def __call__(
        self, batches: Sequence[Batch], total: int, rate: float, shared: bool = True
    ) -> StepResult:
        """Do one step on this process's batches, `total` images of all processes.

        Args:
            rate: the learning rate.
            shared: whether each process has a batch.

        Raises:
            NotFinite: in all processes, before anything is changed.
        """
        self.optimizer.set_lr(rate)
        self.processes.step_images = total
        factor = self.scale.value if self.scale else 1.0
        done = Unread(total)
        added = self.backward(done, batches, factor, shared)
        (found,) = self.totals([done])
        if not math.isfinite(found.loss):
            drop_gradients(self.optimizer)
            raise NotFinite("loss", found.loss)
        if not added:
            self.processes.add_gradients(self.parameters)
        if self.settled(factor):
            self.optimizer.step()
        drop_gradients(self.optimizer)
        return found

    def backward(
        self,
        done: Unread,
        batches: Sequence[Batch],
        factor: float,
        shared: bool,
        waits: bool = True,
    ) -> bool:
        """The gradients of this process's batches; returns whether they are everybody's already.

        Args:
            waits: leave off at a loss that is no number, unless the others count on this process.
        """
        reducer = self.reducer if shared else None
        if reducer:
            factor *= self.processes.count  # it leaves the mean of the processes
        for number, batch in enumerate(batches, 1):
            adds = reducer is not None and number == len(batches)
            if self.reducer:
                self.reducer.grad_need_sync = adds
            loss = self.forward(done, batch)
            if waits and not reducer and not math.isfinite(float(loss)):
                break
            with self.processes.together() if adds else nullcontext():
                (loss * (done.shares[-1] * factor)).backward()
        return reducer is not None

    def forward(self, done: Unread, batch: Batch) -> Tensor:
        """The loss of a batch, noted with how right its answers are."""
        images = on_device(batch.images)
        targets = on_device(batch.targets)
        loss, logits = self.step(images, targets, batch)
        known = batch.known
        with paddle.no_grad():
            some = len(known) < len(targets) and targets.ndim == 1
            judged = targets.clip(min=0) if some else targets  # -1 names no class
            done.right.append(self.right(logits.detach(), judged))
        done.known.append(known)
        done.losses.append(loss.detach())
        done.shares.append(len(batch.images) / done.images)
        return loss

    def settled(self, factor: float) -> bool:
        """Unscale and clip the gradients; False: float16 overflowed, so no step."""
        if self.clip_norm is None and not self.scale:
            return True
        norm = float(gradient_norm(self.parameters)) / factor
        finite = math.isfinite(norm)
        if self.scale:
            self.scale.settle(finite)
        elif not finite:
            drop_gradients(self.optimizer)
            raise NotFinite("norm of the gradient", norm)
        if not finite:
            return False
        clip = self.clip_norm / norm if self.clip_norm and norm > self.clip_norm else 1.0
        if clip / factor != 1:
            scale_gradients(self.parameters, clip / factor)
        return True

    # ------------------------------------------------------------------ without waiting

    def start(
        self, batches: Sequence[Batch], total: int, rate: float, shared: bool = True
    ) -> Unread:
        """As the step itself, but nothing is read: the device may still be at it afterwards.

        So a loss that is no number is found when the step is read. By then it has been learnt
        from, and the weights are worth nothing: read what was started before anything is saved
        or evaluated. A scale of the loss needs its answer at once, and cannot be had here.
        """
        assert self.scale is None, "whether float16 overflowed decides on the step"
        self.optimizer.set_lr(rate)
        self.processes.step_images = total
        done = Unread(total)
        if not self.backward(done, batches, 1.0, shared, waits=False):
            self.processes.add_gradients(self.parameters)
        if self.clip_norm is not None:
            done.norm = gradient_norm(self.parameters)
            norm = done.norm.astype("float64")
            longer = norm > self.clip_norm
            clip = paddle.where(longer, self.clip_norm / norm, paddle.ones_like(norm))
            scale_gradients(self.parameters, clip.astype("float32"))
        self.optimizer.step()
        drop_gradients(self.optimizer)
        return done

    def read(self, started: Sequence[Unread]) -> list[StepResult]:
        """What steps that were started came to, in their order; all processes read the same.

        Raises:
            NotFinite: of the first step that was not finite.
        """
        found = self.totals(started)
        for number, (step, result) in enumerate(zip(started, found, strict=True)):
            late = len(started) - 1 - number
            if not math.isfinite(result.loss):
                raise NotFinite("loss", result.loss, late)
            if step.norm is not None and not math.isfinite(norm := float(step.norm)):
                raise NotFinite("norm of the gradient", norm, late)
        return found

    def totals(self, steps: Sequence[Unread]) -> list[StepResult]:
        """Of each step the sums over all processes, in float64."""
        own = [number for step in steps for number in step.numbers()]
        sums = np.reshape(self.processes.total(own), (len(steps), 3)).tolist()
        return [
            StepResult(loss, right, int(known), step.images)
            for step, (loss, right, known) in zip(steps, sums, strict=True)
        ]


def defers(scale: LossScale | None) -> bool:
    """Whether steps need not be read at once: where the device works on while the host does."""
    return scale is None and not paddle.get_device().startswith("cpu")

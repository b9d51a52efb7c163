"""Narrow floats where the device computes in them; weights and optimizer stay float32.

The network runs under `paddle.amp.auto_cast`, which casts a weight when it is used: the float32
weights are the master copy, and checkpoints are the same at every precision. The loss is float32.
Level O1 casts what is known to gain (matrix products, convolutions), O2 all but a black list.

The loss scale of float16 (arXiv:1710.03740) is our own and not Paddle's GradScaler, which is off on
a CPU, looks into Paddle's own optimizers, and would be one more thing to keep in a checkpoint.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import paddle
from paddle import Tensor

from ppcls.data.loader import Batch
from ppcls.optim.parameters import gradient_norm, scale_gradients
from ppcls.optim.rules import Optimizer
from ppcls.tasks import Step, Task
from ppcls.train.distributed import Processes

FIRST_SCALE, LARGEST_SCALE = 2.0**16, 2.0**32
PATIENCE = 2000  # steps without overflow before the scale doubles

Outputs = TypeVar("Outputs")
Kind = Literal["fp32", "bf16", "fp16"]
Level = Literal["O1", "O2"]
NAMES: Mapping[Kind, Literal["float32", "bfloat16", "float16"]]
NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class LossScale:
    """What the loss is multiplied by, so that float16 gradients neither vanish nor overflow."""

    def __init__(self):
        self.value, self.good = FIRST_SCALE, 0

    def settle(self, finite: bool) -> None:
        """After a step: halved when gradients overflowed, doubled when none has for long."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good == PATIENCE:
            self.value, self.good = min(LARGEST_SCALE, self.value * 2), 0

    def state(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def restore(self, state: Mapping[str, float]) -> None:
        self.value, self.good = state["value"], int(state["good"])


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


class NotFinite(Exception):  # noqa: N818  the trainer makes an error of it
    """A loss or gradient is no number; nothing was updated."""

    def __init__(self, what: str, value: float):
        self.what, self.value = what, value


@dataclass(frozen=True)
class Done:
    """What a step came to in all processes: mean loss, right answers out of how many, photos."""

    loss: float
    right: float
    known: int  # photos with labels
    photos: int


class Update:
    """From batches to changed weights; the gradient is that of the mean over all their photos."""

    def __init__(
        self,
        task: Task,
        step: Step,
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None,
        scale: LossScale | None,
        processes: Processes,
    ):
        self.task, self.step, self.optimizer, self.parameters = task, step, optimizer, parameters
        self.clip_norm, self.scale, self.processes = clip_norm, scale, processes

    def __call__(self, batches: Sequence[Batch], photos: int) -> Done:
        """Do one step on this process's batches, out of so many photos in all processes.

        Raises:
            NotFinite: in all processes, before anything is changed.
        """
        factor = self.scale.value if self.scale else 1.0
        value, right, known = 0.0, 0.0, 0.0
        for batch in batches:
            share = len(batch.images) / photos
            images, targets = paddle.to_tensor(batch.images), paddle.to_tensor(batch.targets)
            loss, logits = self.step(images, targets, batch.indices)
            value += float(loss) * share
            rows = batch.known
            right += self.task.right(logits.numpy()[rows], batch.targets[rows])
            known += len(rows)
            if not math.isfinite(value):
                break
            (loss * (share * factor)).backward()
        value, right, known = self.processes.total([value, right, known])
        if not math.isfinite(value):
            self.optimizer.clear_grad()
            raise NotFinite("loss", value)
        self.processes.add_gradients(self.parameters)
        if self.settled(factor):
            self.optimizer.step()
        self.optimizer.clear_grad()
        return Done(value, right, int(known), photos)

    def settled(self, factor: float) -> bool:
        """Unscale and clip the gradients; False: float16 overflowed, so no step."""
        if self.clip_norm is None and not self.scale:
            return True
        norm = gradient_norm(self.parameters) / factor
        finite = math.isfinite(norm)
        if self.scale:
            self.scale.settle(finite)
        elif not finite:
            self.optimizer.clear_grad()
            raise NotFinite("norm of the gradient", norm)
        if not finite:
            return False
        clip = self.clip_norm / norm if self.clip_norm and norm > self.clip_norm else 1.0
        if clip / factor != 1:
            scale_gradients(self.parameters, clip / factor)
        return True

"""One optimizer step: forward and backward over one or several batches, clipping, the update."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import Tensor

from ppcls.data.loader import Batch
from ppcls.train.groups import gradient_norm, scale_gradients
from ppcls.train.precision import LossScale
from ppcls.train.processes import Processes
from ppcls.train.rules import Optimizer
from ppcls.train.task import Step, Task


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

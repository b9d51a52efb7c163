"""One optimizer step: forward and backward over one or several batches, clipping, the update."""

import math
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor

from ppcls.data.loader import Batch
from ppcls.train.groups import gradient_norm, scale_gradients
from ppcls.train.precision import LossScale
from ppcls.train.rules import Optimizer
from ppcls.train.task import Step


class NotFinite(Exception):  # noqa: N818  the trainer makes an error of it
    """A loss or gradient is no number; nothing was updated."""

    def __init__(self, what: str, value: float):
        self.what, self.value = what, value


class Update:
    """From batches to changed weights; the gradient is that of the mean over all their photos."""

    def __init__(
        self,
        task: Step,
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None,
        scale: LossScale | None,
    ):
        self.task, self.optimizer, self.parameters = task, optimizer, parameters
        self.clip_norm, self.scale = clip_norm, scale

    def __call__(self, batches: Sequence[Batch]) -> tuple[float, np.ndarray]:
        """Do one step; returns its loss and logits.

        Raises:
            NotFinite: before anything is changed.
        """
        photos = sum(len(batch.images) for batch in batches)
        factor = self.scale.value if self.scale else 1.0
        value, logits = 0.0, []
        for batch in batches:
            share = len(batch.images) / photos
            loss, found = self.task(paddle.to_tensor(batch.images), paddle.to_tensor(batch.targets))
            value += float(loss) * share
            logits.append(found.numpy())
            if not math.isfinite(value):
                self.optimizer.clear_grad()
                raise NotFinite("loss", value)
            (loss * (share * factor)).backward()
        if self.settled(factor):
            self.optimizer.step()
        self.optimizer.clear_grad()
        return value, np.concatenate(logits)

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

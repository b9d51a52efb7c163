"""The learning rate as a function of the step."""

import math
from typing import Annotated, Literal

from pydantic import Field

from ppcls.config.node import Count, Duration, Float, NotNegative, Positive, Span, node


@node
class Cosine:
    """Half a cosine wave from 1 after warm-up to `end` at the last step (arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    end: Annotated[Float, Field(ge=0, le=1)] = 0.0  # share of the peak left at the end

    def __call__(self, step: int, start: int, epoch_steps: int, total_steps: int) -> float:
        progress = (step - start) / max(1, total_steps - start)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


@node
class Step:
    """Multiplied by `gamma` at each milestone, counted from the start of training."""

    kind: Literal["step"] = "step"
    milestones: tuple[Duration, ...]
    gamma: Positive = 0.1

    def __call__(self, step: int, start: int, epoch_steps: int, total_steps: int) -> float:
        passed = [m for m in self.milestones if m.steps(epoch_steps, total_steps) <= step]
        return self.gamma ** len(passed)


@node
class Constant:
    """1 at every step."""

    kind: Literal["constant"] = "constant"

    def __call__(self, step: int, start: int, epoch_steps: int, total_steps: int) -> float:
        return 1.0


@node
class Schedule:
    """A peak learning rate, reached by linear warm-up from `warmup_start`, then decaying."""

    lr: Positive
    for_batch: Count | None = None  # the batch `lr` was chosen for; None: the one in use
    warmup: Duration = Span(0, "epochs")
    warmup_start: NotNegative = 0.0  # learning rate of the first step, before scaling
    decay: Annotated[Cosine | Step | Constant, Field(discriminator="kind")] = Cosine()

    def scale(self, batch: int) -> float:
        """What `lr` is multiplied by for another batch: in proportion (arXiv:1706.02677)."""
        return batch / (self.for_batch or batch)

    def __call__(self, step: int, epoch_steps: int, total_steps: int, batch: int) -> float:
        """The learning rate of one step, counted from 0, with `batch` photos a step in all."""
        start = self.warmup.steps(epoch_steps, total_steps)
        if step < start:
            lr = self.warmup_start + (self.lr - self.warmup_start) * step / start
        else:
            lr = self.lr * self.decay(step, start, epoch_steps, total_steps)
        return lr * self.scale(batch)

"""What the steps between two records of a run came to."""

import time
from collections.abc import Sequence

import numpy as np

from ppcls.data.loader import Batch
from ppcls.train.task import Task


class Window:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self, task: Task):
        self.task = task
        self.losses, self.right, self.photos, self.seconds = [], 0.0, 0, 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = time.monotonic()

    def add(self, loss: float, logits: np.ndarray, batches: Sequence[Batch]) -> None:
        """Take in a step."""
        targets = np.concatenate([batch.targets for batch in batches])
        self.losses.append(loss)
        self.right += self.task.right(logits, targets)
        self.photos += len(targets)
        now = time.monotonic()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """The score that the task watches."""
        return self.right / self.photos

    @property
    def speed(self) -> float:
        """Photos a second."""
        return round(self.photos / max(self.seconds, 1e-9), 2)

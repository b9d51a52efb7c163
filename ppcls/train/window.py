"""What the steps between two records of a run came to."""

import time
from collections.abc import Sequence

import numpy as np

from ppcls import metrics
from ppcls.data.loader import Batch


class Window:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self):
        self.losses, self.right, self.photos, self.seconds = [], 0, 0, 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = time.monotonic()

    def add(self, loss: float, logits: np.ndarray, batches: Sequence[Batch]) -> None:
        """Take in a step; a mixed photo is right when its largest share is."""
        targets = np.concatenate([batch.labels for batch in batches])
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        self.losses.append(loss)
        self.right += metrics.correct(logits, labels, 1)
        self.photos += len(labels)
        now = time.monotonic()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def top1(self) -> float:
        return self.right / self.photos

    @property
    def speed(self) -> float:
        """Photos a second."""
        return round(self.photos / max(self.seconds, 1e-9), 2)

"""What the steps between two records of a run came to."""

import time
from collections.abc import Callable

from ppcls.train.update import Done


class Window:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.losses: list[float] = []
        self.right = 0.0
        self.known = 0  # photos with labels
        self.photos = 0
        self.seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = self.clock()

    def add(self, done: Done | None) -> None:
        """Take in a step; None: one without a photo that could be read, which only took time."""
        if done:
            self.losses.append(done.loss)
            self.right += done.right
            self.known += done.known
            self.photos += done.photos
        now = self.clock()
        self.seconds += now - self.mark
        self.mark = now

    def scores(self, watched: str) -> dict[str, float]:
        """The mean loss, and the score that the task watches of the photos with labels.

        What no photo was read for is left out: it has no value.
        """
        found: dict[str, float] = {}
        if self.losses:
            found["loss"] = sum(self.losses) / len(self.losses)
        if self.known:
            found[watched] = self.right / self.known
        return found

    @property
    def speed(self) -> float:
        """Photos a second."""
        return round(self.photos / max(self.seconds, 1e-9), 2)

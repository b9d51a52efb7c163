"""What the steps between two records of a run came to."""

import time

from ppcls.train.update import Done


class Window:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self):
        self.losses, self.right, self.known, self.photos, self.seconds = [], 0.0, 0, 0, 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = time.monotonic()

    def add(self, done: Done) -> None:
        """Take in a step."""
        self.losses.append(done.loss)
        self.right += done.right
        self.known += done.known
        self.photos += done.photos
        now = time.monotonic()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """The score that the task watches, of the photos with labels."""
        return self.right / max(1, self.known)

    @property
    def speed(self) -> float:
        """Photos a second."""
        return round(self.photos / max(self.seconds, 1e-9), 2)

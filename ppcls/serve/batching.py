"""Images of many requests as batches of one network."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Clock = Callable[[], float]


@dataclass(eq=False)
class Request:
    """What one client asked for, on its way through a worker.

    Attributes:
        until: when it is too late for an answer, by time.monotonic.
        answers: of each image, None until it has one.
        cancelled: whether nobody waits for it any more.
        decoding, engine: seconds, of the slowest of its images.
        begun: when its first image came to the engine.
        failed: why the engine could not run one of its images, alone.
        names: of its images, in messages; None where the client gave none.
    """

    number: int
    answers: list[Any]
    topk: int | None = None
    threshold: float | None = None
    until: float = float("inf")
    arrived: float = 0.0
    whole: bool = False  # whether all probabilities are to come, too
    missing: int = 0
    cancelled: bool = False
    decoding: float = 0.0
    engine: float = 0.0
    begun: float | None = None
    batch: int = 0
    failed: str = ""
    names: Sequence[str | None] = ()
    explain: bool = False  # whether maps of the classes are to come, too
    lock: threading.Lock = field(default_factory=threading.Lock)

    def name(self, place: int) -> str:
        """How messages call an image."""
        given = self.names[place] if self.names else None
        if len(self.answers) == 1:
            return given or "the image given"
        return f"images[{place}] ({given})" if given else f"images[{place}]"

    def is_over(self, now: float) -> bool:
        """Whether an answer is of no use any more."""
        return self.cancelled or now > self.until

    def answer(self, place: int, found: Any) -> bool:
        """Take the answer of an image; True where it was the last one missing."""
        with self.lock:
            self.answers[place] = found
            self.missing -= 1
            return not self.missing


@dataclass(eq=False)
class Item:
    """An image of a request: `pixels` uint8 [H, W, C], or as the network takes it; of what was
    `seen` of the image itself, top, left, bottom and right, in shares of its height and width; and
    how it `looks`, where drift is watched and these are pixels.
    """

    request: Request
    place: int
    pixels: np.ndarray
    is_tensor: bool = False
    seen: Sequence[float] = ()
    looks: np.ndarray | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Images of one kind can run together."""
        return self.is_tensor, self.pixels.shape


class Batcher:
    """Hands images to the threads that run batches.

    A thread that has nothing to do takes what is there at once, unless more is known to be on its
    way: for that it waits, at most `delay` seconds from the first image on.
    """

    def __init__(self, most: int, delay: float, runners: int, clock: Clock = time.monotonic):
        self.most = most
        self.delay = delay
        self.clock = clock
        self.images: deque[tuple[float, Item]] = deque()
        self.coming = 0  # images that are being decoded
        self.idle = 0  # threads that wait for images
        self.runners = runners
        self.closed = False
        self.changed = threading.Condition()

    def announce(self, count: int) -> None:
        """So many images are on their way: `put` or `miss` follows for each."""
        with self.changed:
            self.coming += count

    def put(self, *items: Item) -> None:
        with self.changed:
            now = self.clock()
            self.images.extend((now, item) for item in items)
            self.coming -= len(items)
            self.changed.notify(len(items))

    def miss(self) -> None:
        """One that was announced does not come."""
        with self.changed:
            self.coming -= 1
            self.changed.notify_all()

    def take(self) -> tuple[list[Item], bool]:
        """The images of the next batch, and whether no other one runs; none: it is closed."""
        with self.changed:
            self.idle += 1
            try:
                while True:
                    if not self.images:
                        if self.closed:
                            return [], True
                        self.changed.wait()
                        continue
                    left = self.images[0][0] + self.delay - self.clock()
                    # Where it fills, comes to nothing more, or has waited long enough.
                    if len(self.images) >= self.most or not self.coming or left <= 0:
                        return self.next_batch()
                    self.changed.wait(left)
            finally:
                self.idle -= 1

    def next_batch(self) -> tuple[list[Item], bool]:
        waiting = len(self.images)
        # What is there is shared with the others that have nothing to do.
        count = min(self.most, -(-waiting // self.idle))
        kind = self.images[0][1].kind
        taken: list[Item] = []
        others: list[tuple[float, Item]] = []
        while self.images and len(taken) < count:
            one = self.images.popleft()
            if one[1].kind == kind:
                taken.append(one[1])
            else:
                others.append(one)
        self.images.extendleft(reversed(others))
        if self.images:  # one who was woken takes a share; the rest is for one who was not
            self.changed.notify()
        return taken, self.idle == self.runners and not self.images

    def close(self) -> None:
        """Let the threads end once nothing is left."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

"""Whether a run gets on: a file that says so to others, and an end for one that does not."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ppcls.train.rendezvous import seconds
from ppcls.utils.errors import TRY_AGAIN
from ppcls.utils.log import print_error
from ppcls.utils.text import duration

FILE = "heartbeat"  # in the run's folder
STALL = "PPCLS_STALL_SECONDS"
EVERY = 5.0  # seconds between two writings of the file
NEVER = 1e6
LAST_WORDS = 5.0  # seconds for them

Item = TypeVar("Item")


class Heartbeat:
    """While entered, notes each step and batch; ends the process where none comes for long.

    The file is `{"step", "total_steps", "doing", "time", "pid"}`, `time` in seconds since 1970; it
    is replaced as a whole, every five seconds at most.

    Args:
        folder: of the run; None in processes that write nothing.
        total: steps of the run.
        left: the words that say how to go on.
    """

    def __init__(self, folder: Path | None, total: int, left: Callable[[], str]):
        self.folder = folder
        self.total = total
        self.step = 0
        self.left = left
        self.doing = "starting"
        self.limit = seconds(STALL, NEVER)
        self.at = time.monotonic()
        self.written = float("inf")  # nothing is, before it is entered
        self.over = threading.Event()

    def __enter__(self) -> "Heartbeat":
        self.written = -EVERY
        self.beat(self.step, self.doing)
        if self.limit < NEVER:
            threading.Thread(target=self.watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.written = -EVERY
        self.beat(self.step, "ended")

    def beat(self, step: int, doing: str = "training") -> None:
        """The run has got on."""
        self.step = step
        self.doing = doing
        self.at = time.monotonic()
        if self.folder and self.at - self.written >= EVERY:
            self.written = self.at
            self.write(self.folder)

    def beating(self, items: Iterable[Item], doing: str) -> Iterator[Item]:
        """The items; each shows that the run gets on."""
        for item in items:
            self.beat(self.step, doing)
            yield item

    def write(self, folder: Path) -> None:
        """A disk that is full, or away for a while, is told of by what must be written there."""
        said = {"step": self.step, "total_steps": self.total, "doing": self.doing}
        said |= {"time": round(time.time(), 3), "pid": os.getpid()}
        beside = folder / f".ppcls-{os.getpid()}.heartbeat"
        with suppress(OSError):
            beside.write_text(json.dumps(said))
            beside.replace(folder / FILE)

    def watch(self) -> None:
        """A thread: end the process when nothing has come for the time.

        Only time is counted in which this process runs: one that was stopped and goes on gets on.
        """
        interval = min(1.0, self.limit / 4)
        silent = 0.0
        before = time.monotonic()
        seen = self.at
        while not self.over.wait(interval):
            now = time.monotonic()
            silent = silent + min(now - before, 2 * interval) if self.at == seen else 0.0
            before = now
            seen = self.at
            if silent > self.limit:
                # What the words are taken from may lie on the disk that does not answer.
                threading.Thread(target=end_soon, daemon=True).start()
                print_error(
                    f"no step for {duration(silent)} ({STALL}={self.limit:g}), while {self.doing} "
                    f"after step {self.step} of {self.total}: {self.left()}"
                )
                os._exit(TRY_AGAIN)


def end_soon() -> None:
    time.sleep(LAST_WORDS)
    os._exit(TRY_AGAIN)

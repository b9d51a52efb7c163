"""What a run says: lines for people, a progress bar, and records for programs."""

import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeGuard, TypeVar

from tqdm import tqdm

from ppcls.utils.files import writing
from ppcls.utils.text import (
    LONGEST,
    VISIBLE,
    duration,
    from_json,
    one_line,
    showable,
    three_digits,
    visible,
)

Item = TypeVar("Item")
Clock = Callable[[], float]  # seconds since any time
# between lines of progress where there is no terminal
FIRST_SECONDS = 10
MOST_SECONDS = 600
RESUME = "resume"  # the event of a run that goes on
KEEPS = "the last checkpoint stays: make room, then the same command with --resume"


quiet = False  # in a process that leaves talking to another


def be_quiet() -> None:
    """Say and show nothing from now on."""
    global quiet
    quiet = True


@contextmanager
def silence() -> Iterator[None]:
    """While entered, nothing is said or shown: what is tried is said when it is done."""
    global quiet
    before = quiet
    quiet = True
    try:
        yield
    finally:
        quiet = before


def never_fail(*streams: object) -> None:
    """Show what a stream's encoding lacks, as `\\xb5`, instead of raising."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # and not what a program has put in its place
            stream.reconfigure(errors=VISIBLE)


def say(*lines: object) -> None:
    """Print lines, each as `one_line` shows it, without breaking a progress bar."""
    if quiet or sys.stdout is None:  # None where the program was started with it closed
        return
    for line in lines:
        tqdm.write(showable(one_line(str(line)), sys.stdout), file=sys.stdout)
    sys.stdout.flush()


def print_error(*lines: object, mark: str = "error: ") -> None:
    """Print mistakes, a line each as `one_line` shows it, to where errors go, if anybody reads."""
    with suppress(OSError, ValueError):  # a closed stream, or a pipe whose reader is gone
        for line in lines if sys.stderr else ():
            text = f"{mark}{one_line(str(line), LONGEST - len(mark))}"
            print(text, file=sys.stderr, flush=True)


class Pace:
    """When a line of progress is due where there is no terminal.

    After 10 seconds, and again when as much time has passed as until the last one, but at least
    every 10 minutes: at 10, 20, 40, 80 … seconds.
    """

    def __init__(self, clock: Clock = time.monotonic):
        self.clock = clock
        self.start = self.said = clock()

    def due(self) -> bool:
        """Whether a line is due now; it counts as said then."""
        now = self.clock()
        wait = min(max(self.said - self.start, FIRST_SECONDS), MOST_SECONDS)
        if now - self.said < wait:
            return False
        self.said = now
        return True


class Progress(Iterable[Item]):
    """Iterate with a bar on a terminal, and with a line now and then elsewhere.

    `note` is shown beside how far it is; `left` in place of the seconds that the items still take,
    where they are part of something longer.
    """

    def __init__(
        self,
        items: Iterable[Item],
        what: str,
        total: int,
        start: int = 0,
        pace: Pace | None = None,
        clock: Clock = time.monotonic,
    ):
        """`pace`: that of what the items are part of, so that lines become rarer all the while."""
        self.items = items
        self.what = what
        self.total = total
        self.done = start
        self.first = start
        self.note = ""
        self.left: float | None = None
        self.bar = tqdm(
            total=total, initial=start, desc=visible(what), leave=False, disable=quiet or None
        )
        self.clock = clock
        self.lines = pace or Pace(clock)
        self.started = clock()

    def __iter__(self) -> Iterator[Item]:
        with self.bar:
            for item in self.items:
                yield item
                self.advance()

    def advance(self) -> None:
        self.done += 1
        left = f"{duration(self.left)} left in all" if self.left is not None else ""
        beside = visible(", ".join(filter(None, (self.note, left))))
        self.bar.set_postfix_str(beside, refresh=False)
        self.bar.update()
        if self.bar.disable and self.done < self.total and self.lines.due():
            say(self.line())

    def line(self) -> str:
        """How far it is: `evaluation: 3/40, 0.5 a second, 74 seconds left`."""
        rate = (self.done - self.first) / max(self.clock() - self.started, 1e-9)
        left = f"{duration((self.total - self.done) / rate)} left"
        if self.left is not None:
            left = f"{duration(self.left)} left in all"
        parts = (
            f"{self.what}: {self.done}/{self.total}",
            f"{three_digits(rate)} a second",
            self.note,
            left,
        )
        return ", ".join(filter(None, parts))


class NoScalars:
    """In a process that leaves writing to another."""

    def __enter__(self) -> "NoScalars":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, event: str, step: int, **values: float) -> None:
        pass


class Scalars:
    """A run's events: a JSON object a line in `run.jsonl`, which is only ever added to.

    A run that goes on first writes
    `{"event": "resume", "step": N}`: what stands above it of later steps than N was lost with the
    process that did them, and `read_records` leaves it out.
    """

    def __init__(self, folder: Path, step: int):
        self.path = folder / "run.jsonl"
        with writing(str(self.path), KEEPS):
            # Unbuffered, so that what cannot be written is known with the record it belongs to.
            self.file = self.path.open("ab", buffering=0)
            try:
                self.begin(step)
            except OSError:
                self.file.close()
                raise

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def begin(self, step: int) -> None:
        """In a file with records, say from which step on the run goes on."""
        if self.file.tell():
            self.file.write(b"" if ends_whole(self.path) else b"\n")
            self.append({"event": RESUME, "step": step, "time": round(time.time(), 3)})

    def write(self, event: str, step: int, **values: float) -> None:
        record = {"event": event, "step": step, "time": round(time.time(), 3), **values}
        with writing(str(self.path), KEEPS):
            self.append(record)

    def append(self, record: dict) -> None:
        text = json.dumps(record).encode() + b"\n"
        if self.file.write(text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def ends_whole(path: Path) -> bool:
    """Whether the last line of a file has its end."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_records(path: Path) -> list[dict]:
    """The records of a run, [] without any; lines cut short by a crash are left out.

    So are those of steps that a resumed run did again.
    """
    records: list[dict] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n"):
        try:
            record = from_json(line)
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        if record.get("event") == RESUME:
            last = step_of(record)
            records = [earlier for earlier in records if step_of(earlier) <= last]
        else:
            records.append(record)
    return records


def step_of(record: dict) -> float:
    """The step of a record; 0 where it has none."""
    step = record.get("step")
    return step if is_number(step) else 0


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300

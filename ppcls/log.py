"""What a run says: lines for people, a progress bar, and records for programs."""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ppcls.utils.text import VISIBLE, duration, showable, three_digits

Item = TypeVar("Item")
Clock = Callable[[], float]  # seconds since any time
FIRST_SECONDS, MOST_SECONDS = 10, 600  # between lines of progress where there is no terminal


quiet = False  # in a process that leaves talking to another


def be_quiet() -> None:
    """Say and show nothing from now on."""
    global quiet
    quiet = True


def never_fail(*streams: object) -> None:
    """Show what a stream's encoding lacks, as `\\xb5`, instead of raising."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # and not what a program has put in its place
            stream.reconfigure(errors=VISIBLE)


def say(text: str) -> None:
    """Print a line without breaking a progress bar."""
    if quiet:
        return
    tqdm.write(showable(text, sys.stdout), file=sys.stdout)
    sys.stdout.flush()


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
        self.items, self.what, self.total, self.done = items, what, total, start
        self.first = start
        self.note = ""
        self.left: float | None = None
        self.bar = tqdm(total=total, initial=start, desc=what, leave=False, disable=quiet or None)
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
        self.bar.set_postfix_str(", ".join(filter(None, (self.note, left))), refresh=False)
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
    """A run's events: a JSON object a line in `run.jsonl`, and curves for VisualDL in `vdl/`."""

    def __init__(self, folder: Path, step: int):
        from visualdl import LogWriter

        path = folder / "run.jsonl"
        kept = [r for r in read_records(path) if r["step"] <= step]  # a resumed run goes on there
        path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self.file = path.open("a", encoding="utf-8")
        shutil.rmtree(folder / "vdl", ignore_errors=True)
        self.writer = LogWriter(str(folder / "vdl"))
        for record in kept:
            self.draw(record)

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        self.writer.close()

    def write(self, event: str, step: int, **values: float) -> None:
        record = {"event": event, "step": step, "time": round(time.time(), 3), **values}
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        self.draw(record)

    def draw(self, record: dict) -> None:
        for name in record.keys() - {"event", "step", "time"}:
            self.writer.add_scalar(f"{record['event']}/{name}", record[name], record["step"])


def read_records(path: Path) -> list[dict]:
    """The records of a run, [] without any; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records

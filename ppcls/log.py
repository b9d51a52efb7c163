"""What a run says: lines for people, a progress bar, and records for programs."""

import io
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ppcls.utils.text import VISIBLE, showable

Item = TypeVar("Item")
QUIET_SECONDS = 10  # between plain progress lines when the output is not a terminal


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


class Progress(Iterable[Item]):
    """Iterate with a bar on a terminal, and with a line now and then elsewhere."""

    def __init__(self, items: Iterable[Item], what: str, total: int, start: int = 0):
        self.items, self.what, self.total, self.done = items, what, total, start
        self.note = ""
        self.bar = tqdm(total=total, initial=start, desc=what, leave=False, disable=quiet or None)
        self.said = time.monotonic()

    def __iter__(self) -> Iterator[Item]:
        with self.bar:
            for item in self.items:
                yield item
                self.advance()

    def advance(self) -> None:
        self.done += 1
        self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update()
        late = time.monotonic() - self.said > QUIET_SECONDS
        if self.bar.disable and late and self.done < self.total:
            self.said = time.monotonic()
            say(f"{self.what}: {self.done}/{self.total} {self.note}")


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

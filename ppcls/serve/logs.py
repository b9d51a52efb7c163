"""What a service says, and what it keeps of requests: a line each, and a share of the images.

All is written by threads of their own, so that a slow disk or a reader that stopped delays no
answer; where these cannot follow, lines are dropped and counted.
"""

import datetime
import json
import queue
import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from ppcls.data.decode import HEAD, kind_of
from ppcls.utils import log
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_bytes

MOST_WAITING = 10_000  # lines, and images, that wait to be written


class Writer:
    """Does things in order in a thread of its own; drops what it cannot keep up with."""

    def __init__(self, most: int = MOST_WAITING):
        self.waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
        self.dropped = 0
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def do(self, work: Callable[[], None]) -> None:
        try:
            self.waiting.put_nowait(work)
        except queue.Full:
            self.dropped += 1

    def work(self) -> None:
        while work := self.waiting.get():
            try:
                work()
            except (OSError, ValueError, UserError):
                self.dropped += 1

    def count_dropped(self) -> int:
        return self.dropped

    def close(self) -> bool:
        """Write what waits, unless that takes too long; whether all is written."""
        with suppress(queue.Full):
            self.waiting.put(None, timeout=1)
        self.thread.join(timeout=4)
        return not self.thread.is_alive()


@cache
def spoken() -> Writer:
    """What writes the lines of `say`."""
    return Writer(1000)


def say(*lines: object) -> None:
    """As `log.say`, which a reader of standard output that stopped would hold up."""
    spoken().do(lambda: log.say(*lines))


def finish_saying() -> bool:
    """Write the lines that wait, unless that takes too long; whether all are written."""
    done = spoken().close()
    spoken.cache_clear()
    return done


class AccessLog:
    """Lines of JSON, without anything of the images.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, target: str):
        self.target = target
        self.file = self.opened()
        self.writer = Writer()

    def opened(self) -> TextIO:
        if self.target == "-":
            return sys.stdout
        try:
            return open(self.target, "a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"--access-log {self.target}: cannot be written ({error.strerror})"
            ) from None

    def reopen(self) -> None:
        """Go on in a new file of that name, for the one before was put away."""
        self.writer.do(self.exchange)

    def exchange(self) -> None:
        before, self.file = self.file, self.opened()
        if before is not sys.stdout:
            before.close()

    def write(self, record: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = json.dumps({"time": at, **record}, ensure_ascii=True) + "\n"
        self.writer.do(lambda: self.put(text))

    def put(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()

    def close(self) -> bool:
        """Whether all is written."""
        done = self.writer.close()
        if done and self.file is not sys.stdout:
            self.file.close()
        return done


RECORDS = "answers.jsonl"


class Samples:
    """A share of the images that were predicted, kept for people to label: `--record FOLDER`.

    An image's file is named by its contents; `answers.jsonl` has a line for each answer.
    """

    def __init__(self, folder: Path, share: float, most: int):
        self.folder = folder
        self.share = share
        self.left = most
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / RECORDS
            if kept.exists():
                with kept.open("rb") as file:
                    self.left -= sum(1 for _ in file)
            with kept.open("ab"):
                pass
        except OSError as error:
            raise UserError(f"--record {folder}: cannot be written ({error.strerror})") from None
        self.writer = Writer(100)
        self.random = random.Random()

    def take(self, images: list[bytes], answer: dict[str, Any]) -> None:
        """Keep those of an answer's images that chance picks."""
        for data, found in zip(images, answer["predictions"], strict=True):
            if "error" in found or self.left <= 0 or self.random.random() >= self.share:
                continue
            self.left -= 1
            if not self.left:
                say(f"note: --record {self.folder}: holds as many images as it may; no more follow")
            about = {key: answer[key] for key in ("model", "version", "digest", "request_id")}
            self.writer.do(self.writing(bytes(data), about | found))

    def writing(self, data: bytes, found: dict[str, Any]) -> Callable[[], None]:
        def write() -> None:
            name = sha256(data).hexdigest()[:32] + (kind_of(data[:HEAD]) or ".bin")
            if not (self.folder / name).exists():
                write_bytes(self.folder / name, data, "--record")
            line = json.dumps({"image": name, **found}, ensure_ascii=False) + "\n"
            with (self.folder / RECORDS).open("a", encoding="utf-8") as file:
                file.write(line)

        return write

    def close(self) -> bool:
        """Whether all is written."""
        return self.writer.close()

"""A model as the process that speaks HTTP sees it: its versions, their workers, who waits for what.

A request is in `waiting` until a worker has room, then with that worker until it answers. Where a
worker dies or hangs, what it had is tried once more, each request alone, so that one that ends
workers takes no other with it.
"""

import asyncio
import itertools
import math
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppcls.serve import frames
from ppcls.serve.metrics import Metrics
from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import ServeSettings
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

WATCH = 0.5  # seconds between looks at whether a worker gets on
TRIAL = 30.0  # seconds for which the version before stands by …
TRIAL_IMAGES = 100  # … or until the new one has predicted so many
PAUSES = (0.0, 0.5, 2.0, 5.0, 10.0)  # seconds before a worker is started again
END = 10.0  # seconds that a worker has to end by itself
TRIES = 2  # times that a request is given to a worker
PLAN = ("batch", "streams", "delay", "rate", "seconds")  # of what a worker tells, what was measured

numbers = itertools.count(1)


@dataclass(eq=False, repr=False)
class Pending:
    """A request that waits for its answer.

    Attributes:
        until: when it is too late, by time.monotonic.
        alone: whether it was with a worker that died: it is tried again with no other beside it.
    """

    header: dict[str, Any]
    parts: list[bytes | memoryview]
    count: int
    until: float
    answer: "asyncio.Future[tuple[Version, dict[str, Any], list[bytes]]]"
    number: int = field(default_factory=lambda: next(numbers))
    tries: int = 0
    alone: bool = False
    worker: "Worker | None" = None  # that has it; None: it waits for one


class Worker:
    """A process, and what it has been asked and has not answered yet."""

    def __init__(self, version: "Version", ended: Callable[["Worker", str], None]):
        self.version = version
        self.ended = ended
        self.pending: dict[int, Pending] = {}
        self.images = 0
        self.memory = 0
        self.hung = False
        self.leaves = False  # it was told to end
        self.answered: Callable[[Worker], None] = lambda _: None
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, opening: dict[str, Any]) -> dict[str, Any]:
        """Start the process; returns what it tells of the model once it is ready.

        Raises:
            UserError: it cannot open the model.
        """
        header = await self.begin({**opening, "measures": True})
        if header["kind"] == "again":  # it has chosen an engine, and holds the others, too
            await asyncio.to_thread(self.process.wait)
            self.writer.close()
            header = await self.begin({**opening, "measures": False})
        if header["kind"] == "failed":
            await asyncio.to_thread(self.process.wait)
            self.writer.close()
            raise UserError(*header["lines"])
        self.beaten = time.monotonic()
        self.tasks = [asyncio.create_task(self.follow()), asyncio.create_task(self.watch())]
        return header

    async def begin(self, opening: dict[str, Any]) -> dict[str, Any]:
        """Start the process; returns the first that it says."""
        ours, theirs = socket.socketpair()
        command = [*environment.program("ppcls.serve.worker"), str(theirs.fileno())]
        with theirs:
            # A session of its own: a Ctrl-C in the terminal is for the service alone.
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        ours.setblocking(False)
        self.reader, self.writer = await asyncio.open_unix_connection(sock=ours)
        try:
            self.writer.writelines(frames.encode({"kind": "open", **opening}))
            header, _ = await frames.read(self.reader)
        except (EOFError, OSError):
            code = await asyncio.to_thread(self.process.wait)
            raise UserError(
                f"{opening['folder']}: the process that opens it ended ({outcome(code)}); look at "
                "its messages, and at the memory of this machine"
            ) from None
        except BaseException:
            self.kill()
            raise
        return header

    def send(self, one: Pending) -> None:
        self.pending[one.number] = one
        self.images += one.count
        one.worker = self
        one.tries += 1
        header = one.header | {"id": one.number, "until": one.until}
        self.writer.writelines(frames.encode(header, *one.parts))

    def forget(self, number: int) -> Pending | None:
        one = self.pending.pop(number, None)
        self.images -= one.count if one else 0
        return one

    async def follow(self) -> None:
        """Take what it says, until it is gone."""
        with suppress(EOFError, ValueError):
            while True:
                header, rest = await frames.read(self.reader)
                self.beaten = time.monotonic()
                if header["kind"] == "beat":
                    self.memory = header["memory"]
                    if header["busy"] > self.version.hang:
                        self.hung = True
                        self.kill()
                    continue
                self.take_answers(header["answers"], rest)
                self.answered(self)
        self.kill()
        self.writer.close()
        await asyncio.to_thread(self.process.wait)
        self.tasks[1].cancel()
        self.ended(self, "hung" if self.hung else "died")

    def take_answers(self, answers: list[dict[str, Any]], rest: bytes) -> None:
        place = 0
        for answer in answers:
            rows = []
            if answer.get("whole"):
                size = 4 * self.version.class_count
                for image in answer["images"]:
                    if "error" not in image:
                        rows.append(rest[place : place + size])
                        place += size
            one = self.forget(answer["id"])
            if one and not one.answer.done():
                one.answer.set_result((self.version, answer, rows))

    async def watch(self) -> None:
        """End it where it says nothing any more."""
        while True:
            await asyncio.sleep(WATCH)
            if time.monotonic() - self.beaten > self.version.hang:
                self.hung = True
                self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError, AttributeError):
            self.process.kill()

    async def finish(self) -> None:
        """Let it answer what it has, and end."""
        self.leaves = True
        with suppress(OSError):
            self.writer.writelines(frames.encode({"kind": "end"}))
        done, _ = await asyncio.wait(self.tasks[:1], timeout=END)
        if not done:
            self.kill()
            await asyncio.wait(self.tasks[:1])


@dataclass(eq=False)
class Version:
    """What was loaded from a folder at one time."""

    name: str
    number: str
    folder: Path
    hang: float
    about: dict[str, Any] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    failures: int = 0  # of workers, since one was ready last
    predicted: int = 0

    @property
    def class_count(self) -> int:
        return self.about["outputs"]

    @property
    def digest(self) -> str:
        return self.about["digest"]

    def room(self) -> int:
        """Images that a worker is given at a time: what runs, and as much again, decoded."""
        return max(8, 3 * self.about["streams"] * self.about["batch"])


class Model:
    """A name, and what answers for it."""

    def __init__(self, name: str, folder: Path, settings: ServeSettings, metrics: Metrics):
        self.name = name
        self.folder = folder
        self.settings = settings
        self.metrics = metrics
        self.waiting: deque[Pending] = deque()
        self.current: Version | None = None
        self.before: Version | None = None  # it stands by while a new version is on trial
        self.loading = asyncio.Lock()
        self.loaded = 0
        self.count = 0  # images that wait or are with a worker
        self.problem = ""  # why there is no worker
        self.closed = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.queue = metrics.queue.labels(name)
        self.queue_share = metrics.queue_share.labels(name)

    # ------------------------------------------------------------------ versions

    async def load(self, folder: Path | None = None) -> Version:
        """Open a folder beside what answers now, and let it take over once it is ready.

        Args:
            folder: default: the model's own, whose contents may be new.

        Raises:
            UserError: it cannot be opened, or does not answer as it did at its export; what
                answered before goes on.
        """
        async with self.loading:
            self.loaded += 1
            place, number = newest(folder or self.folder)
            version = Version(self.name, number or str(self.loaded), place, self.settings.hang)
            try:
                await self.open_workers(version)
            except UserError:
                self.metrics.reloads.labels(self.name, "refused").inc() if self.current else None
                await self.end(version)
                raise
            before, self.current = self.current, version
            self.folder = folder or self.folder
            self.problem = ""
            if before:
                self.metrics.reloads.labels(self.name, "taken").inc()
                if self.before:
                    self.spawn(self.end(self.before))
                self.before = before
                self.spawn(self.try_out(version, before))
            self.show(version)
            self.pump()
            return version

    async def open_workers(self, version: Version) -> None:
        for _ in range(self.settings.workers):
            await self.open_worker(version)

    async def open_worker(self, version: Version) -> None:
        worker = Worker(version, self.lost)
        known = {key: version.about[key] for key in PLAN} if version.about else None
        header = await worker.start(
            {
                "folder": str(version.folder),
                "options": self.settings.options,
                "use": self.settings.use,
                "batch": self.settings.batch,
                "delay": self.settings.delay,
                "pixels": self.settings.limits.pixels,
                "known": known,
            }
        )
        worker.answered = self.answered
        if version.about and header["digest"] != version.digest:
            # The folder was replaced meanwhile: what is in it now is another version.
            worker.leaves = True
            worker.kill()
            raise UserError(f"{version.folder}: holds another model now; load it as a new version")
        version.about = header
        version.workers.append(worker)

    async def try_out(self, version: Version, before: Version) -> None:
        """Keep the version before until the new one has shown that it lasts."""
        end = time.monotonic() + TRIAL
        while time.monotonic() < end and version.predicted < TRIAL_IMAGES:
            await asyncio.sleep(0.1)
        if self.before is before and self.current is version:
            self.before = None
            await self.end(before)

    def take_back(self, version: Version) -> None:
        """Let the version before answer again."""
        assert self.before
        self.current, self.before = self.before, None
        self.metrics.reloads.labels(self.name, "taken_back").inc()
        self.show(self.current)
        self.spawn(self.end(version))

    async def end(self, version: Version) -> None:
        workers, version.workers = version.workers, []
        await asyncio.gather(*(worker.finish() for worker in workers))

    async def close(self) -> None:
        """Answer what waits, and end all workers."""
        while self.count and self.current and self.current.workers:
            await asyncio.sleep(0.02)
        self.closed = True
        for task in list(self.tasks):
            task.cancel()
        found = [version for version in (self.current, self.before) if version]
        await asyncio.gather(*map(self.end, found))

    def show(self, version: Version) -> None:
        about = version.about
        self.metrics.model.labels(self.name).info(
            {
                "version": version.number,
                "digest": version.digest,
                "engine": about["engine"],
                "network": about["model"],
            }
        )
        self.metrics.rate.labels(self.name).set(about["rate"])

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ------------------------------------------------------------------ workers that end

    def lost(self, worker: Worker, why: str) -> None:
        """A worker is gone: what it had goes back to the front, and another takes its place."""
        version = worker.version
        if worker in version.workers:
            version.workers.remove(worker)
        own = list(worker.pending.values())
        worker.pending.clear()
        if not worker.leaves and not self.closed:
            self.metrics.restarts.labels(self.name, why).inc()
            version.failures += 1
            if version is self.current and self.before:
                self.take_back(version)
            elif version is self.current or version is self.before:
                self.spawn(self.replace(version))
        for one in reversed(own):
            if one.tries < TRIES:
                one.alone = True
                one.worker = None
                self.waiting.appendleft(one)
            elif not one.answer.done():
                text = f"the model's process {why} twice over this request; it is not tried again"
                one.answer.set_exception(ProblemError(500, "engine", text))
        self.pump()

    async def replace(self, version: Version) -> None:
        """Start another worker, however often that fails, as long as the version is needed."""
        while not self.closed and version in (self.current, self.before):
            await asyncio.sleep(PAUSES[min(version.failures - 1, len(PAUSES) - 1)])
            try:
                async with self.loading:
                    await self.open_worker(version)
            except UserError as error:
                self.problem = "; ".join(error.lines)
                version.failures += 1
                continue
            self.problem = ""
            self.pump()
            return

    # ------------------------------------------------------------------ requests

    @property
    def is_ready(self) -> bool:
        return bool(self.current and self.current.workers)

    async def submit(
        self, header: dict[str, Any], parts: list[bytes | memoryview], count: int
    ) -> tuple[Version, dict[str, Any], list[bytes]]:
        """Have images predicted; ends early where its task is cancelled.

        Args:
            header: of the message to a worker, without its number and its end.
            count: of images.

        Returns:
            The version that answered, its answer, and each image's probabilities where they were
            asked for, float32.

        Raises:
            ProblemError: the queue is full, no worker is there in time, or the request ended two.
        """
        limits = self.settings.limits
        there = self.count
        if self.current is None:
            text = self.problem or f"model {self.name} is being loaded; ask again"
            raise ProblemError(503, "starting", text, headers={"Retry-After": "2"})
        if there and there + count > limits.queue:
            self.metrics.refused.labels("queue").inc()
            seconds = max(1, math.ceil(there / max(1e-9, self.current.about["rate"])))
            raise ProblemError(
                503, "busy",
                f"{plural(there, 'image')} wait for model {self.name} already, of at most "
                f"{limits.queue}; ask again in {plural(seconds, 'second')}",
                headers={"Retry-After": str(seconds)},
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        until = time.monotonic() + limits.seconds
        one = Pending(header, parts, count, until, loop.create_future())
        timer = loop.call_later(limits.seconds, self.give_up, one)
        self.count += count
        self.waiting.append(one)
        self.pump()
        try:
            version, answer, rows = await one.answer
            version.predicted += count
            version.failures = 0
            return version, answer, rows
        finally:
            timer.cancel()
            self.count -= count
            self.drop(one)

    def give_up(self, one: Pending) -> None:
        if not one.answer.done():
            seconds = f"{self.settings.limits.seconds:g} s"
            text = f"no answer within {seconds}; " + (
                self.problem or "send fewer images at a time, or ask again"
            )
            one.answer.set_exception(ProblemError(504, "late", text))

    def drop(self, one: Pending) -> None:
        """Nobody waits for it any more: where a worker has it, that is to leave it."""
        worker = one.worker
        if worker is None:
            with suppress(ValueError):
                self.waiting.remove(one)
        elif worker.forget(one.number):
            with suppress(OSError):
                worker.writer.writelines(frames.encode({"kind": "cancel", "id": one.number}))
            self.pump()

    def answered(self, worker: Worker) -> None:
        self.pump()

    def pump(self) -> None:
        """Give workers what they have room for."""
        while self.waiting:
            one = self.waiting[0]
            if one.answer.done():
                self.waiting.popleft()
                continue
            worker = self.free_worker(one)
            if worker is None:
                break
            self.waiting.popleft()
            worker.send(one)

    def free_worker(self, one: Pending) -> Worker | None:
        version = self.current
        if version is None or not version.workers:
            return None
        worker = min(version.workers, key=lambda each: each.images)
        if one.alone:
            return None if worker.pending else worker
        with_suspect = any(each.alone for each in worker.pending.values())
        full = worker.images and worker.images + one.count > version.room()
        return None if with_suspect or full else worker

    def tell(self) -> None:
        self.queue.set(self.count)
        self.queue_share.set(self.count / self.settings.limits.queue)

    @property
    def memory(self) -> int:
        found = self.current.workers if self.current else []
        return sum(worker.memory for worker in found)


def newest(folder: Path) -> tuple[Path, str]:
    """The folder to open, and its number: of `model/1`, `model/2` the highest, else itself."""
    with suppress(OSError):
        numbered = [one for one in folder.iterdir() if one.name.isdecimal() and one.is_dir()]
        if numbered and not (folder / "inference.yml").exists():
            best = max(numbered, key=lambda one: int(one.name))
            return best, str(int(best.name))
    return folder, ""


def outcome(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"exit code {code}"


def model_name(name: str | None, folder: Path) -> str:
    """The name that a folder is served under."""
    return name or folder.name or os.path.basename(folder.resolve())

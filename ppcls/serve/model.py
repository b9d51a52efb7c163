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
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppcls.serve import frames
from ppcls.serve.logs import say
from ppcls.serve.metrics import Metrics
from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import ServeSettings
from ppcls.utils import environment, guard
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural, visible

WATCH = 0.5  # seconds between looks at whether a worker gets on
TRIAL = 30.0  # seconds for which the version before stands by …
TRIAL_IMAGES = 100  # … or until the new one has predicted so many
PAUSES = (0.0, 0.5, 2.0, 5.0, 10.0)  # seconds before a worker is started again
END = 10.0  # seconds that a worker without requests has to end by itself
REAP = 5.0  # seconds for which the end of a killed process is waited for
POLL = 0.01  # seconds between looks at whether it has come
OPENING = 1800.0  # seconds that the first worker of a version may take to be ready …
SLOWER = 10  # … and those after it, as many times what the first one took …
LEAST_OPENING = 60.0  # … and seconds that they have at least
TRIES = 2  # times that a request is given to a worker
PLAN = ("batch", "streams", "delay", "rate", "seconds")  # of what a worker tells, what was measured
# What systems send to all of a service's processes, where one of them is to decide.
FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

numbers = itertools.count(1)


class ReplacedError(UserError):
    """The folder of a version holds another one by now."""


@dataclass(eq=False, repr=False)  # it holds images
class Pending:
    """A request that waits for its answer.

    Attributes:
        until: when it is too late, by time.monotonic.
        answer: done, too, where nobody waits for it any more.
        alone: whether it was with a worker that died: it is tried again with no other beside it.
        worker: that has it.
    """

    header: dict[str, Any]
    parts: list[bytes | memoryview]
    count: int
    until: float
    answer: "asyncio.Future[tuple[Version, dict[str, Any], list[bytes]]]"
    number: int = field(default_factory=lambda: next(numbers))
    tries: int = 0
    alone: bool = False
    worker: "Worker | None" = None


class Worker:
    """A process, and what it has been asked and has not answered yet."""

    process: "subprocess.Popen[bytes] | None" = None
    writer: asyncio.StreamWriter | None = None

    def __init__(self, version: "Version", model: "Model"):
        self.version = version
        self.model = model
        self.pending: dict[int, Pending] = {}
        self.images = 0  # of these
        self.memory = 0
        self.watched = 0  # images in its present window, of drift
        self.is_open = False  # it answers
        self.leaves = False  # it was told to end
        self.code: int | None = None  # that its process ended with
        self.tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------------ it begins

    async def start(self, opening: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Start the process; returns what it tells of the model once it is ready.

        Raises:
            UserError: it cannot open the model, or is not ready after so many seconds.
        """
        folder = opening["folder"]
        try:
            header = await asyncio.wait_for(self.open(opening), seconds)
            if header["kind"] == "failed":
                raise UserError(*header["lines"])
        except asyncio.TimeoutError:
            await self.put_down()
            text = f"{folder}: the process that opens it is not ready after {seconds:.0f} s"
            raise UserError(f"{text}; look at its messages, and at this machine") from None
        except (EOFError, OSError) as error:
            await self.reaped()
            why = outcome(self.code) if self.code is not None else guard.gist(error)
            await self.put_down()
            raise UserError(
                f"{folder}: the process that opens it ended ({why}); look at its messages, and at "
                "the memory of this machine"
            ) from None
        except BaseException:
            await self.put_down()
            raise
        self.beaten = time.monotonic()
        self.is_open = True
        self.tasks = [asyncio.create_task(self.follow()), asyncio.create_task(self.watch())]
        return header

    async def open(self, opening: dict[str, Any]) -> dict[str, Any]:
        header = await self.begin({**opening, "measures": True})
        if header["kind"] == "again":  # it has chosen an engine, and holds the others, too
            await self.put_down()
            header = await self.begin({**opening, "measures": False})
        return header

    async def begin(self, opening: dict[str, Any]) -> dict[str, Any]:
        """Start the process; returns the first that it says."""
        ours, theirs = socket.socketpair()
        command = [*environment.program("ppcls.serve.worker"), str(theirs.fileno())]
        with theirs, without_signals():
            # A session of its own: a Ctrl-C in the terminal is for the service alone.
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.code = None
        ours.setblocking(False)
        self.reader, self.writer = await asyncio.open_unix_connection(sock=ours)
        with suppress(OSError, RuntimeError):  # it has ended: reading finds that out, too
            self.writer.writelines(frames.encode({"kind": "open", **opening}))
        header, _ = await frames.read(self.reader)
        return header

    # ------------------------------------------------------------------ it works

    @property
    def number(self) -> int:
        return self.process.pid if self.process else 0

    def send(self, one: Pending) -> None:
        self.pending[one.number] = one
        self.images += one.count
        one.worker = self
        one.tries += 1
        self.write(one.header | {"id": one.number, "until": one.until}, *one.parts)

    def write(self, header: dict[str, Any], *parts: bytes | memoryview) -> None:
        """Send a message, unless the other side is gone, which `follow` finds out, too."""
        if self.takes_requests and self.writer:
            with suppress(OSError, RuntimeError):
                self.writer.writelines(frames.encode(header, *parts))

    @property
    def takes_requests(self) -> bool:
        return self.is_open and not (self.writer and self.writer.transport.is_closing())

    def cancel(self, one: Pending) -> None:
        """It need not answer; until it says that it has left the request, that counts with it."""
        one.parts = []
        self.write({"kind": "cancel", "id": one.number})

    async def follow(self) -> None:
        """Take what it says, until it is gone."""
        why = "died"
        try:
            while True:
                header, rest = await frames.read(self.reader)
                self.beaten = time.monotonic()
                if header["kind"] == "answers":
                    self.take_answers(header["answers"], rest)
                    self.model.pump()
                    continue
                if header["kind"] == "drift":
                    self.model.tell_drift(self.version, header["found"])
                    continue
                self.memory = header["memory"]
                self.watched = header.get("drift", 0)
                if header["busy"] > self.version.hang:
                    why = "hung"
                    break
        except EOFError:
            pass
        except Exception as error:  # it is broken where it says what makes no sense
            say(f"error: {self.model.name}: worker {self.number}: {said(error)}")
        self.gone(why)

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
            one = self.pending.pop(answer["id"], None)
            if one:
                self.images -= one.count
                one.worker = None
                self.model.answered(self.version, one, answer, rows)

    async def watch(self) -> None:
        """End it where it says nothing any more."""
        while True:
            start = time.monotonic()
            await asyncio.sleep(WATCH)
            # Time in which this process stood still is none in which it was not heard.
            self.beaten += max(0.0, time.monotonic() - start - 2 * WATCH)
            if time.monotonic() - self.beaten > self.version.hang:
                self.gone("hung")
                return

    # ------------------------------------------------------------------ it ends

    def gone(self, why: str) -> None:
        """It answers no more: its process is ended, and what it had is the model's again."""
        if not self.is_open:
            return
        self.is_open = False
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self.kill()
        self.model.lost(self, why)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.writer:
            self.writer.transport.abort()

    async def reaped(self) -> None:
        """Wait for the end of a process that was killed, or that ends by itself."""
        end = time.monotonic() + REAP
        while self.process and time.monotonic() < end:
            self.code = self.process.poll()
            if self.code is not None:
                return
            await asyncio.sleep(POLL)

    async def put_down(self) -> None:
        """End its process, whatever it does."""
        self.kill()
        await self.reaped()

    async def finish(self) -> None:
        """Let it answer what it has, and end."""
        if not self.leaves:
            self.write({"kind": "end"})
        self.leaves = True
        end = time.monotonic() + END
        # As long as it has requests it is watched, and they have an end of their own.
        while self.is_open and (self.pending or time.monotonic() < end):
            await asyncio.sleep(POLL)
        self.gone("died")
        await self.put_down()


@dataclass(eq=False)
class Version:
    """What was loaded from a folder at one time."""

    name: str
    number: str
    folder: Path
    hang: float
    about: dict[str, Any] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    failures: int = 0  # of workers, since the last answer
    predicted: int = 0
    # seconds that a worker may take to be ready
    opening: float = field(default_factory=lambda: OPENING)

    @property
    def class_count(self) -> int:
        return self.about["outputs"]

    @property
    def digest(self) -> str:
        return self.about["digest"]

    def room(self) -> int:
        """Images that a worker is given at a time: what runs, and as much again, decoded."""
        return max(8, 3 * self.about["streams"] * self.about["batch"])

    def __str__(self) -> str:
        digest = f" ({self.digest})" if self.about else ""
        return f"version {self.number}{digest}"


class Model:
    """A name, and what answers for it."""

    def __init__(self, name: str, folder: Path, settings: ServeSettings, metrics: Metrics):
        self.name = name
        self.folder = folder
        self.settings = settings
        self.metrics = metrics
        self.waiting: deque[Pending] = deque()
        self.images = 0  # of these
        self.current: Version | None = None
        self.before: Version | None = None  # it stands by while a new version is on trial
        self.workers: set[Worker] = set()  # of all versions, until their processes have ended
        self.loading = asyncio.Lock()
        self.loaded = 0
        self.problem = ""  # why there is no worker
        self.closed = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.drift: dict[str, Any] | None = None  # of the last window of `current`
        self.queue = metrics.queue.labels(name)
        self.queue_share = metrics.queue_share.labels(name)

    # ------------------------------------------------------------------ versions

    async def load(self, folder: Path | None = None, dead: Version | None = None) -> Version:
        """Open a folder beside what answers now, and let it take over once it is ready.

        Args:
            folder: default: the model's own, whose contents may be new.
            dead: the version that it is to replace; where another one has done so, nothing is done.

        Raises:
            UserError: it cannot be opened, or does not answer as it did at its export; what
                answered before goes on.
        """
        async with self.loading:
            if dead and self.current and self.current is not dead:
                return self.current
            self.loaded += 1
            place, number = newest(folder or self.folder)
            version = Version(self.name, number or str(self.loaded), place, self.settings.hang)
            try:
                for _ in range(self.settings.workers):
                    await self.open_worker(version)
            except BaseException as error:
                self.spawn(self.end(version))
                if isinstance(error, UserError) and self.current and not self.closed:
                    self.metrics.reloads.labels(self.name, "refused").inc()
                if not (isinstance(error, UserError) and self.closed):
                    raise
            if self.closed:
                await self.end(version)
                raise UserError(f"{place}: the service ends")
            self.folder = folder or self.folder
            self.take_over(version)
            return version

    def take_over(self, version: Version) -> None:
        before, self.current = self.current, version
        self.problem = ""
        if self.before:
            self.spawn(self.end(self.before))
            self.before = None
        if before:
            self.metrics.reloads.labels(self.name, "taken").inc()
            if before.workers:
                self.before = before
                self.spawn(self.try_out(version, before))
            else:
                self.spawn(self.end(before))
        self.show(version)
        self.pump()

    async def open_worker(self, version: Version) -> None:
        worker = Worker(version, self)
        known = {key: version.about[key] for key in PLAN} if version.about else None
        opening = {
            "folder": str(version.folder),
            "options": self.settings.options,
            "use": self.settings.use,
            "batch": self.settings.batch,
            "delay": self.settings.delay,
            "pixels": self.settings.limits.pixels,
            "known": known,
            "drift": {
                "window": self.settings.drift,
                "false_alarms": self.settings.drift_false_alarms,
            },
        }
        start = time.monotonic()
        self.workers.add(worker)
        try:
            header = await worker.start(opening, version.opening)
        except BaseException:
            self.workers.discard(worker)
            raise
        if version.about and header["digest"] != version.digest:
            worker.leaves = True
            worker.gone("died")
            raise ReplacedError(f"{version.folder}: holds another model than {version} by now")
        if not version.about:
            version.about = header
            seconds = time.monotonic() - start
            version.opening = max(LEAST_OPENING, SLOWER * seconds)
        version.workers.append(worker)

    async def try_out(self, version: Version, before: Version) -> None:
        """Keep the version before until the new one has shown that it lasts."""
        end = time.monotonic() + TRIAL
        while time.monotonic() < end and version.predicted < TRIAL_IMAGES:
            await asyncio.sleep(0.1)
            if self.before is not before or self.current is not version:
                return
        self.before = None
        await self.end(before)

    def take_back(self, version: Version, why: str) -> None:
        """Let the version before answer again."""
        assert self.before
        self.current, self.before = self.before, None
        self.metrics.reloads.labels(self.name, "taken_back").inc()
        say(f"note: {self.name}: {version} {why}; it is taken back, {self.current} answers again")
        self.show(self.current)
        self.spawn(self.end(version))

    async def end(self, version: Version) -> None:
        workers, version.workers = version.workers, []
        await asyncio.gather(*(worker.finish() for worker in workers))

    async def close(self, at_once: bool = False) -> None:
        """Answer what waits, unless it is to end at once, and end all workers."""
        end = time.monotonic() + self.settings.limits.seconds
        while self.waiting and not at_once and time.monotonic() < end:
            await asyncio.sleep(POLL)
        self.closed = True
        while self.waiting:
            self.refuse(self.waiting.popleft(), ProblemError(503, "starting", "the service ends"))
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        found = list(self.workers)
        if at_once:
            for worker in found:
                worker.gone("died")
        await asyncio.gather(*(worker.finish() for worker in found))

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
        self.metrics.forget_drift(self.name)
        self.drift = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.done)

    def done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            say(f"error: {self.name}: {said(error)}")

    # ------------------------------------------------------------------ workers that end

    def lost(self, worker: Worker, why: str) -> None:
        """A worker is gone: what it had goes back to the front, and another takes its place."""
        version = worker.version
        if worker in version.workers:
            version.workers.remove(worker)
        own = [one for one in worker.pending.values() if not one.answer.done()]
        worker.pending.clear()
        worker.images = 0
        self.spawn(self.bury(worker, why))
        if not worker.leaves and not self.closed:
            self.metrics.restarts.labels(self.name, why).inc()
            version.failures += 1
            if version is self.current and self.before:
                self.take_back(version, f"has a worker that {why} soon after it took over")
            elif version is self.current or version is self.before:
                self.spawn(self.replace(version))
        for one in reversed(own):
            one.worker = None
            if self.closed:
                self.refuse(one, ProblemError(503, "starting", "the service ends"))
            elif one.tries < TRIES:
                one.alone = True
                self.wait(one, first=True)
            else:
                text = f"the model's process {why} twice over this request; it is not tried again"
                self.refuse(one, ProblemError(500, "engine", text))
        self.pump()

    async def bury(self, worker: Worker, why: str) -> None:
        """Wait for the end of a worker's process, and say how that was."""
        left = worker.leaves or self.closed
        await worker.put_down()
        self.workers.discard(worker)
        if not left:
            how = "" if why == "hung" else f" ({outcome(worker.code)})"
            say(f"note: {self.name}: worker {worker.number} of {worker.version} {why}{how}")

    async def replace(self, version: Version) -> None:
        """Start another worker, however often that fails, as long as the version is needed."""
        while self.needs_worker(version):
            await asyncio.sleep(PAUSES[max(0, min(version.failures, len(PAUSES)) - 1)])
            if not self.needs_worker(version):
                return
            try:
                await self.open_worker(version)
            except Exception as error:  # no memory for a process, say
                text = "; ".join(error.lines) if isinstance(error, UserError) else said(error)
                if version is self.current and not version.workers and self.problem != text:
                    self.problem = text
                    say(f"note: {self.name}: no worker: {text}")
                version.failures += 1
                if await self.moved_on(version, isinstance(error, ReplacedError)):
                    return
                continue
            if version not in (self.current, self.before):
                await self.end(version)
                return
            self.problem = ""
            self.pump()
            return

    def needs_worker(self, version: Version) -> bool:
        there = len(version.workers)
        needed = version is self.current or version is self.before
        return needed and there < self.settings.workers and not self.closed

    async def moved_on(self, version: Version, replaced: bool) -> bool:
        """Whether no worker of a version is to be started any more, one of which cannot be: its
        files are gone, and what stands in their place now is a version of its own.
        """
        if version is self.before:
            if replaced:
                self.before = None
                await self.end(version)
            return replaced
        if not replaced and newest(self.folder)[0] == version.folder:
            return False  # the same may be there again
        if version.workers:
            say(
                f"note: {self.name}: {version} goes on with fewer workers, for its files are gone; "
                "a reload (SIGHUP) takes what is there now"
            )
            return True
        say(f"note: {self.name}: the files of {version} are gone; what is there now is loaded")
        try:
            found = await self.load(dead=version)
        except UserError as error:
            self.problem = "; ".join(error.lines)
            say(f"note: {self.name}: not loaded: {self.problem}")
            return False
        say(f"note: {self.name}: {found} answers in place of {version}")
        return True

    # ------------------------------------------------------------------ requests

    @property
    def is_ready(self) -> bool:
        return bool(self.current and self.current.workers)

    @property
    def count(self) -> int:
        """Images that wait or are with a worker."""
        return self.images + sum(worker.images for worker in self.workers)

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
        if self.current is None or self.closed:
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
        self.wait(one)
        self.pump()
        try:
            return await one.answer
        finally:
            timer.cancel()
            self.drop(one)

    def wait(self, one: Pending, first: bool = False) -> None:
        self.images += one.count
        (self.waiting.appendleft if first else self.waiting.append)(one)

    def give_up(self, one: Pending) -> None:
        seconds = f"{self.settings.limits.seconds:g} s"
        text = self.problem or "send fewer images at a time, or ask again"
        self.refuse(one, ProblemError(504, "late", f"no answer within {seconds}; {text}"))

    @staticmethod
    def refuse(one: Pending, problem: ProblemError) -> None:
        if not one.answer.done():
            one.answer.set_exception(problem)

    def drop(self, one: Pending) -> None:
        """Nobody waits for it any more: where a worker has it, that is to leave it."""
        if one.worker:
            one.worker.cancel(one)
            return
        with suppress(ValueError):
            self.waiting.remove(one)
            self.images -= one.count
            self.pump()

    def answered(
        self, version: Version, one: Pending, answer: dict[str, Any], rows: list[bytes]
    ) -> None:
        """A worker's answer, which is the request's unless a version on trial has failed at it."""
        if answer.get("failed"):
            if version is self.current and self.before:
                self.take_back(version, f"fails ({answer['failed']})")
            there = self.current is not version and not one.answer.done()
            if there and one.tries < TRIES:
                self.wait(one, first=True)
                return
        else:
            version.failures = 0
            version.predicted += sum("error" not in image for image in answer["images"])
        if not one.answer.done():
            one.answer.set_result((version, answer, rows))

    def pump(self) -> None:
        """Give workers what they have room for."""
        while self.waiting:
            one = self.waiting[0]
            worker = None if one.answer.done() else self.free_worker(one)
            if worker is None and not one.answer.done():
                return
            self.waiting.popleft()
            self.images -= one.count
            if worker:
                worker.send(one)

    def free_worker(self, one: Pending) -> Worker | None:
        version = self.current
        workers = [worker for worker in version.workers if worker.takes_requests] if version else []
        if version is None or not workers:
            return None
        worker = min(workers, key=lambda each: each.images)
        if one.alone:
            return None if worker.pending else worker
        with_suspect = any(each.alone for each in worker.pending.values())
        full = worker.images and worker.images + one.count > version.room()
        return None if with_suspect or full else worker

    def tell(self) -> None:
        """The queue, in the metrics."""
        count = self.count
        self.queue.set(count)
        self.queue_share.set(count / self.settings.limits.queue)
        if self.current and self.current.about["drift"]:
            watched = sum(worker.watched for worker in self.current.workers)
            self.metrics.drift_images.labels(self.name).set(watched)

    def tell_drift(self, version: Version, found: dict[str, Any]) -> None:
        """What came of a window of a version's images."""
        if version is not self.current:
            return
        if found["alarm"] and not (self.drift and self.drift["alarm"]):
            say(f"note: {self.name}: {found['said']}")
        self.drift = found
        self.metrics.tell_drift(self.name, found)

    @property
    def memory(self) -> int:
        """Bytes that its processes hold."""
        return sum(worker.memory for worker in self.workers)


def newest(folder: Path) -> tuple[Path, str]:
    """The folder to open, and its number: of `model/1`, `model/2` the highest, else itself."""
    with suppress(OSError):
        numbered = [one for one in folder.iterdir() if one.name.isdecimal() and one.is_dir()]
        if numbered and not (folder / "inference.yml").exists():
            best = max(numbered, key=lambda one: int(one.name))
            return best, str(int(best.name))
    return folder, ""


@contextmanager
def without_signals() -> Iterator[None]:
    """While entered, processes are started that signals for the whole service do not end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_US)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outcome(code: int | None) -> str:
    if code is None:
        return "it does not end"
    if code < 0:
        with suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"exit code {code}"


def said(error: BaseException) -> str:
    """What to say of an error that nobody expected, with where its traceback is."""
    where = guard.kept(error)
    return f"{visible(type(error).__name__)}: {guard.gist(error)}" + (
        f" ({where})" if where else ""
    )


def model_name(name: str | None, folder: Path) -> str:
    """The name that a folder is served under."""
    return name or folder.name or os.path.basename(folder.resolve())

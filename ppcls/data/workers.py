"""Worker processes that compute for this one, and hand over large arrays in shared memory.

Each worker has a connection of its own, by which calls go to it and results come back; nothing
lies between, neither a queue nor a thread of this process. Arrays travel in blocks of memory that
both processes see, which are used again once nothing refers to them any more. A block has no name
and no file: it is gone with the last process that has it, whatever ends them.

Workers are started afresh (not forked); signals are this process's business, and they end with it.
"""

import atexit
import mmap
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import numpy as np

from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.signals import SIGNALS

LEAST = 1 << 14  # bytes; what is smaller goes with the message
ALIGNED = 64  # bytes
PATIENCE = 5.0  # seconds that a worker which was told to end may take

Function = Callable[..., Any]


class WorkerGone(Exception):  # noqa: N818  who waits for it says what that means
    """A worker has ended, and not because it was told to."""


class RemoteTraceback(Exception):  # noqa: N818  the cause of the error itself
    """Where in a worker an error was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


# --------------------------------------------------------------------------
# Memory that two processes see


class Block:
    """Memory for the arrays of one result; a worker has it for as long as there is the worker."""

    def __init__(self, number: int, size: int):
        """OSError where there is no such memory."""
        self.number = number
        self.size = size
        self.file = os.memfd_create("ppcls")
        try:
            os.posix_fallocate(self.file, 0, size)  # or writing would end the process
            self.memory = mmap.mmap(self.file, size)
        except (OSError, ValueError):
            os.close(self.file)
            raise

    def sent(self) -> None:
        """The worker has it: from now on nothing but the mapping holds the memory."""
        os.close(self.file)


class Held:
    """What arrays in a block refer to; the block is free again when the last of them is gone."""

    def __init__(self, block: Block, free: deque[Block]):
        self.block = block
        self.free = free
        self.bytes = np.frombuffer(block.memory, np.uint8)
        self.__array_interface__ = self.bytes.__array_interface__

    def __del__(self):
        self.free.append(self.block)


def places(sizes: list[int]) -> tuple[list[int], int]:
    """Where in a block buffers of such sizes stand, and how much they need in all."""
    starts = []
    end = 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNED) * ALIGNED
    return starts, end


def can_share() -> bool:
    """Whether memory can be had and handed over so: on Linux."""
    return hasattr(os, "memfd_create") and hasattr(os, "posix_fallocate")


# --------------------------------------------------------------------------
# This process's side


class Worker:
    """A process, the connection to it, and the blocks it has that are free."""

    def __init__(self, process: BaseProcess, connection: Connection):
        self.process = process
        self.connection = connection
        self.free: deque[Block] = deque()
        self.taken: dict[int, Block] = {}  # by the call whose result is to come in it
        self.dropped: list[int] = []  # blocks to be told of that they are used no more


class Workers:
    """Processes that compute a function; calls are dealt out to them in turn."""

    def __init__(self, count: int, function: Function, *sent: Any):
        """Start them.

        Args:
            function: what is computed; of a module, by its name.
            sent: its first arguments, which are the same in all calls.

        Raises:
            UserError: what is sent cannot be pickled.
        """
        self.calls = 0
        self.needed = 0  # bytes of the largest result so far
        self.blocks = 0
        self.shares = can_share()
        self.results: dict[int, tuple[bool, Any]] = {}  # that came before they were asked for
        self.forgotten: set[int] = set()
        self.workers: list[Worker] = []
        context = multiprocessing.get_context("spawn")
        atexit.register(self.close)  # before multiprocessing's own, which waits for them
        try:
            for _ in range(count):
                own, other = context.Pipe()
                process = context.Process(target=serve, args=(other, function, sent))
                with environment.without_working_folder(), held_signals(), without_script(), other:
                    process.start()
                self.workers.append(Worker(process, own))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            self.close()
            raise cannot_be_sent(error) from error
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> list[BaseProcess]:
        return [worker.process for worker in self.workers]

    def submit(self, *given: Any) -> int:
        """Have the function computed; the number of the call, to ask for its result with.

        Raises:
            WorkerGone: the worker whose turn it is has ended.
        """
        number = self.calls
        worker = self.turn(number)
        block, new = self.block_of(worker)
        about = (block.number, block.size if new else 0) if block else None
        message = pickle.dumps((number, given, about, worker.dropped))
        worker.dropped = []
        try:
            worker.connection.send_bytes(message)
            if block and new:
                reduction.send_handle(worker.connection, block.file, worker.process.pid)
        except OSError:
            raise WorkerGone from None
        finally:
            if block and new:
                block.sent()
        if block:
            worker.taken[number] = block
        self.calls += 1
        return number

    def turn(self, number: int) -> Worker:
        if not self.workers:
            raise WorkerGone
        return self.workers[number % len(self.workers)]

    def block_of(self, worker: Worker) -> tuple[Block | None, bool]:
        """A block for the next result, if any, and whether the worker has yet to get it."""
        while worker.free:
            block = worker.free.popleft()
            if block.size >= self.needed:
                return block, False
            worker.dropped.append(block.number)
        if not self.shares or not self.needed:
            return None, False
        try:
            block = Block(self.blocks, self.needed)
        except (OSError, ValueError) as error:
            self.shares = False
            say(f"note: data workers find no memory to share ({error}): they send copies")
            return None, False
        self.blocks += 1
        return block, True

    def result(self, number: int) -> Any:
        """What a call gave; each is asked for once. Raises what the call raised, or WorkerGone."""
        worker = self.turn(number)
        while number not in self.results:
            self.receive(worker)
        good, value = self.results.pop(number)
        if not good:
            error, where = value
            raise error from RemoteTraceback(where)
        return value

    def receive(self, worker: Worker) -> None:
        """Take in the next result of a worker."""
        try:
            number, good, sizes, data = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            raise WorkerGone from None
        block = worker.taken.pop(number, None)
        starts, needed = places(sizes)
        self.needed = max(self.needed, needed)
        buffers = []
        if block and needed <= block.size:
            memory = np.asarray(Held(block, worker.free)).data
            buffers = [memory[s : s + size] for s, size in zip(starts, sizes, strict=True)]
        elif block:
            worker.dropped.append(block.number)
        if number in self.forgotten:
            self.forgotten.discard(number)
            return
        self.results[number] = good, pickle.loads(data, buffers=buffers)

    def forget(self, number: int) -> None:
        """Nobody asks for the result of this call any more."""
        if self.results.pop(number, None) is None:
            self.forgotten.add(number)

    def close(self) -> None:
        """End the processes; what they computed and nobody asked for is lost."""
        atexit.unregister(self.close)
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self.workers = []


def cannot_be_sent(error: Exception) -> UserError:
    return UserError(
        f"a part of your own cannot be sent to data workers ({error}): -o data.workers=0, or "
        "give it a __getstate__ that leaves out what cannot"
    )


# --------------------------------------------------------------------------
# A worker's side


def serve(connection: Connection, function: Function, sent: tuple[Any, ...]) -> None:
    """In a worker: compute what is called for until the connection ends."""
    leave_signals()
    calls: queue.SimpleQueue[tuple[int, tuple, Any]] = queue.SimpleQueue()
    blocks: dict[int, mmap.mmap] = {}
    reader = threading.Thread(target=hear, args=(connection, calls, blocks), daemon=True)
    reader.start()
    while True:
        number, given, block = calls.get()
        try:
            found, good = function(*sent, *given), True
        except BaseException as error:  # which is the caller's, whatever it is
            found, good = (error, traceback.format_exc()), False
        memory = blocks[block[0]] if block else None
        message = packed(number, good, found, memory)
        del found
        with suppress(OSError):  # nobody is there any more
            connection.send_bytes(message)


def hear(
    connection: Connection, calls: "queue.SimpleQueue[Any]", blocks: dict[int, mmap.mmap]
) -> None:
    """A thread of a worker: take in calls at any time, so that this never keeps the caller."""
    try:
        while True:
            number, given, block, dropped = pickle.loads(connection.recv_bytes())
            for old in dropped:
                blocks.pop(old, None)
            if block and block[1]:
                file = reduction.recv_handle(connection)
                blocks[block[0]] = mmap.mmap(file, block[1])
                os.close(file)
            calls.put((number, given, block))
    except (EOFError, OSError):
        os._exit(0)


def packed(number: int, good: bool, found: Any, memory: mmap.mmap | None) -> bytes:
    """A result as it is sent, its large arrays written to memory where they fit in there."""
    buffers: list[pickle.PickleBuffer] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        large = buffer.raw().nbytes >= LEAST
        if large:
            buffers.append(buffer)
        return not large

    try:
        data = pickle.dumps(found, 5, buffer_callback=aside)
    except Exception as error:
        good = False
        buffers = []
        told = TypeError(f"what a data worker found cannot be sent: {error}")
        data = pickle.dumps((told, traceback.format_exc()))
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    starts, needed = places(sizes)
    if memory is not None and needed <= len(memory):
        for start, view in zip(starts, views, strict=True):
            memory[start : start + view.nbytes] = view
    elif views:
        data = pickle.dumps(found, 5)
    return pickle.dumps((number, good, sizes, data))


def leave_signals() -> None:
    """In a new worker: signals, held until now, are the main process's; it ends with that one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """A worker whose training process was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    assert parent
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


# --------------------------------------------------------------------------
# Starting them


class Pool(ProcessPoolExecutor):
    """Starts its processes, which happens in `submit`, where signals do not reach them."""

    def submit(self, *given: Any, **named: Any) -> Future:
        with environment.without_working_folder(), held_signals(), without_script():
            return super().submit(*given, **named)


def start_pool(workers: int) -> ProcessPoolExecutor:
    """Processes for any functions, whose results are small; they, too, end with this one."""
    pool = Pool(workers, multiprocessing.get_context("spawn"), leave_signals)
    try:
        for _ in range(workers):  # a process is started for each
            pool.submit(int)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    return pool


@contextmanager
def without_script() -> Iterator[None]:
    """While entered, processes that are started do not run the program's own script once more.

    They would to find what is written in it, of which they need nothing.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def held_signals() -> Iterator[None]:
    """What asks this process to end waits meanwhile; processes that are started do not see it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let signals through when it is started
    came: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # which new processes inherit
    try:
        with noted_signals(came):  # for another thread of this process may still get them
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def noted_signals(came: list[int]) -> Iterator[None]:
    """Handlers that only note which signals came, where handlers can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {number: own for number, own in handlers.items() if own != signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, own in handlers.items():
            signal.signal(number, own)

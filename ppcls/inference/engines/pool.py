"""Copies of an engine for threads that last."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from ppcls.utils.errors import UserError

Given = ParamSpec("Given")
Result = TypeVar("Result")

mark = threading.local()


def is_lasting() -> bool:
    """Whether the calling thread is one of these."""
    return getattr(mark, "lasting", False)


class LastingThreads:
    """Up to so many threads, started as they are needed; they end with `close` or with this object.

    A process made by a fork starts threads of its own.
    """

    def __init__(self, count: int, name: str):
        self.count = count
        self.name = name
        self.closed = False
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.process = os.getpid()
        self.executor: ThreadPoolExecutor | None = None

    def submit(
        self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> "Future[Result]":
        """Raises: UserError: closed."""
        if self.process != os.getpid():
            self.forget()
        with self.lock:
            if self.closed:
                raise UserError("the predictor is closed; open another one")
            if self.executor is None:
                self.executor = ThreadPoolExecutor(self.count, self.name, self.begin)
            return self.executor.submit(work, *args, **kwargs)

    @staticmethod
    def begin() -> None:
        mark.lasting = True

    def close(self) -> None:
        """What has begun is waited for, what has not is cancelled."""
        if self.process != os.getpid():
            self.forget()
        with self.lock:
            executor = self.executor
            self.executor = None
            self.closed = True
        if executor:
            executor.shutdown(cancel_futures=True)


# --------------------------------------------------------------------------
# Copies of an opened network, for callers in any number of threads: few, and all of them kept

Call = Callable[[np.ndarray], np.ndarray]
Output = TypeVar("Output")


@dataclass(eq=False)
class Copy:
    """What one caller at a time runs; `warm` after its first run, which is slower than others."""

    run: Call
    warm: bool = False


class Copies:
    """Lent to one caller each; made when all are lent, up to `limit`; further callers wait."""

    def __init__(self, first: Call, make: Callable[[], Call], limit: int):
        self.make = make
        self.limit = limit
        self.free = [Copy(first)]
        self.made = 1
        self.changed = threading.Condition()

    def use(self, work: Callable[[Copy], Output]) -> Output:
        with self.lent() as copy:
            return work(copy)

    @contextmanager
    def lent(self) -> Iterator[Copy]:
        with self.changed:
            while not self.free and self.made >= self.limit:
                self.changed.wait()
            copy = self.free.pop() if self.free else None
            self.made += copy is None
        try:
            if copy is None:
                copy = Copy(self.make())
            yield copy
        finally:
            with self.changed:
                if copy is None:
                    self.made -= 1
                else:
                    self.free.append(copy)
                self.changed.notify()

    def close(self) -> None:
        pass


class CopiesOfThreads:
    """Copies that belong to threads, since their library is slow to take them to another.

    The thread that opened the network has its own, and so have threads that are known to last. All
    others hand their work to up to `limit` threads that are kept for it.
    """

    def __init__(self, first: Call, make: Callable[[], Call], limit: int):
        self.make = make
        self.limit = limit
        self.unused = [Copy(first)]
        self.made = 0
        self.lock = threading.Lock()
        self.local = threading.local()
        self.local.opened_it = True
        self.threads = LastingThreads(limit, "ppcls-engine")

    def use(self, work: Callable[[Copy], Output]) -> Output:
        if getattr(self.local, "opened_it", False) or is_lasting():
            return work(self.own())
        return self.threads.submit(lambda: work(self.own())).result()

    def own(self) -> Copy:
        """The calling thread's."""
        if not hasattr(self.local, "copy"):
            with self.lock:  # the library's own copying is not meant for several threads at once
                self.local.copy = self.unused.pop() if self.unused else Copy(self.make())
                self.made += 1
        return self.local.copy

    def close(self) -> None:
        self.threads.close()

"""Threads that last: some libraries keep what they prepared for the thread that used it."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ppcls.errors import UserError

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
        self.count, self.name = count, name
        self.closed = False
        self.forget()

    def forget(self) -> None:
        self.lock, self.process = threading.Lock(), os.getpid()
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
            executor, self.executor, self.closed = self.executor, None, True
        if executor:
            executor.shutdown(cancel_futures=True)

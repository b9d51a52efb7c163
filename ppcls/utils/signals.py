"""Signals that ask a program to end."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO, TypeVar

from ppcls.utils.log import say

# What asks a process to end: Ctrl-C, a system that shuts down, a terminal that was closed.
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end things as Ctrl-C does, where signals can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    # A run that was started to survive its terminal does so.
    numbers = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------
# Ctrl-C, SIGTERM and a closed terminal end a run after the step under way, its state saved

SAME = 1.0  # seconds in which a Ctrl-C is the one before, sent to a group and by its launcher

Item = TypeVar("Item")


class Interrupted(Exception):  # noqa: N818  it is no error
    """A signal came while something was under way that can be done again."""


class Interrupt:
    """While entered, notes the first signal; a second Ctrl-C ends the program at once.

    Other signals come more than once where they go to a whole group of processes.
    """

    def __init__(self):
        self.asked = False
        self.asked_at = 0.0

    def __enter__(self) -> "Interrupt":
        self.previous = {}
        if threading.current_thread() is not threading.main_thread():
            return self  # where handlers cannot be set; the program's own decide
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks of SIGHUP
                self.previous[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            if time.monotonic() - self.asked_at < SAME:
                return
            raise KeyboardInterrupt
        if not self.asked:
            self.asked_at = time.monotonic()
        first = not self.asked
        self.asked = True
        if number not in (signal.SIGINT, signal.SIGTERM):
            leave_terminal()
        if first:
            say("stopping after this step; Ctrl-C then quits at once, without saving")

    def watch(
        self, items: Iterable[Item], also: Callable[[], bool] = lambda: False
    ) -> Iterator[Item]:
        """The items, until a signal comes, or `also` says so: then `Interrupted` is raised."""
        for item in items:
            if self.asked or also():
                raise Interrupted
            yield item


def leave_terminal() -> None:
    """Talk to nobody where there is no terminal any more: an error would end the run unsaved."""
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
            os.write(number, b"\n")
        except (OSError, ValueError):  # ValueError: a stream without a file
            continue_without(stream)


def continue_without(stream: TextIO) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass

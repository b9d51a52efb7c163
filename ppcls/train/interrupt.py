"""Ctrl-C and SIGTERM end a run after the step under way, so that its state can be saved."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from ppcls.log import say

Item = TypeVar("Item")


class Interrupted(Exception):  # noqa: N818  it is no error
    """A signal came while something was under way that can be done again."""


class Interrupt:
    """While entered, notes the first signal; a second Ctrl-C ends the program at once."""

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self.previous = {s: signal.signal(s, self.note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("stopping after this step; once more to quit at once, without saving")

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a signal comes: then `Interrupted` is raised."""
        for item in items:
            if self.asked:
                raise Interrupted
            yield item

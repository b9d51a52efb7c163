"""Ctrl-C and SIGTERM end a run after the step under way, so that its state can be saved."""

import signal
from types import FrameType


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

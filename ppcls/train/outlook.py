"""How long a run will take and how much memory it needs, said after its first steps."""

import sys
import time

from ppcls import environment
from ppcls.log import say

FIRST, LAST = 2, 7  # steps between which time is taken; the first ones are slower

try:
    import resource
except ImportError:  # on Windows
    resource = None


class Outlook:
    """Counts the steps of this process and says once what they promise."""

    def __init__(self, total: int):
        self.total, self.done, self.start = total, 0, 0.0

    def tell(self, step: int) -> None:
        """To be called after each step, with its number in the run."""
        self.done += 1
        if self.done == FIRST:
            self.start = time.monotonic()
        if self.done == LAST and step < self.total:
            seconds = (time.monotonic() - self.start) / (LAST - FIRST)
            say(f"about {words((self.total - step) * seconds)} to train, {memory()}")


def words(seconds: float) -> str:
    """A time in the unit one would say it in."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def memory() -> str:
    free = environment.free_memory()
    left = f"; {free / 1e9:.1f} GB are free" if free < float("inf") else ""
    if resource is None:
        return f"evaluations aside{left}"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"evaluations aside; {peak / 1e9:.1f} GB of memory in use{left}"

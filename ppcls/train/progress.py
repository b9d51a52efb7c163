"""How long a run still takes and how much memory it needs, said early and kept right."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ppcls.utils import environment
from ppcls.utils.log import say
from ppcls.utils.text import duration

# steps between which time is taken at first; those before are slower
FIRST = 2
LAST = 7
PATIENCE = 20.0  # seconds after which fewer steps have to do
MEMORY = 100  # steps, or others, that a mean looks back to: sizes may change within a run
WRONG = 1.3  # how many times longer or shorter than said a run becomes before it is said again
LEAST = 5.0  # seconds that it must be longer or shorter by, too

try:
    import resource
except ImportError:  # on Windows
    resource = None

Aside = Literal["evaluation", "save"]


@dataclass
class Remaining:
    """What a run has still to do.

    `evaluation_steps` guesses how many steps an evaluation takes as long as; the first one tells.
    """

    steps: int
    evaluations: int = 0
    saves: int = 0
    evaluation_steps: float = 0.0


class Mean:
    """The mean seconds of things that are done again and again; the last ones count most."""

    def __init__(self):
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += (seconds - self.seconds) / min(self.count, MEMORY)


class TimeLeft:
    """Counts what this process does of a run, and says what that promises for the rest."""

    def __init__(self, plan: Remaining, clock: Callable[[], float] = time.monotonic):
        self.plan = plan
        self.clock = clock
        self.evaluates = bool(plan.evaluations)
        self.means = {kind: Mean() for kind in ("step", "evaluation", "save")}
        self.done = 0
        self.start = self.mark = clock()
        self.promised = 0.0  # seconds from the start to the end, as said last; 0: nothing is said

    def tell(self) -> None:
        """To be called after each step."""
        now = self.clock()
        self.done += 1
        self.plan.steps -= 1
        if self.done > FIRST:
            self.means["step"].add(now - self.mark)
        self.mark = now
        measured = self.means["step"]
        late = measured.count * measured.seconds > PATIENCE
        if self.promised:
            if self.done % MEMORY == 0:
                self.correct()
        elif self.plan.steps and (self.done >= LAST or late):
            included = ", evaluations included" if self.evaluates else ""
            self.promise(f"about {duration(self.left or 0)} to train{included}; {memory()}")

    @contextmanager
    def aside(self, kind: Aside) -> Iterator[None]:
        """What is done meanwhile is no step: an evaluation with what it saves, or a save."""
        start = self.clock()
        yield
        self.mark = self.clock()
        self.means[kind].add(self.mark - start)
        if kind == "evaluation":
            self.plan.evaluations -= 1
            self.correct()
        else:
            self.plan.saves -= 1

    @property
    def left(self) -> float | None:
        """Seconds to the end of the run; None: too little is known."""
        step, evaluation, save = self.means.values()
        if not step.count:
            return None
        each = evaluation.seconds if evaluation.count else step.seconds * self.plan.evaluation_steps
        others = max(0, self.plan.evaluations) * each + max(0, self.plan.saves) * save.seconds
        return max(0, self.plan.steps) * step.seconds + others

    def correct(self) -> None:
        """Say it again where what was said has proved wrong by a lot."""
        left = self.left
        if not self.promised or left is None or not self.plan.steps:
            return
        whole = self.clock() - self.start + left
        ratio = max(whole, self.promised) / max(min(whole, self.promised), 1e-9)
        if ratio > WRONG and abs(whole - self.promised) > LEAST:
            self.promise(f"now about {duration(left)} to go, {duration(whole)} in all")

    def promise(self, text: str) -> None:
        self.promised = self.clock() - self.start + (self.left or 0)
        say(text)


def memory() -> str:
    """How much memory this process uses at most, and how much is free."""
    free = environment.free_memory()
    parts = [f"{free / 1e9:.1f} GB are free"] if free < float("inf") else []
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        parts.insert(0, f"{peak / 1e9:.1f} GB of memory in use")
    return "; ".join(parts)

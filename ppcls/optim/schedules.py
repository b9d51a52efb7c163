"""The learning rate as a function of the step, and of the evaluations done before it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ppcls.config.node import Count, Duration, Flag, Float, NotNegative, Positive, Span, node
from ppcls.config.own import OrOwn, Own
from ppcls.metrics import Score, goodness
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

Evaluations = Sequence[Mapping[str, float]]  # each with its scores and the "step" it was made at


@dataclass(frozen=True)
class Moment:
    """Where in a run a step is; all counts are steps."""

    step: int
    start: int  # the end of warm-up
    epoch_steps: int
    total_steps: int
    peak: float  # the schedule's learning rate, before scaling
    evaluations: Evaluations = ()
    score: Score = "top1"  # that chooses the best weights

    def share(self, first: int, last: int) -> float:
        """How far the step is from one step to another, 0 to 1."""
        return min(1.0, (self.step - first) / max(1, last - first))

    def steps(self, span: Span) -> int:
        return span.steps(self.epoch_steps, self.total_steps)

    def exact(self, span: Span) -> float:
        return span.exact(self.epoch_steps, self.total_steps)

    def reached(self, milestone: Span) -> bool:
        """Whether the step is not before a milestone, which may lie between two steps."""
        return round(self.exact(milestone), 6) <= self.step


def wave(start: float, end: float, share: float) -> float:
    """Half a cosine wave from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def not_zero(span: Span) -> Span:
    if not span.amount:
        raise ValueError("should be more than 0, such as 1 epoch or 500 steps")
    return span


Part = Annotated[Float, Field(ge=0, le=1)]
Length = Annotated[Duration, AfterValidator(not_zero)]


@node
class Cosine:
    """Half a cosine wave from 1 after warm-up to `end` at the last step (arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    end: Part = 0.0  # share of the peak left at the end

    def __call__(self, at: Moment) -> float:
        return wave(1.0, self.end, at.share(at.start, at.total_steps))


@node
class Polynomial:
    """From 1 after warm-up to `end` at the last step, as (1 - progress) ** power; 1: a line."""

    kind: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0  # 1: a line
    end: Part = 0.0  # share of the rate left at the end

    def __call__(self, at: Moment) -> float:
        left = 1 - at.share(at.start, at.total_steps)
        return self.end + (1 - self.end) * left**self.power


@node
class OneCycle:
    """One cosine wave up from `start` in the time `rise`, one down to `end` (arXiv:1708.07120).

    Shares of the peak; momentum stays as it is. It has its own rise and takes no warm-up. As in
    Paddle and PyTorch the last step of each wave, not the one after it, has its last value.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Duration = Span(30, "percent")  # share of the run that it rises for
    start: Part = 0.04  # share of the rate
    end: Part = 4e-6  # share of the rate

    def __call__(self, at: Moment) -> float:
        top = at.exact(self.rise) - 1
        last = at.total_steps - 1
        if at.step < top:
            return wave(self.start, 1.0, at.step / top)
        share = (at.step - max(0.0, top)) / max(1.0, last - max(0.0, top))
        return wave(1.0, self.end, min(1.0, share))


@node
class Exponential:
    """Multiplied by `gamma` in every span of `every` after warm-up, a little at each step."""

    kind: Literal["exponential"] = "exponential"
    gamma: Positive  # factor …
    every: Length = Span(1, "epochs")  # … each time

    def __call__(self, at: Moment) -> float:
        return self.gamma ** ((at.step - at.start) / max(1, at.steps(self.every)))


@node
class Step:
    """Multiplied by `gamma` at each milestone, or `every` so often, from the start of training.

    `after_warmup`: from the end of warm-up. An `every` of 2.7 steps is one of 2.
    """

    kind: Literal["step"] = "step"
    milestones: tuple[Duration, ...] = ()  # when, in place of every
    every: Length | None = None  # how often
    after_warmup: Flag = False  # count from the end of warm-up
    gamma: Positive = 0.1  # factor

    def __post_init__(self):
        if bool(self.milestones) == bool(self.every):
            raise ValueError("give either milestones, such as [30, 60], or every, such as 30")

    def __call__(self, at: Moment) -> float:
        at = replace(at, step=at.step - at.start) if self.after_warmup else at
        if self.every:
            return self.gamma ** (at.step // max(1, int(at.exact(self.every))))
        return self.gamma ** sum(map(at.reached, self.milestones))


@node
class Piecewise:
    """From each milestone on the learning rate in `values`, scaled as `lr` is."""

    kind: Literal["piecewise"] = "piecewise"
    milestones: tuple[Duration, ...]  # when the next value begins
    values: tuple[NotNegative, ...]  # learning rates, one more

    def __post_init__(self):
        if len(self.values) != len(self.milestones):
            raise ValueError(
                f"{plural(len(self.milestones), 'milestone')} and "
                f"{plural(len(self.values), 'value')}: "
                "give the learning rate from each milestone on (schedule.lr is that before)"
            )

    def __call__(self, at: Moment) -> float:
        pairs = zip(self.milestones, self.values, strict=True)
        passed = [(at.exact(m), value) for m, value in pairs if at.reached(m)]
        return max(passed, key=lambda pair: pair[0])[1] / at.peak if passed else 1.0


@node
class Plateau:
    """Multiplied by `gamma` when evaluations brought no better score for as long as `patience`.

    Counted from the best evaluation or the last such cut; those during warm-up do not count.
    """

    kind: Literal["plateau"] = "plateau"
    score: Score | None = None  # None: the one that chooses the best weights
    gamma: Positive = 0.1  # factor
    patience: Length = Span(10, "epochs")  # without a better evaluation

    def __call__(self, at: Moment) -> float:
        best = -math.inf
        since = 0
        factor = 1.0
        for evaluation in at.evaluations:
            step = int(evaluation["step"])
            score = goodness(evaluation, self.score or at.score)
            if not at.start <= step <= at.step:
                continue
            if score > best:
                best = score
                since = step
            elif step - since >= at.steps(self.patience):
                factor = factor * self.gamma
                since = step
        return factor


@node
class Constant:
    """1 at every step."""

    kind: Literal["constant"] = "constant"

    def __call__(self, at: Moment) -> float:
        return 1.0


@dataclass(frozen=True)
class OwnDecay(Own):
    """A decay of one's own: called as `decay(at)` with the `Moment` of a step, it gives the share
    of the peak learning rate, 0 or more, and the same for the same moment.
    """

    called: ClassVar[str] = "a decay, called as decay(at)"
    supplied: ClassVar[int] = 1

    def __call__(self, at: Moment) -> float:
        found = self.run(at)
        if not isinstance(found, int | float) or not 0 <= found < math.inf:
            raise UserError(f"{self.name}: gave {found!r} at step {at.step}, no share from 0")
        return float(found)


Decay = Annotated[
    Cosine | Polynomial | OneCycle | Exponential | Step | Piecewise | Plateau | Constant,
    Field(discriminator="kind"),
    OrOwn(OwnDecay),
]


@node
class Schedule:
    """A peak learning rate, reached by linear warm-up from `warmup_start`, then decaying.

    `per: epoch` keeps the rate of an epoch's first step all through the epoch.
    """

    lr: Positive  # the highest learning rate
    for_batch: Count | None = None  # the batch `lr` was chosen for; None: the one in use
    warmup: Duration = Span(0, "epochs")  # how long it rises first
    warmup_start: NotNegative = 0.0  # learning rate of the first step, before scaling
    per: Literal["step", "epoch"] = "step"  # when it changes
    decay: Decay = Cosine()  # its fall

    def __post_init__(self):
        if self.decay.kind == "one_cycle" and self.warmup.amount:
            raise ValueError("one_cycle rises by itself: warmup=0, and decay.rise for its length")

    def scale(self, batch: int) -> float:
        """What `lr` is multiplied by for another batch: in proportion (arXiv:1706.02677)."""
        return batch / (self.for_batch or batch)

    def over(
        self, epoch_steps: int, total_steps: int, batch: int, score: Score = "top1"
    ) -> Callable[[int, Evaluations], float]:
        """The learning rate of a run's steps, counted from 0, by the evaluations before them.

        Args:
            batch: images a step in all.
            score: the one that chooses the best weights.
        """
        start = self.warmup.steps(epoch_steps, total_steps)
        scale = self.scale(batch)

        def rate(step: int, evaluations: Evaluations = ()) -> float:
            step -= step % epoch_steps if self.per == "epoch" else 0
            if step < start:
                lr = self.warmup_start + (self.lr - self.warmup_start) * step / start
            else:
                at = Moment(step, start, epoch_steps, total_steps, self.lr, evaluations, score)
                lr = self.lr * self.decay(at)
            return lr * scale

        return rate


@node
class EarlyStop:
    """The run ends when evaluations brought no better score for as long as `patience`."""

    patience: Length = Span(10, "epochs")  # without a better evaluation
    score: Score | None = None  # None: the one that chooses the best weights

    def reached(self, evaluations: Evaluations, score: Score, patience: int) -> bool:
        """Whether the best of the evaluations is so many steps older than the last.

        Args:
            score: the one to look at where none is given.
            patience: in steps.
        """
        best = -math.inf
        since = 0
        last = 0
        for evaluation in evaluations:
            last = int(evaluation["step"])
            found = goodness(evaluation, self.score or score)
            if found > best:
                best = found
                since = last
        return last - since >= patience

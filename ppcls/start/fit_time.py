"""How many epochs fit into a time: a few real steps are made, timed, and thrown away."""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

from ppcls.data.loader import eval_order, step_batches
from ppcls.recipe import Recipe
from ppcls.train.evaluate import evaluate
from ppcls.train.setup import build_trainer, open_datasets
from ppcls.train.trainer import Trainer
from ppcls.utils.device import select
from ppcls.utils.errors import UserError
from ppcls.utils.log import silence
from ppcls.utils.text import duration

WARM_UP = 2  # steps that do not count: the first ones allocate
LEAST, MOST = 3, 12  # steps that count …
SHARE = 0.04  # … of which there are no more when this share of the time is over
EVALUATED = 2  # batches
MARGIN = 0.92  # of the time that may be planned for: machines are not always as fast
BY_PIXELS = 0.85  # of a step's time that goes with the number of pixels
EXPORT = 15.0  # seconds for what comes after training


@dataclass(frozen=True)
class Pace:
    """How fast a recipe's run is here, in seconds.

    Attributes:
        start: until the first step.
        step: of training, the median.
        evaluation: of all evaluation images, 0 where there are none.
        epoch_steps: steps of an epoch.
    """

    start: float
    step: float
    evaluation: float
    epoch_steps: int

    def epoch(self, every: int) -> float:
        """Seconds of an epoch with its share of an evaluation after `every` epochs."""
        return self.epoch_steps * self.step + self.evaluation / every

    def at(self, scale: float) -> "Pace":
        """The pace with images whose sides are `scale` times as long, below 1, as it is guessed."""
        smaller = BY_PIXELS * scale**2 + (1 - BY_PIXELS)
        return replace(self, step=smaller * self.step, evaluation=smaller * self.evaluation)

    def epochs(self, seconds: float, every: int) -> int:
        """How many whole epochs fit into a time, with start, report and export."""
        left = MARGIN * seconds - self.start - self.evaluation - EXPORT
        return max(0, int(left / self.epoch(every)))


def measure(recipe: Recipe, seconds: float, clock: Callable[[], float] = time.monotonic) -> Pace:
    """Make a few steps of a recipe's run, which is to take so many seconds in all.

    Raises:
        UserError: as training would.
    """
    began = clock()
    select(recipe.device)
    with silence(), tempfile.TemporaryDirectory(prefix="ppcls-measured-") as folder:
        recipe, inputs = open_datasets(recipe)
        trainer = build_trainer(replace(recipe, output=str(Path(folder))), inputs)
        try:
            start = clock() - began
            step = step_seconds(trainer, began + SHARE * seconds, clock)
            evaluation = evaluation_seconds(trainer, clock)
        finally:
            with suppress(OSError):
                trainer.loader.close()
    return Pace(start, step, evaluation, trainer.options.epoch_steps)


def step_seconds(trainer: Trainer, until: float, clock: Callable[[], float]) -> float:
    """The median of a few steps, the reading of their images included."""
    order = list(islice(trainer.sampler.order(0), WARM_UP + MOST))
    trainer.set_training()
    times = []
    mark = clock()
    for batches in step_batches(trainer.loader, "train", order, trainer.batch_size, 0):
        trainer.advance(batches, sum(len(batch.images) for batch in batches))
        now = clock()
        times.append(now - mark)
        mark = now
        if len(times) >= WARM_UP + LEAST and now > until:
            break
    return median(times[WARM_UP:] or times[-1:])


def evaluation_seconds(trainer: Trainer, clock: Callable[[], float]) -> float:
    if "eval" not in trainer.loader.parts:
        return 0.0
    order = eval_order(len(trainer.loader.parts["eval"][0]), trainer.options.eval_batch_size)
    own = order[:EVALUATED]
    began = clock()
    evaluate(trainer.network, trainer.loader.batches("eval", own), trainer.new_meter())
    return (clock() - began) * sum(map(len, order)) / sum(map(len, own))


def require_one(pace: Pace, seconds: float, left: float, every: int) -> int:
    """The number of epochs that fit into what is left of the time; UserError where none does."""
    epochs = pace.epochs(left, every)
    if epochs:
        return epochs
    needed = seconds - left + pace.start + pace.epoch(1) + pace.evaluation + EXPORT
    raise UserError(
        f"--time: one epoch, its evaluation and the export take about {duration(needed / MARGIN)} "
        f"here, and {duration(seconds)} are given: more time, smaller images with "
        "-o preprocess.resize=96 preprocess.crop=96, or a share of them with -o data.labeled=0.25"
    )

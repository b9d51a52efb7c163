"""What the steps between two records of a run came to."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import paddle

from ppcls.data.loader import Batch, Part, Reader
from ppcls.data.transforms import sides
from ppcls.metrics import goodness
from ppcls.models.layers import Normalize
from ppcls.optim.parameters import freeze, groups, trained_count
from ppcls.recipe import Recipe
from ppcls.train import checkpoint, curves, run_folder
from ppcls.train.distill import lesson
from ppcls.train.distributed import PeerError, Processes
from ppcls.train.evaluate import describe, evaluate_watched
from ppcls.train.feed import Feed
from ppcls.train.progress import Outlook, Plan
from ppcls.train.record import record_of
from ppcls.train.run_folder import Skipped
from ppcls.train.setup import Datasets, build_model, check_fit, check_freeze, eval_view, train_view
from ppcls.train.step import Done, NotFinite, Precision, Update
from ppcls.utils import log
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import say
from ppcls.utils.signals import Interrupt, Interrupted
from ppcls.utils.text import duration, plural, three_digits


class Window:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.losses: list[float] = []
        self.right = 0.0
        self.known = 0  # photos with labels
        self.photos = 0
        self.seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = self.clock()

    def add(self, done: Done | None) -> None:
        """Take in a step; None: one without a photo that could be read, which only took time."""
        if done:
            self.losses.append(done.loss)
            self.right += done.right
            self.known += done.known
            self.photos += done.photos
        now = self.clock()
        self.seconds += now - self.mark
        self.mark = now

    def scores(self, watched: str) -> dict[str, float]:
        """The mean loss, and the score that the task watches of the photos with labels.

        What no photo was read for is left out: it has no value.
        """
        found: dict[str, float] = {}
        if self.losses:
            found["loss"] = sum(self.losses) / len(self.losses)
        if self.known:
            found[watched] = self.right / self.known
        return found

    @property
    def speed(self) -> float:
        """Photos a second."""
        return round(self.photos / max(self.seconds, 1e-9), 2)


# --------------------------------------------------------------------------
# The training loop: a plain loop over steps, whose every number is a function of the step

SHOWN = 20  # steps whose mean loss is shown beside the bar
FORWARD = 1 / 3  # of a step's time is the way forward, which is all that an evaluation does


class Trainer:
    """One run. State: the step, scores so far, weights, optimizer, loss scale; nothing else."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: Datasets,
        saved: Mapping[str, np.ndarray] | None = None,
        processes: Processes | None = None,
        limit: int | None = None,
    ):
        """A run of a recipe.

        Args:
            saved: a run's checkpoint to go on with, instead of the recipe's weights.
            limit: steps after which it ends, evaluated and saved.
        """
        self.recipe, self.inputs, self.folder = recipe, inputs, recipe.folder
        self.processes = processes or Processes()
        train = recipe.train
        self.feed = Feed(recipe, inputs, self.processes, limit)
        self.epoch_steps = len(self.feed.order(0))
        check_fit(recipe, inputs, self.feed.photos_per_step, self.epoch_steps)
        self.total_steps = self.epoch_steps * (1 if limit else train.epochs)
        paddle.seed(recipe.seed)
        model = recipe.model
        self.net = build_model(recipe, saved)
        self.parameters = trained_count(self.net)
        self.frozen = freeze(self.net, model.freeze)
        if saved is None:
            check_freeze(model, self.net)
        scale, offset = recipe.preprocess.scale, recipe.preprocess.offset
        self.network = Normalize.before(self.net, scale, offset)
        self.precision = Precision(train.precision, train.amp_level)
        self.lesson = lesson(recipe, inputs, self.network, self.precision)
        beside = self.lesson.layers
        decayed = (train.decay_norms, train.decay_biases)
        trained = groups(self.net, decayed[0], train.lr_scale, decayed[1])
        self.optimizer = train.optimizer.build(trained + groups(beside, decayed[0], {}, decayed[1]))
        self.average = train.ema.build(self.net) if train.ema else None
        parameters = [*self.net.parameters(), *beside.parameters()]
        self.update = Update(
            recipe.task,
            self.lesson.step,
            self.optimizer,
            [p for p in parameters if not p.stop_gradient],
            train.clip_norm,
            self.precision.scale,
            self.processes,
        )
        parts: dict[str, Part] = {"train": (inputs.shown, train_view(recipe))}
        if inputs.eval is not None:
            parts["eval"] = (inputs.eval, eval_view(recipe))
        self.reader = Reader(parts, recipe.data.workers)
        self.step, self.window, self.stopping = 0, Window(), False
        self.epoch_window = Window()
        self.recent: deque[float] = deque(maxlen=SHOWN)
        self.best: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self.thresholds: list[float] = []
        self.skipped = Skipped(self.folder, self.processes.first)
        self.evaluations: list[dict[str, float]] = []

    # ------------------------------------------------------------------ the loop

    def run(self) -> bool:
        """Train to the end; False when a signal ended the run early, its state saved."""
        scalars = log.Scalars(self.folder, self.step) if self.processes.first else log.NoScalars()
        self.outlook, self.pace = Outlook(self.plan()), log.Pace()
        with Interrupt() as self.interrupt, scalars as self.scalars:
            try:
                if self.step and not self.scores:  # cut before the evaluation at this step
                    self.do_what_is_due()
                while self.step < self.total_steps and not self.stopping and not self.early():
                    self.run_epoch()
            except Interrupted:
                self.scores, self.stopping = {}, True
            except DataError as error:
                raise UserError(f"{error}{self.save_rest()}") from None
            except PeerError as error:
                raise error.adding(self.what_stays()) from None
            finally:
                self.reader.close()
            self.lesson.check()
            done = not self.stopping and (self.step == self.total_steps or self.early())
            if not done:
                say(f"interrupted at step {self.step} of {self.total_steps}{self.save_rest()}")
        if self.processes.first:
            course = curves.course(self.recipe, self.epoch_steps)
            curves.draw(self.folder / "run.jsonl", self.folder / "curves.png", course)
        return done

    def run_epoch(self) -> None:
        """The rest of the epoch that the step is in, and what is due at its steps."""
        epoch, start = divmod(self.step, self.epoch_steps)
        order = self.feed.order(epoch)
        name = f"epoch {epoch + 1}/{self.recipe.train.epochs}"
        steps = self.feed.steps(self.reader, order[start:], epoch)
        progress = log.Progress(steps, name, len(order), start, self.pace)
        self.set_training()
        self.window.start_clock()
        self.epoch_window = Window()
        for found in progress:
            photos = self.agree(found)
            if self.stopping:
                return
            assert not isinstance(found, DataError)
            self.count(self.advance(found, photos))
            progress.note, progress.left = self.note(), self.outlook.left
            if self.due_to_record():
                self.record_train()
            if start == 0 and self.step % self.epoch_steps == 0:
                self.require_photos(order)
            self.do_what_is_due()
            if self.early():
                say(f"stopping early at step {self.step}: evaluations became no better for long")
                break
        self.skipped.tell()

    def due_to_record(self) -> bool:
        """At the first step, too: curves begin where training does."""
        every = self.recipe.train.log_every
        return self.step % every == 0 or self.step in (1, self.total_steps)

    def early(self) -> bool:
        """Whether evaluations have brought nothing better for too long."""
        stop = self.recipe.train.early_stop
        if not stop:
            return False
        patience = stop.patience.steps(self.epoch_steps, self.total_steps)
        return stop.reached(self.evaluations, self.recipe.best, patience)

    def agree(self, found: Sequence[Batch] | DataError) -> int:
        """The photos of all processes' batches together, and what else all must know before a step.

        A signal that came to any of them stops all; an error that one found is raised in all.
        """
        error, batches = (str(found), []) if isinstance(found, DataError) else ("", found)
        photos = sum(len(batch.images) for batch in batches)
        skipped = [line for batch in batches for line in batch.skipped]
        told = self.processes.gather((self.interrupt.asked, error, photos, skipped))
        asked, errors, counts, lines = zip(*told, strict=True)
        self.skipped.add(line for own in lines for line in own)
        if any(errors):
            raise DataError(next(filter(None, errors)))
        self.stopping = any(asked)
        return sum(counts)

    def advance(self, batches: Sequence[Batch], photos: int) -> Done | None:
        """One optimizer step on this process's batches, of so many photos in all; maybe none."""
        self.optimizer.set_lr(self.rate(self.step))
        paddle.seed(step_seed(self.recipe.seed, self.step, self.processes.rank))
        batches = [batch for batch in batches if len(batch.images)]
        try:
            done = self.update(batches, photos) if photos else None
        except NotFinite as error:
            raise self.diverged(error.what, error.value, batches) from None
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return done

    def do_what_is_due(self) -> None:
        """Evaluate and save where the recipe says so, after the step just done."""
        done = self.step == self.total_steps
        self.scores = {}
        if self.inputs.eval is not None and self.step % self.epoch_steps == 0:
            epoch = self.step // self.epoch_steps
            if done or epoch % self.recipe.eval.every == 0:
                with self.outlook.aside("evaluation"):
                    self.evaluate(epoch)
        if done or self.step % self.save_span == 0:
            with self.outlook.aside("save"):
                self.save(checkpoint.LATEST)
        if self.step % self.epoch_steps == 0:
            self.tell_epoch(self.step // self.epoch_steps)

    def evaluate(self, epoch: int) -> None:
        processes, classes = self.processes, self.recipe.model.num_classes or 0
        tally, size = self.recipe.task.tally(classes), self.recipe.eval.batch_size
        batches = self.reader.evaluation(size, processes.rank, processes.count, self.pace)
        self.average_statistics()
        with self.shown():
            found = evaluate_watched(self.network, batches, tally, self.interrupt)
        self.set_training()
        self.agree(found)
        if self.stopping:
            raise Interrupted
        tally.parts = processes.dealt(tally.parts)
        assert self.inputs.eval is not None
        if not tally.parts:
            raise none_read("data.eval", len(self.inputs.eval), self.skipped.last)
        scores, self.thresholds = tally.scores(), tally.thresholds()
        if not math.isfinite(scores["loss"]):
            raise self.diverged("loss of the evaluation", scores["loss"], [])
        if void := [name for name, score in scores.items() if not math.isfinite(score)]:
            raise DataError(
                f"data.eval: {void[0]} has no value, as no photo that could be read has a label"
            )
        self.scores = scores
        self.evaluations.append(scores | {"step": self.step})
        self.scalars.write("eval", self.step, epoch=epoch, **scores)
        name = self.recipe.best
        if not self.best or goodness(scores, name) > goodness(self.best, name):
            self.best = scores | {"step": self.step}
            self.save(checkpoint.BEST)
        self.window.start_clock()

    # ------------------------------------------------------------------ what it says

    def plan(self) -> Plan:
        """What is left to do from the step on that the run has come to."""
        step, total, inputs = self.step, self.total_steps, self.inputs
        evaluations, guess = 0, 0.0
        if inputs.eval is not None:
            epochs, every = total // self.epoch_steps, self.recipe.eval.every
            evaluations = -(-epochs // every) - step // self.epoch_steps // every
            larger = self.recipe.preprocess.crop / max(sides(self.recipe.train_size))
            photos = len(inputs.eval) * larger**2
            guess = FORWARD * photos / self.feed.photos_per_step
        saves = -(-total // self.save_span) - step // self.save_span
        return Plan(total - step, evaluations, saves, guess)

    def count(self, done: Done | None) -> None:
        """Take a step into what is said and recorded; None: there was no photo to learn from."""
        self.window.add(done)
        self.epoch_window.add(done)
        if done:
            self.recent.append(done.loss)
        self.outlook.tell()

    def note(self) -> str:
        """Beside the bar: the mean loss of the last few steps."""
        return f"loss {sum(self.recent) / len(self.recent):.4f}" if self.recent else ""

    def tell_epoch(self, epoch: int) -> None:
        """A line on an epoch that has ended: its scores, training loss, time and speed."""
        parts, window = [], self.epoch_window
        if self.scores:
            best = " (best)" if self.best.get("step") == self.step else ""
            parts.append(f"{describe(self.scores)}{best}")
        if window.losses:
            loss = sum(window.losses) / len(window.losses)
            time = f"{duration(window.seconds)} at {three_digits(window.speed)} photos/s"
            parts.append(f"training loss {loss:.4f}, {time}")
        left = self.outlook.left
        if left and self.step < self.total_steps:
            parts.append(f"{duration(left)} left")
        if parts:
            say(f"epoch {epoch}: {'; '.join(parts)}")

    def require_photos(self, order: Sequence[np.ndarray]) -> None:
        """DataError after an epoch without a single photo that could be read.

        It taught nothing, so the run is back where the epoch began.
        """
        if not self.epoch_window.photos:
            count = len(np.unique(np.concatenate(order) % len(self.inputs.shown)))
            self.step -= self.epoch_steps
            raise none_read("data.train", count, self.skipped.last)

    # ------------------------------------------------------------------ small parts

    @property
    def save_span(self) -> int:
        """Steps from one save to the next."""
        return max(1, self.recipe.train.save_every.steps(self.epoch_steps, self.total_steps))

    def average_statistics(self) -> None:
        """Batch norms' statistics, of each process's own photos, become the mean of all."""
        held, beside = self.average.held if self.average else {}, self.lesson.layers
        states = [
            (self.net, self.net.state_dict()),
            (self.net, held),
            (beside, beside.state_dict()),
        ]
        for layer, state in states:
            learnt = {name for name, _ in layer.named_parameters()}
            self.processes.average([v for name, v in state.items() if name not in learnt])

    def shown(self) -> AbstractContextManager[None]:
        """While entered, the network has the weights that the run evaluates and hands on."""
        return self.average.shown() if self.average else nullcontext()

    def set_training(self) -> None:
        self.network.train()
        for layer in self.frozen:
            layer.eval()

    def rate(self, step: int) -> float:
        train, lengths = self.recipe.train, (self.epoch_steps, self.total_steps)
        photos, best = self.feed.photos_per_step, self.recipe.best
        return train.schedule(step, *lengths, photos, self.evaluations, best)

    def diverged(self, what: str, value: float, batches: Sequence[Batch]) -> UserError:
        """The error that ends a run before it saves anything that is no number."""
        where = self.inputs.shown.where
        own = [where(int(index)) for batch in batches for index in batch.indices]
        places = [place for part in self.processes.gather(own) for place in part]
        left = (
            run_folder.keep_not_finite(self.folder, places, batches) if self.processes.first else ""
        )
        return run_folder.diverged(what, value, self.step, self.rate(max(0, self.step - 1)), left)

    def record_train(self) -> None:
        """Write what the steps since the last such record came to."""
        self.scalars.write(
            "train",
            self.step,
            epoch=(self.step - 1) // self.epoch_steps + 1,
            lr=self.rate(self.step - 1),
            images_per_second=self.window.speed,
            **self.window.scores(self.recipe.task.watched),
        )
        self.window = Window()

    def save(self, name: str) -> Path:
        """Write a checkpoint; the first process does, when all have come here."""
        self.average_statistics()
        if not self.processes.first:
            return self.folder / name
        optimizer = self.optimizer if name == checkpoint.LATEST else None
        with self.shown():
            trained = self.average.held if self.average else None
            path, beside = self.folder / name, self.lesson.layers
            checkpoint.save(path, self.net, optimizer, record_of(self), trained, beside)
        run_folder.settle(self.folder)
        if name == checkpoint.LATEST and self.recipe.train.keep:
            checkpoint.keep(self.folder, self.step, self.recipe.train.keep)
        return self.folder / name

    def what_stays(self) -> str:
        """The words that say how to go on where nothing can be saved any more."""
        latest = self.folder / checkpoint.LATEST
        where = f"the run ended at step {self.step} of {self.total_steps}"
        earlier = (self.folder / run_folder.REPLACED).is_dir()  # the run that this one replaces
        if earlier or not latest.exists():
            return f"{where}, before its first checkpoint"
        return f"{where}; {latest} stays: the same command with --resume goes on from there"

    def save_rest(self) -> str:
        """Save what was trained since the last checkpoint; returns the words that say so."""
        if not self.step:
            return ""
        path = self.save(checkpoint.LATEST)
        return f"; saved {path}; to go on: the same command with --resume"


def none_read(key: str, count: int, example: str) -> DataError:
    """The error that ends a run which `data.on_error: skip` has left nothing of."""
    such = f", such as {example}" if example else ""
    return DataError(
        f"{key}: none of {plural(count, 'photo')} could be read{such}; see tools/check_data.py"
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a process draws on the device in a step (dropout, drop path)."""
    parts = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

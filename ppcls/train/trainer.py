"""The training loop: a plain loop over steps, whose every number is a function of the step."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.data.loader import Batch, Loader, step_batches
from ppcls.data.sampler import EpochSampler
from ppcls.metrics import Meter, Score, goodness
from ppcls.models.fake_quantize import ranges_of
from ppcls.optim.ema import Average
from ppcls.optim.parameters import parameter_count
from ppcls.train import checkpoint, curves, run_folder
from ppcls.train.callbacks import Callback, Callbacks
from ppcls.train.checkpoint import Record
from ppcls.train.curves import Course
from ppcls.train.distributed import Processes
from ppcls.train.evaluate import describe, evaluate, noting
from ppcls.train.heartbeat import Heartbeat
from ppcls.train.link import PeerError
from ppcls.train.progress import Remaining, TimeLeft
from ppcls.train.run_folder import Skipped
from ppcls.train.step import NotFinite, Objective, StepResult, TrainStep, Unread, defers
from ppcls.utils import log
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import say
from ppcls.utils.signals import Interrupt, Interrupted
from ppcls.utils.text import duration, plural, three_digits
from ppcls.weights import files

SHOWN = 20  # steps whose mean loss is shown beside the bar
STALE = 2.0  # seconds after which steps are read that were not: for the bar, and lest they diverge

Evaluations = list[dict[str, float]]  # the scores of each, and the "step" it was made at


class TrainMeter:
    """Sums over the steps between two records; evaluations do not count as time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.losses: list[float] = []
        self.right = 0.0
        self.known = 0  # images with labels
        self.images = 0
        self.seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.mark = self.clock()

    def add(self, done: StepResult | None) -> None:
        """Take in a step; None: one without an image that could be read, which only took time."""
        if done:
            self.losses.append(done.loss)
            self.right += done.right
            self.known += done.known
            self.images += done.images
        now = self.clock()
        self.seconds += now - self.mark
        self.mark = now

    def scores(self, watched: str) -> dict[str, float]:
        """The mean loss, and the score that the task watches of the images with labels.

        What no image was read for is left out: it has no value.
        """
        found: dict[str, float] = {}
        if self.losses:
            found["loss"] = sum(self.losses) / len(self.losses)
        if self.known:
            found[watched] = self.right / self.known
        return found

    @property
    def speed(self) -> float:
        """Images a second."""
        return round(self.images / max(self.seconds, 1e-9), 2)


@dataclass(frozen=True)
class Options:
    """How long a run is, and when it evaluates, records and saves.

    Attributes:
        epoch_steps: steps of an epoch.
        log_every: steps between two records of training.
        eval_every: epochs between two evaluations.
        eval_batch_size: of evaluation, in each process.
        eval_steps: guesses how many training steps one evaluation takes as long as.
        save_every: steps between two saves.
        keep: checkpoints beside latest and best, of the last saves.
        best: the score that chooses the best weights.
        watched: the score of training steps.
    """

    epochs: int
    epoch_steps: int
    seed: int = 0
    log_every: int = 10
    eval_every: int = 1
    eval_batch_size: int = 64
    eval_steps: float = 0.0
    save_every: int = 1
    keep: int = 0
    best: Score = "top1"
    watched: str = "top1"

    @property
    def total_steps(self) -> int:
        return self.epochs * self.epoch_steps


@dataclass(kw_only=True)
class Trainer:
    """One run, made of its parts. State: the step, scores so far, weights, optimizer, loss scale.

    Attributes:
        model: the network that is trained, evaluated and saved.
        network: from images uint8 [N, H, W, C] to logits: `Normalize` and the model.
        frozen: layers of the model that stay in evaluation mode.
        objective: what is learnt from, with what trains beside the model.
        train_step: from batches to changed weights.
        schedule: the learning rate of a step, which may depend on the evaluations before it.
        stopping_early: whether the evaluations say that nothing more is to be expected.
        average: of the weights, which is then what is evaluated and handed on.
        sampler: which samples each step of an epoch shows.
        loader: reads the parts "train" and, where there is anything to evaluate, "eval".
        batch_size: samples that fit into memory at a time.
        new_meter: makes what an evaluation counts with.
        options: lengths and times.
        folder: where checkpoints, records and pictures are written.
        about: what checkpoints say beside the trainer's own state: fields of `Record`.
        course: what the picture of the run says beside its records.
        callbacks: hear what the run does, in the first process.
        defer: read what steps came to only when it is recorded, shown or saved, so that no step
            waits for the one before; None: where the device works on by itself, as a GPU does.
            Then a loss that is no number is found some steps late: the error names the step that
            gave it, and nothing is evaluated or saved before all steps are known to be finite.
    """

    model: nn.Layer
    network: nn.Layer
    frozen: Sequence[nn.Layer] = ()
    objective: Objective
    train_step: TrainStep
    schedule: Callable[[int, Evaluations], float]
    stopping_early: Callable[[Evaluations], bool] = lambda evaluations: False
    average: Average | None = None
    sampler: EpochSampler
    loader: Loader
    batch_size: int
    new_meter: Callable[[], Meter]
    options: Options
    folder: Path
    about: Mapping[str, Any]
    course: Course
    processes: Processes = field(default_factory=Processes)
    callbacks: Sequence[Callback] = ()
    defer: bool | None = None

    step: int = field(default=0, init=False)
    best: dict[str, float] = field(default_factory=dict, init=False)  # scores, and their "step"
    scores: dict[str, float] = field(default_factory=dict, init=False)  # at this step, if evaluated
    evaluations: Evaluations = field(default_factory=list, init=False)
    thresholds: list[float] = field(default_factory=list, init=False)

    def __post_init__(self):
        self.window = TrainMeter()  # since the last record
        self.epoch_window = TrainMeter()
        self.recent: deque[float] = deque(maxlen=SHOWN)  # losses
        self.unread: list[Unread | None] = []  # the last steps; None: one without an image
        self.read_at = time.monotonic()
        self.stale = False
        self.shared = True  # whether each process has an image of the step
        if self.defer is None:
            self.defer = defers(self.train_step.scale)
        self.stopping = False
        self.skipped = Skipped(self.folder, self.processes.first)
        self.listeners = Callbacks(self.callbacks if self.processes.first else ())
        folder = self.folder if self.processes.first else None
        self.heart = Heartbeat(folder, self.options.total_steps, self.what_stays)
        self.ranges = list(ranges_of(self.model).values())
        self.statistics = self.changing_statistics()
        self.writer = checkpoint.Writer()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """What goes on with a run, but for the tensors of the model and the optimizer."""
        scale = self.train_step.scale
        return {
            "step": self.step,
            "best": self.best,
            "scores": self.scores,
            "evaluations": self.evaluations,
            "thresholds": self.thresholds,
            "loss_scale": scale.state_dict() if scale else {},
            "teachers": self.objective.digests,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """UserError where the teachers are not those that the run began with."""
        self.step = state["step"]
        self.best = state["best"]
        self.scores = state["scores"]
        self.evaluations = state["evaluations"]
        self.thresholds = state["thresholds"]
        scale = self.train_step.scale
        if scale and state["loss_scale"]:
            scale.load_state_dict(state["loss_scale"])
        self.objective.require(state["teachers"])

    def resume(self, path: Path, saved: files.Checkpoint, record: Record) -> None:
        """Go on from a checkpoint, whose weights the model has already."""
        self.load_state_dict(asdict(record))
        optimizer = self.train_step.optimizer
        beside = self.objective.layers
        checkpoint.restore(path, saved, self.model, optimizer, self.average, beside)

    # ------------------------------------------------------------------ the loop

    def run(self) -> bool:
        """Train to the end; False when a signal ended the run early, its state saved."""
        scalars = log.Scalars(self.folder, self.step) if self.processes.first else log.NoScalars()
        with scalars as self.scalars:
            self.listeners.begin(self.described())
            try:
                done = self.run_epochs()
                if self.processes.first:
                    picture = self.folder / "curves.png"
                    curves.draw(self.folder / "run.jsonl", picture, self.course)
                    self.listeners.picture("curves", picture)
            except BaseException:
                self.listeners.end(False)
                raise
            finally:
                self.writer.close()
            self.listeners.end(done)
        self.require_callbacks()
        return done

    def run_epochs(self) -> bool:
        """Train to the end or to a signal; whatever ends it, what can be saved is saved."""
        self.outlook = TimeLeft(self.plan())
        self.pace = log.Pace()
        self.heart.step = self.step
        self.processes.start()
        with Interrupt() as self.interrupt, self.heart:
            try:
                if self.step and not self.scores:  # cut before the evaluation at this step
                    self.do_what_is_due()
                while self.step < self.options.total_steps and not self.stopping:
                    if self.stopping_early(self.evaluations):
                        break
                    self.run_epoch()
            except Interrupted:
                self.scores = {}
                self.stopping = True
            except DataError as error:
                raise UserError(f"{error}{self.save_rest()}") from self.listeners.cause
            except PeerError as error:
                raise error.adding(self.what_stays()) from None
            finally:
                self.loader.close()
            self.writer.wait()
            self.objective.check()
            done = not self.stopping and (
                self.step == self.options.total_steps or self.stopping_early(self.evaluations)
            )
            if not done:
                of = f"step {self.step} of {self.options.total_steps}"
                say(f"interrupted at {of}{self.save_rest()}")
        return done

    def run_epoch(self) -> None:
        """The rest of the epoch that the step is in, and what is due at its steps."""
        epoch, start = divmod(self.step, self.options.epoch_steps)
        order = self.sampler.order(epoch)
        own = [self.processes.part(shown) for shown in order[start:]]
        steps = self.agreed(step_batches(self.loader, "train", own, self.batch_size, epoch))
        name = f"epoch {epoch + 1}/{self.options.epochs}"
        progress = log.Progress(steps, name, len(order), start, self.pace)
        self.set_training()
        self.window.start_clock()
        self.epoch_window = TrainMeter()
        for batches, images in progress:
            self.advance(batches, images)
            self.heart.beat(self.step)
            self.outlook.tell()
            if self.stale or self.due_to_record() or self.at_the_end_of_an_epoch():
                self.read()
            progress.note = self.note()
            progress.left = self.outlook.left
            if self.due_to_record():
                self.record_train()
            if start == 0 and self.step % self.options.epoch_steps == 0:
                self.require_images(order)
            self.do_what_is_due()
            if self.stopping_early(self.evaluations):
                say(f"stopping early at step {self.step}: evaluations became no better for long")
                break
        if not self.stopping:
            self.skipped.tell()

    def agreed(self, steps: Iterator[list[Batch]]) -> Iterator[tuple[list[Batch], int]]:
        """Each step's batches with the images of all processes', until a signal stops all.

        Raises:
            DataError: in all processes, when one of them cannot read an image.
        """
        while True:
            try:
                batches = next(steps, None)
                error = self.listeners.mistake
            except DataError as found:
                batches = []
                error = str(found)
            if batches is None:
                return
            images = sum(len(batch.images) for batch in batches)
            images = self.agree(images, [line for b in batches for line in b.skipped], error)
            if self.stopping:
                return
            yield batches, images

    def agree(self, images: int, skipped: list[str], error: str) -> int:
        """The images of all processes together, once all have told what they found.

        A signal that came to any of them stops all; an error that one found is raised in all.
        """
        stale = time.monotonic() - self.read_at > STALE
        own = [self.interrupt.asked, bool(error or skipped), stale, images]
        asked, texts, late, counts = zip(*self.processes.numbers(own), strict=True)
        if any(texts):
            errors, lines = zip(*self.processes.gather((error, skipped)), strict=True)
            self.skipped.add(line for own in lines for line in own)
            if any(errors):
                raise DataError(next(filter(None, errors)))
        self.stopping = any(asked)
        self.stale = any(late)
        self.shared = all(counts)
        return sum(counts)

    def advance(self, batches: Sequence[Batch], images: int) -> None:
        """One optimizer step on this process's batches, of so many images in all; maybe none."""
        rate = self.schedule(self.step, self.evaluations)
        drawing = 0 if self.processes.divided else self.processes.rank
        paddle.seed(step_seed(self.options.seed, self.step, drawing))
        batches = [batch for batch in batches if len(batch.images)]
        if self.defer:
            start = self.train_step.start
            self.unread.append(start(batches, images, rate, self.shared) if images else None)
        else:
            try:
                step = self.train_step
                self.count(step(batches, images, rate, self.shared) if images else None)
            except NotFinite as error:
                raise self.diverged(error.what, error.value, batches) from None
        if images:
            self.processes.average(self.statistics)
        self.step += 1
        if self.average:
            self.average.update(self.step)

    def read(self) -> None:
        """Count the steps that were not read yet; all processes do so at the same step.

        Raises:
            UserError: one was not finite; the run is then back where that step began.
        """
        self.read_at = time.monotonic()
        steps = self.unread
        self.unread = []
        started = [step for step in steps if step]
        if not steps:
            return
        try:
            found = iter(self.train_step.read(started) if started else ())
        except NotFinite as error:
            own = [number for number, step in enumerate(steps) if step]
            self.step -= len(steps) - own[len(own) - 1 - error.late]
            raise self.diverged(error.what, error.value, self.shown_again()) from None
        for step in steps:
            self.count(next(found) if step else None)

    def shown_again(self) -> list[Batch]:
        """This process's batches of the step that the run is at, read once more."""
        epoch, number = divmod(self.step, self.options.epoch_steps)
        own = [self.processes.part(self.sampler.order(epoch)[number])]
        try:
            (batches,) = step_batches(self.loader, "train", own, self.batch_size, epoch)
        except DataError:  # they were there, and are no more
            return []
        return [batch for batch in batches if len(batch.images)]

    def do_what_is_due(self) -> None:
        """Evaluate and save where that is due, after the step just done."""
        done = self.step == self.options.total_steps
        epoch_ends = self.at_the_end_of_an_epoch()
        self.writer.settle()
        self.scores = {}
        epoch = self.step // self.options.epoch_steps
        due = epoch_ends and (done or epoch % self.options.eval_every == 0)
        if due and "eval" in self.loader.parts:
            with self.outlook.aside("evaluation"):
                self.evaluate(epoch)
        if done or self.step % self.options.save_every == 0:
            with self.outlook.aside("save"):
                self.save(checkpoint.LATEST)
        if epoch_ends:
            self.tell_epoch(epoch)

    def at_the_end_of_an_epoch(self) -> bool:
        return self.step % self.options.epoch_steps == 0

    def evaluate(self, epoch: int) -> None:
        """Score the model on the evaluation data, and keep its weights where they are the best."""
        self.read()
        processes = self.processes
        meter = self.new_meter()
        size = self.options.eval_batch_size
        batches = self.loader.evaluation(size, processes.rank, processes.count, self.pace)
        skipped: list[str] = []
        error = ""
        try:
            with self.shown():
                batches = self.interrupt.watch(batches, lambda: processes.stopped)
                batches = noting(self.heart.beating(batches, "evaluating"), skipped)
                evaluate(self.network, batches, meter)
        except DataError as found:
            error = str(found)
        except Interrupted:
            processes.stop()
        self.set_training()
        self.agree(0, skipped, error)
        if self.stopping:
            raise Interrupted
        meter.parts = processes.dealt(meter.parts)
        if not meter.parts:
            count = len(self.loader.parts["eval"][0])
            raise none_read("data.eval", count, self.skipped.last)
        scores = meter.scores()
        self.thresholds = meter.thresholds()
        if not math.isfinite(scores["loss"]):
            raise self.diverged("loss of the evaluation", scores["loss"], [])
        if void := [name for name, score in scores.items() if not math.isfinite(score)]:
            raise DataError(
                f"data.eval: {void[0]} has no value, as no image that could be read has a label"
            )
        self.scores = scores
        self.evaluations.append(scores | {"step": self.step})
        self.write("eval", epoch=epoch, **scores)
        name = self.options.best
        if not self.best or goodness(scores, name) > goodness(self.best, name):
            self.best = scores | {"step": self.step}
            self.save(checkpoint.BEST)
        self.window.start_clock()

    # ------------------------------------------------------------------ what it says

    def plan(self) -> Remaining:
        """What is left to do from the step on that the run has come to."""
        options = self.options
        step = self.step
        total = self.options.total_steps
        evaluations = 0
        if "eval" in self.loader.parts:
            every = options.eval_every
            evaluations = -(-options.epochs // every) - step // options.epoch_steps // every
        saves = -(-total // options.save_every) - step // options.save_every
        return Remaining(total - step, evaluations, saves, options.eval_steps)

    def count(self, done: StepResult | None) -> None:
        """Take a step into what is said and recorded; None: there was no image to learn from."""
        self.window.add(done)
        self.epoch_window.add(done)
        if done:
            self.recent.append(done.loss)

    def note(self) -> str:
        """Beside the bar: the mean loss of the last few steps."""
        return f"loss {sum(self.recent) / len(self.recent):.4f}" if self.recent else ""

    def due_to_record(self) -> bool:
        """At the first step, too: curves begin where training does."""
        every = self.options.log_every
        return self.step % every == 0 or self.step in (1, self.options.total_steps)

    def record_train(self) -> None:
        """Write what the steps since the last such record came to."""
        self.write(
            "train",
            epoch=(self.step - 1) // self.options.epoch_steps + 1,
            lr=self.schedule(self.step - 1, self.evaluations),
            images_per_second=self.window.speed,
            **self.window.scores(self.options.watched),
        )
        self.window = TrainMeter()

    def write(self, event: str, **values: float) -> None:
        """Record what the run has come to at this step."""
        self.scalars.write(event, self.step, **values)
        self.listeners.record(event, self.step, values)

    def described(self) -> dict[str, Any]:
        """What callbacks are told before the first step."""
        return {
            "recipe": self.about.get("recipe", {}),
            "class_names": self.about.get("labels", []),
            "parameters": parameter_count(self.model),
            "folder": self.folder,
            "step": self.step,
            "epoch_steps": self.options.epoch_steps,
            "total_steps": self.options.total_steps,
        }

    def tell_epoch(self, epoch: int) -> None:
        """A line on an epoch that has ended: its scores, training loss, time and speed."""
        parts = []
        window = self.epoch_window
        if self.scores:
            best = " (best)" if self.best.get("step") == self.step else ""
            parts.append(f"{describe(self.scores)}{best}")
        if window.losses:
            loss = sum(window.losses) / len(window.losses)
            time = f"{duration(window.seconds)} at {three_digits(window.speed)} images/s"
            parts.append(f"training loss {loss:.4f}, {time}")
        left = self.outlook.left
        if left and self.step < self.options.total_steps:
            parts.append(f"{duration(left)} left")
        if parts:
            say(f"epoch {epoch}: {'; '.join(parts)}")

    def require_images(self, order: Sequence[np.ndarray]) -> None:
        """DataError after an epoch without a single image that could be read.

        It taught nothing, so the run is back where the epoch began.
        """
        if not self.epoch_window.images:
            samples = self.loader.parts["train"][0]
            count = len(np.unique(np.concatenate(order) % len(samples)))
            self.step -= self.options.epoch_steps
            raise none_read("data.train", count, self.skipped.last)

    def require_callbacks(self) -> None:
        """UserError, in all processes, for what a callback made of the run's end."""
        mistake = next(filter(None, self.processes.gather(self.listeners.mistake)), "")
        if mistake:
            latest = self.folder / checkpoint.LATEST
            where = f"step {self.step} of {self.options.total_steps}"
            raise UserError(f"{mistake}; the run had ended, at {where}: {latest}") from (
                self.listeners.cause
            )

    # ------------------------------------------------------------------ small parts

    def changing_statistics(self) -> list[Tensor]:
        """Statistics of batch norms that training changes: of each process's own images."""
        kept = {id(value) for layer in self.frozen for value in layer.state_dict().values()}
        found = []
        for layer in (self.model, self.objective.layers):
            learnt = {name for name, _ in layer.named_parameters()}
            state = layer.state_dict()
            found += [v for name, v in state.items() if name not in learnt and id(v) not in kept]
        return [*found, *(one.seen for one in self.ranges)]

    def shown(self) -> AbstractContextManager[None]:
        """While entered, the model has the weights that the run evaluates and hands on."""
        return self.average.shown() if self.average else nullcontext()

    def set_training(self) -> None:
        self.network.train()
        for layer in self.frozen:
            layer.eval()
        for one in self.ranges:  # of frozen layers, too
            one.train()

    def diverged(self, what: str, value: float, batches: Sequence[Batch]) -> UserError:
        """The error that ends a run before it saves anything that is no number."""
        where = self.loader.parts["train"][0].where
        own = [where(int(index)) for batch in batches for index in batch.indices]
        places = [place for part in self.processes.gather(own) for place in part]
        left = ""
        if self.processes.first:
            left = run_folder.keep_not_finite(self.folder, places, batches)
        rate = self.schedule(max(0, self.step - 1), self.evaluations)
        return UserError(
            f"the {what} became {value} after step {self.step}, at learning rate {rate:.3g}: "
            "lower train.schedule.lr or lengthen train.schedule.warmup; the last checkpoint stays"
            f"{left}"
        )

    def save(self, name: str) -> Path:
        """Begin to write a checkpoint; the first process does."""
        self.read()
        self.heart.beat(self.step, "saving")
        path = self.folder / name
        if not self.processes.first:
            return path
        optimizer = self.train_step.optimizer if name == checkpoint.LATEST else None
        beside = self.objective.layers
        state = checkpoint.state_of(self.model, optimizer, self.average, beside)
        record = Record(**self.about, **self.state_dict())
        self.writer.write(path, state, record, partial(self.saved, path, self.step))
        return path

    def saved(self, path: Path, step: int) -> None:
        """What follows a checkpoint that has been written."""
        run_folder.settle(self.folder)
        if path.name == checkpoint.LATEST and self.options.keep:
            checkpoint.keep(self.folder, step, self.options.keep)
        self.listeners.saved(path, step)

    def what_stays(self) -> str:
        """The words that say how to go on where nothing can be saved any more."""
        latest = self.folder / checkpoint.LATEST
        where = f"the run ended at step {self.step} of {self.options.total_steps}"
        earlier = (self.folder / run_folder.REPLACED).is_dir()  # the run that this one replaces
        if earlier or not latest.exists():
            return f"{where}, before its first checkpoint"
        return f"{where}; {latest} stays: the same command with --resume goes on from there"

    def save_rest(self) -> str:
        """Save what was trained since the last checkpoint; returns the words that say so."""
        if not self.step:
            return ""
        path = self.save(checkpoint.LATEST)
        self.writer.wait()
        return f"; saved {path}; to go on: the same command with --resume"


def none_read(key: str, count: int, example: str) -> DataError:
    """The error that ends a run which `data.on_error: skip` has left nothing of."""
    such = f", such as {example}" if example else ""
    return DataError(
        f"{key}: none of {plural(count, 'image')} could be read{such}; see tools/check_data.py"
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a process draws on the device in a step (dropout, drop path)."""
    parts = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

"""The training loop: a plain loop over steps, whose every number is a function of the step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import paddle

import ppcls
from ppcls import log
from ppcls.api import create_model
from ppcls.config.load import to_plain
from ppcls.data.loader import Batch, Part, Reader, train_order
from ppcls.errors import DataError, UserError
from ppcls.inputs import Inputs, eval_view, train_view
from ppcls.log import say
from ppcls.models.normalize import Normalize
from ppcls.recipe import Recipe
from ppcls.train import checkpoint, curves
from ppcls.train.evaluate import describe, evaluate
from ppcls.train.freeze import freeze
from ppcls.train.groups import groups
from ppcls.train.interrupt import Interrupt, Interrupted
from ppcls.train.precision import Precision
from ppcls.train.update import NotFinite, Update
from ppcls.train.window import Window


class Trainer:
    """One run. State: the step, scores so far, weights, optimizer, loss scale; nothing else."""

    def __init__(
        self, recipe: Recipe, inputs: Inputs, saved: Mapping[str, np.ndarray] | None = None
    ):
        """`saved`: a run's checkpoint to go on with, instead of the recipe's weights."""
        self.recipe, self.inputs, self.folder = recipe, inputs, recipe.folder
        train = recipe.train
        self.epoch_steps = len(self.order(0))
        check(recipe, inputs, self.epoch_steps)
        self.total_steps = self.epoch_steps * train.epochs
        paddle.seed(recipe.seed)
        model = recipe.model
        self.net = create_model(
            model.name,
            model.num_classes or 0,
            model.weights if saved is None else saved,
            in_channels=model.in_channels,
            new_head=model.new_head and saved is None,
            drop_path=model.drop_path,
            source="the checkpoint",
        )
        self.frozen = freeze(self.net, model.freeze)
        scale, offset = recipe.preprocess.scale, recipe.preprocess.offset
        self.network = Normalize.before(self.net, scale, offset)
        self.optimizer = train.optimizer.build(groups(self.net, train.decay_norms, train.lr_scale))
        self.average = train.ema.build(self.net) if train.ema else None
        self.precision = Precision(train.precision, train.amp_level)
        counts = inputs.train.counts(model.num_classes or 0).tolist()
        task = recipe.task.prepared(counts).build(self.precision.around(self.network))
        parameters = [p for p in self.net.parameters() if not p.stop_gradient]
        loss_scale = self.precision.scale
        self.update = Update(task, self.optimizer, parameters, train.clip_norm, loss_scale)
        parts: dict[str, Part] = {"train": (inputs.train, train_view(recipe))}
        if inputs.eval is not None:
            parts["eval"] = (inputs.eval, eval_view(recipe))
        self.reader = Reader(parts, recipe.data.workers)
        self.step, self.window = 0, Window()
        self.best: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self.evaluations: list[dict[str, float]] = []

    def take(self, record: checkpoint.Record) -> None:
        """Go on from what a checkpoint's record says; its tensors are restored apart."""
        self.step, self.best, self.scores = record.step, record.best, record.scores
        self.evaluations = record.evaluations
        if self.precision.scale and record.loss_scale:
            self.precision.scale.restore(record.loss_scale)

    # ------------------------------------------------------------------ the loop

    def run(self) -> bool:
        """Train to the end; False when a signal ended the run early, its state saved."""
        with Interrupt() as self.interrupt, log.Scalars(self.folder, self.step) as self.scalars:
            try:
                if self.step and not self.scores:  # cut before the evaluation at this step
                    self.do_what_is_due()
                while self.step < self.total_steps and not self.interrupt.asked:
                    self.run_epoch()
            except Interrupted:
                self.scores = {}
            except DataError as error:
                raise UserError(f"{error}{self.save_rest()}") from None
            finally:
                self.reader.close()
            done = self.step == self.total_steps and not self.interrupt.asked
            if not done:
                say(f"interrupted at step {self.step} of {self.total_steps}{self.save_rest()}")
        curves.draw(self.folder / "run.jsonl", self.folder / "curves.png")
        return done

    def run_epoch(self) -> None:
        """The rest of the epoch that the step is in, and what is due at its steps."""
        epoch, start = divmod(self.step, self.epoch_steps)
        order = self.order(epoch)
        name = f"epoch {epoch + 1}/{self.recipe.train.epochs}"
        progress = log.Progress(self.batches(order[start:], epoch), name, len(order), start)
        self.set_training()
        self.window.start_clock()
        for batches in progress:
            self.window.add(*self.advance(batches), batches)
            if self.step % self.recipe.train.log_every == 0 or self.step == self.total_steps:
                progress.note = f"loss {self.window.loss:.4f}"
                self.record_train()
            self.do_what_is_due()
            if self.interrupt.asked:
                return

    def advance(self, batches: Sequence[Batch]) -> tuple[float, np.ndarray]:
        """One optimizer step; returns its loss and logits."""
        self.optimizer.set_lr(self.rate(self.step))
        paddle.seed(step_seed(self.recipe.seed, self.step))
        try:
            loss, logits = self.update(batches)
        except NotFinite as error:
            raise self.diverged(error.what, error.value) from None
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return loss, logits

    def do_what_is_due(self) -> None:
        """Evaluate and save where the recipe says so, after the step just done."""
        train, done = self.recipe.train, self.step == self.total_steps
        self.scores = {}
        if self.inputs.eval is not None and self.step % self.epoch_steps == 0:
            epoch = self.step // self.epoch_steps
            if done or epoch % self.recipe.eval.every == 0:
                self.evaluate(epoch)
        span = max(1, train.save_every.steps(self.epoch_steps, self.total_steps))
        if done or self.step % span == 0:
            self.save(checkpoint.LATEST)

    def evaluate(self, epoch: int) -> None:
        batches = self.reader.evaluation(self.recipe.eval.batch_size)
        classes = self.recipe.model.num_classes or 0
        with self.shown():
            scores = evaluate(self.network, self.interrupt.watch(batches), classes)
        self.set_training()
        if not math.isfinite(scores["loss"]):
            raise self.diverged("loss of the evaluation", scores["loss"])
        self.scores = scores
        self.evaluations.append(scores | {"step": self.step})
        self.scalars.write("eval", self.step, epoch=epoch, **scores)
        better = scores["top1"] > self.best.get("top1", -1)
        say(f"epoch {epoch}: {describe(scores)}{' (best)' if better else ''}")
        if better:
            self.best = scores | {"step": self.step}
            self.save(checkpoint.BEST)
        self.window.start_clock()

    # ------------------------------------------------------------------ small parts

    def order(self, epoch: int) -> list[np.ndarray]:
        """The photos of each step of an epoch."""
        train, count = self.recipe.train, len(self.inputs.train)
        return train_order(count, train.photos_per_step, train.drop_last, self.recipe.seed, epoch)

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[list[Batch]]:
        """The photos of each step, in batches that fit into memory, the last one maybe smaller."""
        size = self.recipe.train.batch_size
        parts = [np.split(photos, range(size, len(photos), size)) for photos in order]
        batches = self.reader.batches("train", [part for step in parts for part in step], epoch)
        for step in parts:
            yield [next(batches) for _ in step]

    def shown(self) -> AbstractContextManager[None]:
        """While entered, the network has the weights that the run evaluates and hands on."""
        return self.average.shown() if self.average else nullcontext()

    def set_training(self) -> None:
        self.network.train()
        for layer in self.frozen:
            layer.eval()

    def rate(self, step: int) -> float:
        train, lengths = self.recipe.train, (self.epoch_steps, self.total_steps)
        return train.schedule(step, *lengths, train.photos_per_step, self.evaluations)

    def diverged(self, what: str, value: float) -> UserError:
        """The error that ends a run before it saves anything that is no number."""
        rate = self.rate(max(0, self.step - 1))
        return UserError(
            f"the {what} became {value} after step {self.step}, at learning rate {rate:.3g}: "
            "lower train.schedule.lr or lengthen train.schedule.warmup; the last checkpoint stays"
        )

    def record_train(self) -> None:
        """Write what the steps since the last such record came to."""
        self.scalars.write(
            "train",
            self.step,
            epoch=(self.step - 1) // self.epoch_steps + 1,
            loss=self.window.loss,
            top1=self.window.top1,
            lr=self.rate(self.step - 1),
            images_per_second=self.window.speed,
        )
        self.window = Window()

    def save(self, name: str) -> Path:
        record = checkpoint.Record(
            recipe=to_plain(self.recipe),
            labels=list(self.inputs.names),
            step=self.step,
            epoch_steps=self.epoch_steps,
            data=self.inputs.digests(),
            best=self.best,
            scores=self.scores,
            versions={"ppcls": ppcls.__version__, "paddle": paddle.__version__},
            evaluations=self.evaluations,
            loss_scale=self.precision.scale.state() if self.precision.scale else {},
        )
        optimizer = self.optimizer if name == checkpoint.LATEST else None
        with self.shown():
            trained = self.average.held if self.average else None
            checkpoint.save(self.folder / name, self.net, optimizer, record, trained)
        return self.folder / name

    def save_rest(self) -> str:
        """Save what was trained since the last checkpoint; returns the words that say so."""
        if not self.step:
            return ""
        path = self.save(checkpoint.LATEST)
        return f"; saved {path}; to go on: the same command with --resume"


def check(recipe: Recipe, inputs: Inputs, epoch_steps: int) -> None:
    """What a recipe and its data must agree on, before anything is built.

    Raises:
        UserError: there is nothing to train on, or nothing to evaluate that is needed.
    """
    count, train = len(inputs.train), recipe.train
    if not epoch_steps:
        parts = f" ({train.accumulate} batches of {train.batch_size})"
        raise UserError(
            f"data.train has {count} photos, fewer than one batch of {train.photos_per_step}"
            f"{parts if train.accumulate > 1 else ''}: "
            f"-o train.batch_size={max(1, count // train.accumulate)} or -o train.drop_last=false"
        )
    if train.schedule.decay.kind == "plateau" and inputs.eval is None:
        raise UserError(
            "train.schedule.decay: plateau needs scores and there is nothing to evaluate: "
            "-o data.eval=PATH or -o data.holdout=0.2"
        )


def step_seed(seed: int, step: int) -> int:
    """The seed of what a step draws on the device (dropout, drop path)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])

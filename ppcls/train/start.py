"""From a recipe to a running trainer: checks first, then the run's folder, then steps."""

import os
import shutil
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls.config.load import from_plain, to_plain, to_yaml
from ppcls.config.tree import differences
from ppcls.data import datasets
from ppcls.data.datasets import summary
from ppcls.data.loader import load_batch
from ppcls.data.transforms import in_words, sides
from ppcls.inputs import Inputs, open_inputs, train_view, with_preprocess
from ppcls.optim.parameters import only_head, trained_count
from ppcls.recipe import LENGTH, Recipe, may_change
from ppcls.train import checkpoint, run_folder
from ppcls.train.checkpoint import BEST, LATEST, Record
from ppcls.train.distributed import Processes, join
from ppcls.train.record import take
from ppcls.train.trainer import Trainer
from ppcls.utils import environment
from ppcls.utils.device import select
from ppcls.utils.errors import UserError
from ppcls.utils.files import remove, write_text
from ppcls.utils.log import be_quiet, say
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import plural
from ppcls.weights import files, store


def train(
    recipe: Recipe, resume: bool = False, overwrite: bool = False, limit: int | None = None
) -> bool:
    """Train as the recipe says; False when a signal ended the run before its last step.

    Args:
        resume: go on from the run's `latest.safetensors`.
        overwrite: start anew although the run's folder holds an earlier run.
        limit: end after so many steps of the first epoch, with as many batches of evaluation.

    Raises:
        UserError: anything the user can mend.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite starts anew: give one of them")
    refuse_among_photos(recipe)
    device = select(recipe.device)
    processes = join(device)
    if not processes.first:
        be_quiet()
    # Until there are steps to save, a signal ends the run, and what it put aside comes back.
    alone = run_folder.alone(recipe.folder, processes)
    with signals_interrupt(), processes.joined(), alone:
        return run(recipe, resume, overwrite, limit, device, processes)


def run(
    recipe: Recipe,
    resume: bool,
    overwrite: bool,
    limit: int | None,
    device: str,
    processes: Processes,
) -> bool:
    """As `train`, in a folder that no other run writes to."""
    folder = recipe.folder
    latest = folder / LATEST
    if run_folder.has_run(folder) and not (resume or overwrite):
        raise UserError(
            f"{folder} already holds a run: --resume goes on with it, --overwrite starts anew, "
            f"{run_folder.ELSEWHERE}"
        )
    if resume and not latest.exists():
        raise UserError(f"{latest} does not exist: there is no run to resume in {folder}")
    saved = files.read(latest) if resume else None
    record = checkpoint.read_record(latest, saved.metadata) if saved else None
    if record:  # what the recipe leaves open is what it was
        recipe = with_preprocess(recipe, record.recipe.get("preprocess", {}))
    recipe, inputs = first_alone(processes, recipe, record)
    if limit and inputs.eval is not None:
        count = min(len(inputs.eval), limit * recipe.eval.batch_size * processes.count)
        inputs = replace(inputs, eval=inputs.eval.subset(range(count)))
    changes = check_same(recipe, record, inputs, processes.count, latest) if record else {}
    trainer = Trainer(recipe, inputs, saved.tensors if saved else None, processes, limit)
    if saved and record:
        take(trainer, record)
        held, beside = trainer.average, trainer.lesson.layers
        checkpoint.restore(latest, saved, trainer.net, trainer.optimizer, held, beside)
        check_length(trainer, record)
    check_ops(recipe, inputs)
    processes.gather(None)  # none begins to write while another looks at what is there
    if processes.first:
        prepare(folder, trainer, keep=resume)
    say(*summary(inputs.train))
    say(*header(trainer, device))
    for line in differently(trainer, changes):
        say(line)
    done = trainer.run()
    if done:
        say(f"finished: {folder / (BEST if trainer.best else LATEST)}, {folder / 'curves.png'}")
    return done


def refuse_among_photos(recipe: Recipe) -> None:
    """UserError for a run's folder among the photos, where its files would be taken for some."""
    data = recipe.data
    parts = {
        "data.train": (data.train, datasets.TRAIN_PARTS),
        "data.eval": (data.eval or data.train, datasets.EVAL_PARTS),
    }
    for key, (path, names) in parts.items():
        part = path and (datasets.part_of(path, names) or (path if getattr(data, key[5:]) else ""))
        if part and os.path.isdir(part) and is_within(recipe.folder, part):
            raise UserError(
                f"output: {recipe.folder} lies among the photos of {key}, {part}, where a run's "
                "files would be taken for some: -o output=FOLDER elsewhere"
            )


def is_within(folder: Path, other: str) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(other))


def first_alone(
    processes: Processes, recipe: Recipe, record: Record | None
) -> tuple[Recipe, Inputs]:
    """Open the data; what has to be written or downloaded for it, the first process does alone.

    Classes are numbered as in the run that goes on, or in the weights that training starts from.
    A run that goes on needs no weights to start from.
    """
    networks = (*(() if record else [recipe.model]), *getattr(recipe.task, "teacher", ()))
    for turn in (True, False):
        if processes.first == turn:
            names = tuple(record.labels) if record else names_of_weights(recipe)
            whose = str(recipe.model.weights if record is None else recipe.folder / LATEST)
            found = open_inputs(recipe, names, whose)
            for network in networks:
                weights = getattr(network, "weights", None)
                if weights:
                    store.find(network.name, weights)
        processes.gather(None)
    return found


def names_of_weights(recipe: Recipe) -> tuple[str, ...]:
    """The classes whose weights training starts from, () where they are not known or let go."""
    model = recipe.model
    if not model.weights or model.new_head:
        return ()
    source = store.find(model.name, model.weights)
    metadata = files.metadata_of(source.path)
    if checkpoint.RECORD not in metadata:
        return ()
    return tuple(checkpoint.read_record(source.path, metadata).labels)


def header(trainer: Trainer, device: str) -> list[str]:
    """What is about to run, in one block of lines."""
    recipe = trainer.recipe
    train, model = recipe.train, recipe.model
    photos = trainer.feed.photos_per_step
    trained = trained_count(trainer.net)
    size = f"{trainer.parameters / 1e6:.2f} M parameters"
    if trained < trainer.parameters:
        size += f", {trained / 1e6:.{2 if trained > 1e5 else 4}f} M trained"
    where = device if device == "gpu" else f"cpu ({plural(environment.threads(), 'thread')})"
    count = trainer.processes.count
    where += f", {plural(count, 'process')}" if count > 1 else ""
    batches = photos // train.batch_size
    parts = f" ({batches} batches)" if batches > 1 else ""
    lines = [
        f"{model.name}: {size}, {plural(model.num_classes or 0, 'class')}, "
        f"{in_words(recipe.train_size)} px, on {where}",
        f"{plural(train.epochs, 'epoch')} of {plural(trainer.epoch_steps, 'step')} of "
        f"{plural(photos, 'photo')}{parts}, "
        f"writing to {recipe.folder}",
    ]
    if recipe.data.unlabeled and trainer.inputs.unlabeled is not None:
        more, (known, unknown) = trainer.inputs.unlabeled, recipe.data.unlabeled.split(photos)
        lines.append(
            f"{more.source}: {plural(len(more), 'photo')} without labels; a step shows "
            f"{known} with and "
            f"{unknown} without"
        )
    lines += trainer.lesson.about()
    published = train.schedule.for_batch
    if published and published != photos:
        lr = train.schedule.lr
        lines.append(
            f"learning rate {lr:g} was chosen for a batch of {published}: "
            f"{lr * train.schedule.scale(photos):g} for {photos}, in proportion"
        )
    if model.freeze and only_head(trainer.net):
        lines.append(
            "note: model.freeze leaves only the classifier (head.*) to train; to train more, a "
            "share of the network: -o model.freeze=50%"
        )
    if train.without:
        lines.append(
            f"note: the published recipe also has {', '.join(train.without)}: not here yet"
        )
    if trainer.precision.note():
        lines.append(trainer.precision.note())
    if trainer.step:
        lines.append(f"resuming after step {trainer.step} of {trainer.total_steps}")
    return lines


def check_ops(recipe: Recipe, inputs: Inputs) -> None:
    """The training ops must fit together at every size: seen on the first photo."""
    view = train_view(recipe)
    for size in sides(recipe.train_size):
        load_batch((inputs.train, replace(view, size=size)), np.zeros(1, np.int64), 0)


def check_same(
    recipe: Recipe, record: checkpoint.Record, inputs: Inputs, processes: int, path: Path
) -> dict[str, str]:
    """The run that goes on must be the run that was saved; returns what else has changed.

    Photos, class names and teachers are compared by what they are, not by where they lie.
    """
    # Read as a recipe, the record of an older version has the defaults of keys it did not know.
    old = from_plain(Recipe, record.recipe, str(path))
    changed = differences(to_plain(old), to_plain(recipe))
    found = differences(without_places(to_plain(old)), without_places(to_plain(recipe)))
    found = {key: change for key, change in found.items() if not may_change(key)}
    found |= differences(record.data, inputs.digests(), ("data",))
    found |= differences(record.processes, processes, ("processes",))
    found |= differences(record.labels, list(inputs.names), ("class names",))
    if found:
        lines = "; ".join(f"{key}: {change}" for key, change in found.items())
        raise UserError(
            f"{path} was made otherwise ({lines}): resume with the old values, "
            f"or {anew(path, found.keys())}"
        )
    return changed


def anew(path: Path, changed: Set[str]) -> str:
    """How to start a new run from a checkpoint, or without it where it cannot fit."""
    if changed & {"model.name", "model.in_channels"}:
        return "start a new run with -o output=FOLDER"
    weights = f"start a new run from its weights with -o model.weights={path} output=FOLDER"
    if changed & {"model.num_classes", "class names"}:
        return f"{weights} model.new_head=true"
    return weights


def without_places(plain: dict[str, Any]) -> dict[str, Any]:
    """A plain recipe that does not say where its teachers lie."""
    task = plain["task"]
    places = dict.fromkeys(("weights", "cache", "folder"))
    teachers = [{**teacher, **places} for teacher in task.get("teacher", ())]
    return {**plain, "task": {**task, "teacher": teachers}}


def check_length(trainer: Trainer, record: checkpoint.Record) -> None:
    """A run cannot go on to an end that it has passed."""
    epochs, before = trainer.recipe.train.epochs, record.recipe["train"]["epochs"]
    if trainer.step > trainer.total_steps:
        done = trainer.step / trainer.epoch_steps
        raise UserError(
            f"train.epochs: the run has done {done:g} of {before} epochs, so it cannot end after "
            f"{epochs}: -o train.epochs={before} or more goes on, --overwrite starts anew"
        )


def differently(trainer: Trainer, changes: Mapping[str, str]) -> list[str]:
    """A line on what a resumed run does otherwise than before, and one on its new schedule."""
    lines = []
    others = {key: change for key, change in changes.items() if key not in (LENGTH, "output")}
    if others:
        text = "; ".join(f"{key}: {change}" for key, change in others.items())
        lines.append(f"note: resumed with other values ({text}), which the run's numbers allow")
    if LENGTH in changes:
        epochs, step = trainer.recipe.train.epochs, trainer.step
        left = trainer.total_steps - step
        rate = f", now at learning rate {trainer.rate(step):.3g}" if left else ""
        lines.append(
            f"note: {LENGTH}: {changes[LENGTH]}: the run goes on from step {step} with the "
            f"schedule of {plural(epochs, 'epoch')}{rate}"
        )
    return lines


def prepare(folder: Path, trainer: Trainer, keep: bool) -> None:
    """The run's folder, where an earlier run makes way for it unless it goes on."""
    with run_folder.writing_to(folder):
        for path in folder.glob(".*.tmp"):  # of a save that was cut short
            remove(path)
        free = shutil.disk_usage(folder).free
    needed = least_bytes(trainer)
    if free < needed:
        raise UserError(
            f"output: {folder} has room for {free / 1e6:,.1f} MB and checkpoints take "
            f"{needed / 1e6:,.1f} MB at least: make room, or -o output=FOLDER"
        )
    with run_folder.writing_to(folder):
        if not keep:
            run_folder.make_way(folder)
        write_text(folder / run_folder.RECIPE, to_yaml(trainer.recipe))


def least_bytes(trainer: Trainer) -> int:
    """What the first checkpoints take on the disk, the best one too where there is one."""
    tensors = trainer.net.state_dict().values()
    weights = sum(tensor.size * tensor.element_size() for tensor in tensors)
    slots = sum(4 * p.size for p in trainer.net.parameters() if not p.stop_gradient)
    if isinstance(trainer.optimizer, paddle.optimizer.SGD):
        slots = 0
    return weights + slots + (0 if trainer.inputs.eval is None else weights)

"""From a recipe to a running trainer: checks first, then the run's folder, then steps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ppcls import environment
from ppcls.config.load import from_plain, to_plain, to_yaml
from ppcls.config.tree import differences
from ppcls.data.datasets import summary
from ppcls.data.loader import load_batch
from ppcls.data.sizes import in_words, sides
from ppcls.device import select
from ppcls.errors import UserError
from ppcls.inputs import Inputs, note_preprocess, open_inputs, train_view
from ppcls.log import be_quiet, say
from ppcls.recipe import HARMLESS, Recipe
from ppcls.train import checkpoint, skipped
from ppcls.train.checkpoint import BEST, LATEST, Record
from ppcls.train.processes import Processes, join
from ppcls.train.record import take
from ppcls.train.trainer import Trainer
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
    device = select(recipe.device)
    processes = join(device)
    if not processes.first:
        be_quiet()
    folder = recipe.folder
    latest = folder / LATEST
    if any((folder / name).exists() for name in (LATEST, BEST)) and not (resume or overwrite):
        raise UserError(
            f"{folder} already holds a run: --resume goes on with it, --overwrite starts anew, "
            "-o output=FOLDER writes elsewhere"
        )
    if resume and not latest.exists():
        raise UserError(f"{latest} does not exist: there is no run to resume in {folder}")
    saved = files.read(latest) if resume else None
    record = checkpoint.read_record(latest, saved) if saved else None
    recipe, inputs = first_alone(processes, recipe, record)
    if limit and inputs.eval is not None:
        count = min(len(inputs.eval), limit * recipe.eval.batch_size * processes.count)
        inputs = replace(inputs, eval=inputs.eval.subset(range(count)))
    if record:
        check_same(recipe, record, inputs, processes.count, latest)
    trainer = Trainer(recipe, inputs, saved.tensors if saved else None, processes, limit)
    if saved and record:
        take(trainer, record)
        held, beside = trainer.average, trainer.lesson.layers
        checkpoint.restore(latest, saved, trainer.net, trainer.optimizer, held, beside)
    check_ops(recipe, inputs)
    processes.gather(None)  # none begins to write while another looks at what is there
    if processes.first:
        make_folder(folder, keep=resume)
        (folder / "recipe.yml").write_text(to_yaml(recipe), encoding="utf-8")
    say("\n".join(summary(inputs.train)))
    say(header(trainer, device))
    if recipe.model.weights and not resume:
        source = store.find(recipe.model.name, recipe.model.weights)
        note_preprocess(recipe, source.preprocess, source.path)
    done = trainer.run()
    if done:
        say(f"finished: {folder / (BEST if trainer.best else LATEST)}, {folder / 'curves.png'}")
    return done


def first_alone(
    processes: Processes, recipe: Recipe, record: Record | None
) -> tuple[Recipe, Inputs]:
    """Open the data; what has to be written or downloaded for it, the first process does alone.

    Classes are numbered as in the run that goes on, or in the weights that training starts from.
    """
    for turn in (True, False):
        if processes.first == turn:
            names = tuple(record.labels) if record else names_of_weights(recipe)
            whose = str(recipe.model.weights if record is None else recipe.folder / LATEST)
            found = open_inputs(recipe, names, whose)
            for network in (recipe.model, *getattr(recipe.task, "teacher", ())):
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
    metadata = files.read(source.path).metadata
    return (
        tuple(json.loads(metadata[checkpoint.RECORD])["labels"])
        if (checkpoint.RECORD in metadata)
        else ()
    )


def header(trainer: Trainer, device: str) -> str:
    """What is about to run, in one block of lines."""
    recipe = trainer.recipe
    train, model = recipe.train, recipe.model
    photos = trainer.feed.photos_per_step
    size = sum(p.size for p in trainer.net.parameters() if not p.stop_gradient)
    where = device if device == "gpu" else f"cpu ({environment.threads()} threads)"
    count = trainer.processes.count
    where += f", {count} processes" if count > 1 else ""
    batches = photos // train.batch_size
    parts = f" ({batches} batches)" if batches > 1 else ""
    lines = [
        f"{model.name}: {size / 1e6:.2f} M parameters, {model.num_classes} classes, "
        f"{in_words(recipe.train_size)} px, on {where}",
        f"{train.epochs} epochs of {trainer.epoch_steps} steps of {photos} photos{parts}, "
        f"writing to {recipe.folder}",
    ]
    if recipe.data.unlabeled and trainer.inputs.unlabeled is not None:
        more, (known, unknown) = trainer.inputs.unlabeled, recipe.data.unlabeled.split(photos)
        lines.append(
            f"{more.source}: {len(more):,} photos without labels; a step shows {known} with and "
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
    if train.without:
        lines.append(
            f"note: the published recipe also has {', '.join(train.without)}: not here yet"
        )
    if trainer.precision.note():
        lines.append(trainer.precision.note())
    if trainer.step:
        lines.append(f"resuming after step {trainer.step} of {trainer.total_steps}")
    return "\n".join(lines)


def check_ops(recipe: Recipe, inputs: Inputs) -> None:
    """The training ops must fit together at every size: seen on the first photo."""
    view = train_view(recipe)
    for size in sides(recipe.train_size):
        load_batch((inputs.train, replace(view, size=size)), np.zeros(1, np.int64), 0)


def check_same(
    recipe: Recipe, record: checkpoint.Record, inputs: Inputs, processes: int, path: Path
) -> None:
    """The run that goes on must be the run that was saved."""
    # Read as a recipe, the record of an older version has the defaults of keys it did not know.
    old = from_plain(Recipe, record.recipe, str(path))
    found = differences(to_plain(old), to_plain(recipe))
    found = {key: change for key, change in found.items() if key not in HARMLESS}
    found |= differences(record.data, inputs.digests(), ("data",))
    found |= differences(record.processes, processes, ("processes",))
    found |= differences(record.labels, list(inputs.names), ("class names",))
    if found:
        lines = "; ".join(f"{key}: {change}" for key, change in found.items())
        raise UserError(
            f"{path} was made otherwise ({lines}): resume with the old values, "
            f"or start a new run from its weights with -o model.weights={path} output=FOLDER"
        )


def make_folder(folder: Path, keep: bool) -> None:
    """Create the run's folder, without what an earlier run left unless it goes on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
        own = ("run.jsonl", LATEST, BEST, "curves.png", skipped.FILE, "step-*.safetensors")
        for pattern in (*(() if keep else own), ".*.tmp"):  # the last: of a save that was cut short
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise UserError(
            f"output: {folder} cannot be written ({error.strerror}): -o output=FOLDER"
        ) from None

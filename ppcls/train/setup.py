"""A recipe's data: which photos are learnt from, which are scored, what the classes are called."""

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from pydantic import ValidationError

from ppcls.api import create_model
from ppcls.config.load import from_plain, load, to_plain, to_yaml
from ppcls.config.tree import differences
from ppcls.data import builtin, datasets
from ppcls.data.class_names import read_class_names, renamed, same_names
from ppcls.data.datasets import Samples, one_class, split, summary
from ppcls.data.loader import EvalView, TrainView, load_batch
from ppcls.data.preprocess import KEYS, Preprocess
from ppcls.data.shards import is_shards, is_web, open_shards
from ppcls.data.transforms import in_words, sides
from ppcls.data.unlabeled import Joined, open_unlabeled
from ppcls.export import export
from ppcls.models.recompute import recompute_blocks
from ppcls.optim.parameters import HEAD, only_head, random_ones, trained_count
from ppcls.recipe import LENGTH, Data, Model, Recipe, may_change
from ppcls.train import checkpoint, run_folder
from ppcls.train.checkpoint import BEST, LATEST, RECORD, Record, read_record
from ppcls.train.distributed import Processes, join
from ppcls.train.record import take
from ppcls.train.trainer import Trainer
from ppcls.utils import environment
from ppcls.utils.device import select
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing, remove, write_text
from ppcls.utils.log import be_quiet, say
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import plural
from ppcls.weights import download, files, store

LAYOUT = (
    "a folder with one sub-folder of photos per class, a list file of 'path label' lines or tar "
    "shards; "
    "point elsewhere with -o data.train=PATH data.eval=PATH"
)


@dataclass(frozen=True)
class Datasets:
    """The opened data of a run; `names` are the class names, () when unknown."""

    train: Samples
    eval: Samples | None
    names: tuple[str, ...]
    unlabeled: Samples | None = None

    @property
    def shown(self) -> Samples | Joined:
        """All photos that training shows."""
        return self.train if self.unlabeled is None else Joined(self.train, self.unlabeled)

    def digests(self) -> dict[str, str]:
        """What a resumed run must find again: how many photos, and which."""
        parts = {"train": self.train, "eval": self.eval, "unlabeled": self.unlabeled}
        return {k: f"{len(v)} photos ({v.digest()})" for k, v in parts.items() if v is not None}


def open_inputs(
    recipe: Recipe, names: Sequence[str] = (), whose: str = ""
) -> tuple[Recipe, Datasets]:
    """Open and check the data.

    Returns the recipe, too, with its number of classes and its preprocessing filled in.

    Args:
        names: the classes of the file `whose` that training starts from: where the data has the
            same, they are numbered so.

    Raises:
        UserError: data that is missing, malformed, or at odds with `model.num_classes`.
    """
    recipe, inputs = open_listed(recipe, names, whose)
    require_photos("data.train", inputs.train)
    if inputs.eval is not None:
        require_photos("data.eval" if recipe.data.eval else "data.train", inputs.eval)
    if recipe.data.unlabeled:
        inputs = replace(inputs, unlabeled=open_unlabeled(recipe.data.unlabeled.photos))
    return recipe, inputs


def open_listed(
    recipe: Recipe, names: Sequence[str] = (), whose: str = ""
) -> tuple[Recipe, Datasets]:
    """As `open_inputs`, but without a look whether the photos exist."""
    recipe = with_preprocess(recipe)
    data = located(recipe.data)
    several = recipe.task.several
    train, evaluation = open_part("data.train", data.train, data, several), None
    counted = tuple(map(str, range(len(names))))  # what classes without names are called
    if names and same_names(names, train.names or counted):
        train = datasets.numbered_as(train, names, None, whose)
    if not recipe.model.num_classes:
        datasets.require_numbers(train)
    datasets.note_numbers(train, counted=not recipe.model.num_classes)
    count = recipe.model.num_classes or train.classes
    if data.eval:
        evaluation = open_part("data.eval", data.eval, data, several)
        alone = datasets.one_class(train)
        others = evaluation.names != train.names or evaluation.classes > train.classes
        if alone and others:
            raise UserError(f"data.train: {alone}")
        evaluation = datasets.numbered_as(evaluation, train.names, count, train.source)
    elif data.holdout:
        train, evaluation = hold_out(train, data.holdout, recipe.seed)
    if data.labeled < 1:
        train = split(train, data.labeled, recipe.seed, whole=True)[1]
    datasets.check(train, count, "data.train")
    if evaluation is not None:
        datasets.check(evaluation, count, "data.eval")
    recipe = replace(recipe, model=replace(recipe.model, num_classes=count))
    return recipe, Datasets(train, evaluation, train.names)


def open_eval(
    recipe: Recipe, classes: int, names: Sequence[str] | None = None, whose: str = ""
) -> Samples:
    """The evaluation photos alone, as `open_inputs` chooses them, for a network of `classes`.

    Args:
        names: the network's own, () where it has only numbers: so the samples are numbered.
        whose: the network's file.
    """
    data = located(recipe.data)
    held = bool(data.holdout and not data.eval)
    key = "data.train" if held else "data.eval"
    samples = open_part(key, data.train if held else data.eval, data, recipe.task.several)
    if names is not None:
        samples = datasets.numbered_as(samples, names, classes, whose)
    if held:  # which photos these are depends on the numbers of the classes
        samples = hold_out(samples, data.holdout, recipe.seed)[1]
    require_photos("data.eval" if data.eval else "data.train", samples)
    datasets.check(samples, classes, "data.eval")
    return samples


def hold_out(train: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    rest, held = split(train, share, seed)
    if not len(held):
        raise UserError(
            f"data.holdout: {train.source} has too few photos to keep any for evaluation; "
            "-o data.holdout=0 trains without"
        )
    return rest, held


def located(data: Data) -> Data:
    """The data with a built-in set written out, and each part named by its own folder."""
    if not data.builtin:
        parts = datasets.find_parts(data.train, data.eval, data.holdout > 0)
        return replace(data, train=parts[0], eval=parts[1])
    folder = Path("data") / data.builtin
    if not folder.exists():
        say(f"writing {folder}", *builtin.describe(data.builtin).split("\n"))
    builtin.write(data.builtin, folder)
    return replace(data, builtin=None, train=str(folder / "train"), eval=str(folder / "eval"))


def open_part(key: str, path: str | None, data: Data, several: bool) -> Samples:
    if not path:
        raise UserError(f"{key} is not given: {LAYOUT}")
    if is_shards(path):
        return open_shards(path, class_names(data.labels), several, fetched, data.number_labels)
    if not os.path.exists(existing(path)) and not path.endswith(".parquet"):
        raise UserError(
            f"{key}: {path} does not exist (looked in {os.getcwd()}); expected {LAYOUT}"
        )
    return datasets.open_samples(path, data.root, data.labels, several, data.number_labels)


def require_photos(key: str, samples: Samples) -> None:
    lost = datasets.missing(samples)
    if lost:
        raise UserError(f"{key}: photos that do not exist: {'; '.join(lost)}")


def fetched(file: str) -> str:
    """The file, or where an address's file is kept: in `shards` of ppcls's folder."""
    if not is_web(file):
        return file
    place = download.place(file).relative_to(download.folder())
    return str(download.fetch(file, to=environment.home() / "shards" / place))


def class_names(labels: str | None) -> tuple[str, ...]:
    """The class names of a recipe's `data.labels`, () for None."""
    return read_class_names(labels) if labels else ()


def with_preprocess(
    recipe: Recipe, trained_with: Mapping[str, Any] | None = None, source: object = None
) -> Recipe:
    """The recipe with what it does not state of its preprocessing as its weights say.

    Both what is taken and what the recipe has otherwise is said once.

    Args:
        trained_with: what the weights were trained with; None: what `model.weights` says.
        source: names them in messages; None: nothing is said.

    Raises:
        UserError: what comes of both does not fit together.
    """
    model = recipe.model
    if trained_with is None:
        if not model.weights:
            return recipe
        trained_with, source = store.trained_with(model.name, model.weights), model.weights
    own, stated = to_plain(recipe.preprocess), recipe.preprocess.stated
    told = {key: value for key, value in trained_with.items() if key in KEYS}
    taken = {key: value for key, value in told.items() if key not in stated}
    full = filled(recipe, {**own, **taken}, source or "the weights")
    if not told:
        return recipe  # whose values have been found to fit
    if source:
        new = {key for key in taken if own[key] != taken[key]}
        if new:
            say(f"preprocess as {source} was trained with: {listed(told, new)}")
        note_other(source, told, own, stated)
    return full


def filled(recipe: Recipe, values: Mapping[str, Any], source: object) -> Recipe:
    """The recipe with this preprocessing, which has it all; UserError where it does not fit."""
    try:
        return replace(recipe, preprocess=Preprocess(**values))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise UserError(f"preprocess, filled up from {source}: {place}{problem}") from None


def note_other(
    source: object, told: Mapping[str, Any], own: Mapping[str, Any], stated: Collection[str]
) -> None:
    """Say what is stated otherwise than weights were trained with."""
    other = {key for key in told if key in stated and own[key] != told[key]}
    if other:
        note = f"{source} was trained with {listed(told, other)}"
        say(f"note: {note}; the recipe has {listed(own, other)}")


def listed(values: Mapping[str, Any], keys: Collection[str]) -> str:
    """As `resize 256, crop 224, mean 0.498 0.498 0.498`."""

    def text(value: Any) -> str:
        several = isinstance(value, list)
        return " ".join(f"{number:.4g}" for number in value) if several else str(value)

    return ", ".join(f"{key} {text(values[key])}" for key in KEYS if key in keys)


def train_view(recipe: Recipe) -> TrainView:
    train, model = recipe.train, recipe.model
    return TrainView(
        train.ops,
        recipe.train_size,
        model.in_channels,
        recipe.seed,
        train.batch_ops,
        model.num_classes or 0,
        recipe.data.on_error == "skip",
    )


def eval_view(recipe: Recipe) -> EvalView:
    return EvalView(recipe.preprocess, recipe.data.on_error == "skip")


# --------------------------------------------------------------------------
# The network as a recipe trains it


def build_model(recipe: Recipe, saved: Mapping[str, np.ndarray] | None) -> nn.Layer:
    """The recipe's network with its weights, or with those of a checkpoint, `saved`.

    Raises:
        UserError: weights that cannot be read or do not fit.
    """
    model = recipe.model
    net = create_model(
        model.name,
        model.num_classes or 0,
        model.weights if saved is None else saved,
        in_channels=model.in_channels,
        new_head=model.new_head and saved is None,
        drop_path=model.drop_path,
        source="the checkpoint",
    )
    if recipe.train.sync_norms:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if recipe.train.recompute:  # after the norms are what they are to be
        recompute_blocks(net)
    return net


# --------------------------------------------------------------------------
# What a recipe, its data and the device must agree on before a run


def check_fit(recipe: Recipe, inputs: Datasets, photos_per_step: int, epoch_steps: int) -> None:
    """What a recipe, its data and the device must agree on, before anything is built.

    Raises:
        UserError: there is nothing to train on, or nothing to evaluate that is needed, or no GPU.
    """
    count, train = len(inputs.shown), recipe.train
    alone = one_class(inputs.train)
    if alone and getattr(recipe.task, "labels_weight", 1):  # else a teacher says what they show
        raise UserError(f"data.train: {alone}")
    if not epoch_steps:
        batches = photos_per_step // train.batch_size
        parts = f" ({batches} batches of {train.batch_size})"
        if inputs.unlabeled is not None:
            raise UserError(
                f"data.train and data.unlabeled have {plural(count, 'photo')} together, "
                "fewer than one step "
                f"of {photos_per_step}: -o train.batch_size={max(2, count // batches)}"
            )
        raise UserError(
            f"data.train has {plural(count, 'photo')}, fewer than one batch of {photos_per_step}"
            f"{parts if batches > 1 else ''}: "
            f"-o train.batch_size={max(1, count // batches)} or -o train.drop_last=false"
        )
    classes = recipe.model.num_classes or 0
    for key, asked in asked_scores(recipe).items():
        if inputs.eval is None:
            raise UserError(
                f"{key} needs scores and there is nothing to evaluate: "
                "-o data.eval=PATH or -o data.holdout=0.2"
            )
        if asked not in recipe.task.scored(classes):
            known = ", ".join(recipe.task.scored(classes))
            raise UserError(
                f"{key}: {asked} is not scored in {recipe.task.kind} of {classes} classes: "
                f"{known} are"
            )
    if train.sync_norms and not paddle.get_device().startswith("gpu"):
        raise UserError(
            "train.sync_norms: Paddle synchronises batch norms on GPUs only and this run is on "
            f"{paddle.get_device()}: -o train.sync_norms=false"
        )


def check_freeze(model: Model, net: nn.Layer) -> None:
    """What a new run's network leaves as it is must have learnt something before.

    Raises:
        UserError: it is random. Constants may stay: norms without a scale and shift of their own.
    """
    frozen = random_ones(net) if model.freeze else []
    if frozen and not model.weights:
        raise UserError(
            f"model.freeze would keep random weights ({frozen[0]} and so on), as model.weights "
            "is not given: give model.weights, or -o model.freeze=[]"
        )
    if model.new_head and any(name.startswith(HEAD) for name in frozen):
        raise UserError(
            "model.freeze would keep the classifier that model.new_head starts afresh, which is "
            "random: leave head.* out of model.freeze, or -o model.new_head=false"
        )


def asked_scores(recipe: Recipe) -> dict[str, str]:
    """The scores that a recipe decides by, under the keys that ask for them."""
    train, asked = recipe.train, {}
    if recipe.eval.best:
        asked["eval.best"] = recipe.eval.best
    if train.early_stop:
        asked["train.early_stop.score"] = train.early_stop.score or recipe.best
    if train.schedule.decay.kind == "plateau":
        asked["train.schedule.decay.score"] = train.schedule.decay.score or recipe.best
    return asked


# --------------------------------------------------------------------------
# From a recipe to a running trainer: checks first, then the run's folder, then steps


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
) -> tuple[Recipe, Datasets]:
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


def check_ops(recipe: Recipe, inputs: Datasets) -> None:
    """The training ops must fit together at every size: seen on the first photo."""
    view = train_view(recipe)
    for size in sides(recipe.train_size):
        load_batch((inputs.train, replace(view, size=size)), np.zeros(1, np.int64), 0)


def check_same(
    recipe: Recipe, record: checkpoint.Record, inputs: Datasets, processes: int, path: Path
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


# --------------------------------------------------------------------------
# A trained network with what belongs to it, found from a config, a checkpoint, or both

IMAGENET_CLASSES = 1000  # what released weights have where nothing says otherwise


@dataclass(frozen=True)
class Trained:
    """A network with weights; `names` are its class names, () when unknown."""

    recipe: Recipe
    net: nn.Layer
    names: tuple[str, ...]
    source: Path  # the file its weights come from
    scores: dict[str, float]  # of the checkpoint's last evaluation, {} when unknown
    thresholds: tuple[float, ...] = ()  # of the classes in multilabel, () when unknown

    @property
    def classes(self) -> int:
        return self.recipe.model.num_classes or IMAGENET_CLASSES


def open_trained(config: str | None, overrides: Sequence[str], weights: str | None) -> Trained:
    """The network of a config with the weights given, or else of its run.

    Without a config, the recipe inside the checkpoint `weights` is used.

    Raises:
        UserError: nothing says which weights, or they do not fit.
    """
    if not config and not weights:
        raise UserError("say what to open: -c CONFIG of a finished run, or --weights CHECKPOINT")
    recipe = load(Recipe, config, overrides) if config else None
    source = find_weights(recipe, weights)
    checkpoint = files.read(source.path)
    record = (
        read_record(source.path, checkpoint.metadata) if RECORD in checkpoint.metadata else None
    )
    if not recipe:
        if not record:
            raise UserError(f"{source.path}: holds no recipe; say which network with -c CONFIG")
        recipe = from_plain(Recipe, record.recipe, str(source.path), overrides)
    select(recipe.device)
    if record:
        recipe = with_record(recipe, record, overrides)
    elif source.preprocess:
        recipe = with_preprocess(recipe, source.preprocess, source.path)
    for note in filter(None, (source.about, *checkpoint.notes)):
        say(note)
    model, classes = recipe.model, recipe.model.num_classes or IMAGENET_CLASSES
    net = create_model(
        model.name, classes, checkpoint.tensors, in_channels=model.in_channels, source=source.path
    )
    net.eval()
    names = names_of(recipe, record, source)
    if names and len(names) != classes:
        raise UserError(
            f"there are {plural(len(names), 'class name')} and the network has "
            f"{plural(classes, 'class')}: "
            "give the names of these classes with -o data.labels=FILE"
        )
    scores, thresholds = (record.scores, record.thresholds) if record else ({}, [])
    return Trained(recipe, net, names, source.path, scores, tuple(thresholds))


def find_weights(recipe: Recipe | None, weights: str | None) -> store.Source:
    """The weights given, else those of the recipe's run."""
    if not recipe:
        assert weights
        return store.locate(weights)
    if weights:
        return store.find(recipe.model.name, weights)
    for name in (BEST, LATEST):
        if (recipe.folder / name).exists():
            return store.Source(recipe.folder / name)
    raise UserError(
        f"no weights: there is no {recipe.folder / BEST} yet; train first, "
        "or name a file (or registered weights) with --weights"
    )


def with_record(recipe: Recipe, record: Record, overrides: Sequence[str]) -> Recipe:
    """The recipe with what its checkpoint knows better: classes and preprocessing."""
    if not recipe.model.num_classes:
        classes = record.recipe["model"]["num_classes"]
        recipe = replace(recipe, model=replace(recipe.model, num_classes=classes))
    return with_preprocess_of(recipe, record, overrides)


def with_preprocess_of(recipe: Recipe, record: Record, overrides: Sequence[str]) -> Recipe:
    """The recipe with the checkpoint's preprocessing, but for what overrides say."""
    own = to_plain(recipe.preprocess)
    given = {override.partition("=")[0] for override in overrides}
    kept = {key for key in KEYS if f"preprocess.{key}" in given}
    if "preprocess" in given:
        kept |= recipe.preprocess.stated
    trained_with = {**own, **record.recipe["preprocess"]}
    other = {key for key in recipe.preprocess.stated - kept if own[key] != trained_with[key]}
    if other:
        say(
            f"note: preprocess is taken from the checkpoint ({listed(trained_with, other)}); the "
            f"config has {listed(own, other)}"
        )
    note_other("the checkpoint", trained_with, own, kept)
    values = {key: own[key] if key in kept else trained_with[key] for key in KEYS}
    return filled(recipe, values, "the checkpoint")


def names_of(recipe: Recipe, record: Record | None, source: store.Source) -> tuple[str, ...]:
    """Class names: the checkpoint's or the registry's, and what a label file calls them."""
    labels = recipe.data.labels
    own = tuple(record.labels) if record else class_names(source.labels)
    if not labels or (record and labels == record.recipe["data"]["labels"]):
        return own
    given, whose = class_names(labels), str(source.path)
    names, note = renamed(own, given, labels, whose, numbers=record is not None)
    if note:
        say(note)
    return names


# --------------------------------------------------------------------------
# Everything a run will do, once and small: `ppcls train -c RECIPE --dry-run`

STEPS = 2


def dry_run(recipe: Recipe) -> bool:
    """Train two steps, evaluate a little, save and export, in a folder that is then removed.

    Returns:
        False when a signal ended it.

    Raises:
        UserError: what would have stopped the run sooner or later.
    """
    with tempfile.TemporaryDirectory(prefix="ppcls-dry-run-") as folder:
        short = replace(recipe, output=str(Path(folder) / "run"))
        if not train(short, limit=STEPS):
            return False
        latest = Path(folder) / "run" / LATEST
        if latest.exists():  # in the process that writes
            export(open_trained(None, (), str(latest)), Path(folder) / "exported")
    say(f"dry run: {STEPS} steps, evaluation, checkpoint and export went well; nothing is kept")
    return True

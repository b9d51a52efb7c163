"""From a recipe to what is made of it: data, model, a trainer that runs, a trained network.

The one module of training that reads a recipe; what it builds knows none.
"""

import fnmatch
import json
import math
import os
import shutil
import zlib
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from pydantic import ValidationError

import ppcls
from ppcls.api import create_model
from ppcls.config.load import from_plain, load, to_plain, to_yaml
from ppcls.config.node import place_of
from ppcls.config.tree import differences
from ppcls.data import datasets
from ppcls.data.class_names import renamed, same_names
from ppcls.data.datasets import one_class, summary
from ppcls.data.loader import EvalPipeline, Loader, Part, TrainPipeline, load_batch
from ppcls.data.own_dataset import OwnDataset
from ppcls.data.preprocess import KEYS, Preprocess, both
from ppcls.data.sampler import EpochSampler
from ppcls.data.samples import Dataset
from ppcls.data.transforms import in_words, sides
from ppcls.data.unlabeled import open_unlabeled
from ppcls.kernels import start as kernels
from ppcls.models import fake_quantize
from ppcls.models.layers import Normalize
from ppcls.models.recompute import recompute_blocks
from ppcls.optim.parameters import (
    freeze,
    groups,
    head_of,
    only_head,
    parameter_count,
    random_ones,
    trained_count,
)
from ppcls.optim.rules import has_slots
from ppcls.recipe import LENGTH, Model, Recipe, may_change
from ppcls.tasks import Distill, Peer
from ppcls.train import checkpoint, frozen, run_folder, trackers
from ppcls.train.callbacks import Callback
from ppcls.train.checkpoint import (
    BEST,
    IMAGENET_CLASSES,
    LATEST,
    RECORD,
    Record,
    Trained,
    read_record,
)
from ppcls.train.curves import Course
from ppcls.train.distill import distill_objective
from ppcls.train.distributed import Processes, join, share_draws
from ppcls.train.divide import why_not
from ppcls.train.open_data import (
    Datasets,
    about_split,
    class_names,
    hold_out,
    keep_labeled,
    located,
    open_part,
    open_scored,
    require_images,
)
from ppcls.train.step import Objective, Precision, TrainStep
from ppcls.train.teachers import STILL, TOP, NetworkTeacher, Student, keep_answers
from ppcls.train.trainer import Options, Trainer
from ppcls.utils import environment
from ppcls.utils.device import select
from ppcls.utils.errors import LATER, UserError
from ppcls.utils.files import remove, write_text
from ppcls.utils.log import be_quiet, say
from ppcls.utils.modules import in_line
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import plural
from ppcls.weights import files, store
from ppcls.weights import load as load_weights

# Bytes; of malloc, in a process that trains: gradients and activations of a step are taken again in
# the next one, and would come as page faults, a fifth of a step of 4 images of 32 px.
OWN_BLOCK, KEPT = 32 << 20, (1 << 31) - 1
BATCHES = {"train.batch_size", "train.accumulate"}  # may change where a step stays as large
FORWARD = 1 / 3  # of a step's time is the way forward, which is all that an evaluation does
LOSSES = {"cross_entropy": "cross entropy", "bce": "binary cross entropy"}


def open_datasets(
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
    require_images("data.train", inputs.train)
    if inputs.eval is not None:
        require_images("data.eval" if recipe.data.eval else "data.train", inputs.eval)
    if recipe.data.unlabeled:
        inputs = replace(inputs, unlabeled=open_unlabeled(recipe.data.unlabeled.images))
    return recipe, inputs


def open_listed(
    recipe: Recipe, names: Sequence[str] = (), whose: str = ""
) -> tuple[Recipe, Datasets]:
    """As `open_datasets`, but without a look whether the images exist."""
    recipe = with_preprocess(recipe)
    data = located(recipe.data)
    multilabel = recipe.task.multilabel
    train = open_part("data.train", data.train, data, multilabel)
    evaluation = None
    counted = tuple(map(str, range(len(names))))  # what classes without names are called
    if names and same_names(names, train.names or counted):
        train = datasets.numbered_as(train, names, None, whose)
    if not recipe.model.num_classes:
        datasets.require_numbers(train)
    datasets.note_numbers(train, counted=not recipe.model.num_classes)
    count = recipe.model.num_classes or train.classes
    if data.eval:
        evaluation = open_scored("data.eval", data.eval, data, multilabel)
        alone = datasets.one_class(train)
        others = evaluation.names != train.names or evaluation.classes > train.classes
        if alone and others:
            raise UserError(f"data.train: {alone}")
        evaluation = datasets.numbered_as(evaluation, train.names, count, train.source)
    elif data.holds_out:
        rest, evaluation = hold_out(train, data, recipe.seed)
        say(*about_split(data, train, rest, evaluation))
        train = rest
    elif data.group_by and data.labeled == 1:
        say("note: data.group_by: nothing is kept for evaluation, so no group could be divided")
    if data.labeled < 1:
        train = keep_labeled(train, data.labeled, recipe.seed)
    datasets.check(train, count, "data.train")
    if evaluation is not None:
        datasets.check(evaluation, count, "data.eval")
    recipe = replace(recipe, model=replace(recipe.model, num_classes=count))
    return recipe, Datasets(train, evaluation, train.names)


def open_eval(
    recipe: Recipe, classes: int, names: Sequence[str] | None = None, whose: str = ""
) -> Dataset:
    """The evaluation images alone, as `open_datasets` chooses them, for a network of `classes`.

    Args:
        names: the network's own, () where it has only numbers: so the samples are numbered.
        whose: the network's file.
    """
    data = located(recipe.data)
    held = data.holds_out
    key = "data.train" if held else "data.eval"
    opened = open_part if held else open_scored
    samples = opened(key, data.train if held else data.eval, data, recipe.task.multilabel)
    if names is not None:
        samples = datasets.numbered_as(samples, names, classes, whose)
    if held:  # which images these are depends on the numbers of the classes
        samples = hold_out(samples, data, recipe.seed)[1]
    require_images("data.eval" if data.eval else "data.train", samples)
    datasets.check(samples, classes, "data.eval")
    return samples


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
        trained_with = store.trained_with(model.name, model.weights)
        source = model.weights
    own = to_plain(recipe.preprocess)
    stated = recipe.preprocess.stated
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
        place = "".join(f"{part}: " for part in place_of(first["loc"]))
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
        multilabel = isinstance(value, list)
        return " ".join(f"{number:.4g}" for number in value) if multilabel else str(value)

    return ", ".join(f"{key} {text(values[key])}" for key in KEYS if key in keys)


def train_pipeline(recipe: Recipe) -> TrainPipeline:
    train = recipe.train
    model = recipe.model
    return TrainPipeline(
        train.transforms,
        recipe.train_size,
        model.in_channels,
        recipe.seed,
        train.batch_transforms,
        model.num_classes or 0,
        recipe.data.on_error == "skip",
    )


def eval_pipeline(recipe: Recipe) -> EvalPipeline:
    return EvalPipeline(recipe.preprocess, recipe.data.on_error == "skip")


# --------------------------------------------------------------------------
# The network as a recipe trains it


def build_model(
    recipe: Recipe, saved: Mapping[str, np.ndarray] | None, given: nn.Layer | None = None
) -> nn.Layer:
    """The recipe's network with its weights, or with those of a checkpoint, `saved`.

    Args:
        given: the network, where the recipe says that it is given.

    Raises:
        UserError: weights that cannot be read or do not fit.
    """
    model = recipe.model
    assert model.num_classes, "the data have said how many, where the recipe has not"
    if model.given:
        net = with_weights(recipe, given, saved, "the checkpoint")
    else:
        net = create_model(
            model.name,
            model.num_classes,
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
    if recipe.train.qat:
        fake_quantize.put_into(net, recipe.train.qat.weight_bits)
    return net


def with_weights(
    recipe: Recipe,
    given: nn.Layer | None,
    saved: Mapping[str, np.ndarray] | None,
    source: str | Path,
) -> nn.Layer:
    """A network that was given in Python, with a checkpoint's weights where there is one.

    Raises:
        UserError: it is not given, or weights or classes do not fit.
    """
    model = recipe.model
    name = model.title
    if given is None:
        raise UserError(
            f"{source if saved else 'model.name'}: the network {name} was given to ppcls.train in "
            "Python: give it again there, as model=…; a network with @ppcls.register_model has a "
            "name that commands know"
        )
    if saved is not None:
        put_own(given, saved, str(source))
    high, wide = both(recipe.preprocess.crop)
    classes = model.num_classes or IMAGENET_CLASSES
    shape = [1, model.in_channels, high, wide]
    given.eval()
    with paddle.no_grad():
        try:
            found = list(given(paddle.zeros(shape)).shape)
        except Exception as error:  # of somebody's code
            raise UserError(f"{name}: cannot take images {shape}: {in_line(error)}") from error
    if found != [1, classes]:
        raise UserError(
            f"{name}: gives {found} for one image, and there are "
            f"{plural(classes, 'class')}: logits should be [1, {classes}]"
        )
    return given


def put_own(net: nn.Layer, saved: Mapping[str, np.ndarray], source: str) -> None:
    """A checkpoint's weights into a network of one's own, under its own names.

    Raises:
        UserError: they are not this network's.
    """
    weights = {k: v for k, v in saved.items() if not k.startswith(load_weights.OPTIMIZER)}
    own = {name: list(value.shape) for name, value in net.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    other = [name for name in own | found if own.get(name) != found.get(name)]
    if other:
        name = other[0]
        raise UserError(
            f"{source}: not weights of this network: {name} is {found.get(name, 'not there')} and "
            f"{own.get(name, 'not there')} in the network ({plural(len(other), 'such')})"
        )
    load_weights.assign(net, weights)


# --------------------------------------------------------------------------
# What a recipe, its data and the device must agree on before a run


def check_fit(recipe: Recipe, inputs: Datasets, images_per_step: int, epoch_steps: int) -> None:
    """What a recipe, its data and the device must agree on, before anything is built.

    Raises:
        UserError: there is nothing to train on, or nothing to evaluate that is needed, or no GPU.
    """
    count = len(inputs.shown)
    train = recipe.train
    alone = one_class(inputs.train)
    if alone and getattr(recipe.task, "labels_weight", 1):  # else a teacher says what they show
        raise UserError(f"data.train: {alone}")
    if not epoch_steps:
        batches = images_per_step // train.batch_size
        parts = f" ({batches} batches of {train.batch_size})"
        if inputs.unlabeled is not None:
            raise UserError(
                f"data.train and data.unlabeled have {plural(count, 'image')} together, "
                "fewer than one step "
                f"of {images_per_step}: -o train.batch_size={max(2, count // batches)}"
            )
        raise UserError(
            f"data.train has {plural(count, 'image')}, fewer than one batch of {images_per_step}"
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
        if asked not in recipe.task.score_names(classes):
            known = ", ".join(recipe.task.score_names(classes))
            raise UserError(
                f"{key}: {asked} is not scored in {recipe.task.kind} of {classes} classes: "
                f"{known} are"
            )
    if train.sync_norms and not paddle.get_device().startswith("gpu"):
        raise UserError(
            "train.sync_norms: Paddle synchronises batch norms on GPUs only and this run is on "
            f"{paddle.get_device()}: -o train.sync_norms=false"
        )


def asked_images(recipe: Recipe, processes: Processes) -> int:
    """The images of a step, in all processes, as the recipe says."""
    return recipe.train.images_per_step * (1 if processes.divided else processes.count)


def check_divided(
    recipe: Recipe, net: nn.Layer, frozen: Sequence[nn.Layer], count: int, batches: int
) -> None:
    """Whether processes that share a step compute what one does.

    Args:
        batches: of a process in a step.

    Raises:
        UserError: they do not.
    """
    kept = {id(one) for layer in frozen for one in layer.sublayers(include_self=True)}
    norms = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)
    trained = [
        n for n, one in net.named_sublayers() if isinstance(one, norms) and id(one) not in kept
    ]
    reason = why_not(recipe)
    if batches > 1 and not reason:
        reason = f"train.batch_size: a step is {plural(batches, 'batch')} for each of them"
    if trained and not reason:
        reason = f"model.freeze: leaves {trained[0]} to train, which looks at all images of a batch"
    if reason:
        raise UserError(
            f"--divided: {plural(count, 'process')} would not compute what one does: {reason}; "
            "without --divided each has batches of its own"
        )


def check_freeze(model: Model, net: nn.Layer) -> None:
    """What a new run's network leaves as it is must have learnt something before.

    Raises:
        UserError: it is random. Constants may stay: norms without a scale and shift of their own.
    """
    kept = random_ones(net) if model.freeze else []
    if kept and not model.weights:
        raise UserError(
            f"model.freeze would keep random weights ({kept[0]} and so on), as model.weights "
            "is not given: give model.weights, or -o model.freeze=[]"
        )
    head = head_of(net)
    if model.new_head and head and fnmatch.filter(kept, head):
        raise UserError(
            "model.freeze would keep the classifier that model.new_head starts afresh, which is "
            f"random: leave {head} out of model.freeze, or -o model.new_head=false"
        )


def asked_scores(recipe: Recipe) -> dict[str, str]:
    """The scores that a recipe decides by, under the keys that ask for them."""
    train = recipe.train
    asked = {}
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
    recipe: Recipe,
    resume: bool = False,
    overwrite: bool = False,
    limit: int | None = None,
    callbacks: Sequence[Callback] = (),
    model: nn.Layer | None = None,
    divided: bool = False,
) -> bool:
    """Train as the recipe says; False when a signal ended the run before its last step.

    Args:
        resume: go on from the run's `latest.safetensors`.
        overwrite: start anew although the run's folder holds an earlier run.
        limit: end after so many steps of the first epoch, with as many batches of evaluation;
            trackers are then not told of it.
        callbacks: hear what the run does, after the recipe's trackers, in the first process.
        model: the network, where the recipe says that it is given.
        divided: several processes share the images of one process's step, with its result.

    Raises:
        UserError: anything the user can mend.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite starts anew: give one of them")
    refuse_among_images(recipe)
    device = select(recipe.device)
    with signals_interrupt():
        processes = join(device)
    processes.divided = divided and processes.count > 1
    if not processes.first:
        be_quiet()
    folder = recipe.folder
    # Until there are steps to save, a signal ends the run, and what it put aside comes back.
    with signals_interrupt(), processes.joined(), run_folder.alone(folder, processes):
        if processes.first:
            tracked = build_trackers(recipe)
            callbacks = [*(() if limit else tracked), *callbacks]
        latest = folder / LATEST
        if not (resume or overwrite):
            run_folder.require_free(folder)
        if resume and not latest.exists():
            raise UserError(f"{latest} does not exist: there is no run to resume in {folder}")
        saved = files.read(latest) if resume else None
        record = read_record(latest, saved.metadata) if saved else None
        if record:  # what the recipe leaves open is what it was
            recipe = with_preprocess(recipe, record.recipe.get("preprocess", {}))
        recipe, inputs = first_alone(processes, recipe, record)
        if limit and inputs.eval is not None:
            count = min(len(inputs.eval), limit * recipe.eval.batch_size * processes.count)
            inputs = replace(inputs, eval=inputs.eval.subset(range(count)))
        changes = {}
        if record:
            processes.divided = processes.divided or record.divided
            changes = check_same(recipe, record, inputs, processes, latest)
        tensors = saved.tensors if saved else None
        engines = engines_of(record, recipe.train.frozen_engine) if record else {}
        images = record.images_per_step if record else None
        trainer = build_trainer(
            recipe, inputs, tensors, processes, limit, callbacks, model, engines, images
        )
        if saved and record:
            trainer.resume(latest, saved, record)
            check_length(recipe, trainer, record)
        check_ops(recipe, inputs)
        # None begins to write, either, while another looks at what is there.
        check_together(recipe, trainer, processes)
        if processes.first:
            prepare(folder, trainer, recipe, keep=resume)
        say(*summary(inputs.train))
        say(*header(recipe, inputs, trainer, device))
        for line in differently(recipe, trainer, changes):
            say(line)
        done = trainer.run()
        if done:
            say(f"finished: {folder / (BEST if trainer.best else LATEST)}, {folder / 'curves.png'}")
        return done


def build_trainer(
    recipe: Recipe,
    inputs: Datasets,
    saved: Mapping[str, np.ndarray] | None = None,
    processes: Processes | None = None,
    limit: int | None = None,
    callbacks: Sequence[Callback] = (),
    given: nn.Layer | None = None,
    engines: Mapping[str, str] | None = None,
    images: int | None = None,
) -> Trainer:
    """The parts of a recipe's run, put together.

    Args:
        inputs: the recipe's data; the recipe is that which `open_datasets` gave with it.
        saved: the tensors of a run's checkpoint to go on with, instead of the recipe's weights.
        limit: steps after which the run ends, evaluated and saved.
        callbacks: hear what the run does.
        given: the network, where the recipe says that it is given.
        engines: of the run that goes on, as its record has them.
        images: that a step shows, in all processes, of the run that goes on; None: as the recipe
            says. Any number of processes may share them; each has them in as few batches as fit.

    Raises:
        UserError: parts that do not fit together.
    """
    processes = processes or Processes()
    model = recipe.model
    task = recipe.task
    train = recipe.train
    classes = model.num_classes or 0
    batch = images or asked_images(recipe, processes)
    share = -(-batch // processes.count)
    batches = -(-share // train.batch_size)
    sizes = (0, 0)
    if inputs.unlabeled is not None:
        assert recipe.data.unlabeled
        sizes = recipe.data.unlabeled.split(batch)
    sampler = EpochSampler(
        train.sampler,
        inputs.shown,
        classes,
        batch,
        drop_last=train.drop_last,
        repeats=train.repeats,
        seed=recipe.seed,
        with_labels=sizes[0],
        without=sizes[1],
        limit=limit,
    )
    epoch_steps = len(sampler.order(0))
    check_fit(recipe, inputs, batch, epoch_steps)
    epochs = 1 if limit else train.epochs
    if paddle.get_device().startswith("cpu"):
        environment.tune_malloc(OWN_BLOCK, KEPT)
    paddle.seed(recipe.seed)
    net = build_model(recipe, saved, given)
    kept = freeze(net, model.freeze)
    if processes.divided and processes.count > 1:
        check_divided(recipe, net, kept, processes.count, batches)
        share_draws(net, processes)
    if saved is None and given is None:
        check_freeze(model, net)
    network = Normalize.before(net, recipe.preprocess.scale, recipe.preprocess.offset)
    features = any(loss.features for loss in getattr(task, "losses", ()))
    if not train.qat:  # else first layers round, too
        network = frozen.with_frozen_start(network, kept, features)
    precision = Precision(train.precision, train.amp_level)
    computed: Any = processes.reducing(network) if reduces(recipe, net) else network
    objective = build_objective(recipe, inputs, computed, precision)
    decayed = train.decay_norms, train.decay_biases
    trained = groups(net, decayed[0], train.lr_scale, decayed[1])
    beside = groups(objective.layers, decayed[0], {}, decayed[1])
    parameters = [*net.parameters(), *objective.layers.parameters()]
    step = TrainStep(
        objective.step,
        task.right,
        train.optimizer.build(trained + beside),
        [parameter for parameter in parameters if not parameter.stop_gradient],
        train.clip_norm,
        precision.scale,
        processes,
        computed if isinstance(computed, paddle.DataParallel) else None,
    )
    parts: dict[str, Part] = {"train": (inputs.shown, train_pipeline(recipe))}
    eval_steps = 0.0
    if inputs.eval is not None:
        parts["eval"] = (inputs.eval, eval_pipeline(recipe))
        trained_at = math.prod(both(sides(recipe.train_size)[-1]))
        larger = recipe.preprocess.height * recipe.preprocess.width / trained_at
        eval_steps = FORWARD * len(inputs.eval) * larger / batch
    total_steps = epochs * epoch_steps
    schedule = train.schedule.over(epoch_steps, total_steps, batch, recipe.best)
    stop = train.early_stop
    patience = 0
    if stop:
        patience = stop.patience.steps(epoch_steps, total_steps)
    order = sampler.order(0)
    shown = order[0][: train.batch_size]
    showings = epochs * sum(map(len, order)), -(-epochs // recipe.eval.every)
    engines = choose_engines(
        recipe, parts, network, objective, shown, showings, engines or {}, processes
    )
    return Trainer(
        model=net,
        network=network,
        frozen=kept,
        objective=objective,
        train_step=step,
        schedule=schedule,
        stopping_early=lambda found: bool(stop and stop.reached(found, recipe.best, patience)),
        average=train.ema.build(net) if train.ema else None,
        sampler=sampler,
        loader=Loader(parts, recipe.data.workers),
        batch_size=-(-share // batches),
        new_meter=partial(task.meter, classes),
        options=Options(
            epochs=epochs,
            epoch_steps=epoch_steps,
            seed=recipe.seed,
            log_every=train.log_every,
            eval_every=recipe.eval.every,
            eval_batch_size=recipe.eval.batch_size,
            eval_steps=eval_steps,
            save_every=max(1, train.save_every.steps(epoch_steps, total_steps)),
            keep=train.keep,
            best=recipe.best,
            watched=task.watched,
        ),
        folder=recipe.folder,
        about={
            "recipe": to_plain(recipe),
            "labels": list(inputs.names),
            "epoch_steps": epoch_steps,
            "data": inputs.digests(),
            "versions": {"ppcls": ppcls.__version__, "paddle": paddle.__version__},
            "processes": processes.count,
            "divided": processes.divided,
            "step_images": batch,
            "engines": engines,
        },
        course=course(recipe, epoch_steps),
        processes=processes,
        callbacks=callbacks,
    )


def engines_of(record: Record, asked: str) -> dict[str, str]:
    """What ran the frozen parts of the run that goes on, where the same is asked for."""
    before = record.recipe["train"].get("frozen_engine", frozen.AUTO)
    return record.engines if before == asked else {}


def choose_engines(
    recipe: Recipe,
    parts: Mapping[str, Part],
    network: nn.Sequential,
    objective: Objective,
    shown: np.ndarray,
    showings: tuple[int, int],
    known: Mapping[str, str],
    processes: Processes,
) -> dict[str, str]:
    """Let engines run what is frozen of a run, as `train.frozen_engine` says.

    Args:
        parts: training and evaluation images, as the loader has them.
        network: the model behind its `Normalize`.
        shown: virtual indices of the first batch.
        showings: how many images the whole run trains on, and how often it evaluates.
        known: the choices of the run that goes on.

    Returns:
        Which engine runs which part.

    Raises:
        UserError: an engine that is named cannot be had.
    """
    train = recipe.train
    asked = train.frozen_engine
    teachers = [one for one in objective.teachers if isinstance(one, NetworkTeacher)]
    start = network.start if isinstance(network, frozen.FrozenStart) else None
    if asked == frozen.NONE:
        return {}
    if not (teachers or start):
        if asked != frozen.AUTO:
            say("note: train.frozen_engine: neither first layers are frozen here, nor is a teacher")
        return {}
    if not paddle.get_device().startswith("cpu"):
        if asked == frozen.AUTO:
            return {}
        raise UserError(
            f"train.frozen_engine: {asked} is for a CPU and this run is on "
            f"{paddle.get_device()}: -o train.frozen_engine=auto"
        )
    samples, view = parts["train"]
    images = load_batch((samples, replace(view, skip=True)), shown, 0).images
    if not len(images):  # which training says
        return {}
    still = not train.batch_transforms and isinstance(recipe.train_size, int | tuple)
    still = still and all(op.op in STILL for op in train.transforms)
    of_training = frozen.Choice(
        asked,
        images,
        [both(size) for size in sides(recipe.train_size)],
        showings[0] // processes.count,
        known,
        alike=(len(samples) if still else 0, 0),
    )
    chosen = [(teacher.frozen, of_training) for teacher in teachers]
    for number, (part, _) in enumerate(chosen[1:], 2):
        part.name = f"teacher {number}, {part.name.removeprefix('teacher ')}"
    if start and "eval" in parts:
        scored = len(parts["eval"][0])
        choice = replace(
            of_training,
            sizes=[*of_training.sizes, both(recipe.preprocess.crop)],
            showings=of_training.showings + showings[1] * scored // processes.count,
            alike=(of_training.alike[0], scored),
        )
        chosen.append((start, choice))
    elif start:
        chosen.append((start, of_training))
    engines = frozen.choose(chosen, processes)
    largest = max(train.batch_size, recipe.eval.batch_size)
    share = frozen.SHARE / processes.count / len(chosen)
    for part, choice in chosen:
        frozen.keep(part, choice, largest, recipe.folder, share)
    return engines


def build_trackers(recipe: Recipe) -> list[trackers.Tracker]:
    """What the recipe's `log` names; VisualDL where that is left open and it is installed.

    Raises:
        UserError: one that is named is not installed.
    """
    if recipe.log is None:
        usual = trackers.VisualDL()
        return [usual] if usual.installed() else []
    named = trackers_of(recipe.log)
    for tracker in named:
        tracker.require()
    return named


def trackers_of(nodes: Sequence[Any]) -> list[trackers.Tracker]:
    """What nodes of the recipe's `log` stand for."""
    options = [{key: v for key, v in vars(node).items() if key != "kind"} for node in nodes]
    return [trackers.KINDS[n.kind](**own) for n, own in zip(nodes, options, strict=True)]


def reduces(recipe: Recipe, net: nn.Layer) -> bool:
    """Whether gradients are added up during the backward pass.

    On GPUs, where every parameter takes part in each backward pass, just once. gloo, which CPUs
    have, aborts where a process comes to it 30 seconds after another; before gradients are added up
    afterwards, processes wait for one another however long it takes.
    """
    known = not recipe.model.given and hasattr(net, "spec")
    once = not isinstance(recipe.task, Distill) and not recipe.train.recompute
    return known and once and paddle.get_device().startswith("gpu")


def build_objective(
    recipe: Recipe, inputs: Datasets, network: nn.Sequential, precision: Precision
) -> Objective:
    """What the recipe's model, which stands in `network` after its `Normalize`, learns from.

    Raises:
        UserError: a teacher that cannot be had or does not fit.
    """
    task = recipe.task
    counts = inputs.train.counts(recipe.model.num_classes or 0).tolist()
    if not isinstance(task, Distill):
        return Objective(task.build(precision.around(network), counts, len(inputs.train)))
    taught = student(recipe, inputs)
    synced = recipe.train.sync_norms
    images = len(inputs.train)
    return distill_objective(task, network, taught, precision, counts, synced, images)


def student(recipe: Recipe, inputs: Datasets) -> Student:
    """What the recipe's teachers have to fit."""
    model = recipe.model
    train = recipe.train
    return Student(
        model.num_classes or 0,
        model.in_channels,
        recipe.task.multilabel,
        recipe.preprocess,
        inputs.names,
        train_pipeline(recipe),
        train.batch_size,
        inputs.shown,
    )


def course(recipe: Recipe, epoch_steps: int) -> Course:
    """What the picture of a run says beside its records."""
    task = recipe.task
    smoothing = getattr(task.loss, "smoothing", 0)
    measured = "binary cross entropy" if task.multilabel else "cross entropy"
    learnt = LOSSES.get(task.loss.kind, f"{task.loss.kind} loss")
    if isinstance(task, Distill):
        labels = [learnt] if task.labels_weight else []
        learnt = " + ".join([*(loss.kind for loss in task.losses), *labels])
        learnt = f"{learnt}, by a teacher"
        smoothing = smoothing if labels else 0
    parts = [f"label smoothing {smoothing:g}"] if smoothing else []
    parts += [op.op for op in recipe.train.batch_transforms]
    objective = " with ".join(filter(None, [learnt, ", ".join(parts)]))
    return Course(epoch_steps, recipe.best, objective, measured)


def teach(recipe: Recipe, output: Path, top: int | None = None, which: int = 0) -> Path:
    """Write what a recipe's teacher answers to its training images, or go on with that.

    Args:
        top: classes of each image that are kept; None: 32.
        which: of several teachers that are no peers, counted from 0.

    Raises:
        UserError: the recipe has no such teacher, or shows images otherwise in each epoch; or
            `output` cannot be written or holds something else.
    """
    teachers = recipe.task.teacher if isinstance(recipe.task, Distill) else ()
    fixed = [node for node in teachers if not isinstance(node, Peer)]
    if which >= len(fixed):
        raise UserError(
            f"task.teacher: there is no teacher {which + 1} whose answers could be kept; a recipe "
            "names one with task: {kind: distill, teacher: {name: NAME, weights: FILE}}"
        )
    select(recipe.device)
    recipe, inputs = open_datasets(recipe)
    node = replace(fixed[which], cache=None)
    taught = student(recipe, inputs)
    return keep_answers(node, taught, recipe.data.workers, output, top or TOP)


def refuse_among_images(recipe: Recipe) -> None:
    """UserError for a run's folder among the images, where its files would be taken for some."""
    data = recipe.data
    parts = {
        "data.train": (data.train, datasets.TRAIN_PARTS),
        "data.eval": (data.eval or data.train, datasets.EVAL_PARTS),
    }
    for key, (path, names) in parts.items():
        if isinstance(path, OwnDataset):
            continue
        part = path and (datasets.part_of(path, names) or (path if getattr(data, key[5:]) else ""))
        if part and os.path.isdir(part) and is_within(recipe.folder, part):
            raise UserError(
                f"output: {recipe.folder} lies among the images of {key}, {part}, where a run's "
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
            found = open_datasets(recipe, names, whose)
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


def header(recipe: Recipe, inputs: Datasets, trainer: Trainer, device: str) -> list[str]:
    """What is about to run, in one block of lines."""
    train = recipe.train
    model = recipe.model
    images = trainer.sampler.images_per_step
    trained = trained_count(trainer.model)
    parameters = parameter_count(trainer.model)
    size = f"{parameters / 1e6:.2f} M parameters"
    if trained < parameters:
        size += f", {trained / 1e6:.{2 if trained > 1e5 else 4}f} M trained"
    where = device if device == "gpu" else f"cpu ({plural(environment.threads(), 'thread')})"
    count = trainer.processes.count
    where += f", {plural(count, 'process')}" if count > 1 else ""
    where += " that share each step" if trainer.processes.divided and count > 1 else ""
    batches = -(-images // trainer.batch_size)
    parts = f" ({batches} batches)" if batches > 1 else ""
    lines = [
        f"{model.title}: {size}, {plural(model.num_classes or 0, 'class')}, "
        f"{in_words(recipe.train_size)} px, on {where}",
        f"{plural(train.epochs, 'epoch')} of {plural(trainer.options.epoch_steps, 'step')} of "
        f"{plural(images, 'image')}{parts}, "
        f"writing to {recipe.folder}",
    ]
    if inputs.unlabeled is not None:
        more = inputs.unlabeled
        known = trainer.sampler.with_labels
        unknown = trainer.sampler.without
        lines.append(
            f"{more.source}: {plural(len(more), 'image')} without labels; a step shows "
            f"{known} with and "
            f"{unknown} without"
        )
    lines += trainer.objective.about()
    published = train.schedule.for_batch
    if published and published != images:
        lr = train.schedule.lr
        lines.append(
            f"learning rate {lr:g} was chosen for a batch of {published}: "
            f"{lr * train.schedule.scale(images):g} for {images}, in proportion"
        )
    if model.freeze and only_head(trainer.model):
        lines.append(
            f"note: model.freeze leaves only the classifier ({head_of(trainer.model)}) to train; "
            "to train more, a "
            "share of the network: -o model.freeze=50%"
        )
    if train.without:
        lines.append(
            f"note: the published recipe also has {', '.join(train.without)}: not here yet"
        )
    if device == "cpu" and (slow := kernels.missing()):
        lines.append(f"note: {slow}")
    if train.qat:
        lines.append(
            f"quantization-aware: {train.qat.weight_bits}-bit weights and 8-bit inputs of layers, "
            "in training and its scores; the checkpoint is in float, ppcls quantize makes it INT8"
        )
    note = Precision(train.precision, train.amp_level).note()
    if note:
        lines.append(note)
    if trainer.step:
        lines.append(f"resuming after step {trainer.step} of {trainer.options.total_steps}")
    return lines


def check_ops(recipe: Recipe, inputs: Datasets) -> None:
    """The training ops must fit together at every size: seen on the first image."""
    view = train_pipeline(recipe)
    for size in sides(recipe.train_size):
        load_batch((inputs.train, replace(view, size=size)), np.zeros(1, np.int64), 0)


def check_same(
    recipe: Recipe,
    record: checkpoint.Record,
    inputs: Datasets,
    processes: Processes,
    path: Path,
) -> dict[str, str]:
    """The run that goes on must be the run that was saved; returns what else has changed.

    Images, class names and teachers are compared by what they are, not by where they lie. Any
    number of processes fits, and any batch that leaves the images of a step as many as they are.
    """
    # Read as a recipe, the record of an older version has the defaults of keys it did not know.
    old = from_plain(Recipe, record.recipe, str(path))
    changed = differences(to_plain(old), to_plain(recipe))
    found = differences(without_places(to_plain(old)), without_places(to_plain(recipe)))
    found = {key: change for key, change in found.items() if not may_change(key)}
    found |= differences(record.data, inputs.digests(), ("data",))
    if asked_images(recipe, processes) == record.images_per_step:
        found = {key: change for key, change in found.items() if key not in BATCHES}
    changed |= differences(record.processes, processes.count, ("processes",))
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


def check_together(recipe: Recipe, trainer: Trainer, processes: Processes) -> None:
    """All processes must begin alike; else each would teach the others something else.

    Raises:
        UserError: one has another recipe, other images, or has not found the same checkpoint.
    """
    about = trainer.about
    own = {"step": trainer.step, "images of a step": about["step_images"], "data": about["data"]}
    names = about["labels"]
    own["class names"] = f"{len(names)} ({zlib.crc32(json.dumps(names).encode()):08x})"
    own["recipe"] = without_places(about["recipe"])
    first, *others = processes.gather(own)
    for rank, other in enumerate(others, 1):
        recipes = differences(first["recipe"], other["recipe"])
        found = {key: c for key, c in recipes.items() if key == LENGTH or not may_change(key)}
        found |= differences({**first, "recipe": {}}, {**other, "recipe": {}})
        if not found:
            continue
        who = f"process {rank} of {processes.count}"
        lines = "; ".join(f"{key}: {change}" for key, change in found.items())
        fix = f"they do not see the same {LATEST} in {recipe.folder}, maybe not yet; {LATER}"
        if "step" not in found:
            fix = "start all with the same command, recipe and images"
        raise UserError(f"{who} does not begin as process 0 does ({lines}): {fix}")


def check_length(recipe: Recipe, trainer: Trainer, record: checkpoint.Record) -> None:
    """A run cannot go on to an end that it has passed."""
    epochs = recipe.train.epochs
    before = record.recipe["train"]["epochs"]
    if trainer.step > trainer.options.total_steps:
        done = trainer.step / trainer.options.epoch_steps
        raise UserError(
            f"train.epochs: the run has done {done:g} of {before} epochs, so it cannot end after "
            f"{epochs}: -o train.epochs={before} or more goes on, --overwrite starts anew"
        )


def differently(recipe: Recipe, trainer: Trainer, changes: Mapping[str, str]) -> list[str]:
    """A line on what a resumed run does otherwise than before, and one on its new schedule."""
    lines = []
    if "processes" in changes:
        images = trainer.sampler.images_per_step
        lines.append(
            f"note: processes: {changes['processes']}: a step shows the same "
            f"{plural(images, 'image')}, dealt out anew; docs/scale.md says what stays equal"
        )
    said = (LENGTH, "output", "processes")
    others = {key: change for key, change in changes.items() if key not in said}
    if others:
        text = "; ".join(f"{key}: {change}" for key, change in others.items())
        lines.append(f"note: resumed with other values ({text}), which the run's numbers allow")
    if LENGTH in changes:
        epochs = recipe.train.epochs
        step = trainer.step
        left = trainer.options.total_steps - step
        rate = (
            f", now at learning rate {trainer.schedule(step, trainer.evaluations):.3g}"
            if left
            else ""
        )
        lines.append(
            f"note: {LENGTH}: {changes[LENGTH]}: the run goes on from step {step} with the "
            f"schedule of {plural(epochs, 'epoch')}{rate}"
        )
    return lines


def prepare(folder: Path, trainer: Trainer, recipe: Recipe, keep: bool) -> None:
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
        write_text(folder / run_folder.RECIPE, to_yaml(recipe))


def least_bytes(trainer: Trainer) -> int:
    """What the first checkpoints take on the disk, the best one too where there is one."""
    tensors = trainer.model.state_dict().values()
    weights = sum(tensor.size * tensor.element_size() for tensor in tensors)
    slots = sum(4 * p.size for p in trainer.model.parameters() if not p.stop_gradient)
    if not has_slots(trainer.train_step.optimizer):
        slots = 0
    return weights + slots + (weights if "eval" in trainer.loader.parts else 0)


# --------------------------------------------------------------------------
# A trained network with what belongs to it, found from a config, a checkpoint, or both


def open_trained(
    config: str | None,
    overrides: Sequence[str],
    weights: str | None,
    given: nn.Layer | None = None,
) -> Trained:
    """The network of a config with the weights given, or else of its run.

    Without a config, the recipe inside the checkpoint `weights` is used.

    Args:
        given: the network, where the recipe says that it is given.

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
    if record and record.recipe["train"].get("qat"):
        say(f"note: {source.path} was scored as INT8 in training (train.qat); this is in float")
    model = recipe.model
    classes = recipe.model.num_classes or IMAGENET_CLASSES
    if model.given:
        net = with_weights(recipe, given, checkpoint.tensors, source.path)
    else:
        channels = model.in_channels
        tensors = checkpoint.tensors
        net = create_model(model.name, classes, tensors, in_channels=channels, source=source.path)
    net.eval()
    names = names_of(recipe, record, source)
    if names and len(names) != classes:
        raise UserError(
            f"there are {plural(len(names), 'class name')} and the network has "
            f"{plural(classes, 'class')}: "
            "give the names of these classes with -o data.class_names=FILE"
        )
    scores, thresholds = (record.scores, record.thresholds) if record else ({}, [])
    return Trained(recipe, net, names, source.path, scores, tuple(thresholds))


def eval_samples(trained: Trained) -> Dataset:
    """The evaluation images of a trained network's recipe, with labels as it numbers its classes.

    Raises:
        UserError: no evaluation data, or other classes than the network's.
    """
    return open_eval(trained.recipe, trained.classes, trained.names, str(trained.source))


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
    trained_with = {**to_plain(Preprocess()), **record.recipe["preprocess"]}  # of an older version
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
    labels = recipe.data.class_names
    own = tuple(record.labels) if record else class_names(source.labels)
    if not labels or (record and labels == record.recipe["data"]["class_names"]):
        return own
    given = class_names(labels)
    whose = str(source.path)
    names, note = renamed(own, given, labels, whose, numbers=record is not None)
    if note:
        say(note)
    return names

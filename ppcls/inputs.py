"""A recipe's data: which photos are learnt from, which are scored, what the classes are called."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ppcls.config.load import to_plain
from ppcls.data import builtin, datasets
from ppcls.data.class_names import read_class_names, same_names
from ppcls.data.datasets import Samples, split
from ppcls.data.loader import EvalView, TrainView
from ppcls.data.preprocess import KEYS, Preprocess
from ppcls.data.shards import is_shards, is_web, open_shards
from ppcls.data.unlabeled import Joined, open_unlabeled
from ppcls.recipe import Data, Recipe
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing
from ppcls.utils.log import say
from ppcls.weights import download, store

LAYOUT = (
    "a folder with one sub-folder of photos per class, a list file of 'path label' lines or tar "
    "shards; "
    "point elsewhere with -o data.train=PATH data.eval=PATH"
)


@dataclass(frozen=True)
class Inputs:
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
) -> tuple[Recipe, Inputs]:
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
) -> tuple[Recipe, Inputs]:
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
    return recipe, Inputs(train, evaluation, train.names)


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

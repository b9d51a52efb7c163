"""A recipe's data: which photos are learnt from, which are scored, what the classes are called."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ppcls.data import builtin, datasets
from ppcls.data.datasets import Samples
from ppcls.data.loader import EvalView, TrainView
from ppcls.errors import UserError
from ppcls.log import say
from ppcls.recipe import Data, Recipe

IMAGENET_NAMES = Path(datasets.__file__).with_name("imagenet.txt")
LAYOUT = (
    "a folder with one sub-folder of photos per class, or a list file of 'path label' lines; "
    "point elsewhere with -o data.train=PATH data.eval=PATH"
)


@dataclass(frozen=True)
class Inputs:
    """The opened data of a run; `names` are the class names, () when unknown."""

    train: Samples
    eval: Samples | None
    names: tuple[str, ...]


def open_inputs(recipe: Recipe) -> tuple[Recipe, Inputs]:
    """Open and check the data; returns the recipe with its number of classes filled in, too.

    Raises:
        UserError: data that is missing, malformed, or at odds with `model.num_classes`.
    """
    data = located(recipe.data)
    train = open_part("data.train", data.train, data)
    if data.eval:
        evaluation = open_part("data.eval", data.eval, data)
        datasets.align(train, evaluation)
    elif data.holdout:
        train, evaluation = datasets.split(train, data.holdout, recipe.seed)
    else:
        evaluation = None
    count = recipe.model.num_classes or len(train.names) or int(train.labels.max()) + 1
    datasets.check(train, count, "data.train")
    if evaluation:
        datasets.check(evaluation, count, "data.eval")
    recipe = replace(recipe, model=replace(recipe.model, num_classes=count))
    return recipe, Inputs(train, evaluation, train.names)


def open_eval(recipe: Recipe) -> Samples:
    """The evaluation photos alone, as `open_inputs` would choose them."""
    data = located(recipe.data)
    if data.holdout:
        return datasets.split(open_part("data.train", data.train, data), data.holdout, recipe.seed)[
            1
        ]
    samples = open_part("data.eval", data.eval, data)
    datasets.check(samples, recipe.model.num_classes or len(samples.names), "data.eval")
    return samples


def located(data: Data) -> Data:
    """The data with a built-in set written out and named by its folders."""
    if not data.builtin:
        return data
    folder = Path("data") / data.builtin
    if not folder.exists():
        say(f"writing {builtin.describe(data.builtin)} to {folder}")
    builtin.write(data.builtin, folder)
    return replace(data, builtin=None, train=str(folder / "train"), eval=str(folder / "eval"))


def open_part(key: str, path: str | None, data: Data) -> Samples:
    if not path:
        raise UserError(f"{key} is not given: {LAYOUT}")
    if not os.path.exists(path):
        raise UserError(
            f"{key}: {path} does not exist (looked in {os.getcwd()}); expected {LAYOUT}"
        )
    samples = datasets.open_samples(path, data.root, labels_file(data.labels))
    lost = datasets.missing(samples)
    if lost:
        raise UserError(f"{key}: photos that do not exist: {'; '.join(lost)}")
    return samples


def labels_file(labels: str | None) -> str | None:
    """The file of class names that a recipe means; "imagenet" comes with ppcls."""
    return str(IMAGENET_NAMES) if labels == "imagenet" else labels


def class_names(labels: str | None) -> tuple[str, ...]:
    """The class names of a recipe's `data.labels`, () for None."""
    file = labels_file(labels)
    return datasets.read_names(file) if file else ()


def train_view(recipe: Recipe) -> TrainView:
    return TrainView(recipe.train.ops, recipe.train_size, recipe.model.in_channels, recipe.seed)


def eval_view(recipe: Recipe) -> EvalView:
    return EvalView(recipe.preprocess)

"""A trained network with what belongs to it, found from a config, a checkpoint, or both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddle import nn

from ppcls.api import create_model
from ppcls.config.load import from_plain, load, to_plain
from ppcls.data.class_names import renamed
from ppcls.data.preprocess import KEYS
from ppcls.inputs import class_names, filled, listed, note_other, with_preprocess
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import BEST, LATEST, RECORD, Record, read_record
from ppcls.utils.device import select
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import plural
from ppcls.weights import files, store

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
    source = where(recipe, weights)
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


def where(recipe: Recipe | None, weights: str | None) -> store.Source:
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

"""A trained network with what belongs to it, found from a config, a checkpoint, or both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddle import nn

from ppcls.api import create_model
from ppcls.config.load import from_plain, load, to_plain
from ppcls.config.tree import differences
from ppcls.device import select
from ppcls.errors import UserError
from ppcls.log import say
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import BEST, LATEST, RECORD, Record, read_record
from ppcls.train.inputs import class_names
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

    @property
    def classes(self) -> int:
        return self.recipe.model.num_classes or IMAGENET_CLASSES


def open_trained(config: str | None, overrides: Sequence[str], weights: str | None) -> Trained:
    """The network of a config with the weights given, of its run, or of its `model.weights`.

    Without a config, the recipe inside the checkpoint `weights` is used.

    Raises:
        UserError: nothing says which weights, or they do not fit.
    """
    if not config and not weights:
        raise UserError("say what to open: -c CONFIG of a finished run, or --weights CHECKPOINT")
    recipe = load(Recipe, config, overrides) if config else None
    source = where(recipe, overrides, weights)
    checkpoint = files.read(source.path)
    record = read_record(source.path, checkpoint) if RECORD in checkpoint.metadata else None
    if not recipe:
        if not record:
            raise UserError(f"{source.path}: holds no recipe; say which network with -c CONFIG")
        recipe = from_plain(Recipe, record.recipe, str(source.path), overrides)
    select(recipe.device)
    recipe = completed(recipe, record)
    note_preprocess(recipe, record.recipe["preprocess"] if record else source.preprocess, source)
    for note in checkpoint.notes:
        say(note)
    model, classes = recipe.model, recipe.model.num_classes or IMAGENET_CLASSES
    net = create_model(
        model.name, classes, checkpoint.tensors, in_channels=model.in_channels, source=source.path
    )
    net.eval()
    names = tuple(record.labels) if record else class_names(recipe.data.labels or source.labels)
    if names and len(names) != classes:
        raise UserError(
            f"data.labels has {len(names)} names and the network {classes} classes: "
            "give the names of these classes with -o data.labels=FILE"
        )
    return Trained(recipe, net, names, source.path, record.scores if record else {})


def where(recipe: Recipe | None, overrides: Sequence[str], weights: str | None) -> store.Source:
    """The weights meant: those given, else the run's best, else the recipe's."""
    if not recipe:
        assert weights
        return store.Source(Path(weights))
    given = weights
    if any(item.startswith("model.weights=") for item in overrides):
        given = given or recipe.model.weights
    if given:
        return store.find(recipe.model.name, given)
    for name in (BEST, LATEST):
        if (recipe.folder / name).exists():
            return store.Source(recipe.folder / name)
    if recipe.model.weights:
        return store.find(recipe.model.name, recipe.model.weights)
    raise UserError(
        f"no weights: there is no {recipe.folder / BEST} yet; train first, "
        "or name a file with --weights FILE"
    )


def completed(recipe: Recipe, record: Record | None) -> Recipe:
    """The recipe with the checkpoint's class count where it has none itself."""
    if recipe.model.num_classes or not record:
        return recipe
    classes = record.recipe["model"]["num_classes"]
    return replace(recipe, model=replace(recipe.model, num_classes=classes))


def note_preprocess(recipe: Recipe, trained: dict | None, source: store.Source) -> None:
    """Say where the recipe's preprocessing is not the one the weights were trained with."""
    own = to_plain(recipe.preprocess)
    lines = differences(trained, {key: own[key] for key in trained}) if trained else []
    if lines:
        say(f"note: preprocess is not what {source.path} was trained with: {'; '.join(lines)}")

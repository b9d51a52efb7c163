"""Short runs of a recipe, and what they were seen to do.

A run is the recipe's own but for a tiny network of its family, a few tiny photos, small batches and
few epochs.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import write_photo

from ppcls.data.loader import Reader
from ppcls.models import layers, registry
from ppcls.models.residual_specs import Stem
from ppcls.optim.ema import Average
from ppcls.recipe import Data, Recipe
from ppcls.tasks import Distill
from ppcls.train import setup, step, trainer
from ppcls.weights import files

SMALL = {
    "residual": replace(
        registry.spec_of("ResNet18"),
        depths=(1, 1, 1, 1),
        widths=(4,) * 4,
        stem=Stem((4,), kernel=3),
    ),
    "efficientnet": replace(
        registry.spec_of("EfficientNetLite0"), depths=(1,) * 7, widths=(8,) * 7, stem=8, head=8
    ),
}
CLASSES, CLASSES_OF_WEIGHTS = 2, 7
BATCH, ACCUMULATED, LEFT_OVER = 3, 2, 2  # photos, batches at most, photos beyond an epoch's step
CROP, TRAIN_SIZE = 8, 10  # pixels
WAYS = {"__call__", "build", "draw"}  # to use a node


@dataclass
class Seen:
    """What a run did; an id stands for a node."""

    used: Counter[int] = field(default_factory=Counter)  # how often each was called or built
    origin: dict[int, int] = field(default_factory=dict)  # of what was prepared from a node
    kept: list[Any] = field(default_factory=list)  # an id is a thing's own only while it lives
    names: list[str] = field(default_factory=list)  # of networks
    batches: list[Any] = field(default_factory=list)  # those of each step
    rates: list[float] = field(default_factory=list)  # learning rates given to the optimizer
    clips: list[float] = field(default_factory=list)  # what gradients were multiplied by
    drops: set[float] = field(default_factory=set)  # rates of drop paths passed in training
    averaged: list[int] = field(default_factory=list)  # steps after which weights were averaged
    shown: list[Any] = field(default_factory=list)  # averages put into the network
    evaluated: list[int] = field(default_factory=list)  # batch sizes of evaluations
    groups: list[Any] = field(default_factory=list)  # parameters as the optimizer got them
    first: dict[str, np.ndarray] = field(default_factory=dict)  # weights before the first step
    trainer: Any = None


def is_node(value: Any) -> bool:
    """Whether it is a part of a recipe that is called, built or drawn from."""
    return is_dataclass(value) and any(hasattr(value, name) for name in WAYS)


def nodes(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a recipe that is called or built, under its name."""
    if is_node(value):
        yield at, value
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from nodes(item, f"{at}.{index}")
    elif is_dataclass(value):
        for part in fields(value):
            yield from nodes(getattr(value, part.name), f"{at}.{part.name}".lstrip("."))


def family(recipe: Recipe) -> str:
    return "efficientnet" if recipe.model.name.startswith("EfficientNet") else "residual"


def write_files(folder: Path) -> None:
    """Photos of two classes and lists of so many of them."""
    counts = (4, BATCH + LEFT_OVER, ACCUMULATED * BATCH + LEFT_OVER)
    for index in range(max(counts)):
        write_photo(folder / f"{index}.png", index, (14, 13, 3))
    for count in counts:
        lines = (f"{index}.png {index % CLASSES}\n" for index in range(count))
        (folder / f"{count}.txt").write_text("".join(lines))


def write_weights(path: Path, spec: registry.Spec, classes: int, channels: int) -> None:
    state = registry.network(spec, classes, channels).state_dict()
    files.write_safetensors(path, {key: value.numpy() for key, value in state.items()}, {})


def small(recipe: Recipe, folder: Path, seed: int) -> Recipe:
    """The recipe with what makes it slow replaced; `folder` is one of `write_files`."""
    train, warmup = recipe.train, recipe.train.schedule.warmup
    train = replace(
        train,
        epochs=2 + (int(warmup.amount) if warmup.unit == "epochs" else 0),
        batch_size=BATCH,
        accumulate=min(train.accumulate, ACCUMULATED),
        size=train.size and TRAIN_SIZE,
    )
    photos = train.photos_per_step + LEFT_OVER
    model, task = recipe.model, recipe.task
    classes, spec = model.num_classes or CLASSES, SMALL[family(recipe)]
    if model.weights:
        found = CLASSES_OF_WEIGHTS if model.new_head else classes
        model = replace(model, weights=str(folder / "weights.safetensors"))
        write_weights(folder / "weights.safetensors", spec, found, model.in_channels)
    if isinstance(task, Distill):
        file = folder / "teacher.safetensors"
        write_weights(file, spec, classes, model.in_channels)
        task = replace(task, teacher=tuple(replace(t, weights=str(file)) for t in task.teacher))
    return replace(
        recipe,
        task=task,
        model=model,
        data=Data(train=str(folder / f"{photos}.txt"), eval=str(folder / "4.txt"), workers=0),
        preprocess=replace(recipe.preprocess, resize=CROP + 1, crop=CROP),
        train=train,
        seed=seed,
        output=str(folder / "run"),
    )


def run(recipe: Recipe, folder: Path) -> tuple[Recipe, Seen, list[str]]:
    """Train until every node was used, or for so long that one that was not must be ignored.

    Returns:
        The recipe as it was run, what was seen, and the names of the nodes not used.
    """
    tiny, seen, unused = recipe, Seen(), []
    for seed in range(4):
        tiny = small(recipe, folder, seed)
        with pytest.MonkeyPatch.context() as patch:
            seen = watch(patch, tiny)
            assert setup.train(tiny, overwrite=True)
        asked = dict(nodes(tiny))
        if isinstance(tiny.task, Distill) and not tiny.task.labels_weight:
            del asked["task.loss"]
        unused = [name for name, node in asked.items() if not seen.used[id(node)]]
        if not unused:
            break
    return tiny, seen, unused


def watch(patch: pytest.MonkeyPatch, recipe: Recipe) -> Seen:
    """What a run will have done, filled in while it runs."""
    seen = Seen()

    def used(node, result, *arguments):
        seen.used[seen.origin.get(id(node), id(node))] += 1

    def prepared(node, result, counts):
        seen.kept.append(result)
        seen.origin[id(result)] = id(node)

    def on(owner: type, name: str, see: Callable) -> None:
        patch.setattr(owner, name, watched(vars(owner)[name], see))

    for cls in {type(node) for _, node in nodes(recipe)}:
        for name in WAYS & set(vars(cls)):
            on(cls, name, used)
        if "prepared" in vars(cls):
            on(cls, "prepared", prepared)
    optimizer = type(recipe.train.optimizer)
    on(optimizer, "build", lambda self, _, groups: seen.groups.extend(groups))
    on(step.Update, "__call__", lambda self, _, *given: seen.batches.append(given[0]))
    on(Average, "update", lambda self, _, step: seen.averaged.append(step))
    on(Average, "shown", lambda self, _: seen.shown.append(self))
    on(Reader, "evaluation", lambda self, _, *given: seen.evaluated.append(given[0]))
    on(layers.DropPath, "forward", lambda self, *_: self.training and seen.drops.add(self.rate))
    watch_trainer(patch, recipe, seen)
    return seen


def watched(method: Callable, see: Callable) -> Callable:
    """The method, which also shows `see` its result and its arguments."""

    def call(self, *arguments):
        result = method(self, *arguments)
        see(self, result, *arguments)
        return result

    return call


def watch_trainer(patch: pytest.MonkeyPatch, recipe: Recipe, seen: Seen) -> None:
    """The same of a trainer, which gets the tiny network, and no files to write."""

    def spec_of(name):
        seen.names.append(name)
        return SMALL[family(recipe)]

    def made(self, _, *arguments):
        seen.trainer, set_lr = self, self.optimizer.set_lr
        seen.first = {name: value.numpy() for name, value in self.net.state_dict().items()}
        self.optimizer.set_lr = lambda value: (seen.rates.append(value), set_lr(value))

    patch.setattr(registry, "spec_of", spec_of)
    patch.setattr(trainer.Trainer, "__init__", watched(trainer.Trainer.__init__, made))
    patch.setattr(trainer.log, "Scalars", NoScalars)
    patch.setattr(trainer.curves, "draw", lambda *_: None)
    patch.setattr(trainer.checkpoint, "save", lambda *_: None)
    length = 2 * (recipe.train.clip_norm or 1)  # so that the gradient is clipped to its half
    patch.setattr(step, "gradient_norm", lambda parameters: length)
    patch.setattr(step, "scale_gradients", lambda parameters, factor: seen.clips.append(factor))


class NoScalars:
    """In place of the log that curves are drawn from."""

    def __init__(self, folder, step):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, event, step, **values):
        pass

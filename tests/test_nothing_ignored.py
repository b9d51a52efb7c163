"""Nothing that a config asks for is ignored.

Every config is trained for a moment and watched; of configs that differ in nothing that matters one
is. What counts is not what things are called but what is done: each node's `__call__` and `build`,
and what comes of each key.
"""

import fnmatch
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import watched_run
from watched_run import LEFT_OVER, Seen, is_node, nodes

from ppcls.config.load import load, to_plain
from ppcls.config.node import Span
from ppcls.data import loader, transforms
from ppcls.recipe import Recipe
from ppcls.train import feed, setup, trainer
from ppcls.weights import files

ROOT = Path(__file__).parent.parent
RECIPES = {
    str(path.relative_to(ROOT / "configs")): load(Recipe, path)
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.parent.name != "_base_"
}


def keys(value, at: str = "") -> Iterator[str]:
    """What a recipe sets, other than nodes that are called or built, and what is in these."""
    for field in fields(value):
        found, name = getattr(value, field.name), f"{at}.{field.name}".lstrip(".")
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(found) and not is_node(found) and not isinstance(found, Span):
            yield from keys(found, name)
        elif found != default and not dict(nodes(found)):
            yield name


# --------------------------------------------------------------------------- where keys act


def trained(seen: Seen) -> dict[str, tuple[float, bool]]:
    """Each trained parameter's factor of the learning rate, and whether it decays."""
    names = {id(p): name for name, p in seen.trainer.net.named_parameters()}
    return {
        names[id(parameter)]: (group.lr_scale, group.decayed)
        for group in seen.groups
        for parameter in group.parameters
    }


def check_name(recipe, seen):
    assert recipe.model.name in seen.names


def check_num_classes(recipe, seen):
    assert seen.trainer.net.head.weight.shape[1] == recipe.model.num_classes


def check_in_channels(recipe, seen):
    channels = {batch.images.shape[3] for step in seen.batches for batch in step}
    assert channels == {recipe.model.in_channels}


def check_weights(recipe, seen):
    given = files.read(recipe.model.weights).tensors
    same = {name for name, value in given.items() if np.array_equal(seen.first[name], value)}
    fresh = {"head.weight", "head.bias"} if recipe.model.new_head else set()
    assert same == set(given) - fresh


def check_drop_path(recipe, seen):
    assert max(seen.drops, default=0) == pytest.approx(recipe.model.drop_path)


def check_freeze(recipe, seen):
    last = {name: value.numpy() for name, value in seen.trainer.net.state_dict().items()}
    moved = {name for name in last if not np.array_equal(last[name], seen.first[name])}
    statistics = {name for name in last if name.endswith(("._mean", "._variance"))}
    frozen = set()
    for entry in recipe.model.freeze:
        if entry.endswith("%"):  # of the blocks, whose names are "stages.<stage>.<block>.…"
            blocks = dict.fromkeys(n[: n.index(".", 9)] for n in last if n.startswith("stages."))
            kept = list(blocks)[: len(blocks) * int(entry[:-1]) // 100]
            frozen |= {n for n in last if n.startswith(("stem.", *(f"{b}." for b in kept)))}
        frozen |= set(fnmatch.filter(last, entry))
    assert set(trained(seen)) == set(last) - frozen - statistics
    assert moved
    assert not moved & frozen


def check_epochs(recipe, seen):
    assert len(seen.batches) == recipe.train.epochs * seen.trainer.epoch_steps


def check_batches(recipe, seen):
    """How many photos in how many batches the steps were made of."""
    train = recipe.train
    whole = [train.batch_size] * train.accumulate
    epoch = [whole] if train.drop_last else [whole, [LEFT_OVER]]
    assert [[len(b.images) for b in step] for step in seen.batches] == epoch * train.epochs


def check_repeats(recipe, seen):
    """Every photo that a step shows it shows so often."""
    for step in seen.batches[: seen.trainer.epoch_steps]:
        counts = np.unique(np.concatenate([b.indices for b in step]), return_counts=True)[1]
        assert (counts % recipe.train.repeats == 0).all()


def check_size(recipe, seen):
    sides = {side for step in seen.batches for b in step for side in b.images.shape[1:3]}
    assert sides == {recipe.train_size}


def check_clip_norm(recipe, seen):
    assert seen.clips == [0.5] * len(seen.batches) * bool(recipe.train.clip_norm)


def check_decay_norms(recipe, seen):
    norms, biases = recipe.train.decay_norms, recipe.train.decay_biases
    for name, parameter in seen.trainer.net.named_parameters():
        if name in trained(seen):
            asked = norms if ".norm." in name or biases is None else biases
            assert trained(seen)[name][1] == (asked or parameter.ndim > 1), name


def check_lr_scale(recipe, seen):
    for name, (factor, _) in trained(seen).items():
        given = [f for p, f in recipe.train.lr_scale.items() if fnmatch.filter([name], p)]
        assert factor == [1.0, *given][-1], name


def check_precision(recipe, seen):
    precision = seen.trainer.precision
    assert (precision.asked, precision.level) == (recipe.train.precision, recipe.train.amp_level)


def check_without(recipe, seen):
    words = " ".join(setup.header(seen.trainer, "cpu"))
    assert all(part in words for part in recipe.train.without)


def check_teacher(recipe, seen):
    given = [teacher.name for teacher in recipe.task.teacher]
    assert [teacher.name for teacher in seen.trainer.lesson.teachers] == given


def check_every(recipe, seen):
    last, every = recipe.train.epochs, recipe.eval.every
    epochs = [epoch for epoch in range(1, last + 1) if epoch % every == 0 or epoch == last]
    assert seen.evaluated == [recipe.eval.batch_size] * len(epochs)


def check_rates(recipe, seen):
    """The optimizer got what the schedule says, for so many photos a step."""
    schedule, made = recipe.train.schedule, seen.trainer
    lengths = (made.epoch_steps, made.total_steps, recipe.train.photos_per_step)
    assert seen.rates == [schedule(step, *lengths) for step in range(made.total_steps)]


def check_normalize(recipe, seen):
    first = seen.trainer.network[0]
    np.testing.assert_allclose(first.scale.numpy().ravel(), recipe.preprocess.scale, rtol=1e-6)
    np.testing.assert_allclose(first.offset.numpy().ravel(), recipe.preprocess.offset, rtol=1e-6)


def check_average(recipe, seen):
    """It takes in each step, and is what is evaluated and saved."""
    steps = range(1, len(seen.batches) + 1)
    assert seen.averaged == (list(steps) if recipe.train.ema else [])
    assert bool(seen.shown) == bool(recipe.train.ema)


ALWAYS = (check_rates, check_normalize, check_average, check_batches, check_size, check_epochs)
ALWAYS += (check_freeze, check_clip_norm, check_decay_norms, check_lr_scale, check_precision)
ALWAYS += (check_every, check_in_channels, check_repeats)
WHERE_SET = {
    "model.name": check_name,
    "model.num_classes": check_num_classes,
    "model.weights": check_weights,
    "model.new_head": check_weights,
    "model.drop_path": check_drop_path,
    "task.teacher": check_teacher,
    "train.without": check_without,
}
CHECKED = {
    *WHERE_SET,
    "model.in_channels",
    "model.freeze",
    "train.epochs",
    "train.batch_size",
    "train.drop_last",
    "train.repeats",
    "train.size",
    "train.accumulate",
    "train.clip_norm",
    "train.decay_norms",
    "train.decay_biases",
    "train.lr_scale",
    "train.precision",
    "train.amp_level",
    "eval.every",
    "eval.batch_size",
}
REPLACED = ("data.*", "output", "seed")  # by a short run's own

# --------------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    watched_run.write_files(folder)
    return folder


def kinds() -> list[str]:
    """One config of each kind: what the others of that kind differ in is replaced anyway."""
    found = {}
    for name, recipe in RECIPES.items():
        plain = to_plain(recipe)
        for part, key in (("model", "name"), ("preprocess", "resize"), ("preprocess", "crop")):
            del plain[part][key]
        del plain["data"], plain["output"]
        found.setdefault(json.dumps([watched_run.family(recipe), plain]), name)
    return list(found.values())


def judge(recipe: Recipe, folder: Path) -> None:
    """Run the recipe and check everything."""
    tiny, seen, unused = watched_run.run(recipe, folder)
    assert not unused, f"asked for and never used: {', '.join(unused)}"
    for check in (*ALWAYS, *(WHERE_SET[key] for key in keys(tiny) if key in WHERE_SET)):
        check(tiny, seen)


@pytest.mark.parametrize("name", kinds())
def test_everything_asked_for_is_done(name, folder):
    judge(RECIPES[name], folder)


def test_every_key_that_a_config_sets_is_checked():
    for name, recipe in RECIPES.items():
        for key in keys(recipe):
            replaced = any(fnmatch.fnmatch(key, pattern) for pattern in REPLACED)
            assert key in CHECKED or replaced, f"{name} sets {key}, which no check here looks at"


# What is forgotten: owner and name of a function, and what stands in its place.
FORGOTTEN = {
    "an op": (transforms, "run", lambda own: lambda ops, *rest: own(ops[:-1], *rest)),
    "a nested op": (transforms.RandomApply, "__call__", lambda own: lambda self, image, *_: image),
    "batch ops": (loader.batch_ops, "apply", lambda own: lambda _, *mixed: mixed[:2]),
    "the average": (trainer.Trainer, "shown", lambda own: lambda self: nullcontext()),
    "drop path": (
        setup,
        "create_model",
        lambda own: lambda *given, **named: own(*given, **{**named, "drop_path": None}),
    ),
    "what is frozen": (trainer, "freeze", lambda own: lambda net, patterns: []),
    "no decay of norms": (trainer, "groups", lambda own: lambda net, _, f, b: own(net, True, f)),
    "rates by layer": (trainer, "groups", lambda own: lambda net, d, _, b: own(net, d, {}, b)),
    "clipping": (trainer, "Update", lambda own: lambda *given: own(*given[:4], None, *given[5:])),
    "accumulation": (
        feed.Feed,
        "steps",
        lambda own: lambda *given: (found[:1] for found in own(*given)),
    ),
    "repeats": (feed, "epoch_photos", lambda own: lambda *given: own(*given[:3], 1, *given[4:])),
}
IN_WHAT = {"the average": "quick_start/sign_digits.yaml"}
IN_WHAT |= dict.fromkeys(("what is frozen", "rates by layer"), "finetune/EfficientNetLite0.yaml")


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_is_forgotten_is_noticed(what, folder, monkeypatch):
    owner, name, forget = FORGOTTEN[what]
    monkeypatch.setattr(owner, name, forget(vars(owner)[name]))
    with pytest.raises(AssertionError):
        judge(RECIPES[IN_WHAT.get(what, "modern/ResNet50_a1.yaml")], folder)

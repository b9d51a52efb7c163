"""What a config says is what a run of it is made from.

A config of each kind is trained for a moment, with a small network, a few images and few epochs:
the recipe in the run's folder, its learning rates, the optimizer's slots, the weights that moved
and what the run says of itself are those of the config.
"""

import fnmatch
import json
from pathlib import Path

import pytest
import tiny_run

from ppcls.config.load import load, to_plain
from ppcls.recipe import Recipe
from ppcls.weights import files

ROOT = Path(__file__).parent.parent / "configs"
RECIPES = {
    str(path.relative_to(ROOT)): load(Recipe, path)
    for path in sorted(ROOT.rglob("*.yaml"))
    if path.parent.name != "_base_"
}
DEFAULT = ("ResNet50.yaml", "finetune/EfficientNetLite0.yaml")  # the others are slow
SLOTS = {
    "sgd": set(),
    "momentum": {"velocity_0"},
    "adam": {"moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0"},
    "rmsprop": {"momentum_0", "mean_square_0", "mean_grad_0"},
    "lars": {"velocity"},
    "lion": {"momentum"},
}
SLOTS |= dict.fromkeys(("adamw", "lamb"), SLOTS["adam"])
BATCH = 6  # images, a multiple of all repeats


def small(name: str) -> str:
    return "EfficientNetLite0" if name.startswith("EfficientNet") else "ResNet18_vd"


def kinds() -> list[str]:
    """One config of each kind: what the others of that kind differ in is replaced anyway."""
    found: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        plain = to_plain(recipe)
        for key in ("resize", "crop"):
            del plain["preprocess"][key]
        plain["model"]["name"] = small(recipe.model.name)
        for teacher in plain["task"].get("teacher", ()):
            teacher["name"] = small(teacher["name"])
            del teacher["weights"]
        plain["model"]["weights"] = bool(plain["model"]["weights"])
        del plain["data"], plain["output"]
        kind = json.dumps(plain)
        if name in DEFAULT or kind not in found:
            found[kind] = name
    return list(found.values())


def weights(recipe: Recipe, name: str) -> str:
    """Those of the small network in place of one, for images of as many channels."""
    return f"{small(name)}-{recipe.model.in_channels}/latest.safetensors"


def overrides(recipe: Recipe) -> list[str]:
    """What makes a run of the recipe quick."""
    train, warmup = recipe.train, recipe.train.schedule.warmup
    epochs = 2 + (int(warmup.amount) if warmup.unit == "epochs" else 0)
    given = {
        "model.name": small(recipe.model.name),
        "model.num_classes": 3,
        "data": "{train: train.txt, eval: eval.txt, holdout: 0.0, labeled: 1.0, workers: 0}",
        "preprocess.resize": 40,
        "preprocess.crop": 32,
        "train.epochs": epochs,
        "train.batch_size": BATCH,
        "train.accumulate": 1,
        "train.log_every": 1,
        "train.schedule.lr": 1e-4 if recipe.task.kind == "distill" else train.schedule.lr / 10,
        "eval.every": epochs,
        "output": "run",
    }
    if train.size:
        given["train.size"] = 32
    if recipe.model.weights:
        given["model.weights"] = weights(recipe, recipe.model.name)
    for teacher in getattr(recipe.task, "teacher", ()):  # one in each config
        given["task.teacher.name"] = small(teacher.name)
        given["task.teacher.weights"] = weights(recipe, teacher.name)
    for part in ("builtin", "root", "class_names"):
        given[f"data.{part}"] = "null"
    if recipe.data.unlabeled:
        given["data.unlabeled.images"] = "unlabeled.txt"
    return [f"{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with images, and weights of both small networks."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("matplotlib.figure.Figure.savefig", lambda *given, **named: None)
        for name in ("EfficientNetLite0", "ResNet18_vd"):
            tiny_run.train([f"model.name={name}"], keep=f"{name}-3")
        grey = ["model.in_channels=1", "preprocess.mean=[0.5]", "preprocess.std=[0.5]"]
        tiny_run.train(["model.name=ResNet18_vd", *grey], keep="ResNet18_vd-1")
        yield folder


CASES = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in kinds()]


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_what_the_config_says(name, folder):
    path, given = str(ROOT / name), overrides(RECIPES[name])
    recipe = load(Recipe, path, given)
    seen = tiny_run.train(given, path, keep=f"kept/{name}")
    assert seen.code == 0, seen.said
    kept = folder / "kept" / name
    check_recipe(recipe, kept)
    check_rates(recipe, seen)
    check_slots(recipe, seen)
    if recipe.model.weights:
        check_frozen(recipe, seen)
    assert f"{recipe.model.name}: " in seen.said
    assert all(part in seen.said for part in recipe.train.without)
    for teacher in getattr(recipe.task, "teacher", ()):
        assert f"teacher {teacher.name}, {teacher.weights}" in seen.said


def check_recipe(recipe: Recipe, folder: Path) -> None:
    """The run's own recipe is the config's."""
    assert to_plain(load(Recipe, folder / "recipe.yml")) == to_plain(recipe)


def check_rates(recipe: Recipe, seen: tiny_run.Seen) -> None:
    train, total = recipe.train, len(seen.rates)
    steps = total // train.epochs
    assert total == train.epochs * steps > 0
    assert seen.rates == {
        step + 1: train.schedule.over(steps, total, train.images_per_step)(step)
        for step in range(total)
    }


def check_slots(recipe: Recipe, seen: tiny_run.Seen) -> None:
    wanted = SLOTS[recipe.train.optimizer.kind] | ({"trained"} if recipe.train.ema else set())
    assert {name.rpartition("/")[2] for name in seen.slots} == wanted


def check_frozen(recipe: Recipe, seen: tiny_run.Seen) -> None:
    """What names say is frozen is as it was, and the classifier is not."""
    first = files.read(Path(str(recipe.model.weights))).tensors
    moved = {name for name, value in seen.weights.items() if first[name].tobytes() != value}
    assert "head.weight" in moved
    patterns = [entry for entry in recipe.model.freeze if not entry.endswith("%")]
    patterns += ["stem.*" for entry in recipe.model.freeze if entry.endswith("%")]
    assert not [name for pattern in patterns for name in fnmatch.filter(moved, pattern)]
    if not recipe.model.freeze:
        assert any(name.startswith("stem.") for name in moved)

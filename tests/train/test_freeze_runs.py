"""What a recipe freezes: by share of any network, never what is random, and said in the log."""

from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.config.load import load
from ppcls.models import registry
from ppcls.optim.parameters import freeze
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError
from ppcls.weights import files

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "-c", "recipe.yaml", "-o", "train.epochs=1")
WEIGHTS = "model.weights=runs/small/best.safetensors"
OWN = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs/finetune").glob("*.yaml"))]
NAMES = ("ResNet18_vd", "RegNetX_4GF", "EfficientNetB0_small", "EfficientNetB1")


def frozen_names(name, entries, classes=2):
    with paddle.LazyGuard():  # names alone: nothing is allocated
        net = ppcls.create_model(name, classes)
    learnable = {n for n, p in net.named_parameters() if not p.stop_gradient}
    freeze(net, entries)
    left = {n for n, p in net.named_parameters() if not p.stop_gradient}
    return learnable - left, left


@pytest.mark.parametrize("config", OWN)
@pytest.mark.parametrize("name", NAMES)
def test_the_recipes_for_own_photos_leave_blocks_of_any_network(config, name):
    entries = load(Recipe, ROOT / config).model.freeze
    frozen, left = frozen_names(name, entries)
    assert frozen
    assert any(n.startswith("stages.") and n.endswith("conv.weight") for n in left)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.list_models())
def test_a_share_of_every_network_leaves_some_of_it(name):
    before: set[str] = set()
    for share in ("1%", "32%", "70%", "99.9%"):
        frozen, left = frozen_names(name, (share, "*.norm.*"), 1000)
        assert before <= frozen
        assert any(n.startswith("stages.") and n.endswith("conv.weight") for n in left)
        before = frozen


def test_a_share_is_of_whole_blocks_from_the_start():
    def blocks(share):
        frozen, left = frozen_names("ResNet18", (share,))
        assert all(n.startswith(("stem.", "stages.")) for n in frozen)
        found = {tuple(map(int, n.split(".")[1:3])) for n in frozen if n.startswith("stages.")}
        assert not found & {tuple(map(int, n.split(".")[1:3])) for n in left if "stages." in n}
        return sorted(found)

    order = [(stage, block) for stage in range(4) for block in range(2)]
    found = [blocks(f"{s}%") for s in (0, 5, 12.5, 25, 50, 70, 99.99)]
    assert found == [order[:n] for n in (0, 0, 1, 2, 4, 5, 7)]
    assert frozen_names("ResNet18", ("0%",))[0] == set()


def test_shares_are_what_names_were_in_the_recipes():
    given = {
        "finetune/EfficientNetLite0.yaml": ["stem.*", "stages.[0-4].*", "*.norm.*"],
        "finetune/ResNet50_vd.yaml": ["stem.*", "stages.[0-1].*", "*.norm.*"],
        "quick_start/solar_cells.yaml": ["stem.*", "stages.[0-2].*", "*.norm.*"],
        "quick_start/ssld_solar_cells_teacher.yaml": ["stem.*", "stages.[0-3].*", "*.norm.*"],
    }
    for config, names in given.items():
        model = load(Recipe, ROOT / "configs" / config).model
        assert frozen_names(model.name, model.freeze) == frozen_names(model.name, names)


def test_only_numbers_of_a_share_are_taken(workdir, run):
    for wrong in ("100%", "-5%", "120%", "half%", "nan%"):
        code, _, err = run(*TRAIN, f"model.freeze={wrong}", WEIGHTS)
        assert code == 2
        assert f"model.freeze: {wrong!r} should be a share from 0% to below 100%" in err
    with pytest.raises(UserError, match="a share such as 50% fits every network"):
        frozen_names("ResNet18", ("layer1.*",))


@pytest.mark.parametrize("entry", ["50%", "[stem.*]", "head.*", "['*.conv.*', '*.norm.*']"])
def test_random_weights_are_not_frozen(workdir, run, entry):
    code, _, err = run(*TRAIN, f"model.freeze={entry}")
    assert code == 2
    assert err.startswith("error: model.freeze would keep random weights (")
    assert "give model.weights, or -o model.freeze=[]" in err
    assert len(err.splitlines()) == 1
    assert not (workdir / "runs").exists()


@pytest.mark.parametrize("config", OWN)
def test_the_recipes_for_own_photos_refuse_fresh_weights(workdir, run, config):
    options = ("model.name=ResNet18_vd", "model.weights=null", "data.train=photos/train")
    options += ("data.eval=photos/eval", "data.workers=0")
    code, _, err = run("train", "-c", ROOT / config, "-o", *options)
    assert code == 2
    assert "model.freeze would keep random weights" in err


def test_a_new_classifier_is_not_frozen(trained, workdir, run):
    options = ("model.freeze=['head.*']", "model.new_head=true", "output=runs/a")
    code, _, err = run(*TRAIN, WEIGHTS, *options)
    assert code == 2
    assert "the classifier that model.new_head starts afresh" in err
    assert not (workdir / "runs/a").exists()


def test_the_log_says_how_much_is_trained(trained, workdir, run):
    assert "MobileNetV3_small_x0_35: 0.39 M parameters, 2 classes" in trained
    assert "leaves only the classifier" not in trained
    code, out, _ = run(*TRAIN, WEIGHTS, "model.freeze=[70%, '*.norm.*']", "output=runs/a")
    assert code == 0
    assert "MobileNetV3_small_x0_35: 0.39 M parameters, 0.36 M trained, 2 classes" in out
    after = files.read("runs/a/latest.safetensors").tensors
    before = files.read("runs/small/best.safetensors").tensors
    frozen, left = frozen_names("MobileNetV3_small_x0_35", ("70%", "*.norm.*"))
    assert all(np.array_equal(before[name], after[name]) for name in frozen)
    assert not any(np.array_equal(before[name], after[name]) for name in left)


def test_a_classifier_trained_alone_is_said(trained, workdir, run):
    options = (
        WEIGHTS,
        "model.freeze=['stem.*', 'stages.*', 'expand.*', 'neck.*']",
        "output=runs/a",
    )
    code, out, _ = run(*TRAIN, *options)
    assert code == 0
    assert "0.39 M parameters, 0.0026 M trained" in out
    assert "note: model.freeze leaves only the classifier (head.*) to train" in out
    code, out, _ = run(*TRAIN, *options, "--resume")
    assert code == 0

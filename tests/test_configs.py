"""Every config loads, is short, and says what the published recipe says."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ppcls.api import create_model
from ppcls.config.load import load
from ppcls.optim.parameters import freeze
from ppcls.optim.schedules import Cosine, Step
from ppcls.recipe import Recipe

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
NONE = ("_base_", "configs/default.yaml")  # parts of recipes, and a page with every key
COMPLETE = [path for path in CONFIGS if not any(place in path.as_posix() for place in NONE)]
PUBLISHED = json.loads((ROOT / "tests/golden/complexity.json").read_text())


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_every_config_loads(path):
    recipe = load(Recipe, path)
    assert recipe.preprocess.channels == recipe.model.in_channels
    if path.parent == ROOT / "configs":
        assert path.stem == recipe.model.name
        assert len(path.read_text().splitlines()) <= 10
        assert recipe.train.schedule.for_batch, "the batch its learning rate was published for"


def test_every_published_name_has_a_config():
    assert len(PUBLISHED) == 73
    assert set(PUBLISHED) <= {path.stem for path in COMPLETE}


def test_every_base_is_used():
    text = "".join(path.read_text() for path in CONFIGS)
    for path in CONFIGS:
        if path.parent.name == "_base_":
            assert f"_base_: {path.name}" in text or f"_base_/{path.name}" in text


def numbers(name):
    recipe = load(Recipe, ROOT / f"configs/{name}.yaml")
    train = recipe.train
    schedule = train.schedule
    return (
        train.epochs,
        (schedule.lr, schedule.for_batch),
        train.optimizer.weight_decay,
        recipe.task.loss.smoothing,
        (recipe.preprocess.resize, recipe.preprocess.crop),
        type(schedule.decay),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet50", (120, (0.1, 256), 1e-4, 0.0, (256, 224), Step)),
        ("ResNet50_vd", (200, (0.1, 256), 7e-5, 0.1, (256, 224), Cosine)),
        ("ResNet101_vd", (200, (0.1, 256), 1e-4, 0.1, (256, 224), Cosine)),
        ("ResNeXt101_64x4d", (120, (0.1, 256), 1.5e-4, 0.0, (256, 224), Step)),
        ("ResNeXt152_64x4d", (120, (0.1, 256), 1.8e-4, 0.0, (256, 224), Step)),
        ("SE_ResNeXt101_32x4d", (200, (0.1, 256), 7e-5, 0.1, (256, 224), Cosine)),
        ("ResNeSt50", (300, (0.1, 256), 7e-5, 0.1, (256, 224), Cosine)),
        ("RegNetX_4GF", (100, (0.4, 512), 5e-5, 0.0, (256, 224), Cosine)),
        ("EfficientNetB0", (360, (0.032, 512), 1e-5, 0.1, (256, 224), Cosine)),
        ("EfficientNetB7", (360, (0.032, 512), 1e-5, 0.1, (632, 600), Cosine)),
        ("Fix_ResNeXt101_32x48d_wsl", (120, (0.1, 256), 1e-4, 0.0, (320, 320), Step)),
        ("PPLCNet_x1_0", (360, (0.8, 2048), 3e-5, 0.1, (256, 224), Cosine)),
        ("PPLCNet_x2_5", (360, (0.8, 2048), 4e-5, 0.1, (256, 224), Cosine)),
        ("MobileNetV3_small_x0_35", (360, (1.3, 2048), 1e-5, 0.1, (256, 224), Cosine)),
        ("MobileNetV3_large_x1_0", (360, (0.65, 1024), 2e-5, 0.1, (256, 224), Cosine)),
        ("MobileNetV3_large_x1_25", (360, (1.3, 2048), 4e-5, 0.1, (256, 224), Cosine)),
    ],
)
def test_published_numbers(name, expected):
    assert numbers(name) == expected


STRIKES_BACK = {  # arXiv:2110.00476, table 2
    "a1": (600, 5e-3, 0.01, 0.1, 0.05, 224, 7, 0.2),
    "a2": (300, 5e-3, 0.02, 0.0, 0.05, 224, 7, 0.1),
    "a3": (100, 8e-3, 0.02, 0.0, 0.0, 160, 6, 0.1),
}


@pytest.mark.parametrize("network", ["ResNet50", "ResNet50_vd"])
@pytest.mark.parametrize("name", STRIKES_BACK)
def test_modern_recipes(network, name):
    recipe = load(Recipe, ROOT / f"configs/modern/{network}_{name}.yaml")
    train, loss = recipe.train, recipe.task.loss
    applied = [op for op in train.transforms if op.op == "random_apply"]
    changes = [(apply.prob, *(op.magnitude for op in apply.ops)) for apply in applied]
    magnitude = changes[0][1]
    mixup, cutmix = train.batch_transforms
    found = (train.epochs, train.schedule.lr, train.optimizer.weight_decay, loss.smoothing)
    found += (recipe.model.drop_path or 0.0, recipe.train_size, magnitude, mixup.alpha)
    assert found == STRIKES_BACK[name]
    assert changes == [(0.5, magnitude)] * 2
    assert (mixup.prob, cutmix.prob, cutmix.alpha) == (0.5, 0.5, 1.0)
    photos = 2048 if name == "a3" else 2064  # a multiple of the repeats
    assert (train.images_per_step, train.schedule.for_batch) == (photos, 2048)
    assert (recipe.preprocess.resize, recipe.preprocess.crop) == (236, 224)
    kinds = (recipe.model.name, loss.kind, train.optimizer.kind, train.schedule.decay.kind)
    assert kinds == (network, "bce", "lamb", "cosine")
    assert str(train.schedule.warmup) == "5 epochs"
    assert not train.decay_norms
    assert recipe.output == f"runs/{network}_{name}"
    assert train.repeats == (1 if name == "a3" else 3)
    assert train.without == ()


STUDENTS = ["ResNet34_vd", "ResNet50_vd", "ResNet101_vd"]
STUDENTS += [f"Res2Net{depth}_vd_26w_4s" for depth in (50, 101, 200)]


@pytest.mark.parametrize("name", STUDENTS)
def test_students_of_ssld(name):
    recipe = load(Recipe, ROOT / f"configs/distill/{name}_ssld.yaml")
    (teacher,), (loss,) = recipe.task.teacher, recipe.task.losses
    assert (recipe.model.name, recipe.model.weights, recipe.task.labels_weight) == (name, None, 0)
    assert (teacher.name, teacher.weights) == ("ResNeXt101_32x16d_wsl", "true")
    assert loss.kind == "symmetric_kl"  # as its code, not its paper
    train = recipe.train
    assert (train.epochs, train.schedule.lr, train.schedule.for_batch) == (360, 0.4, 1024)
    assert (train.optimizer.weight_decay, train.batch_transforms) == (7e-5, ())
    assert recipe.data.unlabeled.share == 0.75
    assert recipe.output == f"runs/ssld/{name}"


LIGHT_STUDENTS = {  # teacher, loss, epochs, lr, its batch, weight decay, share of unlabelled images
    "PPLCNet_x1_0": ("ResNet50_vd", "symmetric_kl", 200, 0.4, 1024, 1e-5, None),
    "PPLCNet_x2_5": ("ResNet50_vd", "symmetric_kl", 100, 0.2, 512, 4e-5, None),
    "MobileNetV3_large_x1_0": ("ResNet50_vd", "symmetric_kl", 360, 1.3, 2048, 1e-5, 0.75),
    "MobileNetV3_small_x1_0": (
        "MobileNetV3_large_x1_0",
        "soft_cross_entropy",
        120,
        1.3,
        2048,
        1e-5,
        None,
    ),
}


@pytest.mark.parametrize("name", LIGHT_STUDENTS)
def test_light_students_of_ssld(name):
    recipe = load(Recipe, ROOT / f"configs/distill/{name}_ssld.yaml")
    (teacher,), (loss,) = recipe.task.teacher, recipe.task.losses
    train = recipe.train
    schedule = train.schedule
    share = recipe.data.unlabeled and recipe.data.unlabeled.share
    found = (teacher.name, loss.kind, train.epochs, schedule.lr, schedule.for_batch)
    assert (*found, train.optimizer.weight_decay, share) == LIGHT_STUDENTS[name]
    assert (recipe.model.name, recipe.model.weights, teacher.weights) == (name, None, "ssld")
    assert recipe.task.labels_weight == 0
    assert not train.decay_norms
    assert recipe.output == f"runs/ssld/{name}"


def test_each_stage_of_ssld_goes_on_with_the_one_before():
    stages = [f"configs/distill/{name}.yaml" for name in ("ResNet50_vd_ssld", "ssld_finetune")]
    stages = [load(Recipe, ROOT / stage) for stage in (*stages, "configs/distill/ssld_fix.yaml")]
    for before, after in pairwise(stages):
        assert after.model.weights == f"{before.output}/best.safetensors"
    finetune, fix = stages[1:]
    assert (finetune.train.epochs, finetune.train.schedule.lr) == (60, 0.004)
    assert finetune.data.unlabeled is None
    assert (fix.preprocess.crop, fix.task.kind) == (320, "classify")
    whole = load(Recipe, ROOT / "configs/ResNet50_vd_ssld.yaml")
    model = replace(stages[0].model, name="ResNet50_vd_ssld")
    assert whole == replace(stages[0], model=model, output="runs/ResNet50_vd_ssld")


def test_fix_trains_the_classifier_alone():
    recipe = load(Recipe, ROOT / "configs/distill/ssld_fix.yaml")
    net = create_model("ResNet18_vd", 2)
    freeze(net, recipe.model.freeze)
    trained = {name for name, p in net.named_parameters() if not p.stop_gradient}
    assert trained == {"head.weight", "head.bias"}


def test_what_the_published_recipes_mix_and_augment():
    def ops(name):
        train = load(Recipe, ROOT / f"configs/{name}.yaml").train
        return [op.op for op in train.transforms][2:], [
            (op.op, op.alpha) for op in train.batch_transforms
        ]

    assert ops("ResNet50") == ([], [])
    assert ops("ResNet50_vc") == ([], [])
    assert ops("RegNetX_4GF") == ([], [])
    assert ops("ResNet50_vd") == ([], [("mixup", 0.2)])
    assert ops("ResNeSt50") == (["auto_augment"], [("mixup", 0.2)])
    assert ops("EfficientNetB0") == (["auto_augment"], [])
    assert ops("PPLCNet_x2_0") == ops("MobileNetV3_large_x0_75") == ([], [])
    assert ops("PPLCNet_x2_5") == ops("MobileNetV3_large_x1_0") == (["auto_augment"], [])

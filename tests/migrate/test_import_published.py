"""The published networks: a config with our recipe's numbers gives our recipe's numbers back."""

import json
from pathlib import Path

import pytest

from ppcls.config.load import load, to_plain
from ppcls.recipe import Recipe

ROOT = Path(__file__).parents[2]
NAMES = json.loads((ROOT / "tests/golden/complexity.json").read_text())
# What PaddleClas's form has no word for, or says otherwise.
APART = {
    "without": (),
    "drop_last": False,  # as the files say
    "save_every": "1 epochs",
}


def loss(recipe):
    return [{"CELoss": {"weight": 1.0, "epsilon": recipe["task"]["loss"]["smoothing"]}}]


def optimizer(train):
    schedule, ours = train["schedule"], train["optimizer"]
    lr = {"name": "Cosine", "learning_rate": schedule["lr"]}
    if schedule["decay"]["kind"] == "step":
        epochs = [int(milestone.split()[0]) for milestone in schedule["decay"]["milestones"]]
        values = [schedule["lr"] * 0.1**i for i in range(len(epochs) + 1)]
        lr |= {"name": "Piecewise", "decay_epochs": epochs, "values": values}
    if schedule["warmup"] != "0 epochs":
        lr["warmup_epoch"] = int(schedule["warmup"].split()[0])
    names = {"momentum": "Momentum", "rmsprop": "RMSProp"}
    numbers = {key: ours[key] for key in ("momentum", "rho", "epsilon") if key in ours}
    decay = {"name": "L2", "coeff": ours["weight_decay"]}
    return {"name": names[ours["kind"]], **numbers, "lr": lr, "regularizer": decay}


def fill(old, name):
    """The config that PaddleClas would have for our recipe of a network."""
    recipe = to_plain(load(Recipe, ROOT / f"configs/{name}.yaml"))
    train, seen = recipe["train"], recipe["preprocess"]
    normalize = {"scale": "1.0/255.0", "mean": seen["mean"], "std": seen["std"], "order": ""}
    extra = [{"AutoAugment": None} for op in train["ops"] if op["op"] == "auto_augment"]
    crop = {"size": train["size"] or seen["crop"], "use_log_aspect": True}
    flip = {"RandFlipImage": {"flip_code": 1}}
    ops = [{"DecodeImage": {"to_rgb": True}}, {"RandCropImage": crop}, flip, *extra]
    resize = {"resize_short": seen["resize"], "interpolation": seen["interpolation"]}
    shown = [{"DecodeImage": {"to_rgb": True}}, {"ResizeImage": resize}]
    shown += [{"CropImage": {"size": seen["crop"]}}, {"NormalizeImage": normalize}]
    place = "DataLoader.{}.dataset.{}"
    for part, file in (("Train", "train"), ("Eval", "val")):
        old.set(place.format(part, "image_root"), "./dataset/ILSVRC2012/")
        old.set(place.format(part, "cls_label_path"), f"./dataset/ILSVRC2012/{file}_list.txt")
    old.set(place.format("Train", "transform_ops"), [*ops, {"NormalizeImage": normalize}])
    old.set(place.format("Eval", "transform_ops"), shown)
    mixed = [{"MixupOperator": {"alpha": op["alpha"]}} for op in train["batch_ops"]]
    old.set(place.format("Train", "batch_transform_ops"), mixed)
    old.set("DataLoader.Train.sampler.batch_size", train["batch_size"])
    old.set("DataLoader.Eval.sampler.batch_size", recipe["eval"]["batch_size"])
    old.set("Arch", {"name": name, "class_num": 1000}).set("Loss.Train", loss(recipe))
    old.set("Optimizer", optimizer(train)).set("Global", {"epochs": train["epochs"]})
    return recipe


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_ssld")])
def test_published_numbers_come_back(old, name):
    expected = fill(old, name)
    cards = expected["train"]["schedule"]["for_batch"] // expected["train"]["batch_size"]
    found = to_plain(old.convert(cards))
    expected["train"] |= APART
    if expected["train"]["optimizer"]["kind"] == "rmsprop":
        expected["train"]["optimizer"]["mean_square"] = 0.0  # PaddleClas's start
    expected["train"], found["train"] = (
        {key: list(value) if isinstance(value, tuple) else value for key, value in train.items()}
        for train in (expected["train"], found["train"])
    )
    assert found == expected
    turned = {key for key in old.remarks if key.endswith("AutoAugment")}  # to both sides here
    assert set(old.remarks) - turned == {"Optimizer.lr.learning_rate"}

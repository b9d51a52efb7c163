"""Recipe keys of version 0.1, which go on working under the names that they have now."""

import pytest

from ppcls.config.load import from_plain, load, to_plain
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError

OLD = """\
model: {name: ResNet18}
data:
  train: photos
  labels: names.txt
  unlabeled: {photos: more.txt, share: 0.5}
task:
  kind: distill
  teacher: {name: ResNet50, weights: teacher.safetensors}
train:
  epochs: 1
  batch_size: 4
  schedule: {lr: 0.1}
  ops: [{op: resize_short, pixels: 40}, {op: center_crop}]
  batch_ops: []
"""
RENAMED = {
    "labels:": "class_names:",
    "photos:": "images:",
    " ops:": " transforms:",
    "batch_ops:": "batch_transforms:",
}


def renamed(text):
    for old, new in RENAMED.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def recipes(tmp_path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(OLD)
    new.write_text(renamed(OLD))
    return old, new


def test_older_names_mean_the_same_and_are_said_once(recipes, capsys):
    old, new = recipes
    given = ["train.ops.0.pixels=48", "train.batch_ops=[{op: mixup}]", "data={labels: other.txt}"]
    asked = ["train.transforms.0.pixels=48", "train.batch_transforms=[{op: mixup}]"]
    found = load(Recipe, old, given)
    said = capsys.readouterr().out
    assert found == load(Recipe, new, [*asked, "data.class_names=other.txt"])
    assert not capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert said.startswith(f"note: {old}: ")
    for name in ("labels is called data.class_names", "photos is called data.unlabeled.images"):
        assert name in said
    assert "train.ops is called train.transforms now" in said
    assert said.count("batch_ops") == 1
    assert found.train.transforms[0].pixels == 48
    assert found.data.class_names == "other.txt"


def test_a_base_may_have_the_one_and_a_recipe_the_other(recipes, tmp_path):
    old, _ = recipes
    over = tmp_path / "over.yaml"
    over.write_text(f"_base_: {old.name}\ntrain: {{transforms: [{{op: resize}}]}}\n")
    assert [op.op for op in load(Recipe, over).train.transforms] == ["resize"]
    over.write_text("_base_: new.yaml\ntrain: {ops: [{op: resize}]}\n")
    assert [op.op for op in load(Recipe, over).train.transforms] == ["resize"]


def test_both_at_once_are_one_line(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(OLD + "  transforms: []\n")
    with pytest.raises(UserError, match=r"both.yaml:13: train.ops is an older name of train.tr"):
        load(Recipe, path)


def test_mistakes_are_said_under_the_name_of_now(recipes):
    old, _ = recipes
    old.write_text(OLD.replace("pixels: 40", "pixels: x"))
    with pytest.raises(UserError, match=r"old.yaml:13: train.transforms.0.pixels: should be a v"):
        load(Recipe, old)


def test_a_checkpoints_recipe_of_then_is_read(recipes, capsys):
    _, new = recipes
    now = load(Recipe, new)
    then = to_plain(now)
    then["train"]["ops"] = then["train"].pop("transforms")
    then["data"]["labels"] = then["data"].pop("class_names")
    then["data"]["unlabeled"]["photos"] = then["data"]["unlabeled"].pop("images")
    assert from_plain(Recipe, then, "a checkpoint") == now
    assert "ops" in then["train"]  # left as it was
    assert not capsys.readouterr().out

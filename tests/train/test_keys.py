"""What a recipe may say of optimizers, schedules, losses and steps, and what it may not."""

import pytest

from ppcls.config.load import load, to_yaml
from ppcls.errors import UserError
from ppcls.recipe import Recipe

FULL = """
model: {name: ResNet50_vd, num_classes: 10}
task: {loss: {kind: focal, gamma: 1.5, weights: balanced}}
train:
  epochs: 100
  batch_size: 32
  accumulate: 8
  optimizer: {kind: lamb, weight_decay: 0.02}
  decay_norms: false
  lr_scale: {"*": 0.1, "head.*": 1}
  clip_norm: 1
  ema: {decay: 0.999}
  precision: bf16
  amp_level: O2
  schedule:
    lr: 5e-3
    for_batch: 2048
    warmup: 5%
    decay: {kind: piecewise, milestones: [30, 60%, 5000 steps], values: [1e-3, 1e-4, 0]}
"""
MISTAKES = {
    "train.lr_scale={head.*: 0}": "train.lr_scale.head.*: should be greater than 0",
    "train.ema={decay: 1}": "train.ema.decay: should be less than 1",
    "train.ema.decai=0.9": "unknown key 'train.ema.decai'; did you mean 'decay'?",
    "model.drop_path=1": "model.drop_path: should be less than 1",
    "train.precision=fp8": "train.precision: should be 'fp32', 'bf16' or 'fp16'",
    "train.accumulate=0": "train.accumulate: should be greater than 0",
    "train.clip_norm=0": "train.clip_norm: should be greater than 0",
    "train.optimizer.kind=lam": "unknown 'lam'; did you mean 'lamb'?",
    "train.schedule.decay.kind=exponential": "missing key 'gamma'",
    "train.schedule.decay.kind=one_cycle": "one_cycle rises by itself",
    "task.loss.gama=1": "unknown key 'task.loss.gama'; did you mean 'gamma'?",
    "task.loss.kind=bc": "unknown 'bc'; did you mean 'bce'?",
    "task.loss.weights=balance": "task.loss.weights: should be balanced or a list of numbers",
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(FULL)
    return path


def test_a_full_recipe_is_read_and_written(path, tmp_path):
    recipe = load(Recipe, path)
    assert recipe.train.photos_per_step == 256
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe))
    assert load(Recipe, again) == recipe


def test_a_loss_without_a_kind_is_cross_entropy(path):
    path.write_text(FULL.replace("{kind: focal, gamma: 1.5, weights: balanced}", "{smoothing: 1}"))
    assert load(Recipe, path).task.loss.kind == "cross_entropy"
    with pytest.raises(UserError, match=r"unknown key 'task.loss.smoth'; did you mean 'smoothing'"):
        load(Recipe, path, ["task.loss.smoth=0.1"])


@pytest.mark.parametrize("item", MISTAKES)
def test_a_mistake_is_one_line(path, item):
    with pytest.raises(UserError) as error:
        load(Recipe, path, [item])
    assert MISTAKES[item] in str(error.value)
    assert "\n" not in str(error.value)

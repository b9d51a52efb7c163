"""What a recipe may say of optimizers, schedules, losses and steps, and what it may not."""

import pytest

from ppcls.config.load import load, to_plain, to_yaml
from ppcls.data.transforms import Progressive
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError

FULL = """
model: {name: ResNet50_vd, num_classes: 10}
task: {loss: {kind: focal, gamma: 1.5, weights: balanced}}
train:
  epochs: 100
  batch_size: 32
  accumulate: 8
  sampler: {kind: balanced, power: 0.5}
  repeats: 4
  size: {kind: progressive, sizes: {0: 128, 10: 160, 20: 192}}
  sync_norms: true
  recompute: true
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
    "train.lr_scale={head.*: -1}": "train.lr_scale.head.*: should be greater than or equal to 0",
    "train.ema={decay: 1}": "train.ema.decay: should be less than 1",
    "train.ema.decai=0.9": "unknown key 'train.ema.decai'; did you mean 'decay'?",
    "model.drop_path=1": "model.drop_path: should be less than 1",
    "train.precision=fp8": "train.precision: should be 'fp32', 'bf16' or 'fp16'",
    "train.accumulate=0": "train.accumulate: should be greater than 0",
    "train.clip_norm=0": "train.clip_norm: should be greater than 0",
    "train.optimizer.kind=lam": "unknown 'lam'; did you mean 'lamb'?",
    "train.schedule.decay.kind=exponential": "missing key 'gamma'",
    "train.schedule.decay.kind=one_cycle": "one_cycle rises by itself",
    "train.sampler.kind=balance": "unknown 'balance'; did you mean 'balanced'?",
    "train.sampler.powr=1": "unknown key 'train.sampler.powr'; did you mean 'power'?",
    "train.sampler.power=1.5": "train.sampler.power: should be less than or equal to 1",
    "train.sampler={kind: weighted, weights: [1, -1]}": "weights.1: should be greater",
    "train.sampler={kind: weighted, weights: [0, 0]}": "train.sampler: weights are all 0",
    "train.sampler={kind: weighted}": "missing key 'weights' under 'train.sampler",
    "train.repeats=0": "train.repeats: should be greater than 0",
    "train.repeats=3": "a batch_size of 32 is no multiple of repeats: 3",
    "train.qat.weight_bits=4": "train.qat.weight_bits: should be 7 or 8",
    "train={qat: true}": "-o train.precision=fp32 or -o train.qat=false",
    "train={qat: true, precision: fp32}": "-o train.recompute=false or -o train.qat=false",
    "train.size=0": "train.size: should be greater than 0",
    "train.size=big": "train.size: should be a valid integer",
    "train.size=[160, 192, 224]": "train.size: a size is one number, or two: [height, width]",
    "train.size=[160, 0]": "train.size.1: should be greater than 0",
    "train.size={kind: multi_scale, sizes: [[96, 9, 9]]}": "sizes.0: a size is one number, or two",
    "preprocess.crop=[225, big]": "preprocess.crop.1: should be a valid integer",
    "preprocess.crop=[225]": "preprocess.crop: a size is one number, or two: [height, width]",
    "preprocess.crop={height: 225}": "preprocess.crop: should be a valid integer",
    "preprocess.fit=stretch": "preprocess.fit: should be 'crop', 'squash' or 'letterbox'",
    "train.size.kind=progresive": "train.size.kind: unknown 'progresive'; did you mean 'prog",
    "train.size={sizes: {10: 160}, kind: multi_scale}": "train.size.sizes: should be a list",
    "train.size={kind: multi_scale, sizes: []}": "train.size: sizes is empty",
    "train.size.sizes={0: 0}": "train.size.sizes.0: should be greater than 0",
    "train.size.sizes={first: 96}": "train.size.sizes.first: should be a valid integer",
    "train.size.sizes={-1: 96}": "train.size.sizes.-1: should be greater than or equal to 0",
    "train.size.side=3": "unknown key 'train.size.side'",
    "train.sync_norms=1": "train.sync_norms: should be a valid boolean",
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
    assert recipe.train.images_per_step == 256
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe))
    assert load(Recipe, again) == recipe


def test_sizes_by_epoch(path):
    assert load(Recipe, path).train_size == Progressive(sizes={0: 128, 10: 160, 20: 192})
    changed = load(Recipe, path, ["train.size.sizes={0: 96}"])
    assert changed.train_size == Progressive(sizes={0: 96, 10: 160, 20: 192})
    number = load(Recipe, path, ["train.size=96"])
    assert (number.train_size, to_plain(number)["train"]["size"]) == (96, 96)
    assert load(Recipe, path, ["train.size=null"]).train_size == number.preprocess.crop
    with pytest.raises(UserError, match=r"train.size: sizes start at epoch 0, as in {0: 128"):
        load(Recipe, path, ["train.size=null", "train.size={kind: progressive, sizes: {5: 96}}"])


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

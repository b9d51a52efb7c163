"""The network a recipe trains: with synchronised norms it has the names and values it has without.

Paddle computes such norms on a GPU only, so here they are made and not run.
"""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.config.load import from_plain
from ppcls.optim.parameters import freeze, groups
from ppcls.recipe import Recipe
from ppcls.train.setup import build_model, build_trainer, open_datasets
from ppcls.utils.errors import UserError

PLAIN = {
    "model": {"name": "EfficientNetLite0", "num_classes": 2},
    "data": {"train": "photos/train", "workers": 0},
    "preprocess": {"resize": 36, "crop": 32},
    "train": {"epochs": 1, "batch_size": 4, "schedule": {"lr": 0.1}},
}


def recipe(*overrides):
    return from_plain(Recipe, PLAIN, "a test", list(overrides))


def made(*overrides, saved=None):
    paddle.seed(0)
    return build_model(recipe(*overrides), saved)


def state(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def test_synchronised_norms_keep_names_and_values():
    plain, synced = made(), made("train.sync_norms=true")
    norms = [layer for layer in plain.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    others = [layer for layer in synced.sublayers() if isinstance(layer, nn.SyncBatchNorm)]
    assert len(others) == len(norms) == 49  # 16 blocks of 3, less one, stem and last convolution
    assert not any(isinstance(layer, nn.BatchNorm2D) for layer in synced.sublayers())
    for one, other in zip(norms, others, strict=True):
        assert (one._momentum, one._epsilon) == (other._momentum, other._epsilon) == (0.99, 1e-3)
    first, second = state(plain), state(synced)
    assert list(first) == list(second)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_groups_frozen_parts_and_checkpoints_are_the_same():
    plain, synced = made(), made("train.sync_norms=true", "train.recompute=true")
    saved = {name: value + 1 for name, value in state(plain).items()}
    restored = state(made("train.sync_norms=true", saved=saved))
    assert all((restored[name] == value).all() for name, value in saved.items())
    kept = [len(freeze(net, ("stem.*", "stages.0.*"))) for net in (plain, synced)]
    assert kept[0] == kept[1] > 0
    for one, other in zip(groups(plain, False, {}), groups(synced, False, {}), strict=True):
        assert (one.decayed, len(one.parameters)) == (other.decayed, len(other.parameters))


def test_a_gpu_gets_them_and_a_cpu_says_why_not(workdir, monkeypatch):
    asked, inputs = open_datasets(recipe("train.sync_norms=true"))
    with pytest.raises(UserError, match=r"^train.sync_norms: .* on GPUs only .* on cpu: -o train"):
        build_trainer(asked, inputs)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    net = build_trainer(asked, inputs).model
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in net.sublayers())

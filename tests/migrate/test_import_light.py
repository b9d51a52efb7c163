"""Configs of PP-LCNet and MobileNetV3: what of `Arch` is carried over, and what is said."""

import pytest


def test_its_rates_and_weights(old):
    old.set("Arch", {"name": "PPLCNet_x1_0", "class_num": 2, "pretrained": True, "use_ssld": True})
    recipe = old.set("Arch.lr_mult_list", [0.0, 0.4, 0.4, 0.8, 0.8, 1.0]).convert()
    model = recipe.model
    assert (model.name, model.num_classes, model.weights) == ("PPLCNet_x1_0", 2, "ssld")
    assert model.new_head
    assert recipe.train.lr_scale == {
        "stem.*": 0.0,
        "stages.0.*": 0.4,
        "stages.1.*": 0.4,
        "stages.2.*": 0.8,
        "stages.3.*": 0.8,
    }
    assert not recipe.train.decay_norms  # as PaddleClas builds it


@pytest.mark.parametrize(
    ("name", "key", "same", "other", "words"),
    [
        ("PPLCNet_x1_0", "stride_list", [2, 2, 2, 2, 2], [2, [2, 1], 2, 2, 2], "[2, 2, 2, 2, 2]"),
        ("PPLCNet_x1_0", "use_last_conv", True, False, "true"),
        ("PPLCNet_x0_25", "class_expand", 1280, 512, "1280"),
        ("PPLCNet_x0_25", "dropout_prob", 0.2, 0.0, "0.2"),
        ("MobileNetV3_large_x1_0", "dropout_prob", 0.2, 0.5, "0.2"),
    ],
)
def test_arguments_that_make_another_network_are_told(old, name, key, same, other, words):
    old.set("Arch.name", name).set(f"Arch.{key}", same).convert()
    assert f"Arch.{key}" not in old.remarks
    old.set(f"Arch.{key}", other).convert()
    assert old.remarks[f"Arch.{key}"] == f"not carried over: {name} has {words} here"

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ppcls
from ppcls.models import registry
from ppcls.models.families import residual
from ppcls.utils.errors import UserError

PUBLISHED = set(json.loads((Path(__file__).parents[1] / "golden/complexity.json").read_text()))


def test_every_published_network_is_there():
    assert len(PUBLISHED) == 73
    assert set(registry.list_models()) >= PUBLISHED


def test_no_name_is_in_two_families_and_none_differs_in_case_only():
    names = [name for family in registry.FAMILIES for name in family.specs]
    assert len({name.lower() for name in names}) == len(names)
    assert len(residual.SPECS) == 61


def test_names_sort_by_their_numbers():
    assert registry.list_models("ResNeXt101_32x*") == [
        "ResNeXt101_32x4d",
        "ResNeXt101_32x8d_wsl",
        "ResNeXt101_32x16d_wsl",
        "ResNeXt101_32x32d_wsl",
        "ResNeXt101_32x48d_wsl",
    ]
    assert registry.list_models("ResNet??") == ["ResNet18", "ResNet34", "ResNet50"]


def test_patterns_match_in_any_case():
    lites = [f"EfficientNetLite{i}" for i in range(5)]
    assert registry.list_models("efficientnetlite*") == lites
    assert registry.list_models("nothing*") == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ResNet50vd", "'ResNet50_vd'"),
        ("resnet50", "'ResNet50'"),
        ("EFFICIENTNETB4", "'EfficientNetB4'"),
        ("efficientnet-b0", "'EfficientNetB0'"),
        ("resnext101_32x8d", "'ResNeXt101_32x8d_wsl'"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(wrong, right):
    with pytest.raises(UserError) as caught:
        registry.spec_of(wrong)
    assert str(caught.value).startswith(f"unknown model {wrong!r}; did you mean '")
    assert right in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_like_no_other():
    with pytest.raises(UserError, match=r"'VGG16'; its family is not here .*`ppcls models` lists"):
        registry.spec_of("VGG16")


@pytest.mark.parametrize("numbers", [(-1, 3), (10, 0)])
def test_numbers_below_one_are_refused(numbers):
    with pytest.raises(UserError, match="ResNet18: num_classes="):
        ppcls.create_model("ResNet18", numbers[0], in_channels=numbers[1])


def test_names_that_share_a_structure():
    same = registry.spec_of("ResNet50_vd")
    assert registry.spec_of("ResNet50_vd_v2") == same
    assert registry.spec_of("ResNet50_vd_ssld") == same
    wsl = registry.spec_of("ResNeXt101_32x48d_wsl")
    assert registry.spec_of("Fix_ResNeXt101_32x48d_wsl") == replace(wsl, resolution=320)


def test_lite0_is_b0_small_but_for_activation_and_padding():
    lite = registry.spec_of("EfficientNetLite0")
    assert replace(lite, act="silu", padding=None) == registry.spec_of("EfficientNetB0_small")


def test_regnet_x_4gf_has_the_published_shape():
    """Widths, depths and group width of arXiv:2003.13678, table 7."""
    spec = residual.SPECS["RegNetX_4GF"]
    assert spec.depths == (2, 5, 14, 2)
    assert spec.widths == (80, 240, 560, 1360)
    assert [w // g for w, g in zip(spec.widths, spec.groups, strict=True)] == [40] * 4


def test_names_and_specs_need_no_paddle():
    code = """
import sys
from ppcls.models import own, registry
from ppcls.weights import dialects
assert dialects.layer_name("timm", "head", registry.spec_of("EfficientNetB0")) == "classifier"
assert registry.spec_of(registry.list_models("*_vd")[0]).resolution == 224
assert "paddle" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""Exports under a name that PaddleX knows."""

from dataclasses import replace
from pathlib import Path

import pytest
import small_network
import yaml
from photos import write_photo

from ppcls.export import Form, export
from ppcls.inference.exported_model import open_exported

EXPORT = ("export", "-c", "recipe.yaml", "--output", "exported/x")


def named(tmp_path, name, form=None):
    """inference.yml of a small network that is called so; ppcls's own name is read back."""
    trained = small_network.trained()
    recipe = replace(trained.recipe, model=replace(trained.recipe.model, name=name))
    write_photo(tmp_path / "0.png", 0)
    place = export(replace(trained, recipe=recipe), tmp_path / "x", [str(tmp_path / "0.png")], form)
    assert open_exported(place).manifest.model == name
    return yaml.safe_load((place / "inference.yml").read_text())["Global"]["model_name"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet18", "ResNet18"),
        ("ResNet200_vd", "ResNet200_vd"),
        ("ResNet50_vd_ssld", "ResNet50_vd"),  # PaddleX knows its structure by this name
        ("ResNet50_vd_v2", "ResNet50_vd"),
        ("PPLCNet_x0_25", "PP-LCNet_x0_25"),
        ("SE_ResNet18_vd", "SE_ResNet18_vd"),  # which it knows by none
    ],
)
def test_the_name_of_the_same_structure_is_chosen(tmp_path, name, expected):
    assert named(tmp_path, name) == expected


def test_what_paddlex_cannot_read_keeps_its_name(tmp_path):
    assert named(tmp_path, "ResNet50_vd_ssld", Form(input="uint8")) == "ResNet50_vd_ssld"


@pytest.mark.slow
def test_a_name_may_be_asked_for(trained, run):
    code, out, _ = run(*EXPORT, "--paddlex-name", "ResNet50")
    assert code == 0
    assert "note: PaddleX's own network ResNet50 is built otherwise than EfficientNetLite0" in out
    place = Path("exported/x")
    written = yaml.safe_load((place / "inference.yml").read_text())
    assert written["Global"] == {"model_name": "ResNet50"}
    code, out, err = run("predict", "--model-dir", "exported/x", "photos/eval")
    assert (code, err) == (0, "")
    assert open_exported(place).manifest.model == "EfficientNetLite0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["ResNet5O"], "no network 'ResNet5O' of one label an image; did you mean 'ResNet50'?"),
        (["ResNet50_ML"], "no network 'ResNet50_ML' of one label"),
        (["ResNet50", "--input", "uint8"], "leave out --input uint8"),
        (["ResNet50", "--logits"], "leave out --logits"),
        (["ResNet50", "--format", "openvino"], "Paddle's or ONNX's format"),
        (["ResNet50", "-o", "preprocess.fit=letterbox"], "has no letterbox: train with -o preproc"),
    ],
)
def test_what_paddlex_could_not_read_is_refused(trained, workdir, run, options, words):
    code, _, err = run(*EXPORT, "--paddlex-name", *options)
    assert code == 2
    assert err.startswith("error: --paddlex-name: ")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (workdir / "exported").exists()

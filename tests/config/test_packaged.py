"""The recipes of the package are found by name."""

import pytest

from ppcls.config import packaged
from ppcls.config.load import load
from ppcls.recipe import Recipe


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("EfficientNetLite0", "EfficientNetLite0.yaml"),  # of two the one at the top
        ("efficientnetlite0", "EfficientNetLite0.yaml"),
        ("finetune", "finetune/EfficientNetLite0.yaml"),
        ("finetune/ResNet50_vd", "finetune/ResNet50_vd.yaml"),
        ("quick_start/digits", "quick_start/digits.yaml"),
        ("digits", "quick_start/digits.yaml"),
        ("configs/quick_start/digits.yaml", "quick_start/digits.yaml"),
        ("configs/quick_start/digits.yml", "quick_start/digits.yaml"),
    ],
)
def test_names(tmp_path, monkeypatch, name, place):
    monkeypatch.chdir(tmp_path)
    assert packaged.find_recipe(name) == str(packaged.folder() / place)


def test_every_recipe_is_found_by_its_own_name_and_loads():
    for name in packaged.names():
        assert load(Recipe, packaged.find_recipe(name))
    assert not [name for name in packaged.names() if "_base_" in name or name == "default"]


def test_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("{}")
    assert packaged.find_recipe("digits") == "digits"


def test_a_folder_of_one_s_own_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "finetune").mkdir()
    assert packaged.find_recipe("finetune").endswith("finetune/EfficientNetLite0.yaml")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EfficientNetLit0", "did you mean 'EfficientNetLite0'?"),
        ("fintune", "did you mean 'finetune'?"),
        ("distill", "a folder of several recipes: name one of distill/"),
        ("nothing_like_it", "neither a file nor the name of a recipe"),
    ],
)
def test_wrong_names_are_one_line(workdir, run, name, words):
    code, _, err = run("train", "-c", name)
    assert (code, words in err, err.count("\n")) == (2, True, 1), err


@pytest.mark.parametrize("name", ["gone.yaml", "digits.yaml", "./digits", "runs/digits.yml"])
def test_nothing_stands_in_for_a_file_that_is_gone(workdir, run, name):
    code, _, err = run("train", "-c", name)
    assert (code, f"{name}: cannot be read".removeprefix("./") in err) == (2, True), err

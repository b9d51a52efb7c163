"""What is chosen goes with the machine, the images and the keys that are given."""

import pytest
from photos import write_photo

from ppcls.start.choose_recipe import Machine, choose, fitting_side

CPU = Machine(gpu=False, cores=2, memory=16e9)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """100 images of two classes, of 200 px."""
    folder = tmp_path_factory.mktemp("choices") / "photos"
    for i in range(100):
        write_photo(folder / ("ants" if i % 2 else "bees") / f"{i}.jpg", i, (200, 210, 3))
    return str(folder)


def test_on_a_cpu(photos):
    recipe = choose(photos, (), CPU).recipe
    assert (recipe.model.name, recipe.preprocess.crop) == ("EfficientNetLite0", 160)
    assert (recipe.train.batch_size, recipe.train.accumulate, recipe.train.epochs) == (16, 1, 20)
    assert recipe.data.holdout == 0.2


def test_on_a_gpu_images_are_larger(photos):
    recipe = choose(photos, (), Machine(gpu=True, cores=16, memory=64e9)).recipe
    assert (recipe.preprocess.crop, recipe.data.workers) == (224, 8)


def test_little_memory_takes_more_batches_to_a_step(photos):
    found = choose(photos, (), Machine(gpu=False, cores=2, memory=0.4e9))
    train = found.recipe.train
    assert train.batch_size < 16
    assert train.images_per_step == 16
    assert "more do not fit into the 0.4 GB that are free" in found.text
    given = choose(photos, ["train.batch_size=8"], Machine(False, 2, 0.4e9)).recipe.train
    assert (given.batch_size, given.accumulate) == (8, 1)


def test_few_weights_stay_where_images_have_no_colours(photos, tmp_path):
    import cv2

    for i in range(12):
        pixels = cv2.imread(f"{photos}/{'ants' if i % 2 else 'bees'}/{i}.jpg", 0)
        place = tmp_path / "x-rays" / ("a" if i % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{i}.png"), pixels)
    recipe = choose(str(tmp_path / "x-rays"), (), CPU).recipe
    assert (recipe.model.in_channels, recipe.model.freeze) == (3, ("35%", "*.norm.*"))


def test_weights_that_are_not_here(photos, monkeypatch):
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    found = choose(photos, ["model.name=ResNet50_vd"], CPU)
    assert (found.recipe.model.name, found.recipe.model.weights) == ("ResNet50_vd", None)
    assert "no weights to start from" in found.lines[-1]
    monkeypatch.delenv("PPCLS_OFFLINE")
    found = choose(photos, ["model.name=ResNet50_vd"], CPU)
    assert (found.recipe.model.weights, found.recipe.model.freeze[0]) == ("ssld", "45%")
    wanted = choose(photos, ["model.name=ResNet50_vd", "model.weights=null"], CPU)
    assert "no weights" not in " ".join(wanted.lines)


def test_a_smaller_side_where_too_few_epochs_fit(photos):
    found = choose(photos, (), CPU)
    assert fitting_side(found, (), lambda scale: 3) == 160
    assert fitting_side(found, (), lambda scale: 3 if scale < 0.9 else 2) == 128
    assert fitting_side(found, (), lambda scale: 0) == 96
    given = ["preprocess.crop=160"]
    assert fitting_side(choose(photos, given, CPU), given, lambda scale: 0) == 160


def test_what_was_fixed_before_has_its_reason(photos):
    found = choose(photos, (), CPU, {"train.epochs": (7, "as measured")})
    assert found.recipe.train.epochs == 7
    assert "epochs: 7  # as measured" in found.text

"""A small exported network, with features and without, and labelled images for it."""

import shutil

import numpy as np
import paddle
import pytest
import small_network
from photos import write_photo

import ppcls
from ppcls.export import Form, export
from ppcls.inference.inputs import open_image


def balanced(trained, paths):
    """The network, its classifier shifted so that it sees each class in half of the images."""
    preprocess = trained.recipe.preprocess
    pixels = np.stack([open_image(str(path), preprocess) for path in paths])
    with paddle.no_grad():
        logits = trained.net(paddle.to_tensor(preprocess.normalize(pixels))).numpy()
    shift = np.array([np.median(logits[:, 0] - logits[:, 1]), 0], np.float32)
    trained.net.head.bias.set_value(trained.net.head.bias - shift)
    return trained


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A network and 80 images, of each of which it sees one of its classes."""
    place = tmp_path_factory.mktemp("made")
    paths = [place / f"{seed:02}.png" for seed in range(80)]
    for seed, path in enumerate(paths):
        write_photo(path, 100 + seed)
    return balanced(small_network.trained(), paths), paths


@pytest.fixture(scope="session")
def exports(made, tmp_path_factory):
    """`features` and `plain`: two exports of one network, never changed."""
    place = tmp_path_factory.mktemp("exports")
    small, paths = made
    for name, features in (("features", True), ("plain", False)):
        export(small, place / name, [str(paths[0])], Form(features=features))
    return place


@pytest.fixture(scope="session")
def photos(made, exports, tmp_path_factory):
    """The images in folders of the classes that the network sees, a tenth of them in the other."""
    place = tmp_path_factory.mktemp("photos")
    with ppcls.Predictor(exports / "plain", engine="onednn") as predictor:
        found = predictor.predict([str(path) for path in made[1]])
    for number, answer in enumerate(found):
        name = answer.labels[number % 10 == 0]
        (place / name).mkdir(exist_ok=True)
        shutil.copy(answer.path, place / name)
    return place


@pytest.fixture
def folder(exports, tmp_path):
    """A copy of the export with features, to calibrate."""
    return shutil.copytree(exports / "features", tmp_path / "model")


@pytest.fixture(scope="session")
def calibrated_once(exports, photos, tmp_path_factory):
    from ppcls.calibrate.calibrate import calibrate
    from ppcls.calibrate.fit import Wish

    place = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(exports / "features", place)
    calibrate(place, photos, Wish(0.8, false_alarms=0.1), engine="onednn")
    return place


@pytest.fixture
def calibrated(calibrated_once, tmp_path):
    """A copy of the export with features, calibrated for 80 % and 10 % false alarms."""
    return shutil.copytree(calibrated_once, tmp_path / "calibrated")

"""A small exported network, with features and without, and labelled images for it."""

import shutil

import numpy as np
import pytest
import small_network
from photos import write_photo

import ppcls
from ppcls.export import Form, export



@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """`features` and `plain`: two exports of one network, never changed."""
    place = tmp_path_factory.mktemp("exports")
    small = small_network.trained()
    for seed in range(2):
        write_photo(place / f"{seed}.png", seed)
    images = [str(place / f"{seed}.png") for seed in range(2)]
    for name, features in (("features", True), ("plain", False)):
        export(small, place / name, images, Form(features=features))
    return place


@pytest.fixture(scope="session")
def photos(exports, tmp_path_factory):
    """80 images in folders of the classes that the network sees, a tenth of them in the other."""
    place = tmp_path_factory.mktemp("photos")
    for seed in range(80):
        write_photo(place / f"{seed:02}.png", 100 + seed)
    with ppcls.Predictor(exports / "plain", engine="onednn") as predictor:
        found = predictor.predict(place)
    for number, answer in enumerate(found):
        name = answer.labels[number % 10 == 0]
        (place / name).mkdir(exist_ok=True)
        shutil.move(answer.path, place / name)
    assert np.ptp([len(list((place / name).iterdir())) for name in ("ant", "bee")]) < 60
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

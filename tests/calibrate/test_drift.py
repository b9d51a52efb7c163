"""`ppcls drift` on photos, with an export that `ppcls calibrate` has calibrated."""

import json
import shutil

import numpy as np
import pytest
import yaml
from photos import write_photo
from PIL import Image

from ppcls.drift import PARTS
from ppcls.drift.permutation import Move
from ppcls.drift.words import look_words
from ppcls.inference import calibration, manifest
from ppcls.inference.looks import LOOKS

ENGINE = ("--engine", "onednn")


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Forty photos as those of the calibration are."""
    place = tmp_path_factory.mktemp("alike")
    for seed in range(40):
        write_photo(place / f"{seed:02}.png", 600 + seed)
    return place


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    """Thirty photos of nothing, nearly."""
    place = tmp_path_factory.mktemp("black")
    for number in range(30):
        Image.new("RGB", (48, 40), (number, 0, 0)).save(place / f"{number:02}.png")
    return place


@pytest.fixture
def command(run, calibrated_once):
    def command(*words, folder=calibrated_once):
        return run("drift", "--model-dir", folder, *ENGINE, *words)

    return command


@pytest.mark.slow
def test_photos_that_are_alike(command, alike, tmp_path):
    code, out, err = command(alike, "--output", tmp_path / "found")
    assert (code, err) == (0, "")
    assert "40 photos held against 53 of the calibration, by features, scores, classes and" in out
    assert "no drift is seen" in out
    assert "40 photos find, four times in five, means that move by 0.8" in out
    found = json.loads((tmp_path / "found/drift.json").read_text())
    assert (found["alarms"], found["images"], len(found["windows"])) == (0, 40, 1)
    assert found["reference"] == {"images": 53, "of": "features"}
    (window,) = found["windows"]
    assert window["p"] > 0.01
    assert {one["name"] for one in window["parts"]} == set(PARTS)
    assert {one["name"] for one in window["looks"]} == set(LOOKS)
    assert Image.open(tmp_path / "found/drift.png").size == (1800, 500)


def test_windows_in_the_order_given_and_the_exit_code(command, alike, black, tmp_path):
    words = (alike, black, "--window", "36", "--output", tmp_path / "found")
    code, out, err = command(*words)
    assert (code, err) == (1, "")
    assert "in 2 windows of 35 or so, in the order given" in out
    first, second = (line for line in out.splitlines() if line.startswith("photos "))
    assert first.startswith("photos 1 to 35: no drift is seen")
    assert second.startswith("photos 36 to 70: DRIFT (p 0.00")
    assert "features, " in second
    assert "1 alarm in 2 windows" in out
    found = json.loads((tmp_path / "found/drift.json").read_text())
    assert [one["alarm"] for one in found["windows"]] == [False, True]
    before = (tmp_path / "found/drift.json").read_bytes()
    code, _, err = command(*words)
    assert (code, "has a drift.json; --overwrite replaces it" in err) == (2, True)
    assert command(*words, "--overwrite")[0] == 1
    assert (tmp_path / "found/drift.json").read_bytes() == before  # the same photos


def test_light_is_said_as_people_say_it(command, alike, tmp_path):
    """The pixels are 0 to 255, evenly: 1.3 times as bright, up to 255, they are 1.23 times."""
    for path in alike.iterdir():
        pixels = np.array(Image.open(path)).astype(np.float64)
        brighter = np.uint8(np.minimum(1.3 * pixels, 255))
        Image.fromarray(brighter).save(tmp_path / path.name)
    code, out, _ = command(tmp_path)
    assert code == 1
    assert "looks, " in out
    assert "1.23 times as bright" in out


def move(name, before, after, deviations, spread=(1.0, 1.0, 0.0)):
    return Move(name, before, after, deviations, *spread)


def test_words_of_looks_name_clear_moves_alone():
    none = move("warmth", 3, 0, 0.0)
    assert look_words([none]) == []
    assert look_words([move("brightness", 100, 80, -2.9), none]) == []
    found = look_words([
        move("sharpness", -2, -3, -9.0), move("brightness", 100, 80, -5.0),
        move("tint", 3, 1.5, -4.0), move("warmth", 3, 9, 3.5), move("contrast", 50, 60, 3.1),
    ])  # fmt: skip
    assert found == [
        "0.50 times as sharp",
        "0.80 times as bright",
        "less green by 1.5 of 255 levels",
    ]
    assert look_words([move("warmth", 0, 9, 3.5), move("contrast", 0, 60, 3.1)]) == [
        "redder by 9.0 of 255 levels", "121.00 times the contrast"
    ]  # fmt: skip
    wider = move("brightness", 100, 101, 1.0, (20.0, 30.0, 7.0))
    assert look_words([wider]) == ["brightness varies 1.50 times as much"]
    assert look_words([move("warmth", 0, 0.1, 1.0, (0.0, 5.0, 7.0))]) == [
        "warmth varies and did not"
    ]


def test_too_few_photos(command, alike):
    code, _, err = command(*sorted(alike.iterdir())[:7])
    (line,) = err.splitlines()
    assert code == 2
    assert "7 photos: too few to tell, 20 are needed; 100 would find means that move by" in line
    code, _, err = command(alike, "--window", "5")
    assert (code, "--window 5: too few to tell; give 20 or more" in err) == (2, True)


@pytest.mark.slow
def test_a_broken_photo(command, alike, tmp_path):
    data = shutil.copytree(alike, tmp_path / "data")
    (data / "03.png").write_bytes(b"no image")
    code, _, err = command(data)
    assert (code, "03.png" in err, "--on-error skip" in err) == (2, True, True)
    code, out, _ = command(data, "--on-error", "skip")
    assert code == 0
    assert "39 photos held against" in out
    assert "1 photo cannot be read" in out


def test_a_folder_that_is_not_calibrated_or_was_by_an_older_ppcls(
    command, exports, alike, calibrated
):
    code, _, err = command(alike, folder=exports / "features")
    (line,) = err.splitlines()
    assert code == 2
    assert "is not calibrated, and knows nothing of the photos it is made for; run ppcls " in line
    path = calibrated / "inference.yml"
    path.write_text(path.read_text().replace("    sketch: features\n", ""))
    assert manifest.read(calibrated).calibration.sketch is None
    code, _, err = command(alike, folder=calibrated)
    (line,) = err.splitlines()
    assert code == 2
    assert (
        "its calibration is of an older ppcls, and keeps nothing of its photos; run ppcls" in line
    )
    assert line.endswith("again")


def rewrite(folder, change):
    """The folder with other arrays of its calibration."""
    path, about = folder / calibration.FILE, folder / "inference.yml"
    text = about.read_text()
    arrays = yaml.safe_load(text)["ppcls"]["calibration"]["arrays"]
    values = calibration.read_arrays(path, arrays)
    change(values)
    data, digest = calibration.to_file(values)
    path.write_bytes(data)
    about.write_text(text.replace(arrays, digest))


def test_a_sketch_without_looks_or_with_damaged_ones(command, alike, calibrated):
    rewrite(calibrated, lambda values: values.pop("sketch_looks"))
    code, _, err = command(alike, folder=calibrated)
    (line,) = err.splitlines()
    assert (code, line.endswith("again")) == (2, True)
    assert "its calibration is of an older ppcls, and keeps nothing of its photos; run " in line
    looks = np.zeros((53, 2), np.float16)
    rewrite(calibrated, lambda values: values.update(sketch_looks=looks))
    code, _, err = command(alike, folder=calibrated)
    (line,) = err.splitlines()
    assert code == 2
    assert "has no whole sketch of its images; " in line


@pytest.mark.slow
def test_without_features_all_scores_are_compared(run, exports, photos, alike, black, tmp_path):
    plain = shutil.copytree(exports / "plain", tmp_path / "plain")
    assert run("calibrate", "--model-dir", plain, "--data", photos, *ENGINE)[0] == 0
    found = yaml.safe_load((plain / "inference.yml").read_text())["ppcls"]["calibration"]
    assert found["sketch"] == "scores"
    code, out, _ = run("drift", "--model-dir", plain, alike, *ENGINE)
    assert code == 0, out
    assert "by scores, classes and looks" in out
    assert run("drift", "--model-dir", plain, black, *ENGINE)[0] == 1

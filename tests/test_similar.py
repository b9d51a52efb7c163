"""`ppcls similar`: the nearest images first, from photos or from kept features; and its sheet."""

import csv
import json

import numpy as np
import pytest
import small_network
from PIL import Image

import ppcls
from ppcls.export import Form, export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network with features."""
    made = tmp_path_factory.mktemp("model") / "small"
    return export(small_network.trained(), made, [], Form(features=True))


@pytest.fixture
def photos(tmp_path):
    """Six photos of one colour each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (
        ("red", (220, 30, 30)),
        ("redder", (230, 20, 25)),
        ("green", (30, 200, 40)),
        ("blue", (20, 40, 220)),
        ("bluer", (15, 30, 235)),
        ("grey", (120, 120, 120)),
    ):
        Image.new("RGB", (40, 40), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def similar(model, run):
    return lambda *words: run("similar", "--model-dir", model, "--engine", "onednn", *words)


def test_the_nearest_come_first_and_the_photo_itself_is_none(similar, model, photos, tmp_path):
    save = tmp_path / "x.csv"
    code, out, err = similar(photos / "red.png", photos, "--save", save, "--topk", 9)
    assert (code, err) == (0, "")
    with save.open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = sorted(str(path) for path in photos.iterdir())
    with ppcls.Predictor(model, engine="onednn") as predictor:
        features = predictor.features(paths)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosines = features @ features[paths.index(str(photos / "red.png"))]
    order = [index for index in np.argsort(-cosines) if not paths[index].endswith("/red.png")]
    assert [row["path"] for row in rows] == [paths[index] for index in order]
    assert rows[0]["path"] == str(photos / "redder.png")
    found = [float(row["similarity"]) for row in rows]
    np.testing.assert_allclose(found, cosines[order], atol=1e-5)
    assert f"{photos / 'red.png'}: {photos / 'redder.png'} {found[0]:.4f}; " in out


def test_kept_features_give_the_same_answers(similar, model, photos, run, tmp_path):
    kept = tmp_path / "kept.npz"
    command = ("predict", "--model-dir", model, "--engine", "onednn", photos, "--features", kept)
    assert run(*command)[0] == 0
    query = tmp_path / "query.png"
    Image.new("RGB", (50, 40), (25, 35, 210)).save(query)
    for given, name in (((photos,), "a.json"), (("--features", kept), "b.json")):
        save = tmp_path / name
        assert similar(query, *given, "--save", save, "--topk", 3)[0] == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert one == other
    assert len(one[0]["nearest"]) == 3
    assert "blue" in one[0]["nearest"][0]["path"]

    code, _, err = similar(query, "--features", kept, "--crop", 24, "--resize", 24)
    assert code == 2
    assert f"{kept}: was made with another preprocessing" in err


def test_several_photos_have_a_row_each_on_the_sheet(similar, photos, tmp_path):
    sheet = tmp_path / "sheet.png"
    given = (f"{photos}/red*.png", photos, "--topk", 2, "--visualize", sheet)
    code, out, err = similar(*given)
    assert (code, err) == (0, "")
    assert f"wrote {sheet}" in out
    with Image.open(sheet) as drawn:
        words = drawn.text["Description"].splitlines()
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 24)}
    assert len(words) == 2
    assert words[0].startswith("the image | 0.")
    assert "redder.png" in words[0]
    assert {(220, 30, 30), (230, 20, 25)} <= colours
    assert similar(*given)[0] == 2  # it is there
    assert similar(*given, "--overwrite")[0] == 0


def test_broken_photos_are_left_out_where_it_is_said(similar, photos):
    (photos / "a.png").write_bytes(b"x")
    code, _, err = similar(photos / "red.png", photos)
    assert code == 2
    assert "--on-error skip goes on without it" in err
    code, out, _ = similar(photos / "red.png", photos, "--on-error", "skip")
    assert code == 0
    assert "skipped: " in out
    assert "a.png 0." not in out


def test_mistakes_are_one_line(similar, photos, tmp_path):
    (tmp_path / "text.npz").write_text("no features")
    for given, words in (
        ((), "name the images to search, or --features FILE"),
        ((photos, "--features", tmp_path / "text.npz"), "name the images to search, or --features"),
        (("--features", tmp_path / "text.npz"), "text.npz: is no file of predict --features"),
        ((photos, "--save", "x.txt"), "--save x.txt: the file name should end in .csv"),
        ((photos, "--visualize", "x.gif"), "--visualize x.gif: the file name should end in .png"),
        ((photos, "--visualize", tmp_path / "no/x.png"), "does not exist"),
        (("-",), "- is standard input"),
    ):
        code, _, err = similar(photos / "red.png", *given)
        assert code == 2
        (line,) = err.splitlines()
        assert words in line

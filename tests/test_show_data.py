"""The sheet shows, pixel by pixel, what the loader hands to training and to evaluation."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls import show_data
from ppcls.config.load import load
from ppcls.data.loader import Reader, eval_order
from ppcls.inputs import eval_view, open_inputs, train_view
from ppcls.recipe import Recipe
from ppcls.show_data import GAP, LINE, TILE, sheet

SIDE = 32  # of the small recipe's views


def tile(drawn: np.ndarray, row: int, column: int, side: int = SIDE) -> np.ndarray:
    top, left = LINE + GAP + row * (side + LINE + GAP), GAP + column * (side + GAP)
    return drawn[top : top + side, left : left + side]


def rgb(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def recipe(workdir):
    return workdir / "recipe.yaml"


def test_rows_are_photos_and_columns_are_epochs(run, recipe):
    code, out, _ = run("show-data", "-c", recipe, "--count", 5, "--epochs", 3)
    assert code == 0
    assert out == "sheet.png: 5 of 12 photos at 32x32, 3 epochs of training\n"
    drawn = rgb("sheet.png")
    assert drawn.shape[0] == LINE + GAP + 5 * (SIDE + LINE + GAP)
    loaded, inputs = open_inputs(load(Recipe, recipe))
    reader = Reader({"train": (inputs.train, train_view(loaded))}, 0)
    for row, index in enumerate([0, 2, 5, 8, 11]):  # spread over both classes
        for epoch in range(3):
            (batch,) = reader.batches("train", [np.array([index])], epoch)
            np.testing.assert_array_equal(tile(drawn, row, 1 + epoch), batch.images[0])
        photo = rgb(inputs.train.paths[index])
        shown = tile(drawn, row, 0)[:, : round(SIDE * 40 / 48)]
        assert abs(shown.astype(float).mean() - photo.mean()) < 2


def test_evaluation_has_one_column(run, recipe):
    code, out, _ = run("show-data", "-c", recipe, "--eval", "--output", "new/eval.png")
    assert code == 0
    assert out == "new/eval.png: 6 of 6 photos at 32x32, evaluation\n"
    drawn = rgb("new/eval.png")
    loaded, inputs = open_inputs(load(Recipe, recipe))
    reader = Reader({"eval": (inputs.eval, eval_view(loaded))}, 0)
    for row, batch in enumerate(reader.batches("eval", eval_order(6, 1))):
        np.testing.assert_array_equal(tile(drawn, row, 1), batch.images[0])


def test_every_row_says_its_class(run, recipe, monkeypatch):
    given = []

    def record(rows, names, heads, tile):
        given.append((names, heads))
        return sheet(rows, names, heads, tile)

    monkeypatch.setattr(show_data, "sheet", record)
    run("show-data", "-c", recipe, "--count", 4, "--epochs", 2)
    names = ["ant (0)", "ant (3)", "bee (7)", "bee (11)"]
    assert given == [(names, ["photo", "epoch 0", "epoch 1"])]


def test_names_stand_under_their_rows():
    rows = [[np.full((SIDE, SIDE, 3), 99, np.uint8)]] * 2
    first, second = (
        np.array(sheet(rows, ["ant", name], ["photo"], SIDE)) for name in ("bee", "wasp")
    )
    changed = np.flatnonzero((first != second).any((1, 2)))
    under = LINE + GAP + SIDE + LINE + GAP + SIDE
    assert under <= changed.min() < changed.max() < under + LINE
    assert np.array(sheet(rows, ["ant", "a" * 99], ["photo"], SIDE)).shape[1] > 300


def test_large_and_grey_and_transparent_views_are_shown(run, recipe, workdir):
    for channels, mean in ((1, "[0.5]"), (4, "[0.5, 0.5, 0.5, 0.5]")):
        given = [f"model.in_channels={channels}", f"preprocess.mean={mean}"]
        given += [f"preprocess.std={mean}", "train.size=400"]
        code, out, _ = run("show-data", "-c", recipe, "--count", 1, "--epochs", 1, "-o", *given)
        assert code == 0
        assert "at 400x400" in out
        drawn = rgb("sheet.png")
        assert drawn.shape[:2] == (LINE + GAP + TILE + LINE + GAP, GAP + 2 * (TILE + GAP))
        view = tile(drawn, 0, 1, TILE)
        assert (np.ptp(view, axis=-1).max() == 0) == (channels == 1)
        assert view.std() > 10


def test_sizes_and_samplers_are_shown_as_they_train(run, recipe):
    given = ["train.size={kind: progressive, sizes: {0: 24, 1: 32}}", "train.repeats=2"]
    given += ["train.sampler={kind: weighted, weights: [0, 1]}"]
    command = ("show-data", "-c", recipe, "--count", 1, "--epochs", 2, "-o", *given)
    code, out, _ = run(*command)
    assert (code, out) == (0, "sheet.png: 1 of 12 photos at 24 to 32 px, 2 epochs of training\n")
    drawn, loaded = rgb("sheet.png"), load(Recipe, recipe, given)
    loaded, inputs = open_inputs(loaded)
    for epoch, size in enumerate((24, 32)):
        (batch,) = Reader({"train": (inputs.train, train_view(loaded))}, 0).batches(
            "train", [np.array([0])], epoch
        )
        np.testing.assert_array_equal(tile(drawn, 0, 1 + epoch)[:size, :size], batch.images[0])


def test_mistakes_are_said(run, recipe, workdir):
    code, _, err = run("show-data", "-c", recipe, "--output", "sheet.pdf")
    assert code == 2
    assert "sheet.pdf: a sheet's name ends in .png, .jpg, .jpeg" in err
    (workdir / "file").touch()
    code, _, err = run("show-data", "-c", recipe, "--output", "file/sheet.png", "--count", 1)
    assert code == 2
    assert "file/sheet.png: cannot be written" in err
    code, _, err = run("show-data", "-c", recipe, "--epochs", 2000, "--output", "sheet.jpg")
    assert code == 2
    assert "sheet.jpg: cannot be written" in err
    code, _, err = run("show-data", "-c", recipe, "-o", "train.ops=[{op: pad, pixels: 2}]")
    assert code == 2
    assert "train.ops must end in an image of 32x32; pad gave 44x52" in err
    code, _, err = run("show-data", "-c", recipe, "--eval", "-o", "data.eval=null")
    assert code == 2
    assert "data.eval is not given" in err
    cv2.imwrite("x.png", np.zeros((1, 1, 3), np.uint8))
    broken = workdir / "photos/train/ant/0.png"
    broken.write_bytes(Path("x.png").read_bytes()[:40])
    code, _, err = run("show-data", "-c", recipe)
    assert code == 2
    assert "ant/0.png" in err


def test_the_script_is_the_command(recipe):
    script = Path(__file__).parent.parent / "tools/show_data.py"
    arguments = [sys.executable, script, "-c", recipe, "--count", "1", "--output", "one.png"]
    subprocess.run(arguments, check=True, capture_output=True)
    assert Path("one.png").is_file()

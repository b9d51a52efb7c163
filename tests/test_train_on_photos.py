"""`ppcls train photos/` and `ppcls init photos/`: a recipe is chosen, said, written and run."""

import csv
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from photos import write_photo

# A small network at a small size; the rest is chosen.
SMALL = ("model.name=ResNet18", "model.weights=null", "preprocess.resize=32", "preprocess.crop=32")
QUICK = (*SMALL, "train.epochs=1", "data.workers=0", "model.in_channels=3")


def chosen(text: str) -> dict:
    return yaml.safe_load(text)


def test_a_recipe_is_chosen_and_written_with_the_reasons(workdir, run):
    code, out, err = run("init", "photos")
    assert code == 0, err
    text = Path("photos.yaml").read_text()
    recipe = chosen(text)
    assert recipe["data"]["train"] == "photos/train"
    assert recipe["data"]["eval"] == "photos/eval"
    assert recipe["model"]["name"] == "EfficientNetLite0"  # whose weights come with a package
    assert recipe["model"]["weights"] == "imagenet"
    assert recipe["model"]["freeze"] == ["70%", "*.norm.*"]  # few images
    assert recipe["preprocess"]["crop"] == 96  # of 40 px
    assert recipe["train"]["epochs"] == 20
    assert "few" in text
    assert text.count("# ") > 20
    assert "12 images in colour, about 40 px, of 2 classes: ant, bee" in out
    assert "wrote photos.yaml; to train: python -m ppcls train -c photos.yaml" in out
    assert sorted(path.name for path in workdir.iterdir()) == [
        "photos",
        "photos.yaml",
        "recipe.yaml",
    ]


def test_an_existing_file_stays(workdir, run):
    Path("photos.yaml").write_text("mine")
    code, _, err = run("init", "photos")
    assert code == 2
    assert "photos.yaml exists" in err
    assert Path("photos.yaml").read_text() == "mine"
    assert run("init", "photos", "--output", "other.yaml")[0] == 0
    assert run("init", "photos", "--overwrite")[0] == 0
    assert Path("photos.yaml").read_text() == Path("other.yaml").read_text()


def test_what_is_given_wins_and_the_rest_goes_with_it(workdir, run):
    more = ("data.eval=null", "data.holdout=0.25", "train.schedule.lr=0.01", "train.keep=2")
    code, _, err = run("init", "photos", "-o", *SMALL, *more)
    assert code == 0, err
    recipe = chosen(Path("photos.yaml").read_text())
    assert recipe["model"] == {"name": "ResNet18", "weights": None}
    assert recipe["data"]["holdout"] == 0.25
    assert recipe["data"].get("eval") is None
    assert recipe["preprocess"] == {"resize": 32, "crop": 32}
    assert recipe["train"]["schedule"]["lr"] == 0.01
    assert recipe["train"]["keep"] == 2
    assert "freeze" not in recipe["model"]  # random weights stay nowhere
    assert recipe["train"]["optimizer"]["kind"] == "momentum"


def test_images_without_a_part_for_evaluation(workdir, run):
    assert run("init", "photos/train")[0] == 0
    recipe = chosen(Path("photos.yaml").read_text())  # by the name of the folder around it
    assert recipe["data"]["train"] == "photos/train"
    assert recipe["data"]["holdout"] == 0.2


def test_a_part_that_is_not_to_be_scored_on(workdir, run):
    assert run("init", "photos", "-o", "data.eval=null")[0] == 0
    data = chosen(Path("photos.yaml").read_text())["data"]
    assert (data.get("eval"), data["holdout"]) == (None, 0.2)


def test_the_working_folder_s_images_stay_among_themselves(workdir, monkeypatch, run):
    monkeypatch.chdir(workdir / "photos" / "train")
    code, _, err = run("train", ".")
    assert code == 2
    assert "lies among the images of data.train" in err
    assert sorted(path.name for path in Path().iterdir()) == ["ant", "bee"]


def write_list(name: str, header: tuple[str, ...], rows: list[tuple]) -> None:
    with open(name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_a_file_with_a_column_for_each_class(workdir, run):
    images = sorted(map(str, Path("photos/train").rglob("*.png")))
    rows = [(path, i % 2, i % 3 // 2, 1) for i, path in enumerate(images)]
    write_list("insects.csv", ("path", "ant", "bee", "wing"), rows)
    code, out, err = run("init", "insects.csv")
    assert code == 0, err
    assert "3 classes, any number to an image: ant, bee, wing" in out
    recipe = chosen(Path("insects.yaml").read_text())
    assert recipe["task"] == {"kind": "multilabel"}


def test_labels_that_are_ids_become_names(workdir, run):
    images = sorted(map(str, Path("photos/train").rglob("*.png")))
    write_list(
        "ids.csv", ("path", "label"), [(p, 1000 * (i % 2 + 1)) for i, p in enumerate(images)]
    )
    code, out, err = run("init", "ids.csv")
    assert code == 0, err
    assert "2 classes: 1000, 2000" in out
    assert chosen(Path("ids.yaml").read_text())["data"]["number_labels"] is True


def write_digits(folder: Path, count: int) -> None:
    """Grey images of 8 px with a bar that stands or lies."""
    for i in range(count):
        rng = np.random.default_rng(i)
        image = rng.integers(0, 60, (8, 8), np.uint8)
        place = int(rng.integers(1, 7))
        if i % 2:
            image[place] = 255
        else:
            image[:, place] = 255
        path = folder / ("lies" if i % 2 else "stands") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)


def test_small_grey_images_are_learnt_from_nothing(workdir, run):
    write_digits(workdir / "bars", 12)
    assert run("init", "bars")[0] == 0
    recipe = chosen(Path("bars.yaml").read_text())
    assert recipe["model"] == {"name": "ResNet18_vd", "weights": None, "in_channels": 1}
    assert len(recipe["preprocess"]["mean"]) == 1
    assert [op["op"] for op in recipe["train"]["transforms"]] == ["random_resized_crop"]


def test_a_photo_folder_is_a_classifier_in_one_line(workdir, run, no_stacks):
    code, out, err = run("train", "photos", "-o", *QUICK)
    assert code == 0, err
    assert "wrote photos.yaml: the recipe, to read and change" in out
    assert Path("runs/photos/report/report.html").is_file()
    lines = out.splitlines()
    assert lines[-2].startswith(
        "predict   python -m ppcls predict --model-dir runs/photos/exported"
    )
    assert lines[-1].startswith("again     python -m ppcls train -c photos.yaml --overwrite")
    image = "photos/eval/ant/0.png"
    code, out, err = run(*lines[-2].split()[4:-1], image, "--engine", "paddle")
    assert code == 0, err
    assert re.search("ant|bee", out)

    # The same line again is refused before anything is written, and goes on where it is told to.
    before = Path("photos.yaml").read_text()
    code, _, err = run("train", "photos", "-o", *QUICK, "train.keep=1")
    assert code == 2
    assert "runs/photos already holds a run: --resume goes on with it" in err
    assert sorted(path.name for path in workdir.glob("*.yaml")) == ["photos.yaml", "recipe.yaml"]
    code, out, err = run("train", "photos", "--resume", "-o", "train.epochs=2")
    assert code == 0, err
    assert '"event": "resume"' in Path("runs/photos/run.jsonl").read_text()
    assert out.splitlines()[-2].startswith("predict ")
    assert "again     python -m ppcls train -c photos.yaml --overwrite" in out
    assert Path("photos.yaml").read_text() == before


@pytest.mark.slow
def test_a_dry_run_leaves_nothing(workdir, run, no_stacks):
    before = sorted(map(str, workdir.rglob("*")))
    code, out, err = run("train", "photos", "--dry-run", "-o", *QUICK)
    assert code == 0, err
    assert "nothing is kept" in out
    assert sorted(map(str, workdir.rglob("*"))) == before


def test_a_recipe_takes_other_images(workdir, run):
    shutil.copytree("photos/train", "insects")
    own = ("train.epochs=1", "model.name=ResNet18")
    code, _, err = run("train", "insects", "-c", "recipe.yaml", "-o", *own)
    assert code == 0, err
    written = chosen(Path("runs/insects/recipe.yml").read_text())
    assert (written["data"]["train"], written["data"]["holdout"]) == ("insects", 0.2)
    assert written["train"]["batch_size"] == 4  # the recipe's own


@pytest.mark.slow
def test_a_run_fits_into_a_time(workdir, run):
    own = ("train.epochs=3", "model.name=ResNet18")
    code, out, err = run("train", "-c", "recipe.yaml", "--time", "1h", "-o", *own)
    assert code == 0, err
    assert "measured: a step takes" in out
    assert "3 epochs for 1" in out or "3 epochs for 60" in out
    assert chosen(Path("runs/small/recipe.yml").read_text())["train"]["epochs"] == 3  # not more
    again = ("train", "-c", "recipe.yaml", "--time", "1s", "--resume", "-o", *own)
    code, out, err = run(*again)  # what is measured once stays
    assert code == 0, err
    assert "measured" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to train on: ppcls train photos/ (before -o), or a recipe: -c RECIPE"),
        (("gone",), "gone: there is no such folder, list or tar file"),
        (("photos/train/ant",), "one sub-folder per class"),
        (("photos", "-o", "train.epcohs=1"), "unknown key 'train.epcohs'; did you mean 'epochs'?"),
        (("photos", "-o", "model.name=ResNet19"), "ResNet18"),
        (("photos", "--resume"), "there is no run to resume in runs/photos"),
        (("photos", "--time", "1s", "-o", *SMALL, "model.in_channels=3"), "--time: one epoch"),
    ],
)
def test_mistakes_are_a_line_and_nothing_is_written(workdir, run, arguments, words):
    before = sorted(map(str, workdir.rglob("*")))
    code, _, err = run("train", *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert sorted(map(str, workdir.rglob("*"))) == before


@pytest.mark.parametrize("time", ["20", "m", "0m", "1e9h", "20 parsecs"])
def test_times_that_are_none(workdir, run, capsys, time):
    with pytest.raises(SystemExit) as ended:
        run("train", "photos", "--time", time)
    assert ended.value.code == 2
    assert "should be a time such as 90s, 20m or 1.5h" in capsys.readouterr().err


# --------------------------------------------------------------------------
# With what is chosen and nothing else


@pytest.mark.slow
def test_grey_digits_without_a_further_word(workdir, run):
    assert run("train", "-c", "digits", "--dry-run")[0] == 0  # writes the digits
    code, out, err = run("train", "data/digits", "-o", "train.epochs=4")
    assert code == 0, err
    assert float(re.findall(r"top-1 (\S+) %", out)[-1]) > 95


@pytest.mark.slow
def test_several_labels_without_a_further_word(workdir, run):
    rows = []
    for i in range(48):
        pixels = np.full((48, 48, 3), 40, np.uint8)
        labels = [i % 2, i // 2 % 2]
        if labels[0]:
            pixels[:, :24, 0] = 250
        if labels[1]:
            pixels[:, 24:, 2] = 250
        pixels = cv2.add(pixels, np.random.default_rng(i).integers(0, 30, pixels.shape, np.uint8))
        cv2.imwrite(f"{i}.png", pixels)
        rows.append((f"{i}.png", *labels))
    write_list("colours.csv", ("path", "blue", "red"), rows)
    code, out, err = run("train", "colours.csv", "-o", "train.epochs=6")
    assert code == 0, err
    assert float(re.findall(r"mAP (\S+) %", out)[-1]) > 80
    assert Path("runs/colours/exported/inference.yml").is_file()
    assert Path("runs/colours/report/report.html").is_file()


@pytest.mark.slow
def test_a_folder_like_ants_and_bees(workdir, run):
    for part, count in (("train", 12), ("val", 6)):
        for label, name in enumerate(("ants", "bees")):
            for i in range(count):
                path = workdir / "insects" / part / name / f"{i}.jpg"
                write_photo(path, 100 * label + i, (120, 160, 3))
                pixels = cv2.imread(str(path)) // 2
                pixels[..., 2 * label] = 255
                cv2.imwrite(str(path), pixels)
    code, out, err = run("train", "insects", "--time", "20m", "-o", "train.epochs=3")
    assert code == 0, err
    assert "measured" in out
    assert float(re.findall(r"top-1 (\S+) %", out)[-1]) > 80

"""One numbering of classes, whoever names them: a list, folders, a label file, a checkpoint."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import ppcls
from ppcls.cli import main

CLASSES = 12
AS_TEXT = sorted(map(str, range(CLASSES)))  # 0, 1, 10, 11, 2, …: as version 0.1 numbered folders
RECIPE = """
model: {name: EfficientNetLite0}
data: {train: train.txt, eval: val.txt, workers: 0}
preprocess: {resize: 32, crop: 32}
train: {epochs: 1, batch_size: 12, schedule: {lr: 0.02}}
output: runs/list
"""
SCORES = re.compile(r"top-1 (\S+) %, top-5 (\S+) %, loss (\S+)")


def furnish(folder):
    for part, count in (("train", 2), ("val", 1)):
        lines = []
        for label in range(CLASSES):
            (folder / f"t/{part}/{label}").mkdir(parents=True)
            for number in range(count):
                noise = np.random.default_rng(100 * label + number).integers(0, 9, (40, 40, 3))
                pixels = noise + [20 * label, 220 - 20 * label, 50 * label % 230]
                path = f"t/{part}/{label}/{part}-{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
                lines.append(f"{path} {label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
        ids = [re.sub(r"(\d+)$", lambda m: str(20230115 + int(m[1]) % 3), ln) for ln in lines]
        (folder / f"{part}_ids.txt").write_text("".join(ids))
        ones = [re.sub(r"(\d+)$", lambda m: str(1 + int(m[1])), line) for line in lines]
        (folder / f"{part}_ones.txt").write_text("".join(ones))
    (folder / "as_text.txt").write_text("\n".join(AS_TEXT) + "\n")
    (folder / "words.txt").write_text("".join(f"{name} word{name}\n" for name in AS_TEXT))
    (folder / "recipe.yaml").write_text(RECIPE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on lists of numbers, and one on folders as version 0.1 numbered them."""
    folder = tmp_path_factory.mktemp("numbers")
    furnish(folder)
    old = [
        "data.train=t/train",
        "data.eval=t/val",
        "data.class_names=as_text.txt",
        "output=runs/old",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for overrides in ([], ["-o", *old]):
            assert main(["train", "-c", "recipe.yaml", *overrides]) == 0
    return folder


@pytest.fixture
def place(runs, tmp_path, monkeypatch):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scores(place, run):
    """The scores of `eval` and all that it said."""

    def scores(name, *overrides):
        weights = f"runs/{name}/best.safetensors"
        code, out, err = run("eval", "-c", "recipe.yaml", "--weights", weights, "-o", *overrides)
        assert code == 0, err
        return SCORES.search(out).groups(), out

    return scores


def trained_scores(place, name):
    lines = map(json.loads, (place / f"runs/{name}/run.jsonl").open())
    return [record["loss"] for record in lines if record["event"] == "eval"]


@pytest.mark.parametrize("name", ["list", "old"])
def test_the_same_photos_have_the_same_scores(place, scores, name):
    expected, _ = scores(name, "data.eval=val.txt")
    assert float(expected[2]) == pytest.approx(trained_scores(place, name)[0], abs=1e-4)
    assert scores(name, "data.eval=t/val")[0] == expected
    for labels in ("as_text.txt", "words.txt"):
        for data in ("val.txt", "t/val"):
            assert scores(name, f"data.eval={data}", f"data.class_names={labels}")[0] == expected
    (place / "plain.txt").write_text("".join(f"word{label}\n" for label in range(CLASSES)))
    found, out = scores(name, "data.eval=val.txt", "data.class_names=plain.txt")
    assert found == expected
    if name == "old":
        assert "note: plain.txt: class 9 of runs/old/best.safetensors is called 'word9'" in out


def test_some_of_the_classes_are_scored_by_name(place, scores):
    for label in range(CLASSES):
        if label not in (3, 10):
            shutil.rmtree(place / f"t/val/{label}")
    lines = (place / "val.txt").read_text().splitlines(keepends=True)
    (place / "few.txt").write_text(lines[3] + lines[10])
    for name in ("list", "old"):
        expected, _ = scores(name, "data.eval=few.txt")
        found, out = scores(name, "data.eval=t/val")
        assert found == expected
        assert "note: t/val" in out


@pytest.mark.slow
def test_the_best_is_chosen_by_the_right_numbering(place, run):
    options = ["-o", "data.eval=t/val", "output=runs/mixed"]
    assert run("train", "-c", "recipe.yaml", *options)[0] == 0
    assert trained_scores(place, "mixed") == trained_scores(place, "list")
    swapped = ["-o", "data.train=t/train", "output=runs/swapped"]
    code, out, _ = run("train", "-c", "recipe.yaml", *swapped)
    assert code == 0
    assert "numbers and stand in order of value (0, 1, 2, …), not of text (0, 1, 10, …)" in out
    labels = ["-o", "data.class_names=null", "data.eval=val.txt"]
    _, out, _ = run(
        "eval", "-c", "recipe.yaml", "--weights", "runs/swapped/best.safetensors", *labels
    )
    loss = float(SCORES.search(out)[3])
    assert loss == pytest.approx(trained_scores(place, "swapped")[0], abs=1e-4)


@pytest.mark.slow
def test_old_runs_hold_out_and_go_on_as_they_did(place, run):
    """A run whose checkpoint has another order than its folders have now."""
    data = ["data.train=t/train", "data.eval=null", "data.holdout=0.5", "output=runs/held"]
    labels = "data.class_names=as_text.txt"
    assert run("train", "-c", "recipe.yaml", "-o", *data, labels, "train.batch_size=6")[0] == 0
    best = ("--weights", "runs/held/best.safetensors")
    _, out, _ = run("eval", "-c", "recipe.yaml", *best, "-o", *data)
    loss = float(SCORES.search(out)[3])
    assert loss == pytest.approx(trained_scores(place, "held")[0], abs=1e-4)
    # As a run of version 0.1 had no label file, the names' file says what the folders say.
    (place / "as_text.txt").write_text("\n".join(sorted(AS_TEXT, key=int)) + "\n")
    more = ["train.batch_size=6", labels]
    code, _, err = run("train", "-c", "recipe.yaml", "--resume", "-o", *data, *more)
    assert code == 0, err


@pytest.mark.slow
def test_names_of_an_export(place, run, no_stacks):
    weights = ("--weights", "runs/old/best.safetensors")
    options = ["-o", "data.class_names=words.txt"]
    assert run("export", "-c", "recipe.yaml", *weights, "--output", "exp", *options)[0] == 0
    document = yaml.safe_load((place / "exp/inference.yml").read_text())
    assert document["PostProcess"]["Topk"]["label_list"] == [f"word{name}" for name in AS_TEXT]
    assert run("export", *weights, "--output", "exp2")[0] == 0
    found = ppcls.Predictor("exp2", engine="onednn", labels="words.txt")
    assert found.manifest.labels == tuple(f"word{name}" for name in AS_TEXT)
    command = ["predict", "--model-dir", "exp2", "--engine", "onednn", "t/val/10", "--topk", 12]
    code, out, _ = run(*command, "--labels", "words.txt")
    assert code == 0
    code, plain, _ = run(*command)
    names = re.findall(r"(?:word)?(\d+) \d\.\d{4}", out)
    assert names == re.findall(r"(\d+) \d\.\d{4}", plain)
    code, _, err = run(*command, "--labels", "imagenet")
    assert code == 2
    assert "there are 1,000 class names and the network has 12 classes" in err


@pytest.mark.slow
def test_labels_that_are_ids(place, run, no_stacks):
    data = ["data.train=train_ids.txt", "data.eval=val_ids.txt", "output=runs/ids"]
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *data)
    assert code == 2
    assert (
        "train_ids.txt: 3 distinct labels between 20230115 and 20230117: ids, not class numbers "
        "from 0 to 2; -o data.number_labels=true" in err
    )
    _, _, err = run("train", "-c", "recipe.yaml", "-o", *data, "model.num_classes=3")
    assert "3 distinct labels between" in err
    code, out, _ = run("train", "-c", "recipe.yaml", "-o", *data, "data.number_labels=true")
    assert code == 0
    assert re.search(r"20230115 +8\n +20230116 +8\n +20230117 +8\n", out)
    weights = ("--weights", "runs/ids/best.safetensors")
    _, out, _ = run("eval", *weights)
    _, again, _ = run("eval", "-c", "recipe.yaml", *weights, "-o", "data.eval=val_ids.txt")
    assert re.search("loss .*", out)[0] == re.search("loss .*", again)[0]
    assert run("export", *weights, "--output", "exp")[0] == 0
    names = ("20230115", "20230116", "20230117")
    assert ppcls.Predictor("exp", engine="onednn").manifest.labels == names
    (place / "other.txt").write_text("t/val/0/val-0.png 20230119\n")
    code, _, err = run("eval", "-c", "recipe.yaml", *weights, "-o", "data.eval=other.txt")
    assert code == 2
    assert "other.txt:1 (t/val/0/val-0.png): label 20230119 is not among the classes of" in err
    code, out, _ = run("check-data", "train_ids.txt", "val_ids.txt")
    assert code == 1
    assert "labels (1): labels that number no classes" in out


def test_labels_from_one(place, run):
    data = ["-o", "data.train=train_ones.txt", "data.eval=val_ones.txt", "output=runs/ones"]
    _, _, err = run("train", "-c", "recipe.yaml", *data, "model.num_classes=12")
    assert "labels count from 0: -o data.number_labels=true numbers these so" in err
    _, out, _ = run("check-data", "train_ones.txt")
    assert "labels run from 1 to 12 and classes count from 0, so class 0 has no images" in out


@pytest.mark.parametrize("labels", ["7", "-1", "1.0"])
def test_one_label_alone(place, run, labels):
    text = (place / "train.txt").read_text()
    (place / "one.txt").write_text(re.sub(r"\d+$", labels, text, flags=re.MULTILINE))
    code, _, err = run("train", "-c", "recipe.yaml", "-o", "data.train=one.txt", "output=runs/x")
    assert code == 2
    assert ("all 24 images of one.txt are of one class" in err) == (labels == "7")
    assert not (place / "runs/x").exists()


def test_a_folder_too_high(place, run):
    (place / "up").mkdir()
    (place / "t/train").rename(place / "up/digits")
    data = ["-o", "data.train=up", "output=runs/x"]
    for evaluation in ("data.eval=t/val", "data.eval=up"):
        code, _, err = run("train", "-c", "recipe.yaml", *data, evaluation)
        assert code == 2
        assert "all 24 images of up are of one class, 'digits', but up/digits has the" in err
        assert "is -o data.train=up/digits meant?" in err
    code, out, _ = run("check-data", "up")
    assert code == 1
    assert "one class (1)" in out
    assert "is -o data.train=up/digits meant?" in out


def test_folders_that_are_the_numbers_of_a_label_file(place):
    from ppcls.data.datasets import open_samples

    samples = open_samples("t/val", labels="words.txt")
    assert [samples.label_of(i) for i in range(len(samples))] == [f"word{n}" for n in AS_TEXT]
    assert samples.names == tuple(f"word{n}" for n in range(CLASSES))


def test_training_from_weights_keeps_their_numbering(place, run):
    """Of a list of numbers and of folders, at a rate that changes next to nothing."""
    weights = ["model.weights=runs/old/best.safetensors", "train.schedule.lr=1e-9"]
    losses = []
    for train in ("train.txt", "t/train"):
        options = [
            *weights,
            f"data.train={train}",
            "train.transforms=[{op: resize_short}, {op: center_crop}]",
        ]
        code, _, err = run("train", "-c", "recipe.yaml", "--overwrite", "-o", *options)
        assert code == 0, err
        log = map(json.loads, (place / "runs/list/run.jsonl").open())
        losses += [record["loss"] for record in log if record["event"] == "eval"]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_teacher_of_another_numbering_is_refused(place, run):
    teacher = "{name: EfficientNetLite0, weights: runs/old/best.safetensors}"
    task = ["-o", f"task={{kind: distill, teacher: {teacher}}}", "output=runs/student"]
    for train in ("train.txt", "t/train"):
        code, _, err = run("train", "-c", "recipe.yaml", *task, f"data.train={train}")
        assert code == 2
        assert "its class 2 is '10', the student's '2'" in err
        assert "or give the student a file of the teacher's names, -o data.class_names=FILE" in err

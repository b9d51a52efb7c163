"""Several labels per image, from a list to predictions: coloured patches on grey noise."""

import ast
import csv
import io
import json
import os
import shutil
import signal
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import onnx
import paddle
import pages
import pytest
import yaml
from cut_run import at_step
from PIL import Image
from sklearn import metrics as sk
from sklearn.metrics import average_precision_score

import ppcls
from ppcls import metrics
from ppcls.config.load import from_plain
from ppcls.metrics import MultiLabelMeter
from ppcls.recipe import Recipe
from ppcls.report import multilabel_page
from ppcls.tasks import Classify, MultiLabel
from ppcls.utils.log import read_records
from ppcls.weights import files

NAMES = ("red", "green", "blue")
FILES = set(multilabel_page.FILES)
EXAMPLE = "An ONNX file in a program of your own"
RECIPE = """
model: {name: ResNet18_vd}
data: {train: train.csv, eval: eval.csv, workers: 0}
preprocess: {resize: 32, crop: 32}
task: {kind: multilabel}
train:
  epochs: 2
  batch_size: 16
  log_every: 1
  ops: [{op: resize}, {op: horizontal_flip}]
  optimizer: {kind: adamw}
  schedule: {lr: 2e-3}
output: runs/patches
"""


def patches(labels, rng):
    """Grey noise with a patch of a pure colour for each label that is set, BGR."""
    photo = rng.integers(90, 160, (32, 32, 3), dtype=np.uint8)
    for channel, shown in zip((2, 1, 0), labels, strict=True):
        if shown:
            y, x = rng.integers(0, 22, 2)
            photo[y : y + 10, x : x + 10] = 0
            photo[y : y + 10, x : x + 10, channel] = 255
    return photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in lists, trained on once; the other tests look at what came out."""
    folder = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    for part, count in (("train", 128), ("eval", 48)):
        rows = [["path", *NAMES]]
        for i in range(count):
            labels = (rng.random(3) < 0.4).astype(int)
            cv2.imwrite(str(folder / f"{part}{i}.png"), patches(labels, rng))
            rows.append([f"{part}{i}.png", *labels.tolist()])
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    from ppcls.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "-c", "recipe.yaml"]) == 0
        formats = ["--format", "paddle", "onnx"]
        assert main(["export", "-c", "recipe.yaml", "--output", "exported", *formats]) == 0
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def rows_of(path):
    return list(csv.reader(Path(path).read_text().splitlines()))[1:]


def labels_of(part):
    rows = rows_of(f"{part}.csv")
    return [row[0] for row in rows], np.array([row[1:] for row in rows], int)


def test_it_learns_each_colour(here):
    records = read_records(Path("runs/patches/run.jsonl"))
    evals = [r for r in records if r["event"] == "eval"]
    assert set(evals[0]) == {"event", "step", "time", "epoch", "map", "f1", "loss"}
    assert max(r["map"] for r in evals) > 0.9
    steps = [r for r in records if r["event"] == "train"]
    assert all(0 <= r["label_accuracy"] <= 1 for r in steps)
    assert steps[-1]["label_accuracy"] > steps[0]["label_accuracy"]


def test_evaluation_repeats_the_score_of_training_at_the_same_thresholds(here, run):
    records = read_records(Path("runs/patches/run.jsonl"))
    best = max((r for r in records if r["event"] == "eval"), key=lambda r: r["map"])
    code, out, _ = run("eval", "-c", "recipe.yaml")
    assert code == 0
    assert f"mAP {100 * best['map']:.2f} %, F1 {100 * best['f1']:.2f} %" in out


def test_predictions_are_the_classes_above_their_thresholds(here):
    about = yaml.safe_load(Path("exported/inference.yml").read_text())
    after = about["PostProcess"]["MultiLabelThreshOutput"]
    assert after["label_list"] == list(NAMES)
    assert about["ppcls"]["network"]["task"] == "multilabel"
    thresholds = after["threshold"]
    assert len(thresholds) == 3
    photos, labels = labels_of("eval")
    found = {}
    for engine in ("paddle", "onnxruntime"):
        every = ppcls.Predictor("exported", engine=engine, threshold=0.0).predict(photos)
        scores = np.array([dict(zip(p.classes, p.scores, strict=True)) for p in every])
        found[engine] = np.array([[row[c] for c in range(3)] for row in scores])
        predictions = ppcls.Predictor("exported", engine=engine).predict(photos)
        for row, own in zip(found[engine], predictions, strict=True):
            expected = [c for c in np.argsort(-row, kind="stable") if row[c] > thresholds[c]]
            assert own.classes == expected
            assert own.labels == [NAMES[c] for c in expected]
    np.testing.assert_allclose(found["paddle"], found["onnxruntime"], atol=1e-5)
    # The same scores as in training, from another program: scikit-learn's mean over the classes.
    records = read_records(Path("runs/patches/run.jsonl"))
    best = max((r for r in records if r["event"] == "eval"), key=lambda r: r["map"])
    assert average_precision_score(labels, found["paddle"]) == pytest.approx(best["map"], abs=1e-4)


@pytest.mark.slow
def test_a_folder_for_paddlex(here, run):
    """Under a name of a multi-label model, with one threshold: of several it takes an image's."""
    command = ("export", "-c", "recipe.yaml", "--output", "exported_px")
    name = ("--paddlex-name", "ResNet50_ML")
    code, _, err = run(*command, *name, "-o", "preprocess.resize=36")
    assert code == 2
    assert "does not cut the middle out of an image of several labels: -o preprocess.resize=" in err
    assert run(*command, *name)[0] == 0
    about = yaml.safe_load(Path("exported_px/inference.yml").read_text())
    after = about["PostProcess"]["MultiLabelThreshOutput"]
    assert about["Global"] == {"model_name": "ResNet50_ML"}
    assert isinstance(after["threshold"], float)
    assert after["label_list"] == list(NAMES)
    own, plain = (ppcls.Predictor(place).manifest for place in ("exported_px", "exported"))
    assert (own.model, own.threshold) == (plain.model, plain.threshold)


def test_a_photo_without_any_class_is_still_in_the_results(here, run):
    rng = np.random.default_rng(5)
    cv2.imwrite("none.png", patches((0, 0, 0), rng))
    command = ["predict", "--model-dir", "exported", "none.png", "--engine", "paddle"]
    code, out, _ = run(*command, "--threshold", "1", "--save", "none.csv")
    assert code == 0
    assert "none.png: no class above its threshold" in out
    assert [row[:5] for row in rows_of("none.csv")] == [["none.png", "0", "", "", ""]]
    code, out, _ = run(*command, "--threshold", "0", "--topk", "2")
    assert out.count(";") == 1


@pytest.mark.slow
def test_int8_is_judged_label_by_label(here, run):
    command = ["quantize", "--model-dir", "exported", "--calibrate", "train.csv", "--images", "20"]
    code, out, err = run(*command, "--eval", "eval.csv", "--output", "int8", "--budget", "1")
    assert code == 0, err
    assert "labels right" in out
    about = yaml.safe_load(Path("int8/inference.yml").read_text())
    assert about["ppcls"]["network"]["task"] == "multilabel"
    assert set(about["ppcls"]["int8"]["label_accuracy"]) == {"float", "int8"}


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(here, run):
    short = ["-o", "data.train=eval.csv", "train.epochs=2", "train.batch_transforms=[{op: mixup}]"]
    assert run("train", "-c", "recipe.yaml", *short, "output=runs/whole")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run("train", "-c", "recipe.yaml", *short, "output=runs/cut")[0] == 130
    assert run("train", "-c", "recipe.yaml", *short, "output=runs/cut", "--resume")[0] == 0
    whole, cut = (files.read(f"runs/{n}/latest.safetensors").tensors for n in ("whole", "cut"))
    for name, value in whole.items():
        np.testing.assert_array_equal(value, cut[name])


def test_what_does_not_go_with_several_labels_is_said(here, run):
    code, _, err = run("train", "-c", "recipe.yaml", "-o", "task.loss.kind=focal")
    assert code == 2
    assert "task.loss.kind: unknown 'focal'; known: bce, asymmetric" in err
    code, _, err = run(
        "train", "-c", "recipe.yaml", "-o", "train.early_stop={score: top1}", "output=runs/p"
    )
    assert code == 2
    assert "top1 is not scored in multilabel of 3 classes: map, f1, loss are" in err
    code, _, err = run("train", "-c", "recipe.yaml", "-o", "task={kind: classify}", "output=runs/c")
    assert code == 2
    assert "train.csv:1: name one label column" in err


def test_a_task_without_a_kind_learns_one_label():
    plain = {
        "model": {"name": "ResNet18"},
        "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 1}},
    }
    assert isinstance(from_plain(Recipe, plain | {"task": {}}, "a test").task, Classify)
    multilabel = plain | {"task": {"kind": "multilabel", "loss": {"smoothing": 0.1}}}
    task = from_plain(Recipe, multilabel, "a test").task
    assert isinstance(task, MultiLabel)
    assert task.loss.smoothing == 0.1


def test_the_loss_of_evaluation_by_hand():
    tally = MultiLabelMeter((0.5, 0.5))
    tally.add(paddle.to_tensor([[0.0, 2.0]]), np.array([[1, 0]], np.uint8))
    tally.add(paddle.to_tensor([[-1.0, 0.0]]), np.array([[0, 1]], np.uint8))
    terms = [np.log(2), np.log1p(np.exp(2.0)), np.log1p(np.exp(-1.0)), np.log(2)]
    scores = tally.scores()
    assert scores["loss"] == pytest.approx(np.mean(terms), rel=1e-6)
    # Class 0: found; class 1: asked for below its threshold, and the wrong image above.
    assert scores["f1"] == pytest.approx(0.0)
    assert tally.thresholds() == [0.5, 0.5]


def test_the_score_of_a_training_step_by_hand():
    logits = paddle.to_tensor([[3.0, -1.0], [0.5, 0.2]])
    several = paddle.to_tensor([[1, 0], [0, 1]], dtype="uint8")
    assert MultiLabel().right(logits, several).tolist() == [1, 0.5]
    mixed = paddle.to_tensor([[0.3, 0.7], [0.8, 0.2]])
    assert Classify().right(logits, mixed).tolist() == [False, True]
    assert Classify().right(logits, paddle.to_tensor([0, 1])).tolist() == [True, False]


@pytest.mark.parametrize("classes", [2, 3, 37])
def test_the_score_of_a_training_step_is_what_numpy_counts(classes):
    """Ties and what is no number count against the label; means are numpy's to the last bit."""
    rng = np.random.default_rng(classes)
    logits = rng.integers(-2, 3, (40, classes)).astype(np.float32)
    logits[3, 0] = np.nan
    labels = rng.integers(0, classes, 40)
    several = rng.integers(0, 2, (40, classes)).astype(np.uint8)
    given = paddle.to_tensor(logits)
    right = Classify().right(given, paddle.to_tensor(labels)).numpy()
    assert right.tolist() == (metrics.rivals(logits, labels) < 1).tolist()
    assert right.sum() == metrics.correct(logits, labels, 1)
    shares = MultiLabel().right(given, paddle.to_tensor(several)).numpy()
    assert shares.tolist() == ((logits > 0) == several).mean(axis=1).tolist()


TAUGHT = "{kind: distill_multilabel, teacher: %s, labels_weight: 1}"
TEACHER = "{name: ResNet18_vd, weights: runs/patches/best.safetensors}"


PEER = "{kind: peer, name: ResNet18_vd}"


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [TEACHER, PEER])
def test_several_labels_are_learnt_from_a_teacher_too(here, run, tmp_path, teacher):
    """From a network that gives several, or from a second student; evaluated as without one."""
    task = "task=" + TAUGHT % teacher
    output = tmp_path / "taught"
    short = ("train.epochs=1", f"output={output}")
    code, _, err = run("train", "-c", "recipe.yaml", "-o", task, *short)
    assert (code, err) == (0, "")
    records = read_records(output / "run.jsonl")
    (scores,) = [r for r in records if r["event"] == "eval"]
    assert {"map", "f1", "loss"} <= set(scores)
    code, out, _ = run("eval", "--weights", output / "best.safetensors")
    assert code == 0
    assert f"mAP {100 * scores['map']:.2f} %" in out


TEACHERS = [
    (TAUGHT % (TEACHER + ", losses: [{kind: dkd}]"), "dkd needs one label an image"),
    (TAUGHT % "{folder: exported}", "of several labels one network teaches"),
    (TAUGHT % f"[{TEACHER}, {TEACHER}]", "of several labels one network teaches"),
]


@pytest.mark.parametrize(("task", "words"), TEACHERS)
def test_what_does_not_teach_several_labels(here, run, task, words):
    code, _, err = run("train", "-c", "recipe.yaml", "-o", f"task={task}", "output=runs/none")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert words in err


# --------------------------------------------------------------------------
# The report, and thresholds by an aim


def test_the_report_says_what_evaluation_and_scikit_learn_say(here, run):
    code, out, err = run("eval", "-c", "recipe.yaml", "--report", "report")
    assert (code, err) == (0, "")
    found = json.loads(Path("report/report.json").read_text())
    scores = f"mAP {100 * found['scores']['map']:.2f} %, F1 {100 * found['scores']['f1']:.2f} %"
    assert scores in out
    assert {path.name for path in Path("report").iterdir()} == FILES - {"scores.npz"}
    thresholds = yaml.safe_load(Path("exported/inference.yml").read_text())
    thresholds = thresholds["PostProcess"]["MultiLabelThreshOutput"]["threshold"]
    assert [one["threshold"] for one in found["classes"]] == thresholds
    photos, labels = labels_of("eval")
    with open("report/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == photos
    assert [[int(row[f"y_{name}"]) for name in NAMES] for row in rows] == labels.tolist()
    shares = np.array([[row[f"p_{name}"] for name in NAMES] for row in rows], np.float32)
    decisions = shares > np.array(thresholds)
    each = sk.precision_recall_fscore_support(labels, decisions, zero_division=0)
    for place, key in enumerate(("precision", "recall", "f1", "photos")):
        values = [one[key] or 0 for one in found["classes"]]
        assert values == pytest.approx(each[place].tolist()), key
    precisions = average_precision_score(labels, shares, average=None)
    assert [one["average_precision"] for one in found["classes"]] == pytest.approx(precisions)
    for kind in ("macro", "micro"):
        means = sk.precision_recall_fscore_support(labels, decisions, average=kind, zero_division=0)
        assert list(found["averages"][kind].values()) == pytest.approx(means[:3])
    assert found["exact"] == pytest.approx(sk.accuracy_score(labels, decisions))
    assert found["attributes"]["in force"] == metrics.attributes(decisions, labels)
    assert (
        f"attributes at the thresholds mA {100 * found['attributes']['in force']['ma']:.2f} %"
        in out
    )
    # Another report in its place: of one with thresholds chosen by an aim.
    aimed = ("--report", "report", "--thresholds", "recall=1")
    assert run("eval", "-c", "recipe.yaml", *aimed)[0] == 0
    found = json.loads(Path("report/report.json").read_text())
    assert found["thresholds"]["chosen"]["aim"] == "recall ≥ 100 %"
    assert [one["recall"] for one in found["classes"]] == [1, 1, 1]
    assert found["missed"] == []


def test_thresholds_by_an_aim_go_into_the_export_and_the_onnx_file(here, run):
    command = ("export", "-c", "recipe.yaml", "--output", "certain", "--format", "onnx")
    code, out, err = run(*command, "--input", "uint8", "--thresholds", "precision=0.99")
    assert (code, err) == (0, "")
    assert "thresholds for precision ≥ 99 %, chosen on 48 images of eval.csv" in out
    about = yaml.safe_load(Path("certain/inference.yml").read_text())
    thresholds = about["PostProcess"]["MultiLabelThreshOutput"]["threshold"]
    assert about["ppcls"]["thresholds"]["aim"] == "precision ≥ 99 %"
    photos, labels = labels_of("eval")
    with ppcls.Predictor("certain", engine="onnxruntime") as predictor:
        said = np.zeros_like(labels, bool)
        for row, prediction in zip(said, predictor.predict(photos), strict=True):
            row[prediction.classes] = True
    named = said.sum(axis=0)
    right = (said & (labels == 1)).sum(axis=0)
    assert (right >= 0.99 * named).all()
    assert about["ppcls"]["thresholds"]["named"] == named.tolist()
    assert about["ppcls"]["thresholds"]["right"] == right.tolist()
    properties = {p.key: p.value for p in onnx.load("certain/inference.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == list(NAMES)
    assert json.loads(properties["thresholds"]) == thresholds
    (example,) = pages.blocks(pages.section(pages.text_of("docs/deploy.md"), EXAMPLE), "python")
    assert len([line for line in example.splitlines() if line]) == 10
    example = example.replace("exported/pixels", "certain")
    for photo, row in zip(photos[:8], said, strict=False):
        written = io.StringIO()
        with redirect_stdout(written):
            exec(example.replace("photo.jpg", photo), {})
        expected = [name for name, above in zip(NAMES, row, strict=True) if above]
        assert list(ast.literal_eval(written.getvalue())) == expected


AIMS = ["precision ≥ 99 %", "the highest F1", "recall ≥ 100 %"]


def test_each_class_may_have_its_own_aim(here, run):
    Path("aims.csv").write_text("class,aim\nblue,recall=1\nred,precision=0.99\n")
    code, out, err = run("eval", "-c", "recipe.yaml", "--thresholds", "aims.csv")
    assert (code, err) == (0, "")
    assert "note: 1 class is not in aims.csv, so for the highest F1: green" in out
    assert "thresholds for an aim of each class, chosen on 48 images of eval.csv" in out
    for name, aim in zip(NAMES, AIMS, strict=True):
        assert any(line.split()[0] == name and aim in line for line in out.splitlines())
    Path("aims.csv").write_text("class,aim\nblue,recall=1\nreed,precision=0.99\n")
    for command in ("eval", "export"):
        code, out, err = run(command, "-c", "recipe.yaml", "--thresholds", "aims.csv")
        assert (code, "thresholds for" in out) == (2, False)
        assert err == "error: aims.csv:3: label 'reed' is not a class name; did you mean 'red'?\n"


@pytest.mark.slow
def test_own_aims_are_in_the_report_the_export_and_the_onnx_file(here, run):
    Path("own.csv").write_text("class,aim\nblue,recall=1\nred,precision=0.99\n")
    assert run("eval", "-c", "recipe.yaml", "--thresholds", "own.csv", "--report", "own")[0] == 0
    report = json.loads(Path("own/report.json").read_text())
    assert report["thresholds"]["chosen"]["aims"] == AIMS
    assert [one["aim"] for one in report["classes"]] == AIMS
    page = Path("own/report.html").read_text()
    assert all(aim in page for aim in ("Chosen for an aim of each class", *AIMS))
    given = {"*": "f1", "blue": "recall=1", "red": "precision=0.99"}
    made = ppcls.export("runs/patches", "own_aims", formats="onnx", thresholds=given)
    about = yaml.safe_load((made / "inference.yml").read_text())
    assert about["ppcls"]["thresholds"]["aims"] == AIMS
    limits = about["PostProcess"]["MultiLabelThreshOutput"]["threshold"]
    assert limits == [one["threshold"] for one in report["classes"]]
    kept = {p.key: p.value for p in onnx.load("own_aims/inference.onnx").metadata_props}
    assert json.loads(kept["thresholds"]) == limits
    assert yaml.safe_load(kept["ppcls"])["ppcls"]["thresholds"]["aims"] == AIMS


@pytest.mark.slow
def test_the_commands_of_the_page(here, run):
    os.makedirs("runs/attributes", exist_ok=True)
    shutil.copy("runs/patches/best.safetensors", "runs/attributes/best.safetensors")
    text = pages.text_of("docs/evaluation.md")
    commands = [
        line
        for title in ("Several labels per image", "Thresholds")
        for line in pages.commands(pages.section(text, title))
    ]
    assert len(commands) == 3
    for line in commands:
        assert run(*pages.arguments(line))[::2] == (0, ""), line
    assert Path("reports/attributes/report.html").is_file()
    assert Path("exported/precise/inference.yml").is_file()
    shutil.rmtree("exported/precise")


def test_an_aim_that_is_none_is_refused_before_anything_is_read(here, run):
    for command in ("eval", "export"):
        code, _, err = run(command, "-c", "none.yaml", "--thresholds", "precision=90")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: --thresholds 'precision=90': should be f1, precision=0.9,")


def test_map_and_f1_are_in_the_curves(here):
    with Image.open("runs/patches/curves.png") as picture:
        words = picture.text["Description"]
    assert "scores, %: evaluation: mAP, last " in words
    assert "scores, %: evaluation: F1, last " in words
    assert "best: mAP" in words

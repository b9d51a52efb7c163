"""Train, evaluate, export, predict: the same images, the same numbers all the way."""

import csv
import json
import re

import cv2
import numpy as np
import paddle
import pytest
import yaml

import ppcls
from ppcls.inference import manifest
from ppcls.weights import files

SCORES = re.compile(r"top-1 (\S+) %, loss (\S+)")


def test_training_says_what_it_does(trained, workdir):
    assert "photos/train: 12 images, 2 classes" in trained
    assert re.search(r"ant +6\n +bee +6\n", trained)
    assert "EfficientNetLite0: 3.37 M parameters, 2 classes, 32 px, on cpu" in trained
    assert "finished: runs/small/best.safetensors, runs/small/curves.png" in trained
    names = {path.name for path in (workdir / "runs/small").iterdir()}
    assert names - {"vdl"} == {  # which stands there where VisualDL is installed
        "best.safetensors", "latest.safetensors", "recipe.yml", "run.jsonl", "curves.png",
        "heartbeat",
    }  # fmt: skip
    assert cv2.imread("runs/small/curves.png").shape[2] == 3


def test_the_log_holds_every_step_and_evaluation(trained, workdir):
    records = [json.loads(line) for line in (workdir / "runs/small/run.jsonl").open()]
    train = [r for r in records if r["event"] == "train"]
    evals = [r for r in records if r["event"] == "eval"]
    assert [r["step"] for r in train] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in evals] == [3, 6]
    assert set(train[0]) == {
        "event", "step", "time", "epoch", "loss", "top1", "lr", "images_per_second",
    }  # fmt: skip
    assert set(evals[0]) == {"event", "step", "time", "epoch", "loss", "top1"}


def test_evaluation_repeats_the_score_of_training(trained, workdir, run):
    said = [SCORES.search(line).groups() for line in trained.splitlines() if "(best)" in line]
    for options in (["-c", "recipe.yaml"], ["--weights", "runs/small/best.safetensors"]):
        code, out, _ = run("eval", *options)
        assert code == 0
        assert "best.safetensors on 6 images" in out
        assert SCORES.search(out).groups() == said[-1]


def test_the_recipe_in_the_run_folder_is_the_run(trained, workdir, run):
    recipe = yaml.safe_load((workdir / "runs/small/recipe.yml").read_text())
    assert recipe["train"]["epochs"] == 2
    code, _, _ = run("train", "-c", "runs/small/recipe.yml", "-o", "output=runs/again")
    assert code == 0
    first, again = (files.read(workdir / f"runs/{n}/best.safetensors") for n in ("small", "again"))
    for name, value in first.tensors.items():
        np.testing.assert_array_equal(value, again.tensors[name])


def test_an_exported_folder_says_what_it_holds(exported, workdir):
    assert "on 6 images its probabilities differ from the trained network's by" in exported
    folder = workdir / "exported/small"
    assert {path.name for path in folder.iterdir()} == {
        "inference.json", "inference.pdiparams", "inference.yml",
    }  # fmt: skip
    document = yaml.safe_load((folder / "inference.yml").read_text())
    assert document["Global"] == {"model_name": "EfficientNetLite0"}
    assert [next(iter(op)) for op in document["PreProcess"]["transform_ops"]] == [
        "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage",
    ]  # fmt: skip
    assert document["PostProcess"]["Topk"]["label_list"] == ["ant", "bee"]
    own = document["ppcls"]
    assert own["source"] == "runs/small/best.safetensors"
    assert own["versions"] == {"ppcls": ppcls.__version__, "paddle": paddle.__version__}
    assert own["check"]["photos"] == 6
    assert own["check"]["largest_difference"] < 1e-5


def test_prediction_is_what_the_trained_network_says(exported, workdir):
    from ppcls.train.setup import open_trained

    trained = open_trained("recipe.yaml", (), None)
    preprocess = trained.recipe.preprocess
    photos = sorted(str(p) for p in (workdir / "photos/eval").rglob("*.png"))
    pixels = [cv2.cvtColor(cv2.imread(photo), cv2.COLOR_BGR2RGB) for photo in photos]
    inputs = preprocess.normalize(np.stack([preprocess(image) for image in pixels]))
    expected = paddle.nn.functional.softmax(trained.net(paddle.to_tensor(inputs))).numpy()

    predictor = ppcls.Predictor("exported/small", engine="onednn")
    for given in (photos, "photos/eval", pixels):
        for batch_size in (1, 4, 8):
            results = predictor.predict(given, batch_size=batch_size)
            scores = np.zeros_like(expected)
            for row, result in zip(scores, results, strict=True):
                row[result.classes] = result.scores
                assert result.labels == [("ant", "bee")[c] for c in result.classes]
                assert result.scores == sorted(result.scores, reverse=True)
            np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_results_are_printed_and_saved(exported, workdir, run):
    command = ["predict", "--model-dir", "exported/small", "photos/eval/ant", "--topk", 1, "--save"]
    code, out, _ = run(*command, "results.csv")
    assert code == 0
    assert "exported/small: measuring which engine is fastest here, once" in out
    (chosen,) = re.findall("engine: .*", out)
    assert re.search(r"photos/eval/ant/0.png: (ant|bee) 0\.\d{4}  \[\d+\.\d ms\]", out)
    with open("results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"photos/eval/ant/{i}.png" for i in range(3)]
    code, out, _ = run(*command, "results.json")
    assert code == 0
    assert "measuring" not in out
    assert re.findall("engine: .*", out) == [chosen]
    with open("results.json") as file:
        results = json.load(file)
    for row, result in zip(rows, results, strict=True):
        assert row["label"] == result["labels"][0]
        assert float(row["score"]) == pytest.approx(result["scores"][0], abs=1e-6)


def test_mistakes_at_prediction_write_nothing(exported, workdir, run):
    def fails(*arguments):
        code, _, err = run("predict", "--save", "out.csv", *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert not list(workdir.glob("out.csv*"))
        return err

    good = ("--engine", "onednn", "--model-dir", "exported/small")
    (workdir / "photos/eval/ant/0.png").write_bytes(b"\x89PNG\r\n")
    assert "photos/eval/ant/0.png: " in fails(*good, "photos/eval/ant")
    assert "gone.jpg: no such file" in fails(*good, "gone.jpg")
    (workdir / "list.txt").write_text("photos/eval/bee/0.png\nphotos/eval/bee/9.png 1\n")
    assert "list.txt:2: " in fails(*good, "list.txt")
    (workdir / "empty").mkdir()
    assert "empty: no images in this folder" in fails(*good, "empty")
    assert "gone: does not exist" in fails("--model-dir", "gone", "photos/eval/bee")
    assert "photos: has no inference.yml" in fails("--model-dir", "photos", "photos/eval/bee")
    (workdir / "exported/small/inference.json").unlink()
    assert "no inference.json" in fails(*good, "photos/eval/bee")


def test_a_list_may_have_labels_and_spaces(exported, workdir):
    (workdir / "photos/eval/a bee.png").write_bytes(
        (workdir / "photos/eval/bee/0.png").read_bytes()
    )
    (workdir / "list.txt").write_text("photos/eval/a bee.png\nphotos/eval/a bee.png 1\n")
    first, second = ppcls.Predictor("exported/small", engine="onednn").predict("list.txt")
    assert first.path == second.path == "photos/eval/a bee.png"


class Shifted(paddle.nn.Layer):
    def forward(self, probabilities):
        return probabilities + 0.01


@pytest.mark.slow
def test_an_export_that_differs_is_refused_and_leaves_nothing(trained, workdir, run, monkeypatch):
    save = paddle.jit.save

    def save_another(network, *given, **options):
        save(paddle.nn.Sequential(network, Shifted()), *given, **options)

    monkeypatch.setattr(paddle.jit, "save", save_another)
    code, _, err = run("export", "-c", "recipe.yaml", "--output", "exported/small")
    assert code == 2
    assert "the exported network (paddle) differs from runs/small/best.safetensors by 0.01" in err
    assert not list((workdir / "exported").iterdir())


@pytest.mark.slow
def test_an_export_replaces_only_an_export(exported, workdir, run):
    options = ("export", "-c", "recipe.yaml", "--output")
    code, _, err = run(*options, "photos")
    assert code == 2
    assert "photos exists and is no exported folder" in err
    assert run(*options, "exported/small")[0] == 0
    assert manifest.read(workdir / "exported/small").labels == ("ant", "bee")


def test_without_evaluation_data_scikit_learn_lends_its_photos(trained, workdir, run):
    options = ("-c", "recipe.yaml", "--output", "exported/x", "-o", "data.eval=null")
    code, out, _ = run("export", *options)
    assert code == 0
    assert "note: compared on scikit-learn's sample images" in out
    assert "on 2 images" in out
    assert len(list((workdir / "exported/x").iterdir())) == 3


def test_one_folder_of_photos_is_enough(workdir, run):
    split = ["data.eval=null", "data.holdout=0.34", "model.num_classes=null"]
    code, out, _ = run("train", "-c", "recipe.yaml", "-o", *split)
    assert code == 0
    assert "photos/train: 8 images, 2 classes" in out
    code, out, _ = run("eval", "--weights", "runs/small/best.safetensors")
    assert code == 0
    assert "on 4 images" in out


@pytest.mark.slow
def test_lists_without_names_predict_class_numbers(workdir, run):
    for part in ("train", "eval"):
        paths = sorted((workdir / "photos" / part).rglob("*.png"))
        lines = [f"{path.relative_to(workdir)}\t{int(path.parent.name == 'bee')}" for path in paths]
        (workdir / f"{part}.txt").write_text("\n".join(lines) + "\n")
    data = ["data.train=train.txt", "data.eval=eval.txt", "train.epochs=1"]
    assert run("train", "-c", "recipe.yaml", "-o", *data)[0] == 0
    assert run("export", "-c", "recipe.yaml", "--output", "exported/x", "-o", *data)[0] == 0
    predictor = ppcls.Predictor("exported/x", engine="onednn")
    (result,) = predictor.predict("photos/eval/ant/0.png", topk=1)
    assert result.labels[0] in ("0", "1")
    (workdir / "names.txt").write_text("ant\nbee\n")
    named = [*data, "data.class_names=names.txt"]
    assert run("train", "-c", "recipe.yaml", "--overwrite", "-o", *named)[0] == 0
    assert run("export", "-c", "recipe.yaml", "--output", "exported/x", "-o", *named)[0] == 0
    predictor = ppcls.Predictor("exported/x", engine="onednn")
    (result,) = predictor.predict("photos/eval/ant/0.png", topk=1)
    assert result.labels[0] in ("ant", "bee")


@pytest.mark.parametrize("channels", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_grey_and_transparent_photos(workdir, run, channels):
    mean = "[" + ", ".join(["0.5"] * channels) + "]"
    recipe = [f"model.in_channels={channels}", f"preprocess.mean={mean}", f"preprocess.std={mean}"]
    assert run("train", "-c", "recipe.yaml", "-o", *recipe, "train.epochs=1")[0] == 0
    weights = ("--weights", "runs/small/best.safetensors")
    assert run("export", *weights, "--output", "exported/x")[0] == 0
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    results = ppcls.Predictor("exported/x", engine="onednn").predict([rgb, "photos/eval/ant/0.png"])
    assert len(results) == 2


def test_frozen_parts_stay_bit_identical(trained, workdir, run):
    path = workdir / "runs/small/best.safetensors"
    options = ("model.freeze=[stem.*, stages.0.*]", f"model.weights={path}", "train.epochs=1")
    assert run("train", "-c", "recipe.yaml", "-o", *options, "output=runs/frozen")[0] == 0
    after = files.read(workdir / "runs/frozen/latest.safetensors").tensors
    before = files.read(path).tensors
    same = {name for name, value in before.items() if (value == after[name]).all()}
    expected = {name for name in before if name.startswith(("stem.", "stages.0."))}
    assert expected <= same
    assert not any(name.endswith(("_mean", "conv.weight")) for name in same - expected)


def test_other_classes_than_the_network_has_are_not_scored(trained, workdir, run):
    options = ("eval", "--weights", "runs/small/best.safetensors")
    (workdir / "photos/eval/bee").rename(workdir / "photos/eval/wasp")
    code, _, err = run(*options)
    assert code == 2
    assert (
        "photos/eval lacks 'bee' and has besides 'wasp', compared with "
        "runs/small/best.safetensors" in err
    )
    (workdir / "photos/eval/ant").rename(workdir / "photos/eval/n01")
    code, out, _ = run(*options)
    assert code == 0
    assert "note: photos/eval: 'wasp' is taken for 'bee' of runs/small/best.safetensors" in out
    assert "and so on, in order: no name is in both" in out

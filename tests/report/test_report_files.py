"""Every figure of a report, recomputed from its scores.csv by scikit-learn."""

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from evaluated import NAMES, SMALL, WITHOUT, many, read_json, read_rows
from sklearn import metrics as sk
from small_network import Small

from ppcls.data.loader import Batch
from ppcls.metrics import TopKMeter
from ppcls.report import figures, page
from ppcls.train.evaluate import describe, evaluate, score


def test_the_figures_are_those_that_evaluation_prints(network, capsys):
    scores = score(network, Path("report"))
    assert score(network) == scores == read_json()["scores"]
    assert {path.name for path in Path("report").iterdir()} == SMALL
    *_, first, wrote, note, again = capsys.readouterr().out.splitlines()
    assert note == "note: list.txt: label 0 is taken for 'ant' of small.safetensors"
    assert wrote == "wrote report/report.html"
    assert first == again == f"small.safetensors on 40 images: {describe(scores)}"


def test_every_figure_follows_from_the_scores(scores):
    rows, found = read_rows(), read_json()
    labels, predicted, ranks = (
        np.array([int(row[key]) for row in rows]) for key in ("label", "predicted", "rank")
    )
    columns = [f"p_{name}" for name in NAMES]
    values = np.array([[row[key] for key in columns] for row in rows]).astype(np.float32)
    assert [row["path"] for row in rows] == [f"photos/{i}, a.png" for i in range(40)]
    assert [row["name"] for row in rows] == [NAMES[label] for label in labels]
    assert [row["predicted_name"] for row in rows] == [NAMES[number] for number in predicted]
    np.testing.assert_array_equal(values.argmax(axis=1), predicted)
    wide = values.astype(np.float64)
    assert sk.accuracy_score(labels, predicted) == pytest.approx(found["scores"]["top1"])
    top5 = sk.top_k_accuracy_score(labels, wide, k=5, labels=range(7))
    assert top5 == pytest.approx(found["scores"]["top5"]) == pytest.approx((ranks <= 5).mean())
    loss = sk.log_loss(labels, wide / wide.sum(axis=1, keepdims=True), labels=range(7))
    assert loss == pytest.approx(found["scores"]["loss"], rel=1e-5)
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(loss, rel=1e-6)
    matrix = sk.confusion_matrix(labels, predicted, labels=range(7))
    with open("report/confusion.csv", newline="") as file:
        cells = list(csv.reader(file))
    assert cells[0] == ["true \\ predicted", *NAMES]
    np.testing.assert_array_equal(np.array([row[1:] for row in cells[1:]], int), matrix)
    sparse = np.zeros_like(matrix)
    for true, said, photos in found["confusion"]:
        sparse[true, said] = photos
    np.testing.assert_array_equal(sparse, matrix)
    for pair in found["confused"]:
        assert matrix[pair["true"], pair["predicted"]] == pair["photos"]
    assert found["confused"][0]["photos"] == (matrix * (1 - np.eye(7))).max()
    assert found["mistakes"] == (labels != predicted).sum() == 40 - np.trace(matrix)


def test_classes_averages_and_calibration_follow_from_the_scores(scores):
    rows, found = read_rows(), read_json()
    labels, predicted = (np.array([int(row[k]) for row in rows]) for k in ("label", "predicted"))
    report = sk.classification_report(
        labels, predicted, labels=sorted(set(labels)), output_dict=True, zero_division=0
    )
    for number, one in enumerate(found["classes"]):
        assert (one["number"], one["name"]) == (number, NAMES[number])
        assert one["predicted"] == (predicted == number).sum()
        own = report.get(str(number), {"support": 0, "f1-score": None})
        assert (one["photos"], one["f1"]) == (own["support"], own["f1-score"])
        assert (one["precision"], one["recall"]) == (own.get("precision"), own.get("recall"))
    assert found["classes"][WITHOUT]["photos"] == 0
    for kind, values in found["averages"].items():
        own = report[f"{kind} avg"]
        assert values == {key: own[key.replace("f1", "f1-score")] for key in values}
        assert set(values) == {"precision", "recall", "f1"}
    confidences = np.array([float(row["probability"]) for row in rows])
    edges = np.arange(16) / 15
    ece = 0
    for low, high, one in zip(edges[:-1], edges[1:], found["calibration"]["bins"], strict=True):
        inside = (low < confidences) & (confidences <= high)
        assert one["photos"] == inside.sum()
        if inside.any():
            gap = (labels == predicted)[inside].mean() - confidences[inside].mean()
            ece += inside.mean() * abs(gap)
    assert found["calibration"]["ece"] == pytest.approx(ece)
    mistakes = [row for row in rows if row["label"] != row["predicted"]]
    surest = sorted(mistakes, key=lambda row: -float(row["probability"]))
    assert [one["path"] for one in found["worst"]] == [r["path"] for r in surest[: figures.WORST]]
    for one, row in zip(found["worst"], surest, strict=False):
        assert np.float32(one["probability"]) == np.float32(row["probability"])
        assert (one["true"], one["predicted"]) == (int(row["label"]), int(row["predicted"]))


def test_of_many_classes_the_table_has_the_highest_and_the_arrays_all(tmp_path):
    report = many(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.write(report, tmp_path)
    own = np.load(tmp_path / "scores.npz")
    every = own["probabilities"]
    assert every.dtype == np.float32
    assert every.shape == (300, 130)
    rows = read_rows(tmp_path)
    for row, values in zip(rows, every, strict=True):
        classes = [int(row[f"class_{place}"]) for place in range(1, 21)]
        given = np.array([row[f"probability_{place}"] for place in range(1, 21)], np.float32)
        np.testing.assert_array_equal(given, np.sort(values)[::-1][:20])
        np.testing.assert_array_equal(given, values[classes])
    assert [int(row["label"]) for row in rows] == own["labels"].tolist()
    top1 = sk.top_k_accuracy_score(own["labels"], every, k=1, labels=range(130))
    assert top1 == read_json(tmp_path)["scores"]["top1"]


def test_the_network_is_computed_once(network):
    calls, kept = [], []

    def count(layer, given, output):
        calls.append(output.numpy())

    class Flat(Small):
        def forward(self, images):
            return super().forward(images.astype("float32").transpose([0, 3, 1, 2]))

    net = Flat(classes=7)
    net.register_forward_post_hook(count)
    random = np.random.default_rng(4)
    batches = [
        Batch(random.integers(0, 256, (3, 32, 32, 3), np.uint8), np.arange(3), np.arange(3) + i)
        for i in (0, 3)
    ]
    paddle.seed(0)
    whole = evaluate(net, batches, TopKMeter(7), lambda *given: kept.append(given))
    assert whole.scores() == evaluate(net, batches, TopKMeter(7)).scores()
    assert len(calls) == 4
    for (batch, logits), given, seen in zip(kept, batches, calls, strict=False):
        assert batch is given
        np.testing.assert_array_equal(logits, seen)


def test_the_command_line_writes_a_report(trained, run):
    code, out, _ = run("eval", "-c", "recipe.yaml", "--report", "some/where")
    assert code == 0
    assert out.splitlines()[-1] == "wrote some/where/report.html"
    assert {path.name for path in Path("some/where").iterdir()} == SMALL
    Path("file").touch()
    code, _, err = run("eval", "-c", "recipe.yaml", "--report", "file")
    assert (code, err) == (2, "error: --report file: exists and is no folder; name another one\n")


def test_without_names_classes_are_numbers_and_a_data_sets_names_are_second(network):
    score(replace(network, names=()), Path("report"))
    assert [one["name"] for one in read_json()["classes"]] == list("0123456")
    Path("names.txt").write_text("\n".join("tuvwxyz"))
    data = replace(network.recipe.data, labels="names.txt")
    named = replace(network, names=(), recipe=replace(network.recipe, data=data))
    score(named, Path("report"))
    assert [one["name"] for one in read_json()["classes"]] == list("tuvwxyz")

"""Thresholds by a stated aim: by hand, against every other threshold, and in words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_network
import yaml
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

import ppcls
from ppcls import thresholds
from ppcls.inference import manifest
from ppcls.thresholds import Aim, choose, chosen
from ppcls.train import evaluate
from ppcls.utils.errors import UserError

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
LABELS = np.array([1, 1, 0, 1, 0, 1, 0, 0])


@pytest.mark.parametrize(
    ("aim", "value", "named", "right"),
    [
        ("f1", 0.25, 6, 4),
        ("precision=0.9", 0.75, 2, 2),
        ("precision=0.75", 0.5, 4, 3),
        ("recall=0.75", 0.5, 4, 3),
        ("recall=1", 0.25, 6, 4),
        ("fpr=0", 0.75, 2, 2),
        ("fpr=0.25", 0.5, 4, 3),
        ("cost=1:1", 0.5, 4, 3),
        ("cost=1:5", 0.25, 6, 4),
        ("cost=5:1", 0.75, 2, 2),
    ],
)
def test_by_hand(aim, value, named, right):
    found = chosen(SCORES, LABELS, Aim.of(aim))
    assert found.value == pytest.approx(value)
    assert (found.images, found.named, found.right, found.reached) == (4, named, right, True)


def outcome(scores, labels, threshold):
    (_, alarms), (misses, hits) = confusion_matrix(labels, scores > threshold, labels=[0, 1])
    return alarms, misses, hits


@pytest.mark.parametrize(
    "aim", ["f1", "precision=0.6", "recall=0.8", "fpr=0.1", "cost=1:4", "cost=3:1"]
)
def test_no_other_threshold_does_better(aim):
    rng = np.random.default_rng(6)
    goal = Aim.of(aim)

    def goodness(scores, labels, threshold):
        alarms, misses, hits = outcome(scores, labels, threshold)
        precision, recall = hits / max(1, hits + alarms), hits / (hits + misses)
        rate = alarms / (labels == 0).sum()
        if goal.kind == "f1":
            return f1_score(labels, scores > threshold, zero_division=0)
        if goal.kind == "cost":
            return -goal.costs[0] * alarms - goal.costs[1] * misses
        if goal.kind == "recall":
            return precision if recall >= goal.least else -1
        return recall if (rate <= goal.least if goal.kind == "fpr" else precision >= 0.6) else -1

    for _ in range(4):
        labels = rng.integers(0, 2, 40)
        scores = np.clip(0.3 * labels + 0.7 * rng.random(40), 0, 1).round(2).astype(np.float32)
        found = chosen(scores, labels, goal)
        best = max(goodness(scores, labels, t) for t in [-1, *scores])
        assert goodness(scores, labels, found.value) == pytest.approx(best)
        alarms, _, hits = outcome(scores, labels, found.value)
        assert (found.named, found.right) == (hits + alarms, hits)


def test_what_cannot_be_reached_is_never_named_and_said():
    scores = np.array([[0.9, 0.9, 0.9], [0.8, 0.2, 0.2], [0.7, 0.1, 0.1]], np.float32)
    labels = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    found = choose(scores, labels, Aim.of("precision=0.9"), ("a", "b", "c"), "list.csv")
    assert found.values == pytest.approx((1.0, 0.55, 1.0))
    assert not (np.ones(1, np.float32) > found.values[0]).any()
    head, *rest = thresholds.lines(found)
    assert head == "thresholds for precision ≥ 90 %, chosen on 3 images of list.csv"
    assert "  a: precision ≥ 90 % is not reached (66.7 % at most), so it is never named" in rest
    assert "  c: precision ≥ 90 % is not reached (0.0 % at most), so it is never named" in rest
    assert rest[-1].startswith("note: 3 classes have fewer than 20 images")
    assert found.to_plain()["not_reached"] == ["a", "c"]
    assert found.to_plain()["positives"] == [2, 1, 0]


@pytest.mark.parametrize(
    ("aim", "label", "value", "reached"),
    [("f1", 0, 0.5, None), ("recall=0.9", 0, 0.5, None), ("precision=0.9", 1, 0.5, None)]
    + [("fpr=0", 0, 0.95, True), ("cost=1:1", 0, 0.95, True), ("recall=1", 1, 0.4, True)],
)
def test_a_class_that_all_images_have_or_none(aim, label, value, reached):
    """What the aim can be held to is; else the threshold is in the middle, and that is said."""
    found = choose(np.array([[0.9], [0.8]]), np.full((2, 1), label), Aim.of(aim), ("a",), "list")
    assert found.values == pytest.approx((value,))
    assert found.classes[0].reached is reached
    said = "  all images have it or none has, so 0.5: a"
    assert (said in thresholds.lines(found)) is (reached is None)


@pytest.mark.slow
def test_the_second_of_two_classes_has_one_too(trained, workdir, run, capsys):
    """As PaddleClas's ThreshOutput in the folder; of three classes they are refused."""
    command = ("export", "-c", "recipe.yaml", "--output", "decided", "--format", "onnx")
    code, out, err = run(*command, "--thresholds", "recall=1")
    assert (code, err) == (0, "")
    assert "thresholds for recall ≥ 100 %, chosen on 6 images of photos/eval" in out
    after = yaml.safe_load(Path("decided/inference.yml").read_text())["PostProcess"]
    own = after["ThreshOutput"]
    assert (own["label_0"], own["label_1"], own["default_label_index"]) == ("ant", "bee", 0)
    model = onnx.load("decided/inference.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["class_names"]) == ["ant", "bee"]
    assert json.loads(properties["thresholds"]) == [1 - own["threshold"], own["threshold"]]
    with ppcls.Predictor("decided", engine="onnxruntime") as predictor:
        found = predictor.predict("photos/eval/bee")
        assert [one.labels for one in found] == [["bee"]] * 3
        assert all(one.scores[0] > own["threshold"] for one in found)
    made = ppcls.export("runs/small", "again", formats="onnx", thresholds="recall=1")
    assert manifest.read(made).threshold == own["threshold"]
    capsys.readouterr()
    assert ppcls.evaluate("runs/small", thresholds="recall=1") == ppcls.evaluate("runs/small")
    assert capsys.readouterr().out.startswith("thresholds for recall ≥ 100 %, chosen on 6 images")
    with pytest.raises(UserError, match=r"^thresholds 'f2': should be f1, precision=0\.9"):
        ppcls.evaluate("runs/small", thresholds="f2")
    small = replace(small_network.trained(small_network.Small(classes=3)), names=("a", "b", "c"))
    model = replace(small.recipe.model, num_classes=3)
    small = replace(small, recipe=replace(small.recipe, model=model))
    with pytest.raises(
        UserError, match=r"^thresholds by an aim are for several labels .* of the 3 classes"
    ):
        evaluate.require_thresholds(small)


def test_an_interval_is_that_of_clopper_and_pearson():
    for hits, count in ((0, 5), (3, 7), (5, 5), (80, 100)):
        expected = binomtest(hits, count).proportion_ci(0.95, "exact")
        assert thresholds.interval(hits, count) == pytest.approx(expected)
    assert thresholds.interval(0, 0) == (0, 1)


def test_scores_of_zero_and_one():
    scores, labels = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 1, 1, 0])
    found = chosen(scores, labels, Aim.of("recall=0.9"))
    assert found.reached is False  # nothing is below 0, so the third cannot be named
    assert (found.value, found.named, found.best) == (0.5, 2, pytest.approx(2 / 3))
    assert chosen(scores, labels, Aim.of("f1")).value == 0.5


@pytest.mark.parametrize(
    "text", ["", "F1", "precision", "precision=0", "precision=90", "recall=x", "cost=1", "cost=0:1"]
)
def test_what_is_no_aim(text):
    with pytest.raises(UserError, match=r"^--thresholds .*: should be f1, precision=0\.9"):
        Aim.of(text)


def test_no_threshold_has_a_better_f1():
    rng = np.random.default_rng(3)
    for trial in range(20):
        labels = rng.integers(0, 2, (30, 1))
        scores = np.clip(0.3 * labels + rng.random((30, 1)) * 0.7, 0, 1).round(trial % 3 + 1)
        found = thresholds.best_thresholds(scores, labels)
        best = max(f1_score(labels, scores > t, zero_division=0) for t in [-1, *scores.ravel()])
        assert f1_score(labels, scores > found) == pytest.approx(best)


def test_a_threshold_lies_midway_between_the_scores_that_it_divides():
    scores, labels = np.array([[0.9], [0.7], [0.3], [0.1]]), np.array([[1], [1], [0], [0]])
    assert thresholds.best_thresholds(scores, labels) == pytest.approx([0.5])
    assert thresholds.best_thresholds(scores - 0.1, labels) == pytest.approx([0.4])


def test_a_class_of_all_photos_or_none_has_the_middle_threshold():
    scores = np.array([[0.9, 0.2], [0.8, 0.1]])
    assert thresholds.best_thresholds(scores, np.array([[1, 0], [1, 0]])).tolist() == [0.5, 0.5]

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
from ppcls.thresholds import Aim, Aims, choose, chosen
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
    found = choose(scores, labels, [Aim.of("precision=0.9")] * 3, ("a", "b", "c"), "list.csv")
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
    found = choose(np.array([[0.9], [0.8]]), np.full((2, 1), label), [Aim.of(aim)], ("a",), "list")
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


# --------------------------------------------------------------------------- an aim for each class


def aims_of(tmp_path, text, names=("fire", "smoke", "fog")):
    path = tmp_path / "aims.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(aim) for aim in Aims.of(str(path)).of_classes(names)[0]]


FIRE, SMOKE = "recall ≥ 99 %", "the lowest cost, 1 a false alarm and 20 a miss"


@pytest.mark.parametrize(
    "text",
    [
        "class,aim\nfire,recall=0.99\nsmoke,cost=1:20\n",
        "\ufeffAim;Class;why\r\n cost=1:20 ; smoke ;x\r\nrecall=0.99;fire;\r\n",
        "class,aim\n0,recall=0.99\nsmoke,cost=1:20\n*,f1\n",
    ],
)
def test_a_file_has_an_aim_for_each_class_and_the_rest_have_f1(tmp_path, text):
    assert aims_of(tmp_path, text) == [FIRE, SMOKE, "the highest F1"]


def test_the_rest_has_the_aim_of_a_star():
    aims = Aims.of({"*": "fpr=0.01", "smoke": "cost=1:20"}, "thresholds")
    found, unnamed = aims.of_classes(("fire", "smoke", "fog"))
    assert [str(aim) for aim in found] == ["false positive rate ≤ 1 %", SMOKE, str(found[0])]
    assert unnamed == []
    found, unnamed = Aims.of({"smoke": "cost=1:20"}).of_classes(("fire", "smoke", "fog"))
    assert [aim.kind for aim in found] == ["f1", "cost", "f1"]
    assert unnamed == ["fire", "fog"]
    assert Aims.of("f1").of_classes(("a", "b")) == ([Aim("f1")] * 2, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": is empty; a first line class,aim is expected"),
        ("class,aim\n", ": names no class"),
        ("class,aims\n", ":1: no column is called 'aim'; did you mean 'aims'?"),
        ("class,aim\nfire\n", ":2: expected 2 fields, found 1: 'fire'"),
        ("class,aim\n,f1\n", ":2: no class"),
        ("class,aim\nfire,recal=0.9\n", ":2: 'recal=0.9': should be f1, precision=0.9,"),
        ("class,aim\nfire,f1\nsmok,f1\n", ":3: label 'smok' is not a class name; did you mean"),
        ("class,aim\nfire,f1\nfire,f1\n", ":3: 'fire' has an aim already ({}:2)"),
        ("class,aim\nfire,f1\n0,f1\n", ":3: '0' has an aim already ({}:2)"),
        ("class,aim\n3,f1\n", ":2: label '3' is not a class name"),
        ("class,aim\n*,f1\n*,f1\n", ":3: * has an aim already ({}:2)"),
        ("class,aim\nfire,f1\n".encode("utf-16"), ":1: not UTF-8 text; save the file as UTF-8"),
        ('class,aim\n"fire,f1\n', ":2: not CSV"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_place(tmp_path, text, words):
    path = tmp_path / "aims.csv"
    with pytest.raises(UserError) as caught:
        aims_of(tmp_path, text)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}{words.format(path)}")


def test_mistakes_are_said_together(tmp_path):
    with pytest.raises(UserError) as caught:
        aims_of(tmp_path, "class,aim\nfire,f2\nsmoke\nfog,fpr\n")
    assert [line.split(":")[1] for line in caught.value.lines] == ["3", "2", "4"]
    with pytest.raises(UserError, match=r"^thresholds\['fires'\]: label 'fires' is not a class na"):
        Aims.of({"fires": "f1"}, "thresholds").of_classes(("fire", "smoke"))
    with pytest.raises(UserError, match=r"^thresholds\['fire'\]: '0\.9': should be f1, prec"):
        Aims.of({"fire": 0.9}, "thresholds")


def test_a_path_is_no_aim_in_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("f1", "f1.csv", "recall=0.9.csv"):
        (tmp_path / name).write_text("class,aim\nfire,fpr=0.1\n")
    assert Aims.of("f1").rows == ()
    assert [aim.kind for _, _, aim in Aims.of("f1.csv").rows] == ["fpr"]
    assert [aim.kind for _, _, aim in Aims.of("recall=0.9.csv").rows] == ["fpr"]
    assert [aim.kind for _, _, aim in Aims.of(Path("f1")).rows] == ["fpr"]  # a path for sure
    with pytest.raises(UserError, match=r"or a CSV file, class,aim$"):
        Aims.of("aims.txt")
    with pytest.raises(UserError, match=r"^none\.csv: No such file"):
        Aims.of("none.csv")


def test_of_two_classes_the_second_has_an_aim():
    assert Aims.of({"bee": "recall=1"}).of_classes(("ant", "bee"), 1)[0] == [Aim("recall", 1)]
    with pytest.raises(UserError, match="'ant' has no threshold: of two classes the second, 'bee'"):
        Aims.of({"ant": "recall=1"}).of_classes(("ant", "bee"), 1)


def test_each_class_is_chosen_for_its_own_aim_and_told_so():
    scores, labels = np.stack([SCORES] * 3, 1), np.stack([LABELS] * 3, 1)
    aims = [Aim.of(text) for text in ("recall=1", "cost=5:1", "precision=1")]
    found = choose(scores, labels, aims, ("a", "b", "c"), "list.csv")
    one = [choose(scores, labels, [aim] * 3, ("a", "b", "c"), "list.csv") for aim in aims]
    assert found.classes == tuple(own.classes[place] for place, own in enumerate(one))
    head, columns, *rows = thresholds.lines(found)[:5]
    assert head == "thresholds for an aim of each class, chosen on 8 images of list.csv"
    assert columns.split()[:3] == ["class", "aim", "threshold"]
    for aim, row in zip(aims, rows, strict=True):
        assert f"  {aim}  " in row
    assert found.to_plain()["aims"] == [str(aim) for aim in aims]
    assert "aims" not in one[0].to_plain()


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

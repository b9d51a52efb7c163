"""Decisions by costs: the table, the rule against a plain loop, and what a folder makes of it."""

import csv
import io
import json

import numpy as np
import pytest
import yaml

import ppcls
from ppcls.calibrate import fit
from ppcls.calibrate.costs import Costs, read_costs
from ppcls.calibrate.fit import Answers, Wish
from ppcls.inference import calibration
from ppcls.inference.calibration import MadeFrom, cheapest, tempered
from ppcls.inference.looks import LOOKS
from ppcls.utils.errors import UserError

ENGINE = ("--engine", "onednn")
NAMES = ("ant", "bee", "cat")


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    "text",
    [
        "true,ant,bee,cat\nant,0,1,2\nbee,3,0,4\ncat,5,6.5,0\n",
        "\ufeff;cat;ant;bee\r\ncat;0; 5;6.5e0\r\nant;2;0;1\r\nbee;4;3;0\r\n",
        "which is,0,1,2\n2,5,6.5,0\n1,3,0,4\n0,0,1,2\n",
    ],
)
def test_lines_and_columns_may_have_any_order(tmp_path, text):
    path = tmp_path / "costs.csv"
    path.write_text(text, newline="")
    found = read_costs(path, NAMES)
    assert found.source == str(path)
    assert found.values.tolist() == [[0, 1, 2], [3, 0, 4], [5, 6.5, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": is empty; the first line should name the classes"),
        ("true\n", ": the first line should name the classes that are decided on"),
        ("true,ant,bee,cat\n", ": has no line for ant, bee, cat"),
        ("true,ant,bee\nant,0,1\nbee,1,0\ncat,1,1\n", ": has no column for cat"),
        ("true,ant,bee,cat\nant,0,1,1\ncat,1,1,0\n", ": has no line for bee"),
        (
            "true,ant,be,cat\nant,0,1,1\nbee,1,0,1\ncat,1,1,0\n",
            ":1: label 'be' is not a class name",
        ),
        (
            "true,ant,bee,cat\nant,0,1,1\nbee,1,0,1\ncot,1,1,0\n",
            ":4: label 'cot' is not a class nam",
        ),
        ("true,ant,bee,bee\nant,0,1,1\nbee,1,0,1\ncat,1,1,0\n", ":1: 'bee' has a column already"),
        ("true,ant,bee,cat\nant,0,1,1\nbee,1,0,1\nbee,1,1,0\n", ":4: 'bee' has a line already"),
        (
            "true,ant,bee,cat\nant,0,-1,1\nbee,1,0,1\ncat,1,1,0\n",
            ":2: '-1' for 'bee': a cost is a n",
        ),
        ("true,ant,bee,cat\nant,0,1,1\nbee,1,0,inf\ncat,1,1,0\n", ":3: 'inf' for 'cat': a cost"),
        ("true,ant,bee,cat\nant,0,1,1\nbee,,0,1\ncat,1,1,0\n", ":3: '' for 'ant': a cost"),
        ("true,ant,bee,cat\nant,0,1,1\nbee,1,0\ncat,1,1,0\n", ":3: expected 4 fields, found 3"),
        ("true,ant,bee,cat\n".encode("utf-16"), ":1: not UTF-8 text"),
    ],
)
def test_a_mistake_in_the_table_is_one_line_with_its_place(tmp_path, text, words):
    path = tmp_path / "costs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_costs(path, NAMES)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}{words}")


def test_a_network_without_names_has_numbers(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,1,0\n0,7,0\n1,0,3\n")
    assert read_costs(path, ()).values.tolist() == [[0, 7], [3, 0]]
    path.write_text("true,1,2\n1,0,3\n2,7,0\n")
    with pytest.raises(UserError, match=r"costs\.csv:1: label '2' is not a class name"):
        read_costs(path, ())


# --------------------------------------------------------------------------- the rule


def plainly(row, costs):
    """The class that costs least, said as in the book."""
    classes = range(len(row))
    expected = [sum(float(row[t]) * costs[t][d] for t in classes) for d in classes]
    return min(classes, key=lambda d: (expected[d], -row[d]))


def drawn(random, classes, count=40):
    rows = random.dirichlet(np.full(classes, random.choice([0.1, 0.5, 2.0])), count)
    costs = random.random((classes, classes)) * 10.0 ** random.integers(-3, 6, (classes, classes))
    np.fill_diagonal(costs, 0)
    return rows.astype(np.float32), costs


@pytest.mark.parametrize("seed", range(20))
def test_a_decision_is_that_of_a_plain_loop(seed):
    random = np.random.default_rng(seed)
    rows, costs = drawn(random, int(random.integers(2, 12)))
    if seed % 4 == 0:
        costs += random.random(costs.shape)  # of what is right, too
    assert cheapest(rows, costs).tolist() == [plainly(row, costs.tolist()) for row in rows]


@pytest.mark.parametrize(("alarm", "miss"), [(1, 1), (1, 5), (20, 1), (1, 1e6)])
def test_of_two_classes_it_is_a_threshold(alarm, miss):
    second = np.random.default_rng(0).random(500)
    rows = np.stack([1 - second, second], 1)
    found = cheapest(rows, np.array([[0, alarm], [miss, 0]], float))
    np.testing.assert_array_equal(found, second > alarm / (alarm + miss))


def test_of_equal_costs_the_likeliest_is_decided_on():
    rows = np.random.default_rng(1).dirichlet(np.ones(7), 300).astype(np.float32)
    for costs in (np.zeros((7, 7)), np.ones((7, 7)), 3 - 3 * np.eye(7)):
        np.testing.assert_array_equal(cheapest(rows, costs), rows.argmax(axis=1))
    third = np.full((1, 3), 1 / 3, np.float32)
    assert cheapest(third, 1 - np.eye(3)).tolist() == [0]
    # 0.1 + 0.2 and 0.3 differ as floats and not as costs.
    row = np.array([[0.1, 0.2, 0.3, 0.4]])
    costs = np.array([[1, 0, 9, 9], [1, 0, 9, 9], [0, 1, 9, 9], [0, 0, 9, 9]], float)
    assert cheapest(row, costs).tolist() == [1]


def test_what_is_said_of_them_is_cross_fitted():
    random = np.random.default_rng(2)
    logits = random.normal(0, 2, (3000, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.random((3000, 1))).sum(axis=1)
    sure = tempered(true, 1 / 3)  # three times too much so
    answers = Answers(sure, labels, looks=np.zeros((3000, len(LOOKS)), np.float32))
    costs = np.array([[0, 1, 1, 1], [9, 0, 1, 1], [30, 1, 0, 1], [1, 1, 1, 0]], float)
    made_from = MadeFrom(images=1, classes=4, data="p", digest="0", network={}, assumption="a")
    found = fit.fit(answers, Wish(), made_from, Costs("c.csv", costs))
    expected = found.calibration.expected
    apart = fit.tempered_apart(answers)
    decided = np.array([plainly(row, costs.tolist()) for row in apart])
    likeliest = apart.argmax(axis=1)
    for name, value in (
        ("cost", costs[labels, decided].mean()),
        ("cost_of_likeliest", costs[labels, likeliest].mean()),
        ("decided_otherwise", (decided != likeliest).mean()),
    ):
        assert expected[name] == pytest.approx(value, rel=1e-3), name
    assert expected["cost_of_likeliest"] - expected["cost"] > 3 * expected["cost_error"] > 0
    # The temperature is what makes it good.
    assert expected["cost"] < costs[labels, cheapest(sure, costs)].mean()
    with pytest.raises(UserError, match=r"^c\.csv: has costs of 4 classes, and the network has 3"):
        fit.fit(Answers(true[:, :3], labels % 3), Wish(), made_from, Costs("c.csv", costs))


# --------------------------------------------------------------------------- the command


@pytest.fixture
def priced(folder, photos, run, tmp_path):
    """The folder, calibrated with costs; what was said."""
    path = tmp_path / "costs.csv"
    path.write_text("true,bee,ant\nbee,0,2\nant,3,0\n")
    command = ("calibrate", "--model-dir", folder, "--data", photos, *ENGINE)
    command += ("--coverage", "0.8", "--false-alarms", "0.1")
    code, out, err = run(*command, "--costs", path)
    assert (code, err) == (0, "")
    return folder, out, command


def documented(folder):
    return yaml.safe_load((folder / "inference.yml").read_text())["ppcls"]["calibration"]


def test_predictions_have_decisions(priced, photos, run, tmp_path):
    folder, out, command = priced
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    about = documented(folder)
    assert about["costs"] == str(tmp_path / "costs.csv")
    expected = about["expected"]
    assert f"costs.csv: {expected['cost']:g} an image by decisions, " in out
    assert f"{expected['cost_of_likeliest']:g} by the likeliest class" in out
    dearer = expected["cost"] > expected["cost_of_likeliest"]
    assert ("note: decisions by costs cost more here" in out) is dearer
    with ppcls.Predictor(folder, engine="onednn") as predictor:
        found = predictor.predict(paths, topk=2)
        assert predictor.predict(paths[0], topk=1)[0].decision == found[0].decision
    for one in found:  # in the network's order: a bee from 3/5 on
        bee = one.scores[one.labels.index("bee")]
        assert one.decision == ("bee" if bee > 0.6 else "ant")
        assert str(one).endswith(f"; decision {one.decision}")
    assert len({(one.decision, one.labels[0]) for one in found}) == 3

    def saved(name, said=""):
        command = ("predict", "--model-dir", folder, *ENGINE, *paths[:20], "--overwrite")
        code, out, err = run(*command, "--save", tmp_path / name)
        assert (code, err) == (0, "")
        assert out.count("  decision ") == (20 if said else 0)
        return (tmp_path / name).read_text()

    rows = list(csv.DictReader(io.StringIO(saved("x.csv", "decisions"))))
    assert list(rows[0])[-3:] == ["state", "set", "decision"]
    records = json.loads(saved("x.json", "decisions"))
    assert [record["decision"] for record in records] == [one.decision for one in found[:20]]
    assert {(row["path"], row["decision"]) for row in rows} == {
        (record["path"], record["decision"]) for record in records
    }
    # Calibrated without costs, all is as it was without them.
    code, out, _ = run(*command)
    assert (code, f"note: {folder}: decides by costs no more" in out) == (0, True)
    assert not {"costs", "cost"} & {*documented(folder), *documented(folder)["expected"]}
    assert saved("x.csv").splitlines()[0].endswith(",state,set")
    assert "decision" not in json.loads(saved("x.json"))[0]


@pytest.mark.parametrize(
    ("shape", "words"),
    [((3, 3), "has no costs for 2 classes; copy"), (None, "has no costs for 2 classes; copy")],
)
def test_costs_that_are_lost_are_one_line(priced, shape, words):
    folder = priced[0]
    path, own = folder / "calibration.safetensors", documented(folder)["arrays"]
    values = dict(calibration.read_arrays(path, own))
    del values["costs"]
    data, digest = calibration.to_file(values | ({"costs": np.zeros(shape)} if shape else {}))
    path.write_bytes(data)
    text = (folder / "inference.yml").read_text()
    (folder / "inference.yml").write_text(text.replace(own, digest))
    with pytest.raises(UserError, match=words) as caught:
        ppcls.Predictor(folder, engine="onednn")
    assert len(caught.value.lines) == 1


def test_a_wrong_table_changes_nothing(folder, photos, run, tmp_path):
    before = (folder / "inference.yml").read_bytes()
    path = tmp_path / "costs.csv"
    path.write_text("true,bee,aunt\nbee,0,1\nant,4,0\n")
    command = ("calibrate", "--model-dir", folder, "--data", photos, *ENGINE, "--costs")
    code, out, err = run(*command, path)
    assert (code, out) == (2, "")
    assert err == f"error: {path}:1: label 'aunt' is not a class name; did you mean 'ant'?\n"
    code, _, err = run(*command, tmp_path / "none.csv")
    assert (code, err) == (2, f"error: {tmp_path}/none.csv: No such file or directory\n")
    assert (folder / "inference.yml").read_bytes() == before


def test_networks_of_several_labels_are_pointed_to_aims(folder, photos, run, tmp_path):
    path = folder / "inference.yml"
    path.write_text(path.read_text().replace("task: classify", "task: multilabel"))
    command = ("calibrate", "--model-dir", folder, "--data", photos, "--costs", "costs.csv")
    code, _, err = run(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "gives an image several labels" in err
    assert "export --thresholds has aims for each class" in err

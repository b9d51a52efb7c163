"""The report on several labels: figures by hand, the page parsed, many classes, nothing to say."""

import csv
import json
import warnings

import numpy as np
import pytest
from photos import write_photo
from test_page import Page

from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset, Paths
from ppcls.report import multilabel, multilabel_page
from ppcls.report.multilabel import MultiLabelOutcomes
from ppcls.thresholds import Aim, choose
from ppcls.utils.errors import UserError

NAMES = ("hat", "bag & <b>", "coat")
LABELS = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
SCORES = [[0.9, 0.6, 0.1], [0.8, 0.3, 0.7], [0.7, 0.9, 0.2], [0.2, 0.7, 0.1], [0.1, 0.1, 0.95]]


def answered(scores, labels, folder):
    """Outcomes of these scores; all images are one file."""
    write_photo(folder / "one.png", 0, (60, 50, 3))
    labels = np.asarray(labels, np.uint8)
    samples = Dataset(Paths([str(folder / "one.png")] * len(labels)), labels, (), "list.csv")
    scores = np.asarray(scores, np.float64)
    outcomes = MultiLabelOutcomes.to_fill(samples, labels.shape[1])
    logits = np.log(scores / (1 - scores)).astype(np.float32)
    for part in np.array_split(np.arange(len(labels)), 2)[::-1]:  # in any order of batches
        images = np.zeros((len(part), 1, 1, 3), np.uint8)
        outcomes.add(Batch(images, labels[part], part), logits[part])
    np.testing.assert_allclose(outcomes.probabilities, scores, rtol=1e-6)
    return outcomes


def made(scores, labels, folder, names=(), chosen=None):
    outcomes = answered(scores, labels, folder)
    limits = chosen.values if chosen else [0.5] * outcomes.classes
    about = {"model": "x", "weights": "w", "data": "list.csv"}
    values = {"map": 0.5, "f1": 0.5, "loss": 0.25}
    return multilabel.make(about, values, names, outcomes, limits, "of the checkpoint", chosen)


@pytest.fixture
def report(tmp_path):
    return made(SCORES, LABELS, tmp_path, NAMES)


def test_a_class_by_hand(report):
    hat, bag, coat = report.classes
    assert (hat.photos, hat.named, hat.right) == (3, 3, 2)
    assert (hat.precision, hat.recall, hat.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert hat.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert hat.mean_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert hat.tpr_at_fpr == pytest.approx(2 / 3)
    assert hat.with_it == pytest.approx(np.quantile([0.9, 0.8, 0.2], (0.05, 0.25, 0.5, 0.75, 0.95)))
    assert (bag.photos, bag.named, bag.right) == (2, 3, 1)
    assert (coat.photos, coat.named, coat.precision, coat.recall, coat.f1) == (0, 2, 0, None, None)
    assert (coat.average_precision, coat.mean_accuracy, coat.with_it) == (None, None, ())
    macro = report.averages["macro"]  # of the two that have images
    assert macro["recall"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert report.averages["micro"]["precision"] == pytest.approx(3 / 8)
    assert report.exact == 0


def test_what_is_named_beside_what_by_hand(report):
    found = [(one.true, one.named, one.photos, one.instead, one.of) for one in report.confused]
    # Bag on images 0 and 3, which have hats alone, on the latter for want of a hat.
    assert found == [(0, 1, 2, 1, 2), (1, 0, 1, 0, 1), (1, 2, 1, 1, 2), (0, 2, 1, 0, 3)]
    assert report.confusion[0].tolist() == pytest.approx([2 / 3, 1, 1 / 3])
    assert np.isnan(report.confusion[2]).all()
    assert [(one.first, one.second, one.photos, one.both) for one in report.pairs] == [(0, 1, 1, 2)]
    assert report.together[0, 0].tolist() == pytest.approx([1, 1 / 3, 0])
    assert report.together[1, 0].tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_the_worst_mistakes_come_first(report):
    alarms = [(one.index, one.number, one.score) for one in report.alarms]
    expected = [(4, 2, 0.95), (1, 2, 0.7), (2, 0, 0.7), (3, 1, 0.7), (0, 1, 0.6)]
    assert sorted(one[:2] for one in alarms) == sorted(one[:2] for one in expected)
    assert [one[2] for one in alarms] == pytest.approx([0.95, 0.7, 0.7, 0.7, 0.6])
    assert [(one.index, one.number) for one in report.misses] == [(3, 0), (1, 1)]
    assert [one.score for one in report.misses] == pytest.approx([0.2, 0.3])


def test_no_class_takes_all_the_room_of_the_worst():
    keys = np.full((40, 3), np.nan)
    keys[:, 0] = np.linspace(-0.9, -0.8, 40)
    keys[:20, 1] = np.linspace(-0.7, -0.6, 20)
    keys[:2, 2] = -0.5
    found = [one.number for one in multilabel.mistakes(keys)]
    assert found == [0] * 16 + [1] * 6 + [2] * 2
    assert [one.index for one in multilabel.mistakes(keys)][:16] == list(range(16))


def test_the_page_is_whole_and_no_name_is_a_tag(tmp_path):
    data = np.array(SCORES, np.float32), np.array(LABELS)
    aims = [Aim.of(text) for text in ("precision=0.9", "f1", "precision=0.9")]
    chosen = choose(*data, aims, NAMES, "list.csv")
    report = made(SCORES, LABELS, tmp_path, NAMES, chosen)
    multilabel_page.write(report, tmp_path)
    page = Page(tmp_path / "report.html")
    assert len(page.all("img")) == 4 + len(report.alarms) + len(report.misses)
    assert all(one["src"].startswith("data:image/") for one in page.all("img"))
    assert "bag & <b>" in page.text
    for words in (
        "Chosen for an aim of each class on these 5 images",
        "the highest F1",
        "is not reached (0.0 % at most)",
        "mA",
        "TPR",
    ):
        assert words in page.text
    found = json.loads((tmp_path / "report.json").read_text())
    assert [one["class"] for one in found["missed"]] == [one.number for one in report.misses]
    assert found["thresholds"]["chosen"]["positives"] == [3, 2, 0]
    with open(tmp_path / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["recall"] for row in rows][2] == ""
    assert (
        [row["aim"] for row in rows]
        == found["thresholds"]["chosen"]["aims"]
        == list(map(str, aims))
    )


@pytest.mark.parametrize("labels", [[[0], [0]], [[1], [1]]])
def test_one_class_of_all_images_or_none(tmp_path, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = made([[0.2], [0.9]], labels, tmp_path)
        multilabel_page.write(report, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["attributes"]["in force"]["ma"] is None
    assert report.names == ("0",)


@pytest.mark.slow
def test_of_many_classes_the_worst_come_first(tmp_path):
    random = np.random.default_rng(7)
    labels = random.random((60, 230)) < 0.2
    scores = np.clip(0.4 * labels + 0.6 * random.random(labels.shape), 0.01, 0.99)
    report = made(scores, labels, tmp_path)
    multilabel_page.write(report, tmp_path)
    page = Page(tmp_path / "report.html")
    assert "All 230 classes" in page.text
    with np.load(tmp_path / "scores.npz") as kept:
        np.testing.assert_array_equal(kept["probabilities"], report.outcomes.probabilities)
        np.testing.assert_array_equal(kept["labels"], labels)
    assert {path.name for path in tmp_path.iterdir()} == {*multilabel_page.FILES, "one.png"}


def test_there_is_no_report_on_what_is_no_number(tmp_path):
    outcomes = answered(SCORES, LABELS, tmp_path)
    logits = np.full((1, 3), np.nan, np.float32)
    batch = Batch(np.zeros((1, 1, 1, 3), np.uint8), outcomes.labels[2:3], np.array([2]))
    with pytest.raises(UserError, match=r"the network's logits are not finite"):
        outcomes.add(batch, logits)

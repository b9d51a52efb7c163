"""An evaluation small enough for a test, and readers of what a report says of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from photos import write_photo
from PIL import Image
from small_network import Small, trained

from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset, Paths
from ppcls.report import figures, page
from ppcls.report.figures import Outcomes
from ppcls.train import evaluate
from ppcls.train.checkpoint import Trained
from ppcls.train.setup import eval_samples, open_eval

NAMES = ("ant", "bee", "cat & <b>dog</b>", "elk", "fox", "gnu", "hen")
WITHOUT = 4  # the class that has no images
SMALL = set(page.FILES) - {"scores.npz"}


def network() -> Trained:
    """A network of seven classes, and 40 images of six; about half it names right."""
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for index in range(40):
        pixels = random.integers(0, 256, 3) * 0.7 + random.integers(0, 77, (48, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{index}, a.png")
    paddle.seed(1)
    found = trained(Small(classes=7), names=NAMES)
    recipe = found.recipe
    recipe = replace(
        recipe,
        model=replace(recipe.model, num_classes=7),
        data=replace(recipe.data, eval="list.txt", workers=0),
        eval=replace(recipe.eval, batch_size=16),
    )
    found = replace(found, recipe=recipe)
    write_list(np.zeros(40, int))
    outcomes = Outcomes.to_fill(open_eval(recipe, 7), 7)
    evaluate.run(found, outcomes.samples, outcomes.add)
    labels = np.where(random.random(40) < 0.5, outcomes.predicted, random.integers(0, 7, 40))
    write_list(np.where(labels == WITHOUT, 0, labels))
    return found


def score(network: Trained, report: Path | None = None) -> dict[str, float]:
    """The scores on the network's own evaluation images."""
    return evaluate.score(network, eval_samples(network), report)


def write_list(labels):
    lines = [f"photos/{index}, a.png\t{label}" for index, label in enumerate(labels)]
    Path("list.txt").write_text("\n".join(lines))


def read_rows(folder="report"):
    with open(f"{folder}/scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(folder="report"):
    return json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))


def many(folder, classes=130, count=300) -> figures.Report:
    """A report on a made-up network of many classes, whose images are one."""
    random = np.random.default_rng(3)
    write_photo(folder / "one.png", 0, (300, 500, 3))
    labels = random.integers(0, classes, count)
    samples = Dataset(Paths([str(folder / "one.png")] * count), labels, (), "list.txt")
    outcomes = Outcomes.to_fill(samples, classes)
    logits = random.normal(0, 3, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 6
    images = np.zeros((count, 1, 1, 3), np.uint8)
    outcomes.add(Batch(images, labels, np.arange(count)), logits)
    scores = {"top1": float(outcomes.right.mean()), "loss": float(outcomes.losses.mean())}
    return figures.make({"model": "x", "data": "list.txt"}, scores, (), outcomes)

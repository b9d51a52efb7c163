"""How many planted label errors are found, and what fixing them gains.

Labels of a share of the training images are changed to another class each, at random. `ppcls
check-data --labels` judges them by features of a frozen network; where cleanlab is installed, it
judges the same scores. Accuracy is that of a logistic regression on the features, learnt from the
images with errors, with what was found corrected, and with the labels as they were; on DATA/val.

    python benchmarks/label_errors.py DATA [--rates 0.02 0.05 0.1] [--seeds 3] [--model-dir FOLDER]

DATA is a folder with the parts train and val, or `digits`. Errors that were in the data before
count as false alarms.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # noqa: F401  sets what Paddle needs before it is imported

import numpy as np  # isort: skip
from sklearn.linear_model import LogisticRegression  # isort: skip

from ppcls.check.check_data import album_of
from ppcls.check.check_labels import labels_of
from ppcls.check.label_scores import (
    cross_fitted,
    deal,
    features_of,
    frozen_network,
    groups_of,
)
from ppcls.check.labels import Issues, find_issues
from ppcls.check.survey import Demands, survey
from ppcls.data import builtin
from ppcls.data.datasets import find_parts, open_samples
from ppcls.prediction import Predictor
from ppcls.similar import unit
from ppcls.utils.text import columns

RECALL = 0.7  # at which precision is stated
STRENGTH = 30.0  # of what logistic regression learns over the pull to 0
HEAD = (
    *("errors", "found", "precision", "recall", f"precision at recall {RECALL}", "cleanlab's"),
    *("cleanlab found", "its precision", "its recall", "top-1 with errors", "fixed", "clean"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model-dir")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.data == "digits":
            builtin.write("digits", Path(folder))
            options.data = folder
        measure(options)


def measure(options: argparse.Namespace) -> None:
    parts = find_parts(options.data, None)
    album = album_of(*(open_samples(part) for part in parts if part))
    count = len(album.parts["train"])
    begun, used = time.perf_counter(), cpu_seconds()
    seen = survey(album, Demands())
    looked, after = time.perf_counter(), cpu_seconds()
    with Predictor(options.model_dir or frozen_network(), batch_size=16) as predictor:
        opened, idle = time.perf_counter(), cpu_seconds()
        features = unit(features_of(predictor, album, len(album)))
    done, end = time.perf_counter(), cpu_seconds()
    labels = labels_of(album)
    groups = groups_of(seen, len(album))[:count]
    rates = len(album) / (done - opened), len(album) / (looked - begun)
    print(
        f"{len(album):,} images: features of {rates[0]:,.0f} a second "
        f"by {predictor.engine.settings}, looking at them {rates[1]:,.0f} a second; "
        f"{1000 * (end - idle) / len(album):.1f} and {1000 * (after - used) / len(album):.1f} CPU "
        "milliseconds an image"
    )
    rows = []
    seconds = []
    for rate in options.rates:
        found = []
        for seed in range(options.seeds):
            given = planted(labels[:count], rate, seed)
            begun = cpu_seconds()
            scores = cross_fitted(features[:count], given, deal(given, groups))
            issues = find_issues(scores, given)
            seconds.append(cpu_seconds() - begun)
            found.append(list(judged(features, labels, given, scores, issues, count)))
        means = np.nanmean(np.array(found, float), axis=0)
        rows.append(
            [f"{rate:.0%}", *(f"{mean:.3f}" if mean <= 1 else f"{mean:.0f}" for mean in means)]
        )
    print(*columns([HEAD, *rows], left=(0,)), sep="\n")
    print(f"cross-fitting and judging {count:,} images: {np.mean(seconds):.1f} CPU seconds")


def cpu_seconds() -> float:
    """What this process and those that it has ended have used of all cores."""
    return sum(os.times()[:4])


def planted(labels: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """The labels, of which a share is changed to another class, drawn evenly."""
    random = np.random.default_rng([seed, round(1000 * rate)])
    count = round(rate * len(labels))
    places = random.choice(len(labels), count, replace=False)
    classes = int(labels.max()) + 1
    given = labels.copy()
    given[places] = (labels[places] + random.integers(1, classes, count)) % classes
    return given


def judged(
    features: np.ndarray,
    labels: np.ndarray,
    given: np.ndarray,
    scores: np.ndarray,
    issues: Issues,
    count: int,
) -> Iterator[float]:
    """The numbers of a row behind the first, of one draw of errors."""
    wrong = given != labels[:count]
    yield len(issues.wrong)
    yield wrong[issues.wrong].mean() if len(issues.wrong) else np.nan
    yield wrong[issues.wrong].sum() / wrong.sum()
    first = np.concatenate([issues.wrong, issues.ambiguous])
    yield precision(np.r_[first, np.setdiff1d(np.arange(count), first)], wrong)
    yield from by_cleanlab(scores, given, wrong)
    fixed = given.copy()
    fixed[issues.wrong] = labels[issues.wrong]  # as someone does who sees each image found
    for learnt in (given, fixed, labels[:count]):
        classifier = LogisticRegression(C=STRENGTH, max_iter=100).fit(features[:count], learnt)
        yield classifier.score(features[count:], labels[count:])


def precision(order: np.ndarray, wrong: np.ndarray) -> float:
    """Of images in an order, the share that is wrong of those up to RECALL of all that are."""
    right = np.cumsum(wrong[order])
    enough = int(np.searchsorted(right, RECALL * wrong.sum()))
    return right[enough] / (enough + 1)


def by_cleanlab(scores: np.ndarray, given: np.ndarray, wrong: np.ndarray) -> Iterator[float]:
    """Its best precision at RECALL, and what it says is wrong: how many, precision, recall."""
    if not importlib.util.find_spec("cleanlab"):
        yield from [np.nan] * 4
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    orders = [np.argsort(get_label_quality_scores(given, scores, method=m)) for m in methods]
    yield max(precision(order, wrong) for order in orders)
    found = find_label_issues(given, scores)
    yield found.sum()
    yield wrong[found].mean()
    yield wrong[found].sum() / wrong.sum()


if __name__ == "__main__":
    main()

"""Do sets of classes hold the right class as often as was asked, and how large are they?

For each file of kept scores: over 1,000 random splits, half of the images calibrate and the others
are looked at. Printed are the mean coverage of LAC, APS and RAPS, that of each class with its own
threshold (Mondrian) beside the band in which 95 % of such means would lie by chance, sizes of sets,
those of MAPIE on the first splits where a Python with MAPIE is named, and the calibration error
(ECE) before and after the temperature. What APS and RAPS draw for each image makes up much of a
mean size, so both are looked at with ten draws of each split.

    python benchmarks/set_coverage.py keep --model-dir exported/x --data photos/val --output x.npz
    python benchmarks/set_coverage.py show x.npz y.npz [--mapie venv/bin/python]

The calibrating part is the largest up to a half of which (N + 1) * coverage is a whole number:
otherwise sets hold the right class more often than asked, by up to 1 / (N + 1).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # noqa: F401  sets what Paddle needs before it is imported

import numpy as np  # isort: skip

from ppcls.calibrate.fit import (
    Answers,
    Wish,
    ece,
    fit_sets,
    least_images,
    log_loss,
    temperature_of,
    tempered_apart,
)
from ppcls.inference.calibration import Ranks, tempered

METHODS = ("lac", "aps", "raps")
BY_MAPIE = 20  # splits …
DRAWS = 10  # … with as many draws of the numbers that APS and RAPS need


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    keep = commands.add_parser("keep")
    keep.add_argument("--model-dir", type=Path, required=True)
    keep.add_argument("--data", type=Path, required=True)
    keep.add_argument("--output", type=Path, required=True)
    keep.set_defaults(run=keep_scores)
    show = commands.add_parser("show")
    show.add_argument("files", type=Path, nargs="+")
    show.add_argument("--coverage", type=float, default=0.95)
    show.add_argument("--splits", type=int, default=1000)
    show.add_argument("--mapie", metavar="PYTHON", help="of an environment with mapie in it")
    show.set_defaults(run=show_coverage)
    options = parser.parse_args()
    options.run(options)


def keep_scores(options: argparse.Namespace) -> None:
    """Keep an exported network's answers to labelled images in a file."""
    from ppcls.calibrate.calibrate import ask, opened
    from ppcls.inference.quantize import open_labelled

    with opened(options.model_dir) as predictor:
        samples = open_labelled("--data", options.data, predictor.manifest, predictor.engine)
        answers, _ = ask(predictor, samples, skip=False)
    np.savez(options.output, probabilities=answers.probabilities, labels=answers.labels)


def show_coverage(options: argparse.Namespace) -> None:
    for path in options.files:
        with np.load(path, allow_pickle=False) as file:
            answers = Answers(file["probabilities"], file["labels"])
        size = calibrating(len(answers), options.coverage)
        right = (answers.probabilities.argmax(axis=1) == answers.labels).mean()
        print(
            f"{path.stem}: {len(answers):,} images, {answers.classes:,} classes, top-1 "
            f"{100 * right:.1f} %; {size:,} calibrate, the other {len(answers) - size:,} are "
            "looked at"
        )
        print(f"  {temperature_line(answers, options.splits)}")
        splits = draw_splits(len(answers), size, options.splits)
        mapie = sizes_by_mapie(options, answers, splits[:BY_MAPIE]) if options.mapie else {}
        for method in METHODS:
            wish = Wish(options.coverage, method)
            print(f"  {method:4} {coverage_line(answers, wish, splits, mapie.get(method))}")
        print(f"  each {class_line(answers, Wish(options.coverage, per_class=True), splits)}")


def calibrating(count: int, coverage: float) -> int:
    """How many of the images calibrate."""
    half = count // 2
    whole = [n for n in range(half, 0, -1) if abs((n + 1) * coverage % 1 - 0.5) > 0.5 - 1e-6]
    return next(iter(whole), half)


def draw_splits(count: int, size: int, splits: int) -> list[tuple[np.ndarray, np.ndarray]]:
    orders = (np.random.default_rng(seed).permutation(count) for seed in range(splits))
    return [(order[:size], order[size:]) for order in orders]


def temperature_line(answers: Answers, splits: int) -> str:
    """The calibration error of the other half, over splits into halves."""
    before, after, losses = [], [], []
    temperature = temperature_of(answers, tempered_apart(answers))
    for fit_to, rest in draw_splits(len(answers), len(answers) // 2, min(splits, 100)):
        half, other = answers.take(fit_to), answers.take(rest)
        own = temperature_of(half, tempered_apart(half))
        changed = other.probabilities if own == 1 else tempered(other.probabilities, own)
        before.append(ece(other.probabilities, other.labels))
        after.append(ece(changed, other.labels))
        losses.append([log_loss(p, other.labels) for p in (other.probabilities, changed)])
    found = f"temperature {temperature:.3f}" if temperature != 1 else "no temperature (left out)"
    old, new = np.mean(losses, axis=0)
    return (
        f"{found}; of {len(before)} halves fitted on the others: ECE {100 * np.mean(before):.2f} % "
        f"before, {100 * np.mean(after):.2f} % after; loss {old:.4f} before, {new:.4f} after"
    )


def coverage_line(
    answers: Answers,
    wish: Wish,
    splits: list[tuple[np.ndarray, np.ndarray]],
    mapie: dict[str, tuple[float, float]] | None,
) -> str:
    size, covered = size_and_coverage(
        answers if wish.method == "lac" else answers.ranked(), wish, splits
    )
    verdict = "within a point" if abs(covered - wish.coverage) <= 0.01 else "NOT WITHIN A POINT"
    found = f"coverage {100 * covered:.2f} % ({verdict}), {size:.3f} classes in a set"
    if mapie:
        first = splits[:BY_MAPIE]
        own = np.mean(
            [
                size_and_coverage(drawn_anew(answers, (draw, place)), wish, [split])
                for draw in range(1 if wish.method == "lac" else DRAWS)
                for place, split in enumerate(first)
            ],
            axis=0,
        )
        theirs = (f"{s:.3f} {name} ({100 * c:.2f} %)" for name, (s, c) in mapie.items())
        found += f"; on {len(first)} of the splits {own[0]:.3f} ({100 * own[1]:.2f} %), MAPIE "
        found += ", ".join(theirs)
    return found


def size_and_coverage(
    answers: Answers, wish: Wish, splits: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float]:
    """Means over the splits."""
    sizes, covered = [], []
    for fit_to, rest in splits:
        held = answers.take(rest).held(fit_sets(answers.take(fit_to), wish))
        covered.append(held[np.arange(len(rest)), answers.labels[rest]].mean())
        sizes.append(held.sum(axis=1).mean())
    return float(np.mean(sizes)), float(np.mean(covered))


def drawn_anew(answers: Answers, seed: tuple[int, int]) -> Answers:
    """The same answers with other draws: these come from the last digits of the probabilities."""
    random = np.random.default_rng(seed)
    moved = answers.probabilities * (1 - 1e-6 * random.random(answers.probabilities.shape))
    return replace(answers, ranks=Ranks.of(moved))


def class_line(answers: Answers, wish: Wish, splits: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Coverage of each class, with thresholds of its own."""
    counts = np.bincount(answers.labels, minlength=answers.classes)
    size = len(splits[0][0]) / len(answers)
    enough = np.flatnonzero(counts * size >= 2 * least_images(wish.coverage))
    if not len(enough):
        return "class: too few images of any for a threshold of its own"
    inside = np.zeros(answers.classes)
    seen = np.zeros(answers.classes)
    excess = np.zeros(answers.classes)  # by how much the rank, a whole number, is above
    for fit_to, rest in splits:
        held = answers.take(rest).held(fit_sets(answers.take(fit_to), wish))
        right = held[np.arange(len(rest)), answers.labels[rest]]
        inside += np.bincount(answers.labels[rest], right, minlength=answers.classes)
        seen += np.bincount(answers.labels[rest], minlength=answers.classes)
        own = np.bincount(answers.labels[fit_to], minlength=answers.classes)
        excess += np.ceil((own + 1) * wish.coverage - 1e-9) / (own + 1) - wish.coverage
    expected = wish.coverage + excess / len(splits)
    lines = []
    for label in enough:
        found = inside[label] / seen[label]
        # The splits are of the same images: they are no more independent than these are.
        band = 1.96 * np.sqrt(wish.coverage * (1 - wish.coverage) / counts[label])
        mark = "" if abs(found - expected[label]) <= band else " OUTSIDE"
        lines.append(f"{100 * found:.1f}{mark} ({100 * expected[label]:.1f} ± {100 * band:.1f})")
    return f"class, its own thresholds, in %: {', '.join(lines)}"


MAPIE = """
import json, sys, warnings
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore, LACConformityScore, RAPSConformityScore

warnings.filterwarnings("ignore")


class Kept(ClassifierMixin, BaseEstimator):
    def __init__(self, count):
        self.count = count
        self.classes_ = np.arange(count)

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        rows = np.asarray(X, np.float64)
        return rows / rows.sum(axis=1, keepdims=True)

    def predict(self, X):
        return np.asarray(X).argmax(axis=1)


given = np.load(sys.argv[1])
rows, labels = given["probabilities"], given["labels"]
kinds = {"lac": LACConformityScore, "aps": APSConformityScore, "raps": RAPSConformityScore}
if rows.shape[1] == 2:  # for which it has no other
    kinds = {"lac": LACConformityScore}
found = {}
for name, kind in kinds.items():
    found[name] = {}
    ways = {"": {}}
    if name != "lac":
        last = {"as it is": True, "randomized": "randomized"}
        key = "conformity_score_params"
        ways = {way: {key: {"include_last_label": value}} for way, value in last.items()}
    for way, options in ways.items():
        sizes, covered = [], []
        draws = range(int(sys.argv[3]) if way == "randomized" else 1)
        for fit_to, rest, draw in (
            (*split, draw) for draw in draws for split in zip(given["fit_to"], given["rest"])
        ):
            one = SplitConformalClassifier(
                Kept(rows.shape[1]), confidence_level=float(sys.argv[2]), prefit=True,
                conformity_score=kind(), random_state=draw,
            )
            try:
                one.conformalize(rows[fit_to], labels[fit_to])
            except ValueError:  # as of raps, for classes with one image
                break
            held = one.predict_set(rows[rest], **options)[1][:, :, 0]
            sizes.append(float(held.sum(axis=1).mean()))
            covered.append(float(held[np.arange(len(rest)), labels[rest]].mean()))
        if sizes:
            found[name][way] = float(np.mean(sizes)), float(np.mean(covered))
print(json.dumps(found))
"""


def sizes_by_mapie(
    options: argparse.Namespace, answers: Answers, splits: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Of MAPIE's sets on the same scores and splits mean size and coverage, by method and kind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.npz"
        fit_to, rest = (np.stack(part) for part in zip(*splits, strict=True))
        np.savez(
            file,
            probabilities=answers.probabilities,
            labels=answers.labels,
            fit_to=fit_to,
            rest=rest,
        )
        words = [options.mapie, "-c", MAPIE, str(file), str(options.coverage), str(DRAWS)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{options.mapie}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()

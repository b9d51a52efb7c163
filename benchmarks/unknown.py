"""How many photos of other things are called unknown, where 5 % of the known ones are, too?

Some of the labelled images calibrate an exported network as `ppcls calibrate` does, the others say
how many false alarms there are, and photos of other things how many of them are found. By the
distance in use, by each of its two parts, by the entropy of the scores and by the likeliest one;
means over splits. Digits, noise and pages of text are made here; `--others` names more.

    python benchmarks/unknown.py --model-dir exported/x --data photos/val [--others ants=PATH …]

The network has to be exported with `--features`.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # noqa: F401  sets what Paddle needs before it is imported

import numpy as np  # isort: skip
from PIL import Image, ImageDraw, ImageFont  # isort: skip
from sklearn.datasets import load_digits  # isort: skip

from ppcls.calibrate import fit
from ppcls.calibrate.calibrate import ask, opened
from ppcls.calibrate.fit import Answers
from ppcls.inference.calibration import distance, strangeness, with_products
from ppcls.inference.quantize import open_labelled
from ppcls.utils.text import columns

MADE = 200  # images of each kind that is made here
SIDE = 160  # pixels of noise
# The arrays that were fitted, features and probabilities to how strange each image is.
Measure = Callable[[Mapping[str, np.ndarray], np.ndarray, np.ndarray], np.ndarray]


def whole(arrays: Mapping[str, np.ndarray], features: np.ndarray, _: np.ndarray) -> np.ndarray:
    return distance(features, arrays)


def from_class(arrays: Mapping[str, np.ndarray], features: np.ndarray, _: np.ndarray) -> np.ndarray:
    return distance(features, {k: v for k, v in arrays.items() if k != "neighbours"})


MEASURES: dict[str, Measure] = {
    "distance of features": whole,
    "from the nearest class alone": from_class,
    "from neighbours alone": lambda a, f, p: whole(a, f, p) - from_class(a, f, p),
    "entropy of the scores": lambda _, f, p: strangeness("entropy", p, f, {}),
    "the likeliest class's score": lambda _, f, p: strangeness("confidence", p, f, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="labelled images, not learnt from")
    parser.add_argument("--others", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--images", type=int, default=736, help="that calibrate; default: 736")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--false-alarms", type=float, default=0.05)
    options = parser.parse_args()
    with opened(options.model_dir) as predictor, tempfile.TemporaryDirectory() as temporary:
        predictor.require_features()
        samples = open_labelled("--data", options.data, predictor.manifest, predictor.engine)
        known, _ = ask(predictor, samples, skip=True)
        others = {}
        for name, path in (made(Path(temporary)) | named(options.others)).items():
            rows, features = [], []
            for answer in predictor.stream([path], known.classes, features=True, on_error="skip"):
                if answer.features is not None:
                    row = np.empty(known.classes, np.float32)
                    row[answer.classes] = answer.scores
                    rows.append(row)
                    features.append(answer.features)
            others[name] = np.stack(features), np.stack(rows)
    if len(known) <= options.images:
        sys.exit(f"--data: {len(known):,} images, of which {options.images:,} cannot calibrate")
    found = []
    for seed in range(options.splits):
        order = np.random.default_rng(seed).permutation(len(known))
        calibrating, rest = (known.take(o) for o in np.split(order, [options.images]))
        found.append(one_split(calibrating, rest, others, 1 - options.false_alarms))
    means = np.mean(found, axis=0)
    rows = [(name, *(f"{v:.3f}" for v in row)) for name, row in zip(MEASURES, means, strict=True)]
    print(f"{len(known):,} images, {options.images:,} calibrate; {options.splits} splits")
    print(*columns([("found by", "false alarms", *others), *rows], left=(0,)), sep="\n")


def named(pairs: list[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs)


def one_split(
    known: Answers, rest: Answers, others: Mapping[str, tuple[np.ndarray, np.ndarray]], share: float
) -> list[list[float]]:
    """For each measure the share of false alarms among the rest, and what is found of each kind."""
    strange = {name: np.empty(len(known)) for name in MEASURES}
    for fit_to, part in fit.folds(known, fit.SLICES):
        arrays = with_products(**fit.fit_distance(known.take(fit_to)))
        given = known.take(part)
        for name, measure in MEASURES.items():
            strange[name][part] = measure(arrays, given.features, given.probabilities)
    arrays = with_products(**fit.fit_distance(known))
    shown = [(rest.features, rest.probabilities), *others.values()]
    found = []
    for name, measure in MEASURES.items():
        limit = fit.quantile(strange[name], share)
        found.append([float((measure(arrays, *pair) > limit).mean()) for pair in shown])
    return found


def made(folder: Path) -> dict[str, str]:
    """Folders of images that are no photos: digits of 8 px, noise, pages of text."""
    random = np.random.default_rng(0)
    kinds = {"digits": digit, "noise": noise, "text": page}
    for name, make in kinds.items():
        (folder / name).mkdir()
        for number in range(MADE):
            make(number, random).save(folder / name / f"{number}.png")
    return {name: str(folder / name) for name in kinds}


def digit(number: int, _: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.uint8(digits()[8 * number] * 255 / 16))


@cache
def digits() -> np.ndarray:
    return load_digits().images


def noise(number: int, random: np.random.Generator) -> Image.Image:
    """Grey or in colours, even or normal, of a grain of 1 to 8 pixels."""
    side = SIDE // int(random.choice([1, 2, 4, 8]))
    shape = (side, side, 3 if number % 2 else 1)
    if number % 4 < 2:
        values = random.integers(0, 256, shape)
    else:
        values = random.normal(128, random.uniform(10, 70), shape).clip(0, 255)
    pixels = np.broadcast_to(values, (side, side, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def page(_: int, random: np.random.Generator) -> Image.Image:
    """Dark words of one size on a light page."""
    words = (__doc__ or "").split()
    width, height = (int(side) for side in random.integers(300, 700, 2))
    image = Image.new("RGB", (width, height), tuple(random.integers(215, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    size = int(random.integers(10, 28))
    font = ImageFont.load_default(size)
    for top in range(int(random.integers(5, 40)), height - size, int(1.4 * size)):
        left = 20.0
        while left < width - 60:
            word = str(random.choice(words))
            draw.text((left, top), word, fill=(20, 20, 20), font=font)
            left += draw.textlength(f"{word} ", font=font)
    return image


if __name__ == "__main__":
    main()

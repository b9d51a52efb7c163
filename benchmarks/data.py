"""How fast does one core make training batches of JPEGs, against decoding alone and in floats?

The stages run by turns, batch after batch, in this process. Goals: decode, crop and flip at 75 % of
decoding alone; the whole recipe 1.8 times as fast as a plain pipeline that decodes, crops, flips,
normalises each image in float32, stacks and mixes. What it normalises the recipe leaves to the
device, where it is one pass over the batch: that is timed here too, and counted by train.py.

    python benchmarks/data.py [--photos FOLDER] [--config configs/ResNet50_vd.yaml] [--turns 15]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from ppcls.config.load import load
from ppcls.data import builtin, decode
from ppcls.data.loader import load_batch
from ppcls.data.samples import Dataset, Paths
from ppcls.inference.inputs import find
from ppcls.recipe import Recipe
from ppcls.train.setup import train_pipeline

ROOT = Path(__file__).resolve().parent.parent
MADE = (500, 375)  # pixels of scikit-learn's images here, as large as ImageNet's are on average
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
AREA, RATIO, ALPHA = (0.08, 1.0), (3 / 4, 4 / 3), 0.2

Stage = Callable[[np.ndarray, int], object]  # the images of a batch, the turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="a folder; without it, scikit-learn's two images")
    parser.add_argument("--config", default=str(ROOT / "configs/ResNet50_vd.yaml"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    recipe = load(Recipe, options.config)
    with tempfile.TemporaryDirectory() as folder:
        paths = find(options.photos) if options.photos else make_photos(Path(folder))
        found = stages([str(path) for path in paths], recipe)
        seconds = by_turns(found, len(paths), options.batch_size, options.turns)
    report(seconds, options.batch_size)


def make_photos(folder: Path) -> list[Path]:
    for source in builtin.sample_images():
        small = cv2.resize(cv2.imread(str(source)), MADE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / source.name), small)
    return sorted(folder.iterdir())


def stages(paths: list[str], recipe: Recipe) -> dict[str, Stage]:
    """Each makes what training needs of a batch, up to that stage."""
    labels = np.arange(len(paths), dtype=np.int64) % (recipe.model.num_classes or 1000)
    samples, whole = Dataset(Paths(paths), labels, (), "the benchmark"), train_pipeline(recipe)
    single = replace(whole, ops=whole.ops[:2], batch_ops=())
    normalize = recipe.preprocess.normalize
    ready = load_batch((samples, single), np.zeros(1, np.int64), 0).images

    def decoding(batch: np.ndarray, turn: int) -> None:
        for index in batch:
            decode.read(paths[index])

    return {
        "decode": decoding,
        "decode, crop, flip": partial(load_batch, (samples, single)),
        "recipe": partial(load_batch, (samples, whole)),
        "plain": partial(plain, paths, labels, recipe),
        "normalise": lambda batch, turn: normalize(np.repeat(ready, len(batch), 0)),
    }


def plain(
    paths: list[str], labels: np.ndarray, recipe: Recipe, batch: np.ndarray, turn: int
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, 3, H, W] and shares [N, classes], as frameworks' examples write it."""
    rng = np.random.default_rng(turn)
    photos = []
    for index in batch:
        data = np.frombuffer(Path(paths[index]).read_bytes(), np.uint8)
        photo = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        photo = crop(photo, recipe.train_size, rng)
        if rng.random() < 0.5:
            photo = cv2.flip(photo, 1)
        photo = (photo.astype(np.float32) * np.float32(1 / 255) - MEAN) / STD
        photos.append(photo.transpose(2, 0, 1))
    stacked = np.stack(photos)
    targets = np.eye(recipe.model.num_classes or 1000, dtype=np.float32)[labels[batch]]
    other, lam = rng.permutation(len(batch)), float(rng.beta(ALPHA, ALPHA))
    return (
        stacked * lam + stacked[other] * (1 - lam),
        targets * lam + targets[other] * (1 - lam),
    )


def crop(photo: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*AREA)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    return cv2.resize(photo[y : y + h, x : x + w], (size, size))


def by_turns(
    found: dict[str, Stage], photos: int, size: int, turns: int
) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each stage's turns; each turn begins with another stage."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    order = list(found)
    for turn in range(turns + 1):
        batch = np.arange(turn * size, (turn + 1) * size) % photos
        for name in order:
            cpu, wall = time.process_time(), time.perf_counter()
            found[name](batch, turn)
            taken = time.process_time() - cpu, time.perf_counter() - wall
            if turn:  # the first one warms up
                seconds[name].append(taken)
        order.append(order.pop(0))
    return seconds


def report(seconds: dict[str, list[tuple[float, float]]], size: int) -> None:
    """Photos/s by median CPU and wall time, and the ratios' medians over turns."""
    times = {name: np.array(own) for name, own in seconds.items()}
    for name, own in times.items():
        cpu, wall = size / np.median(own, axis=0)
        print(f"{name:20} {cpu:7.0f} images/s of CPU time, {wall:7.0f} of wall time")
    ratios = {
        "decode, crop, flip against decode alone (goal 75 %)": ("decode", "decode, crop, flip"),
        "recipe against plain (goal 1.8)": ("plain", "recipe"),
    }
    for words, (slow, fast) in ratios.items():
        cpu, wall = np.median(times[slow] / times[fast], axis=0)
        print(f"{words}: {cpu:.2f} of CPU time, {wall:.2f} of wall time")
    whole = times["recipe"] + times["normalise"]
    cpu, wall = np.median(times["plain"] / whole, axis=0)
    print(f"the same with the recipe's batch normalised by one core: {cpu:.2f}, {wall:.2f}")


if __name__ == "__main__":
    main()

"""Runs of a tiny recipe through the command line, and what anybody can see of them afterwards."""

import gc
import io
import json
import re
import resource
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from paddle.base import core
from photos import scene, write_photo

from ppcls.cli import main
from ppcls.config.load import load, to_plain
from ppcls.config.tree import differences
from ppcls.recipe import Recipe
from ppcls.weights import files

RECIPE = """
model: {name: EfficientNetLite0}
data: {train: train.txt, eval: eval.txt, workers: 0}
preprocess: {resize: 36, crop: 32}
train: {epochs: 1, batch_size: 4, log_every: 1, schedule: {lr: 0.001}}
output: run
"""
TRAIN, EVAL = 8, 5  # images
TIMES = ("time", "images_per_second")
OWN_FILES = r"^\.|^vdl|^tensorboard/"  # of a run's folder: what is not for people
CLOCK = r"[\d.,]+ (seconds?|minutes?)( left)?|[\d.]+ images/s"


@dataclass
class Seen:
    """What a command left behind, but for the recipe that it repeats."""

    code: int
    said: str  # without how long things took
    files: list[str] = field(default_factory=list)
    rates: dict[int, float] = field(default_factory=dict)  # learning rates of recorded steps
    losses: dict[int, float] = field(default_factory=dict)  # of training, by step
    scores: dict[int, dict[str, float]] = field(default_factory=dict)  # of evaluations
    weights: dict[str, bytes] = field(default_factory=dict)  # of latest.safetensors
    slots: dict[str, bytes] = field(default_factory=dict)  # of the optimizer
    best: dict[str, bytes] = field(default_factory=dict)  # of best.safetensors
    pixels: bytes = b""  # of the sheet that show-data draws
    children: bool = False  # whether other processes worked for it
    memory: int = 0  # what Paddle took at most, in bytes

    @property
    def steps(self) -> list[int]:
        return list(self.rates)

    @property
    def evaluated(self) -> list[int]:
        return list(self.scores)


def write_files(folder: Path) -> None:
    """Images of three classes, lists of them, and `recipe.yaml`."""
    for index in range(TRAIN + EVAL):
        write_photo(folder / "photos" / f"{index}.png", index, (40, 36, 3))
        write_photo(folder / "others/photos" / f"{index}.png", 100 + index, (40, 36, 3))
    (folder / "photos/broken.png").write_bytes(b"no image")
    write_list(folder / "train.txt", range(TRAIN))
    write_list(folder / "fewer.txt", range(5))
    write_list(folder / "skewed.txt", range(TRAIN), "00010002")
    write_list(folder / "eval.txt", range(TRAIN, TRAIN + EVAL))
    write_list(folder / "other_eval.txt", range(TRAIN))
    write_list(folder / "named.txt", range(TRAIN), ("n01", "n02", "n03"))
    write_list(folder / "many.txt", range(TRAIN), ("1,0,1", "0,1,1", "1,0,0"))
    write_list(folder / "broken.txt", [*range(TRAIN), "broken"])
    rows = [f"photos/{i}.png,{i % 3},p{i // 2 % 3},{'lr'[i < 4]}\n" for i in range(TRAIN)]
    (folder / "grouped.csv").write_text("".join(["path,label,patient,side\n", *rows]))
    (folder / "unlabeled.txt").write_text("".join(f"photos/{i}.png\n" for i in range(8, 13)))
    (folder / "more.txt").write_text("".join(f"others/photos/{i}.png\n" for i in range(5)))
    (folder / "fixes.csv").write_text("path,decision,new_label\nphotos/0.png,change,2\n")
    (folder / "names.txt").write_text("0 ant\n1 bee\n2 cat\n")
    (folder / "recipe.yaml").write_text(RECIPE)


def write_list(path: Path, photos: Sequence[int | str], labels: Sequence[str] = "012") -> None:
    lines = [f"photos/{photo}.png {labels[i % len(labels)]}\n" for i, photo in enumerate(photos)]
    path.write_text("".join(lines))


def asked(given: Sequence[str], path: str = "recipe.yaml") -> Recipe:
    return load(Recipe, path, given)


def changed(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """The keys in which two recipes differ."""
    return set(differences(to_plain(asked(before)), to_plain(asked(after))))


def command(*arguments: str) -> Seen:
    """What a command says and comes to; it runs in the working directory."""
    out = io.StringIO()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    gc.collect()
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    held = core.host_memory_stat_current_value("Allocated", 0)
    with redirect_stdout(out), redirect_stderr(out):
        code = main(list(arguments))
    memory = core.host_memory_stat_peak_value("Allocated", 0) - held
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before
    said = re.sub(CLOCK, "…", out.getvalue())
    return Seen(code, said, children=children, memory=memory)


def train(given: Sequence[str], recipe: str = "recipe.yaml", keep: str = "") -> Seen:
    """Train with these overrides; the folder of the run is removed or becomes `keep`."""
    overrides = ["-o", *given] if given else []
    seen = command("train", "-c", recipe, "--overwrite", *overrides)
    folder = asked(given, recipe).folder
    if not folder.exists():
        return seen
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    seen.files = [path for path in paths if not re.search(OWN_FILES, path)]
    if (folder / "run.jsonl").exists():
        read_records(folder / "run.jsonl", seen)
    if (folder / "latest.safetensors").exists():
        latest = files.read(folder / "latest.safetensors")
        tensors = {name: value.tobytes() for name, value in latest.tensors.items()}
        seen.slots = {name: v for name, v in tensors.items() if name.startswith("optimizer/")}
        seen.weights = {name: v for name, v in tensors.items() if name not in seen.slots}
    if (folder / "best.safetensors").exists():
        best = files.read(folder / "best.safetensors").tensors
        seen.best = {name: value.tobytes() for name, value in best.items()}
    if keep:
        Path(keep).parent.mkdir(parents=True, exist_ok=True)
        folder.rename(keep)
    else:
        shutil.rmtree(folder)
    return seen


def read_records(path: Path, seen: Seen) -> None:
    for line in path.read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        step = record["step"]
        if record["event"] == "train":
            seen.rates[step] = record["lr"]
            seen.losses[step] = record.get("loss", float("nan"))
        elif record["event"] == "eval":
            scores = {k: v for k, v in record.items() if k not in (*TIMES, "event", "step")}
            seen.scores[step] = scores


def show(given: Sequence[str], *more: str) -> Seen:
    """Draw what training sees of the first images in the first epochs."""
    options = ("--count", "4", "--epochs", "2", "--output", "sheet.png", "--overwrite", *more)
    overrides = ["-o", *given] if given else []
    seen = command("show-data", "-c", "recipe.yaml", *options, *overrides)
    if seen.code == 0:
        seen.pixels = imread("sheet.png").tobytes()
    return seen


def show_eval(given: Sequence[str]) -> Seen:
    """Draw what evaluation sees of the first images."""
    return show(given, "--eval")


def evaluate(given: Sequence[str]) -> Seen:
    """Score the run that was kept as `kept`."""
    overrides = ["-o", *given] if given else []
    best = "kept/best.safetensors"
    return command("eval", "-c", "recipe.yaml", "--weights", best, *overrides)


def image(seed: int = 0) -> np.ndarray:
    """Like an image, of more colours than training's: uint8 [48, 40, 3]."""
    return scene(seed, 48, 40)

"""What many files, classes, list lines, predictions and epochs cost: time, memory, open files.

Each job is a command of ppcls in a process of its own, at a tenth of its size and at the whole:
what should be flat (memory of predictions, open files) can be seen to be. Images are 8 pixels wide.

    python benchmarks/large_data.py [--jobs folder classes list predict epochs] [--share 0.01]
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
model: {{name: ResNet18, num_classes: {classes}}}
preprocess: {{resize: 32, crop: 32}}
data: {{train: {train}, eval: {eval}, workers: 0}}
train:
  epochs: {epochs}
  batch_size: 4
  drop_last: false
  log_every: 1000
  optimizer: {{kind: momentum}}
  schedule: {{lr: 0.01}}
eval: {{batch_size: 64}}
output: {output}
"""


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    seconds: float
    mib: float  # peak of its resident memory
    files: int  # most open at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes; default: 1")
    options = parser.parse_args()
    print("| job | size | seconds | peak memory, MiB | open files |\n|---|---:|---:|---:|---:|")
    for name in options.jobs:
        make, full = JOBS[name]
        for size in (max(2, round(full * options.share / 10)), max(4, round(full * options.share))):
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                for what, command in make(Path(folder), size):
                    cost = run(command)
                    print(
                        f"| {what} | {size:,} | {cost.seconds:.1f} | {cost.mib:,.0f} "
                        f"| {cost.files} |",
                        flush=True,
                    )


def run(command: list[str]) -> Cost:
    """Run a command of ppcls to its end, watching its open files."""
    start, most = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "ppcls", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    text: list[bytes] = []
    assert process.stderr
    reader = threading.Thread(target=lambda: text.append(process.stderr.read()))  # type: ignore
    reader.start()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        with contextlib.suppress(OSError):
            most = max(most, len(os.listdir(f"/proc/{process.pid}/fd")))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    # check-data ends with 1 when it has found something.
    if process.returncode not in ((0, 1) if command[0] == "check-data" else (0,)):
        sys.exit(f"ppcls {' '.join(command)}: {text[0].decode()[-2000:]}")
    return Cost(time.perf_counter() - start, usage.ru_maxrss / 1024, most)


Runs = Iterator[tuple[str, list[str]]]


def many_files(folder: Path, size: int) -> Runs:
    """So many files in one class folder, and ten in another."""
    photos(folder / "photos" / "many", size)
    photos(folder / "photos" / "few", 10)
    yield "folder: check-data", ["check-data", str(folder / "photos")]


def many_classes(folder: Path, size: int) -> Runs:
    """So many classes of two images: one to train on and one to evaluate."""
    for part in ("train", "val"):
        for number in range(size):
            photos(folder / part / f"class {number:05}", 1)
    recipe = write_recipe(folder, size, folder / "train", folder / "val", 1)
    yield "classes: train --dry-run", ["train", "-c", recipe, "--dry-run"]


def long_list(folder: Path, size: int) -> Runs:
    """A list of so many images, of which a thousand files stand for all."""
    photos(folder / "photos", min(size, 1000))
    names = sorted(os.listdir(folder / "photos"))
    lines = [f"photos/{names[i % len(names)]} {i % 10}\n" for i in range(size)]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "eval.txt").write_text("".join(lines[:100]))
    recipe = write_recipe(folder, 10, folder / "train.txt", folder / "eval.txt", 1)
    yield "list: train --dry-run", ["train", "-c", recipe, "--dry-run"]


def many_predictions(folder: Path, size: int) -> Runs:
    """So many images of a folder."""
    yield from exported(folder, 1)
    photos(folder / "photos", size)
    model, photos_folder = str(folder / "exported"), str(folder / "photos")
    saved = str(folder / "x.csv")
    yield (
        "predict --save",
        ["predict", "--model-dir", model, photos_folder, "--engine", "onednn", "--save", saved],
    )


def many_epochs(folder: Path, size: int) -> Runs:
    """So many epochs of twelve images."""
    for what, command in exported(folder, size):
        if command[0] == "train":
            yield f"epochs: {what}", command


def exported(folder: Path, epochs: int) -> Runs:
    """A network of three classes, trained and exported; what it takes is part of the job."""
    for part in ("train", "val"):
        for name in ("red", "green", "blue"):
            photos(folder / part / name, 4)
    recipe = write_recipe(folder, 3, folder / "train", folder / "val", epochs)
    weights = str(folder / "run" / "best.safetensors")
    yield "train", ["train", "-c", recipe]
    yield "export", ["export", "--weights", weights, "--output", str(folder / "exported")]


JOBS: dict[str, tuple[Callable[[Path, int], Runs], int]] = {
    "folder": (many_files, 200_000),
    "classes": (many_classes, 10_000),
    "list": (long_list, 100_000),
    "predict": (many_predictions, 20_000),
    "epochs": (many_epochs, 200),
}


def write_recipe(folder: Path, classes: int, train: Path, eval: Path, epochs: int) -> str:
    recipe = folder / "recipe.yaml"
    fields = {"classes": classes, "train": train, "eval": eval, "epochs": epochs}
    recipe.write_text(RECIPE.format(output=folder / "run", **fields))
    return str(recipe)


def photos(folder: Path, count: int) -> None:
    """So many different images, of random pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
            folder / f"{number:06}.png", compress_level=0
        )


if __name__ == "__main__":
    main()

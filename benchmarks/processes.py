"""Do two training processes with one core each beat one with two, on this machine?

Both train the same network on the same images, by turns, with the same number of images a step;
printed are the images a second of the whole trainer, without its first steps.

    python benchmarks/processes.py --models ResNet50_vd,EfficientNetLite0 --size 224 --batch-size 8
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ppcls.utils import environment
from ppcls.utils.log import read_records

WARM_UP = 2  # steps that do not count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="ResNet50_vd,EfficientNetLite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8, help="images a step")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = environment.core_count()
    print(f"| network | one process, {cores} threads | {cores} processes | ratio |")
    print("|---|---:|---:|---:|")
    for model in options.models.split(","):
        found: dict[int, list[float]] = {1: [], cores: []}
        with tempfile.TemporaryDirectory() as folder:
            write_photos(Path(folder), options)
            for _ in range(options.rounds):
                for count in found:
                    found[count].append(speed(Path(folder), model, count, options))
        one, many = (statistics.median(speeds) for speeds in found.values())
        print(f"| {model} | {one:.2f} | {many:.2f} | {many / one:.2f} |", flush=True)


def write_photos(folder: Path, options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(options.steps * options.batch_size // 2):
            pixels = rng.integers(0, 256, (256, 320, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.jpg")


def speed(folder: Path, model: str, count: int, options: argparse.Namespace) -> float:
    """Images a second of one short run."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {model}}}\n"
        f"data: {{train: {folder}/photos, workers: 1}}\n"
        f"preprocess: {{resize: {options.size}, crop: {options.size}}}\n"
        f"train:\n  epochs: 1\n  batch_size: {options.batch_size // count}\n  log_every: 1\n"
        "  schedule: {lr: 0.01}\n"
        f"output: {folder}/run\n"
    )
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(recipe), "--overwrite"]
    variables = {k: v for k, v in os.environ.items() if k not in environment.THREADS}
    subprocess.run(
        [*command, "--processes", str(count)], check=True, env=variables, capture_output=True
    )
    records = [r for r in read_records(folder / "run/run.jsonl") if r["event"] == "train"]
    return statistics.median(r["images_per_second"] for r in records[WARM_UP:])


if __name__ == "__main__":
    sys.exit(main())

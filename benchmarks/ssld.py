"""What SSLD gains in small: a student alone on few labels, its teacher, and what it was taught.

For each seed, by the commands that a user would type: the teacher and the student alone learn from
the same few labelled images, the student for more steps than with its teacher; the teacher chooses
images out of all of the training part, whose labels are not read; the student learns from both. The
seed also says which images are the labelled ones. Prints top-1 on the held-out images after the
last epoch, and how long each took.

    python benchmarks/ssld.py [digits] [solar_cells] [--seeds 0 1 2] [--folder runs/ssld]
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("student alone", "teacher", "student with SSLD")


@dataclass(frozen=True)
class Study:
    """A data set, which images are chosen (of each class; near), epochs of the student alone."""

    data: str
    per_class: int
    near: int  # bits of 256; digits of 8x8 pixels are all much alike
    alone: int


STUDIES = {
    "digits": Study("digits", 120, 0, 235),
    "solar_cells": Study("solar_cells", 1400, 32, 18),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="*", metavar="STUDY", help=" or ".join(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/ssld"))
    options = parser.parse_args()
    unknown = set(options.study) - set(STUDIES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(STUDIES)}")
    for name in options.study or ["digits"]:
        rows, times = [], []
        for seed in options.seeds:
            found = measure(STUDIES[name], seed, options.folder / f"{name}_{seed}")
            rows.append([score for score, _ in found])
            times.append([seconds for _, seconds in found])
            print(f"{name}, seed {seed}: {rows[-1]}", flush=True)
        print(table(rows, options.seeds))
        print(
            "minutes: " + ", ".join(f"{mean(part) / 60:.1f}" for part in zip(*times, strict=True))
        )


def measure(study: Study, seed: int, folder: Path) -> list[tuple[float, float]]:
    """Top-1 in percent and seconds of the student alone, of the teacher and of the student."""
    student = f"configs/quick_start/ssld_{study.data}.yaml"
    teacher = f"configs/quick_start/ssld_{study.data}_teacher.yaml"
    places = [folder / name for name in ("alone", "teacher", "student")]
    shared = [f"seed={seed}", "eval.every=1000"]
    alone = ["task={kind: classify}", "data.unlabeled=null", f"train.epochs={study.alone}"]
    times = [train(student, places[0], *shared, *alone), train(teacher, places[1], *shared)]
    taught = [*shared, f"task.teacher.weights={places[1] / 'best.safetensors'}"]
    chosen = folder / "unlabeled.txt"
    photos = ["--images", f"data/{study.data}/train", "--per-class", str(study.per_class)]
    photos += ["--near", str(study.near)]
    begun = time.monotonic()
    run("tools/select_unlabeled.py", student, *photos, "--output", str(chosen), "-o", *taught)
    choosing = time.monotonic() - begun
    times.append(choosing + train(student, places[2], *taught, f"data.unlabeled.images={chosen}"))
    return list(zip(map(last_score, places), times, strict=True))


def train(recipe: str, output: Path, *overrides: str) -> float:
    """Train; returns seconds."""
    begun = time.monotonic()
    run("tools/train.py", recipe, "--overwrite", "-o", *overrides, f"output={output}")
    return time.monotonic() - begun


def run(tool: str, recipe: str, *options: str) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / tool), "-c", str(ROOT / recipe), *options], check=True
    )


def last_score(folder: Path) -> float:
    """Top-1 of a run's last evaluation, in percent."""
    lines = (json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines())
    return round([100 * line["top1"] for line in lines if line["event"] == "eval"][-1], 2)


def table(rows: list[list[float]], seeds: list[int]) -> str:
    """Markdown: a row for each seed, then mean and standard deviation."""
    lines = [f"| seed | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    for seed, row in zip(seeds, rows, strict=True):
        lines.append(f"| {seed} | " + " | ".join(f"{score:.2f}" for score in row) + " |")
    if len(rows) > 1:
        columns = list(zip(*rows, strict=True))
        means = " | ".join(f"{mean(c):.2f} ± {stdev(c):.2f}" for c in columns)
        lines.append(f"| mean ± s. d. | {means} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

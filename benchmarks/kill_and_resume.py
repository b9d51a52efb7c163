"""Does a run survive `kill -9` at any moment, with the weights it would have had?

A run with two data workers, a moving average and accumulated batches is killed so many times at
random moments, every third time while a checkpoint is being written, and started again with
--resume. Its last checkpoint must hold the bytes of an uninterrupted run's. Prints a line for each
kill; exits with 1 if they differ.

    python benchmarks/kill_and_resume.py --kills 20
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ppcls.train.checkpoint import LATEST
from ppcls.utils.log import read_records
from ppcls.weights import files

RECIPE = """
model: {name: ResNet18, num_classes: 2}
data: {train: photos/train, eval: photos/eval, workers: 2}
preprocess: {resize: 36, crop: 32}
train:
  epochs: EPOCHS
  batch_size: 4
  accumulate: 2
  drop_last: false
  ema: {decay: 0.9}
  batch_ops: [{op: mixup, prob: 0.5}]
  ops: [{op: random_resized_crop}, {op: horizontal_flip}, {op: random_erasing}]
  log_every: 1
  save_every: 1 steps
  schedule: {lr: 0.01, warmup: 1 epoch}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_photos()
        Path("recipe.yaml").write_text(RECIPE.replace("EPOCHS", str(options.epochs)))
        return compare(options.kills, random.Random(options.seed))


def write_photos() -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 13), ("eval", 3)):
        for name in ("ant", "bee"):
            folder = Path("photos", part, name)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def compare(kills: int, rng: random.Random) -> int:
    begun = time.monotonic()
    assert start("whole").wait() == 0
    seconds = time.monotonic() - begun
    print(f"uninterrupted: {seconds:.1f} s, {last_step('whole')} steps")
    print(f"{'kill':>4}  {'after s':>7}  {'at step':>7}  what was under way")
    done = 0
    while done < kills:
        process = start("killed")
        slept = rng.uniform(0.2, 0.8) * seconds
        time.sleep(slept)
        while done % 3 == 2 and not unfinished() and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is not None:  # it had finished: begin once more
            assert process.returncode == 0
            print(f"      finished and begun anew; {'equal' if equal() else 'DIFFERENT'}")
            if not equal():
                return 1
            for path in sorted(Path("runs/killed").glob("*.safetensors")):
                path.unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
        left = unfinished()
        under_way = f"saving, {left[0].stat().st_size:,} bytes" if left else "a step, or starting"
        print(f"{done:4}  {slept:7.1f}  {last_step('killed'):7}  {under_way}", flush=True)
    assert start("killed").wait() == 0
    print(f"after {kills} kills: {'the same bytes' if equal() else 'DIFFERENT'}")
    return 0 if equal() else 1


def start(name: str) -> subprocess.Popen[bytes]:
    """The run, or the rest of it where there is a checkpoint."""
    goes_on = Path("runs", name, LATEST).exists()
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml"]
    command += ["--resume"] if goes_on else ["--overwrite"]
    # Python's resource tracker remarks on stderr that a process was killed.
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "-o", f"output=runs/{name}"], stdout=quiet, stderr=quiet)


def unfinished() -> list[Path]:
    """Checkpoints that are being written, or were when the run was killed."""
    return sorted(Path("runs/killed").glob(f".{LATEST}.*.tmp"))


def last_step(name: str) -> int:
    steps = [r["step"] for r in read_records(Path("runs", name, "run.jsonl"))]
    return max(steps, default=0)


def equal() -> bool:
    """Whether both last checkpoints hold the same bytes, the optimizer's included."""
    whole, killed = (files.read(Path("runs", n, LATEST)).tensors for n in ("whole", "killed"))
    same = whole.keys() == killed.keys()
    return same and all(v.tobytes() == killed[name].tobytes() for name, v in whole.items())


if __name__ == "__main__":
    sys.exit(main())

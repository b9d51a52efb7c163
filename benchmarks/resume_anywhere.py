"""Does a run go on at the next image, with whatever number of processes it gets?

Runs of one to four processes are cut at random steps, by a signal or by `kill -9`, and go on with
the same or another number of processes, again and again. Of each is checked: every epoch shows each
image once, and each step those that an undisturbed run shows; with one number of processes all the
way, the last checkpoint holds the bytes of an undisturbed run's; with others, losses and weights
are equal up to rounding; nothing stands still for longer than --patience. The network has frozen
norms and no dropout, as docs/scale.md says. Prints a line for each run; exits with 1 where one is
otherwise.

    python benchmarks/resume_anywhere.py --resumes 200
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from kill_and_resume import write_photos  # benchmarks/kill_and_resume.py: 26 images

from ppcls.train.checkpoint import LATEST
from ppcls.utils.log import read_records
from ppcls.weights import files

MOST = 4  # processes
STEP = 12  # images
LIMIT = 1e-3  # of relative differences of a loss that other numbers of processes may make, …
WEIGHTS_LIMIT = 1e-2  # … and of a weight
EPOCHS = 4
RECIPE = f"""
model: {{name: ResNet18, num_classes: 2, freeze: ["*.norm.*"]}}
data: {{train: photos/train, eval: photos/eval, workers: 1}}
preprocess: {{resize: 36, crop: 32}}
train:
  epochs: {EPOCHS}
  batch_size: {STEP}
  drop_last: false
  ema: {{decay: 0.9}}
  log_every: 1
  save_every: 1 steps
  schedule: {{lr: 0.01, warmup: 1 epoch}}
"""
# Imported by each process, as --use names it: writes down what each step showed.
NOTING = """
from ppcls.train.trainer import Trainer

advance = Trainer.advance


def noting(self, batches, images):
    step = self.step
    advance(self, batches, images)
    shown = " ".join(str(int(i)) for batch in batches for i in batch.indices)
    with open(self.folder / "shown.txt", "a") as file:
        file.write(f"{step} {shown}\\n")


Trainer.advance = noting
"""


@dataclass
class Part:
    """A stretch of a run: with how many processes, and how it ended."""

    processes: int
    end: str = "to the end"

    def __str__(self) -> str:
        return f"{self.processes} ({self.end})"


@dataclass
class Found:
    resumes: int = 0
    same: int = 0  # runs with one number of processes all the way
    others: int = 0
    furthest: float = 0.0  # relative difference of a loss from the undisturbed run's
    apart: float = 0.0  # the same of a weight, to the largest of its tensor
    longest: float = 0.0  # seconds between a start and its first step
    wrong: list[str] = field(default_factory=list)


class StoodStill(Exception):  # noqa: N818
    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--resumes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=60, help="seconds without a step")
    parser.add_argument("--most", type=int, default=MOST, help="processes")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_photos()
        Path("recipe.yaml").write_text(RECIPE)
        Path("noted_steps.py").write_text(NOTING)
        whole = {}
        for count in range(1, options.most + 1):
            go_on(f"whole{count}", count, count, None, rng, options.patience)
            whole[count] = Path(f"whole{count}")
        number = 0
        while found.resumes < options.resumes:
            number += 1
            check(f"cut{number}", whole, rng, options, found)
    print(
        f"{found.resumes} resumes of {number} runs, of which {found.same} had one number of "
        f"processes all the way: {len(found.wrong)} otherwise than they should be; losses with "
        f"other numbers differ by {found.furthest:.1e} at most, their weights by {found.apart:.1e} "
        f"of a tensor's largest; {found.longest:.0f} seconds at "
        "most from a start to its first step"
    )
    return 1 if found.wrong else 0


def check(
    name: str,
    whole: Mapping[int, Path],
    rng: random.Random,
    options: argparse.Namespace,
    found: Found,
) -> None:
    """Cut a run at random places, let it go on, and hold it against the undisturbed one."""
    first = rng.randint(1, len(whole))
    alike = rng.random() < 0.4
    parts = []
    total = len(read_records(whole[1] / "run.jsonl"))  # more than there are steps
    step = 0
    while True:
        count = first if alike or not parts else rng.randint(1, len(whole))
        cut = step + rng.randint(1, total // 2) if len(parts) < 4 else None
        try:
            end, waited = go_on(name, first, count, cut, rng, options.patience)
        except StoodStill:
            found.wrong.append(name)
            print(f"{name}: stood still with {count} processes")
            return
        found.longest = max(found.longest, waited)
        found.resumes += bool(parts)
        parts.append(Part(count, end))
        if end == "to the end":
            break
        step = cut or 0
    killed = any(part.end == "killed" for part in parts)
    mistakes = wrong_order(Path(name), whole[first], killed)
    if {part.processes for part in parts} == {first}:
        found.same += 1
        if not same_bytes(Path(name), whole[first]):
            mistakes.append("the weights are not the undisturbed run's")
    else:
        found.others += 1
        found.furthest = max(found.furthest, furthest := distance(Path(name), whole[first]))
        if furthest > LIMIT:
            mistakes.append(f"a loss differs by {furthest:.1e}")
        found.apart = max(found.apart, apart := weights_apart(Path(name), whole[first]))
        if apart > WEIGHTS_LIMIT:
            mistakes.append(f"weights differ by {apart:.1e}")
    if mistakes:
        found.wrong.append(name)
    text = "; ".join(mistakes) or "as it should be"
    print(f"{name}: {', '.join(map(str, parts))}: {text}", flush=True)


def go_on(
    name: str, first: int, count: int, cut: int | None, rng: random.Random, patience: float
) -> tuple[str, float]:
    """Start the run, or go on with it, and end it once a step is done; how, and the first wait.

    Raises:
        StoodStill: no step was done for `patience` seconds.
    """
    there = (Path(name) / LATEST).exists()
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml", "--use", "noted_steps"]
    command += ["--processes", str(count), *(["--resume"] if there else [])]
    command += ["-o", f"train.batch_size={STEP // first}", f"output={name}"]
    with open(f"{name}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    shown = Path(name) / "shown.txt"
    before = size = shown.stat().st_size if there and shown.exists() else 0
    begun = mark = time.monotonic()
    waited = 0.0
    while process.poll() is None:
        time.sleep(0.02)
        now = shown.stat().st_size if shown.exists() else 0
        if now != size:
            waited = waited or time.monotonic() - begun
            size, mark = now, time.monotonic()
        if time.monotonic() - mark > patience:
            os.killpg(process.pid, signal.SIGKILL)
            raise StoodStill
        if cut is not None and size > before and last_step(shown) >= cut:
            killed = rng.random() < 0.4
            if killed:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise StoodStill from None
            time.sleep(0.5 * killed)  # for what it started, to end with it
            if process.returncode == 0:  # it was at its end
                return "to the end", waited
            return "killed" if killed else "stopped", waited
    if process.returncode:
        tail = Path(f"{name}.log").read_text()[-1500:]
        raise SystemExit(f"{name} ended with {process.returncode}:\n{tail}")
    return "to the end", waited


def last_step(shown: Path) -> int:
    lines = shown.read_text().splitlines()
    return int(lines[-1].partition(" ")[0]) if lines else -1


def steps_of(run: Path) -> dict[int, list[list[int]]]:
    """Of each step the images that its processes showed, each time that it was done."""
    found: dict[int, list[list[int]]] = defaultdict(list)
    for line in (run / "shown.txt").read_text().splitlines():
        step, *images = map(int, line.split())
        found[step].append(images)
    return found


def wrong_order(run: Path, whole: Path, killed: bool) -> list[str]:
    """What is not as in the undisturbed run, which itself has each image once an epoch.

    A step that a `kill -9` cut short was done again: what it showed then is the same, once more
    or in part. Without one each step has each of its images once.
    """
    mistakes = []
    undisturbed = {step: sorted(chain(*parts)) for step, parts in steps_of(whole).items()}
    images = len(list(Path("photos/train").rglob("*.png")))
    epoch_steps = len(undisturbed) // EPOCHS
    for epoch in range(EPOCHS):
        steps = range(epoch * epoch_steps, (epoch + 1) * epoch_steps)
        shown = sorted(chain(*(undisturbed[step] for step in steps)))
        if shown != list(range(images)):
            mistakes.append(f"epoch {epoch + 1} does not show each image once")
    found = steps_of(run)
    if found.keys() != undisturbed.keys():
        mistakes.append("steps are missing")
    for step, parts in found.items():
        shown = sorted(chain(*parts))
        wanted = undisturbed.get(step, [])
        if shown != wanted and not (killed and set(shown) == set(wanted)):
            mistakes.append(f"step {step + 1} shows other images")
    records = [r for r in read_records(run / "run.jsonl") if r["event"] == "train"]
    if [r["step"] for r in records] != list(range(1, len(undisturbed) + 1)):
        mistakes.append("run.jsonl has not each step once")
    return mistakes


def same_bytes(run: Path, whole: Path) -> bool:
    own, other = (files.read(folder / LATEST).tensors for folder in (run, whole))
    return all(np.array_equal(own[name], value) for name, value in other.items())


def weights_apart(run: Path, whole: Path) -> float:
    """The largest difference of a weight, relative to the largest of its tensor."""
    own, other = (files.read(folder / LATEST).tensors for folder in (run, whole))
    weights = {n: v for n, v in other.items() if not n.startswith("optimizer/") and v.size}
    return max(float(np.abs(own[n] - v).max() / (np.abs(v).max() or 1)) for n, v in weights.items())


def distance(run: Path, whole: Path) -> float:
    """The largest relative difference of a step's loss."""
    own, other = (
        {r["step"]: r["loss"] for r in read_records(f / "run.jsonl") if r["event"] == "train"}
        for f in (run, whole)
    )
    return max(abs(own[step] - loss) / loss for step, loss in other.items())


if __name__ == "__main__":
    sys.exit(main())

"""How much of the bare speed of forward, backward and update does the trainer keep?

The whole trainer over image files (workers, hand-over, normalising on the device, loss, accuracy,
progress, log; no evaluation, no checkpoint) and a loop in plain Paddle with the same network,
optimizer and batch size on float32 input that is ready in memory do their steps by turns, in one
process and on one thread unless told otherwise. The trainer is to lose at most 3 %.

CPU time is this process's, so without the workers', and survives busy neighbours; wall time has
the waiting for workers in it, who may go on during the bare step, which only hides how long they
take where they take longer than a step: so images/s of one worker are printed, too.

    python benchmarks/train.py [--model ResNet50_vd …] [--batch-size 8] [--size 224] [--steps 60]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if __name__ == "__main__":  # not in a data worker
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores are the workers'

import ppcls  # sets what Paddle needs before it is imported

import numpy as np  # isort: skip

from ppcls.config.load import from_plain
from ppcls.recipe import Recipe
from ppcls.train.open_data import Datasets
from ppcls.train.setup import open_datasets, train_pipeline

from data import make_photos  # benchmarks/data.py

CLASSES, WARM_UP = 1000, 3  # steps that do not count
MOMENTUM, DECAY, RATE = 0.9, 1e-4, 1e-3

Clock = tuple[float, float]  # CPU and wall seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["EfficientNetLite0", "ResNet50_vd"])
    parser.add_argument("--photos", help="a folder with one per class; else scikit-learn's two")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    for model in options.model:
        with tempfile.TemporaryDirectory() as folder:
            recipe, inputs = open_datasets(make_recipe(model, Path(folder), options))
            print(measure(recipe, inputs), flush=True)


def make_recipe(model: str, folder: Path, options: argparse.Namespace) -> Recipe:
    count = options.batch_size * (options.steps + WARM_UP)
    plain = {
        "model": {"name": model, "num_classes": CLASSES},
        "data": {
            "train": options.photos or str(write_list(folder, count)),
            "workers": options.workers,
        },
        "preprocess": {"resize": options.size, "crop": options.size},
        "train": {
            "epochs": 1,
            "batch_size": options.batch_size,
            "optimizer": {"kind": "momentum", "momentum": MOMENTUM, "weight_decay": DECAY},
            "schedule": {"lr": RATE, "decay": {"kind": "constant"}},
        },
        "device": "cpu",
        "output": str(folder / "run"),
    }
    return from_plain(Recipe, plain, "the benchmark")


def write_list(folder: Path, count: int) -> Path:
    """scikit-learn's two images at 500 x 375, listed by turns."""
    names = [photo.name for photo in make_photos(folder)]
    lines = [f"{names[i % len(names)]}\t{i % CLASSES}\n" for i in range(count)]
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def bare_loop(recipe: Recipe) -> Callable[[], None]:
    """A step of plain Paddle; counted are forward, loss, backward, update and clearing."""
    import paddle
    from paddle.nn import functional as F

    size, batch = recipe.train_size, recipe.train.batch_size
    net = ppcls.create_model(recipe.model.name)
    net.train()
    parameters = net.parameters()
    optimizer = paddle.optimizer.Momentum(RATE, MOMENTUM, parameters, weight_decay=DECAY)
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.standard_normal((batch, 3, size, size), np.float32))
    labels = paddle.to_tensor(rng.integers(0, CLASSES, batch))

    def step() -> None:
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()

    return step


def measure(recipe: Recipe, inputs: Datasets) -> str:
    """The line that says what was found."""
    from ppcls.train.setup import build_trainer

    bare = bare_loop(recipe)
    whole: list[Clock] = []
    alone: list[Clock] = []
    marks: list[Clock] = []

    def by_turns() -> None:
        """A step of the bare loop after each of the trainer's own."""
        whole.append(since(marks[-1]))
        mark = now()
        bare()
        alone.append(since(mark))
        marks.append(now())

    trainer = build_trainer(recipe, inputs)
    trainer.do_what_is_due = by_turns
    recipe.folder.mkdir(parents=True)
    marks.append(now())
    trainer.run()
    found = [np.array(times[WARM_UP:]) for times in (alone, whole)]
    batch = recipe.train.batch_size
    speeds = [batch / np.median(times, axis=0) for times in found]
    cpu, wall = np.median(found[0] / found[1], axis=0)
    return (
        f"{recipe.model.name}, {batch} images of {recipe.train_size} px a step: "
        f"bare {speeds[0][0]:.2f}, trainer {speeds[1][0]:.2f} images/s of CPU time: {cpu:.1%}; "
        f"bare {speeds[0][1]:.2f}, trainer {speeds[1][1]:.2f} of wall time: {wall:.1%}; "
        f"{read_speed(recipe, inputs):.0f} images/s by one worker"
    )


def now() -> Clock:
    return time.process_time(), time.perf_counter()


def since(mark: Clock) -> Clock:
    cpu, wall = now()
    return cpu - mark[0], wall - mark[1]


def read_speed(recipe: Recipe, inputs: Datasets) -> float:
    """Photos/s of CPU time that are read and transformed."""
    from ppcls.data.loader import load_batch

    part, photos = (inputs.train, train_pipeline(recipe)), np.arange(min(64, len(inputs.train)))
    start = time.process_time()
    load_batch(part, photos, 0)
    return len(photos) / (time.process_time() - start)


if __name__ == "__main__":
    main()

"""How much faster is a run whose teacher's answers are kept in a file, and is its loss the same?

One student learns from a teacher that runs in every step, another one of the same weights from the
file that `ppcls teach` wrote of it. Their steps (reading, forward, backward, update) are done by
turns, in one process. Teacher and student have random weights: that changes no time, and the losses
are compared before the first update, where both students are the same.

    python benchmarks/kept_answers.py [--student ResNet18_vd] [--teacher ResNet152_vd] [--size 224]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ppcls  # sets what Paddle needs before it is imported

import numpy as np  # isort: skip

from ppcls.config.load import from_plain
from ppcls.recipe import Recipe
from ppcls.train.setup import open_datasets
from ppcls.weights import files

from data import make_photos  # benchmarks/data.py

CLASSES, WARM_UP = 10, 1  # steps that do not count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="ResNet18_vd")
    parser.add_argument("--teacher", default="ResNet152_vd")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(options, Path(folder)))


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The lines that say what was found."""
    from ppcls.models.complexity import count_by_name
    from ppcls.train.setup import teach

    names = options.teacher, options.student
    live = make_recipe(options, folder)
    begun = time.perf_counter()
    teach(live, folder / "answers.bin", CLASSES)
    teaching = time.perf_counter() - begun
    kept = make_recipe(options, folder, cache=str(folder / "answers.bin"))
    runs = [steps(recipe) for recipe in (live, kept)]
    found = np.array([[next(run) for run in runs] for _ in range(options.steps + WARM_UP)])
    first = found[0, :, 0]
    (cpu, wall), (cpu_kept, wall_kept) = np.median(found[WARM_UP:, :, 1:], axis=0)
    macs = [count_by_name(name).macs for name in names]
    return (
        f"{options.teacher} teaches {options.student}, {macs[0] / macs[1]:.1f} x as large in "
        f"multiply-adds, "
        f"{options.batch_size} images of {options.size} px a step: live {wall:.3f} s, "
        f"kept {wall_kept:.3f} s: {wall / wall_kept:.2f} x as fast "
        f"({cpu / cpu_kept:.2f} x by CPU time)\n"
        f"first loss: live {first[0]:.7f}, kept {first[1]:.7f}, "
        f"relative difference {abs(first[1] / first[0] - 1):.1e}; writing the answers to "
        f"{len(found) * options.batch_size} images took {teaching:.1f} s"
    )


def make_recipe(options: argparse.Namespace, folder: Path, cache: str | None = None) -> Recipe:
    """The recipe of a run on scikit-learn's two images, listed by turns."""
    weights = folder / "teacher.safetensors"
    if not weights.exists():
        photos = [photo.name for photo in make_photos(folder)]
        write_teacher(options.teacher, weights)
        count = options.batch_size * (options.steps + WARM_UP)
        lines = [f"{photos[i % len(photos)]}\t{i % CLASSES}\n" for i in range(count)]
        (folder / "list.txt").write_text("".join(lines))
    plain = {
        "model": {"name": options.student, "num_classes": CLASSES},
        "data": {"train": str(folder / "list.txt"), "workers": 0},
        "preprocess": {"resize": options.size, "crop": options.size},
        "task": {
            "kind": "distill",
            "teacher": {"name": options.teacher, "weights": str(weights), "cache": cache},
        },
        "train": {
            "epochs": 1,
            "batch_size": options.batch_size,
            "ops": [{"op": "resize_short"}, {"op": "center_crop"}],
            "optimizer": {"kind": "momentum"},
            "schedule": {"lr": 1e-3, "decay": {"kind": "constant"}},
        },
        "device": "cpu",
        "output": str(folder / "run"),
    }
    return from_plain(Recipe, plain, "the benchmark")


def write_teacher(name: str, path: Path) -> None:
    """Random weights whose logits spread by about 1, so that no class has all the probability."""
    import paddle

    net = ppcls.create_model(name, CLASSES)
    net.eval()
    with paddle.no_grad():
        spread = float(net(paddle.randn([4, 3, 64, 64])).std())
    tensors = {key: value.numpy() for key, value in net.state_dict().items()}
    files.write_safetensors(path, tensors | {"head.weight": tensors["head.weight"] / spread}, {})


def steps(recipe: Recipe) -> Iterator[tuple[float, float, float]]:
    """The loss of each step of a run, and the CPU and wall seconds that it took."""
    from ppcls.data.loader import step_batches
    from ppcls.train.setup import build_trainer

    trainer, size = build_trainer(*open_datasets(recipe)), recipe.train.batch_size
    trainer.set_training()
    batches = step_batches(trainer.loader, "train", trainer.sampler.order(0), size, 0)
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        done = trainer.advance(next(batches), size)
        yield done.loss, time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()

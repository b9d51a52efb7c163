"""Is `--engine auto` as fast as the best engine chosen by hand, and how much faster than Paddle?

For each network and batch size: `auto` chooses; then it, every engine on one and on all cores, and
Paddle Inference at its defaults (its own kernels, one thread) run by turns in this process. Prints
medians in milliseconds and two ratios, and at the end the geometric mean of the second:

    python benchmarks/auto_engine.py [--networks ResNet18 …] [--batches 1 8] [--turns 7]
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # sets the threads before Paddle is imported

import numpy as np  # isort: skip

from ppcls.data.preprocess import Preprocess
from ppcls.inference import auto, exported_model, manifest
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.models.fuse import save_program
from ppcls.utils import environment

NETWORKS = (
    "ResNet18",
    "ResNet50_vd",
    "SE_ResNeXt50_32x4d",
    "Res2Net50_26w_4s",
    "EfficientNetB0",
    "ResNeSt50",
    "RegNetX_4GF",
)
ENGINES = ("onednn", "onnxruntime", "openvino")
SETTLE, SECONDS = 0.25, 0.3  # of untimed runs after another engine, and of timed ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8))
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    ratios = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            path = write(name, Path(folder))
            for batch in options.batches:
                ratios.append(compare(name, path, batch, options.turns))
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"geometric mean: auto is {mean:.2f} times as fast as Paddle Inference at its defaults")


def write(name: str, path: Path) -> Path:
    net = ppcls.create_model(name)
    net.eval()
    save_program(net, path / exported_model.NAME, [None, 3, 224, 224], "float32", fold=net)
    text = manifest.Manifest(name, Preprocess(), output="logits").to_yaml()
    (path / manifest.FILE).write_text(text)
    return path


def compare(name: str, path: Path, batch: int, turns: int) -> float:
    """Print a line; returns the time of Paddle's defaults over that of `auto`."""
    folder = open_exported(path)
    chosen = auto.choose(folder, Settings("auto", batch=batch), None)
    cores = sorted({1, environment.threads()})
    by_hand = [Settings(e, threads=count, batch=batch) for e in ENGINES for count in cores]
    default = Settings("paddle", threads=1, batch=batch)
    engines = [chosen, *(open_engine(folder, s) for s in by_hand), open_engine(folder, default)]
    images = auto.example(folder, batch)
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(turns):
        for engine, own in zip(engines, times, strict=True):
            auto.timed(engine, images, SETTLE)
            own.extend(auto.timed(engine, images, SECONDS))
    medians = [1000 * float(np.median(own)) for own in times]
    best = int(np.argmin(medians[1:-1]))
    to_best, to_default = medians[0] / medians[1 + best], medians[-1] / medians[0]
    print(
        f"{name}, batch {batch}: auto = {chosen.settings} {medians[0]:.1f} ms; best by hand = "
        f"{by_hand[best]} {medians[1 + best]:.1f} ms, auto takes {to_best:.3f} of it; "
        f"Paddle's defaults {medians[-1]:.1f} ms, {to_default:.2f} times as long",
        flush=True,
    )
    return to_default


if __name__ == "__main__":
    main()

"""How much of the bare engine's speed is left from image files to class names?

`Predictor.stream` over image files, and its engine alone on batches that are ready, by turns:

    python benchmarks/jpeg_to_label.py --model-dir exported/x IMAGES [--engine auto] [--turns 5]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from ppcls.inference.auto import example
from ppcls.inference.inputs import find
from ppcls.inference.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--count", type=int, default=160, help="images a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    predictor = Predictor(
        options.model_dir,
        engine=options.engine,
        precision=options.precision,
        batch_size=options.batch_size,
    )
    size = options.batch_size
    photos = find(options.photos)[: options.count // size * size]
    images = example(predictor.folder, size)
    whole, bare = [], []
    for _ in range(options.turns):
        start = time.perf_counter()
        labelled = sum(1 for _ in predictor.stream(photos))
        whole.append(labelled / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(len(photos) // size):
            predictor.engine.run(images)
        bare.append(len(photos) / (time.perf_counter() - start))
    files, engine = float(np.median(whole)), float(np.median(bare))
    print(
        f"{predictor.engine.settings}, batch {size}: {files:.1f} images/s from files, "
        f"{engine:.1f} images/s by the engine alone: {files / engine:.1%}"
    )


if __name__ == "__main__":
    main()

"""What do the variables gain that ppcls sets before Paddle is imported?

Training steps of ResNet50_vd in two processes by turns: one with ppcls's variables (as many threads
as cores and, on AMD with AVX2, MKL_DEBUG_CPU_TYPE=5, without which Paddle's MKL takes a slow path),
one with Paddle's own defaults (no variable, which means one thread):

    python benchmarks/mkl.py [--model ResNet50_vd] [--batch-size 8] [--size 224] [--turns 7]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from ppcls.utils import environment

MKL = "MKL_DEBUG_CPU_TYPE"
VARIABLES = (MKL, "MKL_NUM_THREADS", "OMP_NUM_THREADS")

# A line in, a step, its seconds out. With Paddle's defaults MKL has chosen its path in a product
# before ppcls is imported.
CHILD = """
import sys, time
root, name, batch, size, own = sys.argv[1:]
sys.path.insert(0, root)
if own == "paddle":
    import paddle
    paddle.matmul(paddle.ones([256, 256]), paddle.ones([256, 256]))
import ppcls, paddle
from paddle.nn import functional as F
net = ppcls.create_model(name)
net.train()
optimizer = paddle.optimizer.Momentum(1e-3, 0.9, net.parameters())
images = paddle.randn([int(batch), 3, int(size), int(size)])
labels = paddle.zeros([int(batch)], "int64")
for _ in sys.stdin:
    start = time.perf_counter()
    F.cross_entropy(net(images), labels).backward()
    optimizer.step()
    optimizer.clear_grad()
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ResNet50_vd")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    bare = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    os.environ.clear()
    os.environ.update(bare)
    environment.prepare()
    chosen = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    print(f"ppcls sets {', '.join(f'{k}={v}' for k, v in chosen.items())}")
    if MKL not in chosen:
        print(f"no AMD processor with AVX2: {MKL} is not set, only the thread count differs")
    what = [options.model, str(options.batch_size), str(options.size)]
    children = [start(bare | chosen, [*what, "ppcls"]), start(bare, [*what, "paddle"])]
    times = np.array([[step(child) for child in children] for _ in range(options.turns + 1)])[1:]
    for child in children:
        child.communicate()
    own, default = np.median(times, axis=0)
    print(
        f"{options.model}, {options.batch_size} images of {options.size} px a step: "
        f"{own:.2f} s with ppcls's variables, {default:.2f} s with Paddle's defaults, "
        f"{np.median(times[:, 1] / times[:, 0]):.2f} times as long"
    )


def start(variables: dict[str, str], words: list[str]) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, root, *words],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def step(child: subprocess.Popen[str]) -> float:
    """Seconds of a step that the child does now."""
    assert child.stdin
    assert child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


if __name__ == "__main__":
    main()

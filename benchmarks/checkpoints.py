"""For how long does a checkpoint hold up training?

The same network and optimizer are saved by turns at once, as all would wait for it, and from a copy
in a thread, as training does it. Between two saves the thread is waited for, so that none waits for
the one before; a run whose saves come faster than the disk takes them waits for the rest.

    python benchmarks/checkpoints.py [--model ResNet50_vd] [--turns 7]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # sets what Paddle needs before it is imported

import numpy as np  # isort: skip
import paddle

from ppcls.optim.ema import Ema
from ppcls.train import checkpoint
from ppcls.train.checkpoint import Record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["EfficientNetLite0", "ResNet50_vd"])
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    for model in options.model:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(model, Path(folder), options.turns), flush=True)


def measure(model: str, folder: Path, turns: int) -> str:
    net = ppcls.create_model(model)
    optimizer = paddle.optimizer.Momentum(0.1, 0.9, net.parameters())
    net(paddle.rand([1, 3, 64, 64])).sum().backward()
    optimizer.step()
    optimizer.clear_grad()
    average = Ema().build(net)
    record = Record(recipe={}, labels=[], step=1, epoch_steps=1, data={})
    writer = checkpoint.Writer()
    seconds: list[list[float]] = [[], []]
    for _ in range(turns + 1):  # the first makes the copies' memory
        begun = time.perf_counter()
        with average.shown():  # as it was when all waited
            state = checkpoint.state_of(net, optimizer, average)
            tensors = {name: value.numpy() for name, value in state.items()}
        checkpoint.write(folder / "at once", tensors, record)
        seconds[0].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        state = checkpoint.state_of(net, optimizer, average)
        writer.write(folder / "beside", state, record, lambda: None)
        seconds[1].append(time.perf_counter() - begun)
        writer.wait()
    size = (folder / "beside").stat().st_size / 1e6
    whole, pause = (float(np.median(times[1:])) for times in seconds)
    return (
        f"{model}, {size:,.0f} MB with momentum and an average: {1000 * whole:,.0f} ms at once, "
        f"{1000 * pause:,.1f} ms from a copy: {pause / whole:.1%}"
    )


if __name__ == "__main__":
    main()

"""Would a step of two processes be faster if gradients were added up during the backward pass?

Both processes train the same network, with one thread each, by turns in three ways: gradients added
up after the backward pass, as ppcls does; Paddle's reducer (`paddle.DataParallel`), which adds up
each bucket once its last gradient is there; and nothing added up, which is what a perfect overlap
would take. Printed are medians of seconds a step, in the first process, and how far the gradients
of both ways are apart.

    python benchmarks/overlap.py --models EfficientNetLite0,ResNet50_vd
"""

import argparse
import statistics
import sys
import time

import numpy as np

from ppcls.train.launch import launch

WARM_UP = 2  # steps of each way that do not count
WAYS = ("after", "reducer", "alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="EfficientNetLite0,ResNet50_vd")
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options.worker, options.batch_size, options.size, options.rounds)
        return
    print("| network | added up after | by Paddle's reducer | not at all | apart |")
    print("|---|---:|---:|---:|---:|", flush=True)
    for model in options.models.split(","):
        command = [sys.executable, __file__, "--worker", model]
        for name in ("batch_size", "size", "rounds"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        assert launch(command, 2) == 0


def measure(name: str, batch: int, side: int, rounds: int) -> None:
    """Take the steps of one of two processes; the first prints the row of the network."""
    import paddle

    from ppcls import create_model
    from ppcls.train.distributed import join
    from ppcls.utils.device import select

    processes = join(select("cpu"))
    paddle.seed(0)
    net = create_model(name, drop_path=0.0)
    for layer in net.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
    images = paddle.rand([batch, 3, side, side]) + processes.rank
    labels = paddle.randint(0, 1000, [batch])
    wrapped = paddle.DataParallel(net)
    trained = [parameter for parameter in net.parameters() if not parameter.stop_gradient]

    def step(way: str) -> float:
        processes.numbers([0.0])  # both begin together
        begun = time.perf_counter()
        forward = wrapped if way == "reducer" else net
        (paddle.nn.functional.cross_entropy(forward(images), labels) / 2).backward()
        if way == "after":
            processes.add_gradients(trained)
        float(trained[0].grad.sum())  # wait until it is done
        seconds = time.perf_counter() - begun
        found[way] = [parameter.grad.numpy() for parameter in trained]
        for parameter in trained:
            parameter.clear_gradient()
        return seconds

    found: dict[str, list[np.ndarray]] = {}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(WARM_UP + rounds):
        for way in WAYS:
            seconds = step(way)
            if turn >= WARM_UP:
                times[way].append(seconds)
    # The reducer gives the mean over the processes, which is the sum of halves again halved.
    pairs = zip(found["after"], found["reducer"], strict=True)
    apart = max(float(np.abs(a - 2 * b).max() / np.abs(a).max()) for a, b in pairs if a.any())
    medians = " | ".join(f"{statistics.median(times[way]):.3f}" for way in WAYS)
    if processes.first:
        print(f"| {name}, {batch} images of {side} px each | {medians} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()

"""How training would go on many devices: a projection from what is measured on this machine.

Measured are the seconds of a training step on one device, of adding up so many bytes between two
processes, and of writing a checkpoint. From them comes what 1 to 256 devices would do, if each
added device has what this one has and gradients go round a ring, each device sending and receiving
2 (n - 1) / n of their bytes at the speed measured, after the step (as ppcls does it).

    python benchmarks/scale.py --model ResNet50_vd --batch-size 8
    python benchmarks/scale.py --step 0.25 --bandwidth 25e9 --checkpoint 0.6 --batch-size 128
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ppcls.train.launch import launch

DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PHOTOS = 1_281_167  # of ImageNet-1k
ROUNDS = 5
NUMBERS = 1 << 23  # float32 numbers that are added up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="ResNet50_vd")
    parser.add_argument("--batch-size", type=int, default=8, help="of each device")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--step", type=float, help="seconds, instead of measuring them")
    parser.add_argument("--bandwidth", type=float, help="bytes a second between two devices")
    parser.add_argument("--checkpoint", type=float, help="seconds to write one")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        add_up(options.worker)
        return
    size, seconds, writing = measured(options.model, options.batch_size, options.size)
    step, saving = options.step or seconds, options.checkpoint or writing
    bandwidth = options.bandwidth or between_two()
    print(
        f"{options.model}, {options.batch_size} images of {options.size} px a device: a step "
        f"{step:.3f} s, {size / 1e6:.0f} MB of gradients at {bandwidth / 1e9:.2f} GB/s between "
        f"two, a checkpoint {saving:.2f} s"
    )
    print(table(step, size, bandwidth, saving, options.batch_size))


def measured(name: str, batch: int, side: int) -> tuple[int, float, float]:
    """Bytes of gradients, seconds of a step, seconds of a checkpoint with momentum."""
    import paddle

    from ppcls import create_model
    from ppcls.utils.device import select
    from ppcls.weights.files import write_safetensors

    select("auto")
    net = create_model(name)
    optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
    images, labels = paddle.rand([batch, 3, side, side]), paddle.randint(0, 1000, [batch])

    def step() -> float:
        begun = time.perf_counter()
        paddle.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        float(net.parameters()[0].sum())  # wait until it is done
        return time.perf_counter() - begun

    step()
    seconds = statistics.median(step() for _ in range(ROUNDS))
    tensors = {name: value.numpy() for name, value in net.state_dict().items()}
    tensors |= {f"momentum/{name}": value for name, value in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        write_safetensors(Path(folder) / "x.safetensors", tensors, {})
        writing = time.perf_counter() - begun
    return sum(4 * p.size for p in net.parameters() if not p.stop_gradient), seconds, writing


def between_two() -> float:
    """Bytes a second that two processes on this machine add up."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds"
        assert launch([sys.executable, __file__, "--worker", str(result)], 2) == 0
        seconds = float(result.read_text())
    return 4 * NUMBERS / seconds  # in a ring of two, 2 (n - 1) / n is 1


def add_up(result: Path) -> None:
    """Write the seconds of one all-reduce, in one of two processes."""
    import paddle
    from paddle import distributed

    from ppcls.train.distributed import join
    from ppcls.utils.device import select

    processes = join(select("auto"))
    numbers, times = paddle.ones([NUMBERS]), []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        distributed.all_reduce(numbers)
        float(numbers[0])
        times.append(time.perf_counter() - begun)
    if processes.first:
        result.write_text(str(statistics.median(times[1:])))


def table(step: float, size: int, bandwidth: float, saving: float, batch: int) -> str:
    """What so many devices would do, a line each."""
    lines = ["| devices | images a step | images/s | efficiency | ImageNet epoch | checkpoints |"]
    lines.append("|---:|---:|---:|---:|---:|---:|")
    for count in DEVICES:
        adding = 2 * (count - 1) / count * size / bandwidth
        speed = count * batch / (step + adding)
        epoch = PHOTOS / speed
        lines.append(
            f"| {count} | {count * batch:,} | {speed:,.1f} | {step / (step + adding):.0%} "
            f"| {in_words(epoch)} | {saving / (epoch + saving):.2%} |"
        )
    return "\n".join(lines)


def in_words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    sys.exit(main())

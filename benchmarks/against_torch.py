"""Does a training step of ppcls take as long as one of torch and timm, on this machine's CPU?

A step is forward in training mode, cross entropy, backward, momentum SGD with weight decay and
clearing, on float32 images that are ready in memory. ppcls and torch, this one in both of its
layouts, each in a process of its own, do some steps by turns of seconds while the others sleep, so
that busy neighbours slow down all alike:

    python benchmarks/against_torch.py [--models ResNet50_vd EfficientNetB0 …] [--turns 7]
        [--steps 2] [--layouts contiguous channels_last] [--torch-python other/venv/bin/python]

Printed are the seconds of a step, median and least, and the ratio of speeds, of both: the better of
torch's layouts over ppcls, above 1 where ppcls is faster. Without torch and timm ppcls is measured
alone. `--profile ResNet50_vd` prints instead where the time of ppcls's step goes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# ppcls, paddle and torch are imported where they are used: each has a process of its own.

LAYOUTS = ("contiguous", "channels_last")
CLASSES, MOMENTUM, DECAY, RATE = 1000, 0.9, 1e-4, 1e-3
WARM_UP = 2  # steps that do not count
VARIABLES = ("MKL_DEBUG_CPU_TYPE", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

Step = Callable[[], None]


@dataclass(frozen=True)
class Pair:
    """What a network is called in timm, which computes the same, and the images of a step."""

    timm: str
    batch: int
    size: int
    options: dict[str, float] = field(default_factory=dict)  # of timm's create_model


DROPOUT = {"drop_rate": 0.2}
DROPS = {"drop_rate": 0.2, "drop_path_rate": 0.2}
PAIRS = {
    "ResNet18": Pair("resnet18", 8, 224),
    "ResNet50_vd": Pair("resnet50d", 8, 224),
    "ResNeXt50_32x4d": Pair("resnext50_32x4d", 4, 224),
    "SE_ResNeXt50_32x4d": Pair("seresnext50_32x4d", 4, 224),
    "Res2Net50_26w_4s": Pair("res2net50_26w_4s", 4, 224),
    "ResNeSt50": Pair("resnest50d", 4, 224),
    "RegNetX_4GF": Pair("regnetx_040", 4, 224),
    "EfficientNetB0": Pair("tf_efficientnet_b0", 16, 112, DROPS),  # tf: "SAME" padding
    "EfficientNetLite0": Pair("tf_efficientnet_lite0", 8, 224, DROPS),
    "MobileNetV3_large_x1_0": Pair("mobilenetv3_large_100", 16, 112, DROPOUT),
    "PPLCNet_x1_0": Pair("lcnet_100", 16, 112, DROPOUT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(PAIRS), choices=PAIRS, metavar="NAME")
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--torch-python", default=sys.executable, help="one with torch and timm")
    parser.add_argument("--profile", choices=PAIRS, metavar="NAME")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)  # a child: its side and model
    options = parser.parse_args()
    if options.serve:
        side, model = options.serve
        serve(ppcls_step(model) if side == "ppcls" else torch_step(model, side))
    elif options.profile:
        profile(options.profile, options.steps)
    else:
        compare(options)


# --------------------------------------------------------------------------
# The children


def ppcls_step(model: str) -> Step:
    import ppcls  # sets what Paddle needs before it is imported

    import paddle  # isort: skip
    from paddle.nn import functional as F

    from ppcls.optim.optimizers import Momentum
    from ppcls.optim.parameters import groups
    from ppcls.optim.rules import drop_gradients

    pair = PAIRS[model]
    net = ppcls.create_model(model)
    net.train()
    parameters = groups(net, decay_norms=True, lr_scale={})
    optimizer = Momentum(momentum=MOMENTUM, weight_decay=DECAY).build(parameters)
    optimizer.set_lr(RATE)
    images = paddle.randn([pair.batch, 3, pair.size, pair.size])
    targets = paddle.randint(0, CLASSES, [pair.batch])

    def step() -> None:
        F.cross_entropy(net(images), targets).backward()
        optimizer.step()
        drop_gradients(optimizer)

    return step


def torch_step(model: str, layout: str) -> Step:
    import timm  # type: ignore[import-not-found]
    import torch  # type: ignore[import-not-found]
    from torch.nn import functional as F  # type: ignore[import-not-found]

    torch.set_num_threads(int(os.environ["MKL_NUM_THREADS"]))
    pair = PAIRS[model]
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net = timm.create_model(pair.timm, **pair.options).to(memory_format=order)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    images = torch.randn(pair.batch, 3, pair.size, pair.size).to(memory_format=order)
    targets = torch.randint(0, CLASSES, [pair.batch])

    def step() -> None:
        F.cross_entropy(net(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def serve(step: Step) -> None:
    """A number in, so many steps, the seconds of each out; ends with its standard input."""
    for _ in range(WARM_UP):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([timed(step) for _ in range(int(line))]), flush=True)


def timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


# --------------------------------------------------------------------------
# The parent


def compare(options: argparse.Namespace) -> None:
    given = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    from ppcls.utils import environment

    cores = environment.core_count()
    variables = given | {"MKL_NUM_THREADS": str(cores)}
    versions = installed(options.torch_python, variables)
    layouts = options.layouts if versions else []
    print(f"{cpu_name()}, {cores} cores; {versions_here()}", end="")
    print(f"; {versions}" if versions else f"\nno torch and timm in {options.torch_python}")
    print(
        f"\n| network | batch x side | {''.join(f'torch {x} | ' for x in layouts)}ppcls | ratio |"
    )
    print("|---|---|" + "---:|" * (len(layouts) + 2))
    ratios = []
    for model in options.models:
        with ExitStack() as stack:  # children end with it, whatever happens
            children = {
                side: stack.enter_context(Child(side, model, options.torch_python, variables))
                for side in [*layouts, "ppcls"]
            }
            found: dict[str, list[float]] = {side: [] for side in children}
            for child in children.values():
                child.wait_until_ready()
            for _ in range(options.turns):
                for side, child in children.items():
                    found[side] += child.steps(options.steps)
        medians = {side: statistics.median(times) for side, times in found.items()}
        cells = [f"{medians[side]:.3f}; {min(times):.3f}" for side, times in found.items()]
        ratio = "-"
        if layouts:
            ratios.append(min(medians[side] for side in layouts) / medians["ppcls"])
            least = min(min(found[side]) for side in layouts) / min(found["ppcls"])
            ratio = f"{ratios[-1]:.2f}; {least:.2f}"
        pair = PAIRS[model]
        print(
            f"| {model} | {pair.batch} x {pair.size} | {' | '.join(cells)} | {ratio} |", flush=True
        )
    if ratios:
        print(f"\nGeometric mean of the medians' ratios: {statistics.geometric_mean(ratios):.2f}")


class Child:
    """A process that does steps when told to; leaving the block ends it."""

    def __init__(self, side: str, model: str, torch_python: str, variables: dict[str, str]):
        python = sys.executable if side == "ppcls" else torch_python
        self.what = f"{model} of {'ppcls' if side == 'ppcls' else f'torch, {side}'}"
        self.process = subprocess.Popen(
            [python, __file__, "--serve", side, model],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_until_ready(self) -> None:
        self.answer()

    def steps(self, count: int) -> list[float]:
        """Seconds of each of the steps that it does now."""
        assert self.process.stdin
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return json.loads(self.answer())

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.what} ended early; its error stands above")
        return line


def installed(python: str, variables: dict[str, str]) -> str:
    """Versions of torch and timm of a Python; "" where it lacks one."""
    code = "import timm, torch; print(f'torch {torch.__version__}, timm {timm.__version__}')"
    found = subprocess.run(
        [python, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def versions_here() -> str:
    from importlib.metadata import version

    return f"Python {sys.version.split()[0]}, paddlepaddle {version('paddlepaddle')}"


def cpu_name() -> str:
    from ppcls.utils import environment

    cpuinfo = environment.read("proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return names[0] if names else "unknown CPU"


# --------------------------------------------------------------------------
# Where the time of a step goes


def profile(model: str, steps: int) -> None:
    """Print milliseconds of a step by Paddle's kernels, the largest first."""
    step = ppcls_step(model)
    from paddle import profiler

    for _ in range(WARM_UP):
        step()
    alone = statistics.median(timed(step) for _ in range(steps))
    watch: Any = profiler.Profiler(
        targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None
    )
    watch.start()
    for _ in range(steps):
        step()
    watch.stop()
    with tempfile.TemporaryDirectory() as folder:
        watch.export(f"{folder}/trace.json", "json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    times: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "DygraphKernelLaunch":
            name = event["name"].split()[0]
            times[name] += event["dur"] / 1000 / steps
            calls[name] += 1
    print(f"{model}: {1000 * alone:.1f} ms a step, not profiled\n\n| kernel | calls | ms |")
    print("|---|---:|---:|")
    for name, spent in times.most_common():
        print(f"| {name} | {calls[name] / steps:g} | {spent:.1f} |")
    print(f"| all of Paddle's kernels | {calls.total() / steps:g} | {times.total():.1f} |")


if __name__ == "__main__":
    main()

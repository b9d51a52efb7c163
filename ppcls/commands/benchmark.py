"""`ppcls bench`: measure engines."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    counts,
    listed,
    positive,
    seconds,
)


def add(commands) -> None:
    text = "time networks with all engines of this machine"
    examples = (
        "ppcls bench --models ResNet50_vd,EfficientNetLite0 --batch-sizes 1,8",
        "ppcls bench --model-dir exported/own_photos exported/own_photos-int8 --output bench/own",
    )
    parser = add_command(commands, "bench", run, text, examples)
    text = "names of networks with commas between, or all: those with published figures or weights"
    parser.add_argument("--models", type=listed, default=[], metavar="NAME,…", help=text)
    text = "exported folders to time, one or several"
    parser.add_argument(
        "--model-dir", type=Path, nargs="+", default=[], metavar="FOLDER", help=text
    )
    text = "engines to time, with commas between; default: all of the device"
    parser.add_argument("--engines", type=listed, default=[], metavar="ENGINE,…", help=text)
    text = "number formats to compute in, of fp32,bf16,fp16; default: fp32"
    parser.add_argument(
        "--precisions", type=listed, default=["fp32"], metavar="FORMAT,…", help=text
    )
    text = "numbers of images in a batch; default: 1,8"
    parser.add_argument("--batch-sizes", type=counts, default=[1, 8], metavar="N,…", help=text)
    text = "numbers of CPU threads; default: as many as there are cores"
    parser.add_argument("--threads", type=counts, default=[], metavar="N,…", help=text)
    text = "where to run the networks; default: cpu"
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help=text)
    text = "number of turns that each engine gets; default: 5"
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help=text)
    text = "seconds that a turn lasts, at least one run; default: 0.5"
    parser.add_argument("--seconds", type=seconds, default=0.5, metavar="SECONDS", help=text)
    text = "folder of images to time reading with; default: a made-up image"
    parser.add_argument("--images", "--photos", type=Path, metavar="FOLDER", help=text)
    text = "folder to write tables and plots into, and to go on from; default: bench"
    parser.add_argument("--output", type=Path, default=Path("bench"), metavar="FOLDER", help=text)
    text = "keep the networks that were exported to be timed"
    parser.add_argument("--keep", action="store_true", help=text)
    text = "write docs/benchmarks.md of the repository, too"
    parser.add_argument("--docs", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.bench.benchmark import benchmark
    from ppcls.bench.plan import Conditions, make_plan

    plan = make_plan(
        options.models,
        options.model_dir,
        Conditions(options.device, options.rounds, options.seconds),
        options.batch_sizes,
        options.engines,
        options.precisions,
        options.threads,
    )
    agrees = benchmark(plan, options.output, options.images, options.keep, options.docs)
    return 0 if agrees else 1

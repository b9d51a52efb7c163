"""predict, quantize, bench."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, counts, listed, positive, share


def add_predict(commands) -> None:
    parser = add_command(commands, "predict", run_predict, "name photos with an exported folder")
    parser.add_argument("photos", nargs="+", metavar="PHOTO|FOLDER|LIST")
    add_engine_options(parser)
    parser.add_argument("--topk", type=positive, help="classes per photo; default: 5")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a .csv or .json file, too")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-dir", required=True, help="folder that ppcls, PaddleClas or PaddleX exported"
    )
    parser.add_argument(
        "--engine",
        default="auto",
        help="paddle, onednn, onnxruntime, openvino, tensorrt or onnxruntime-tensorrt; "
        "default: auto, the fastest here, measured once",
    )
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--threads", type=positive, help="CPU threads; default: the fastest")
    given = parser.add_argument_group("in place of what inference.yml says, or where there is none")
    given.add_argument("--resize", type=positive, metavar="PIXELS", help="of the short side")
    given.add_argument("--crop", type=positive, metavar="PIXELS")
    kinds = ("nearest", "bilinear", "bicubic", "area", "lanczos")
    given.add_argument("--interpolation", choices=kinds)
    given.add_argument("--backend", choices=("cv2", "pil"), help="what resizes")
    given.add_argument("--mean", type=float, nargs="+", help="by channel, of pixels from 0 to 1")
    given.add_argument("--std", type=float, nargs="+")
    text = "of multi-label classes or of the second of two, in place of theirs"
    given.add_argument("--threshold", type=share, help=text)
    text = "class names: one a line, or numbered lines such as 0 tench, or imagenet"
    given.add_argument("--labels", metavar="FILE", help=text)


def run_predict(options: argparse.Namespace) -> int:
    from ppcls.inference.predictor import Predictor
    from ppcls.inference.results import report

    predictor = Predictor(
        options.model_dir,
        options.device,
        options.threads,
        options.engine,
        options.precision,
        options.batch_size,
        resize=options.resize,
        crop=options.crop,
        interpolation=options.interpolation,
        backend=options.backend,
        mean=options.mean,
        std=options.std,
        threshold=options.threshold,
        labels=options.labels,
    )
    report(predictor, options.photos, options.topk, options.save)
    return 0


def add_quantize(commands) -> None:
    parser = add_command(commands, "quantize", run_quantize, "an exported network in INT8")
    parser.add_argument("--model-dir", type=Path, required=True, help="exported folder in float")
    parser.add_argument("--calibrate", type=Path, required=True, metavar="FOLDER|LIST")
    engines = ("onnxruntime", "openvino", "onnxruntime-tensorrt", "paddle")
    parser.add_argument("--engine", choices=engines, default="onnxruntime")
    parser.add_argument("--output", type=Path, help="default: the model's folder + -int8")
    parser.add_argument("--eval", type=Path, metavar="FOLDER|LIST", help="labelled photos")
    parser.add_argument("--budget", type=share, default=0.01, help="loss allowed: 0.01 is a point")
    parser.add_argument("--photos", type=positive, default=200, help="to calibrate with")


def run_quantize(options: argparse.Namespace) -> int:
    from ppcls.inference.quantize import quantize

    quantize(
        options.model_dir,
        options.calibrate,
        options.engine,
        options.output,
        options.eval,
        options.budget,
        options.photos,
    )
    return 0


def add_bench(commands) -> None:
    parser = add_command(commands, "bench", run_bench, "time networks on this machine's engines")
    parser.add_argument("--models", type=listed, default=[], metavar="NAMES", help="NAME,… or all")
    parser.add_argument("--model-dir", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--engines", type=listed, default=[], help="default: all of the device")
    parser.add_argument("--precisions", type=listed, default=["fp32"], help="fp32,bf16,fp16")
    parser.add_argument("--batch-sizes", type=counts, default=[1, 8], metavar="N,…")
    parser.add_argument("--threads", type=counts, default=[], metavar="N,…", help="default: all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each engine")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of runs in a turn; at least one run is made"
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="to time reading with")
    parser.add_argument("--output", type=Path, default=Path("bench"), metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="keep the exported networks")
    parser.add_argument("--docs", action="store_true", help="also write docs/benchmarks.md")


def run_bench(options: argparse.Namespace) -> int:
    from ppcls.bench.plan import Conditions, make_plan
    from ppcls.bench.run import benchmark

    plan = make_plan(
        options.models,
        options.model_dir,
        Conditions(options.device, options.rounds, options.seconds),
        options.batch_sizes,
        options.engines,
        options.precisions,
        options.threads,
    )
    agrees = benchmark(plan, options.output, options.photos, options.keep, options.docs)
    return 0 if agrees else 1

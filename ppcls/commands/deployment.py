"""predict, quantize, bench."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_overwrite_option,
    counts,
    listed,
    number,
    positive,
    seconds,
    share,
)
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded


def add_predict(commands) -> None:
    text = "name what is on photos with an exported model"
    examples = (
        "ppcls predict --model-dir exported/own_photos photo.jpg",
        "ppcls predict --model-dir exported/own_photos photos/val --topk 2 --save results.csv",
        "ppcls predict --model-dir exported/own_photos photos.txt --engine onnxruntime",
    )
    parser = add_command(commands, "predict", run_predict, text, examples)
    text = "photos, folders of photos, and list files with a path in each line"
    parser.add_argument("photos", nargs="+", type=expanded, metavar="PHOTO|FOLDER|LIST", help=text)
    add_engine_options(parser)
    text = "number of classes to name for each photo; default: 5"
    parser.add_argument("--topk", type=positive, metavar="N", help=text)
    text = "write the results to this .csv, .json or .jsonl file, too, prediction by prediction"
    parser.add_argument("--save", type=Path, metavar="FILE", help=text)
    add_on_error(parser, "skip gives it an error in the file instead of classes")
    text = "go on behind the last prediction of a --save FILE that was not finished"
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=text)
    text = "replace what an unfinished run has left of --save FILE"
    again.add_argument("--overwrite", action="store_true", help=text)


def add_on_error(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help=f"at a photo that cannot be read; {text}; default: stop",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-dir",
        type=expanded,
        required=True,
        metavar="FOLDER",
        help="folder that ppcls, PaddleClas or PaddleX exported",
    )
    parser.add_argument(
        "--engine",
        default="auto",
        help="what runs the model: paddle, onednn, onnxruntime, openvino, tensorrt or "
        "onnxruntime-tensorrt; default: auto, the fastest here, measured once",
    )
    text = "number of photos to predict at a time; default: 8"
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help=text)
    text = "where to run the model; default: auto, a GPU where there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    text = "number format to compute in; default: fp32"
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help=text)
    text = "number of CPU threads to compute with; default: the fastest"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    given = parser.add_argument_group("in place of what inference.yml says, or where there is none")
    text = "resize the short side of a photo to so many pixels"
    given.add_argument("--resize", type=positive, metavar="PIXELS", help=text)
    text = "crop a square of so many pixels a side from the middle"
    given.add_argument("--crop", type=positive, metavar="PIXELS", help=text)
    kinds = ("nearest", "bilinear", "bicubic", "area", "lanczos")
    text = "how to compute pixels when resizing"
    given.add_argument("--interpolation", choices=kinds, help=text)
    text = "library to resize with: OpenCV or Pillow"
    given.add_argument("--backend", choices=("cv2", "pil"), help=text)
    text = "means to subtract from pixels of 0 to 1, one for each channel"
    given.add_argument("--mean", type=number, nargs="+", help=text)
    text = "deviations to divide the pixels by then, one for each channel"
    given.add_argument("--std", type=number, nargs="+", help=text)
    text = "probability from which a multi-label class, or the second of two, is named"
    given.add_argument("--threshold", type=share, metavar="SHARE", help=text)
    text = "file of class names, one in each line or numbered as 0 tench, or imagenet"
    given.add_argument("--labels", type=expanded, metavar="FILE", help=text)


def run_predict(options: argparse.Namespace) -> int:
    from ppcls.inference.predictor import Predictor
    from ppcls.inference.results import PredictionFile, report

    if (options.resume or options.overwrite) and not options.save:
        raise UserError("--resume and --overwrite are about the file of --save FILE; name it")
    save = PredictionFile(options.save) if options.save else None
    if save and not (options.resume or options.overwrite):
        save.refuse_lost()
    opened = Predictor(
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
    with opened as predictor:
        skip = options.on_error == "skip"
        report(predictor, options.photos, options.topk, save, skip, options.resume)
    return 0


def add_quantize(commands) -> None:
    text = "write an exported model again with INT8 numbers, smaller and often faster"
    examples = (
        "ppcls quantize --model-dir exported/own_photos --calibrate photos/train --eval photos/val",
    )
    parser = add_command(commands, "quantize", run_quantize, text, examples)
    text = "exported folder with a model in float"
    parser.add_argument("--model-dir", type=Path, required=True, metavar="FOLDER", help=text)
    text = "photos from which the ranges of numbers are learnt"
    parser.add_argument("--calibrate", type=Path, required=True, metavar="FOLDER|LIST", help=text)
    engines = ("onnxruntime", "openvino", "onnxruntime-tensorrt", "paddle")
    text = "what will run the model; default: onnxruntime"
    parser.add_argument("--engine", choices=engines, default="onnxruntime", help=text)
    text = "folder to write the model to; default: the name of its own with -int8 behind"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    text = "labelled photos on which both models are compared"
    parser.add_argument("--eval", type=Path, metavar="FOLDER|LIST", help=text)
    text = "share of the accuracy that may be lost: 0.01, the default, is one point"
    parser.add_argument("--budget", type=share, default=0.01, metavar="SHARE", help=text)
    text = "number of photos to calibrate with; default: 200"
    parser.add_argument("--photos", type=positive, default=200, metavar="N", help=text)
    add_on_error(parser, "skip leaves it out")
    add_overwrite_option(parser, "replace another network's export in the output folder")


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
        options.on_error,
        options.overwrite,
    )
    return 0


def add_bench(commands) -> None:
    text = "time networks with all engines of this machine"
    examples = (
        "ppcls bench --models ResNet50_vd,EfficientNetLite0 --batch-sizes 1,8",
        "ppcls bench --model-dir exported/own_photos exported/own_photos-int8 --output bench/own",
    )
    parser = add_command(commands, "bench", run_bench, text, examples)
    text = "names of networks with commas between, or all: the published ones"
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
    text = "folder of photos to time reading with; default: a made-up photo"
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help=text)
    text = "folder to write tables and plots into, and to go on from; default: bench"
    parser.add_argument("--output", type=Path, default=Path("bench"), metavar="FOLDER", help=text)
    text = "keep the networks that were exported to be timed"
    parser.add_argument("--keep", action="store_true", help=text)
    text = "write docs/benchmarks.md of the repository, too"
    parser.add_argument("--docs", action="store_true", help=text)


def run_bench(options: argparse.Namespace) -> int:
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
    agrees = benchmark(plan, options.output, options.photos, options.keep, options.docs)
    return 0 if agrees else 1

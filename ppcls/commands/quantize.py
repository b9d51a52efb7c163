"""`ppcls quantize`: an exported model in INT8."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_on_error,
    add_overwrite_option,
    positive,
    share,
)


def add(commands) -> None:
    text = "write an exported model again with INT8 numbers, smaller and often faster"
    examples = (
        "ppcls quantize --model-dir exported/own_photos --calibrate photos/train --eval photos/val",
    )
    parser = add_command(commands, "quantize", run, text, examples)
    text = "exported folder with a model in float"
    parser.add_argument("--model-dir", type=Path, required=True, metavar="FOLDER", help=text)
    text = "images from which the ranges of numbers are learnt"
    parser.add_argument("--calibrate", type=Path, required=True, metavar="FOLDER|LIST", help=text)
    engines = ("onnxruntime", "openvino", "onnxruntime-tensorrt", "paddle")
    text = "what will run the model; default: onnxruntime"
    parser.add_argument("--engine", choices=engines, default="onnxruntime", help=text)
    text = "folder to write the model to; default: the name of its own with -int8 behind"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    text = "labelled images on which both models are compared"
    parser.add_argument("--eval", type=Path, metavar="FOLDER|LIST", help=text)
    text = "share of the accuracy that may be lost: 0.01, the default, is one point"
    parser.add_argument("--budget", type=share, default=0.01, metavar="SHARE", help=text)
    text = "number of images to calibrate with; default: 200"
    parser.add_argument("--images", "--photos", type=positive, default=200, metavar="N", help=text)
    add_on_error(parser, "skip leaves it out")
    add_overwrite_option(parser, "replace another network's export in the output folder")


def run(options: argparse.Namespace) -> int:
    from ppcls.inference.quantize import quantize

    quantize(
        options.model_dir,
        options.calibrate,
        options.engine,
        options.output,
        options.eval,
        options.budget,
        options.images,
        options.on_error,
        options.overwrite,
    )
    return 0

"""`ppcls predict`: name what images show."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_engine_options,
    add_on_error,
    positive,
)
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "name what is on images with an exported model"
    examples = (
        "ppcls predict --model-dir exported/own_photos photo.jpg",
        "ppcls predict --model-dir exported/own_photos photos/val --topk 2 --save results.csv",
        "ppcls predict --model-dir exported/own_photos photos.txt --engine onnxruntime",
    )
    parser = add_command(commands, "predict", run, text, examples)
    text = "images, folders of images, and list files with a path in each line"
    parser.add_argument("photos", nargs="+", type=expanded, metavar="IMAGE|FOLDER|LIST", help=text)
    add_engine_options(parser)
    text = "number of classes to name for each image; default: 5"
    parser.add_argument("--topk", type=positive, metavar="N", help=text)
    text = "write the results to this .csv, .json or .jsonl file, too, prediction by prediction"
    parser.add_argument("--save", type=Path, metavar="FILE", help=text)
    add_on_error(parser, "skip gives it an error in the file instead of classes")
    text = "go on behind the last prediction of a --save FILE that was not finished"
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=text)
    text = "replace what an unfinished run has left of --save FILE"
    again.add_argument("--overwrite", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
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
        fit=options.fit,
        resize=options.resize,
        crop=options.crop,
        fill=options.fill,
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

"""`ppcls predict`: name what images show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppcls.commands.options import (
    add_command,
    add_engine_options,
    add_on_error,
    number,
    positive,
    predictor_options,
)
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded

STDIN = "-"


def add(commands) -> None:
    text = "name what is on images with an exported model or a checkpoint"
    examples = (
        "ppcls predict --model-dir exported/own_photos photo.jpg",
        "ppcls predict --model-dir exported/own_photos photos/val --topk 2 --save results.csv",
        "ppcls predict --model-dir runs/own_photos/best.safetensors clip.mp4 --every 0.5",
    )
    parser = add_command(commands, "predict", run, text, examples)
    text = "images, folders of images, patterns such as 'photos/**/*.jpg', http(s) addresses, "
    text += "videos, list files with a path in each line, and - for an image on standard input"
    parser.add_argument("photos", nargs="*", type=expanded, metavar="IMAGE|FOLDER|LIST", help=text)
    text = "file with a path in each line, whatever its ending; - for standard input"
    parser.add_argument("--list", type=expanded, metavar="FILE", help=text)
    add_engine_options(parser)
    text = "number of classes to name for each image; default: 5"
    parser.add_argument("--topk", type=positive, metavar="N", help=text)
    add_video_options(parser)
    text = "write the results to this .csv, .json or .jsonl file, too, prediction by prediction"
    parser.add_argument("--save", type=Path, metavar="FILE", help=text)
    text = "write a picture of each image with its classes and scores into this folder, too"
    parser.add_argument("--visualize", type=Path, metavar="FOLDER", help=text)
    text = "keep each image's features in this .npz file, too, of a model exported with --features"
    parser.add_argument("--features", type=Path, metavar="FILE", help=text)
    add_on_error(parser, "skip gives it an error in the file instead of classes")
    text = "go on behind the last prediction of a --save FILE that was not finished"
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=text)
    text = "replace what an unfinished run has left of --save FILE, and pictures of --visualize"
    again.add_argument("--overwrite", action="store_true", help=text)


def add_video_options(parser: argparse.ArgumentParser) -> None:
    rate = parser.add_mutually_exclusive_group()
    text = "take a frame of a video every so many seconds; default: 1"
    rate.add_argument("--every", type=number, metavar="SECONDS", help=text)
    text = "take so many frames of a second of a video"
    rate.add_argument("--fps", type=number, metavar="N", help=text)


def seconds_between_frames(options: argparse.Namespace) -> float:
    """UserError for a rate that is none."""
    for name in ("every", "fps"):
        value = getattr(options, name)
        if value is not None and not 1e-3 <= value <= 1e6:
            raise UserError(f"--{name} {value:g}: should be a number from 0.001")
    if options.fps is not None:
        return 1 / options.fps
    return 1.0 if options.every is None else options.every


def given(photos: Sequence[str], listed: str | None, resume: bool = False) -> list[Any]:
    """What is to be predicted; an image on standard input as its bytes.

    Raises:
        UserError: nothing, or standard input twice, or again.
    """
    from ppcls.inference.inputs import Content

    images: list[Any] = list(photos)
    if STDIN in images and (images.count(STDIN) > 1 or listed == STDIN):
        raise UserError("- is standard input, which can be read only once")
    if STDIN in images and resume:
        raise UserError("--resume: standard input (-) cannot be read again; give the image's file")
    if listed is not None:
        images += lines_of(listed)
    if not images:
        raise UserError("nothing to predict: name images, folders or lists, or --list FILE")
    if STDIN in photos:
        place = images.index(STDIN)
        images[place] = Content(STDIN, read_stdin("an image"))
    return images


def lines_of(listed: str) -> list[str]:
    """The paths in a list, relative to the working folder as they stand there."""
    from ppcls.utils.files import read_file

    if listed == STDIN:
        data = read_stdin("paths")
    else:
        try:
            data = read_file(listed)
        except OSError as error:
            raise UserError(f"--list {listed}: cannot be read ({error.strerror})") from None
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    found = [expanded(line) for line in lines if line.strip()]
    if not found:
        raise UserError(f"--list {listed}: names no images")
    return found


def read_stdin(what: str) -> bytes:
    if sys.stdin.isatty():
        raise UserError(f"- is standard input: pipe {what} into it")
    return sys.stdin.buffer.read()


def open_predictor(options: argparse.Namespace):
    """The predictor that the options of `add_engine_options` ask for."""
    from ppcls.prediction import Predictor

    chosen = predictor_options(options)
    return Predictor(options.model_dir, batch_size=options.batch_size, **chosen)


def run(options: argparse.Namespace) -> int:
    from ppcls.inference.features import FeatureFile
    from ppcls.inference.results import PredictionFile, report

    if options.resume and not options.save:
        raise UserError("--resume is about the file of --save FILE; name it")
    if options.overwrite and not (options.save or options.visualize):
        raise UserError("--overwrite is about --save FILE and --visualize FOLDER; name one")
    save = PredictionFile(options.save) if options.save else None
    if save and not (options.resume or options.overwrite):
        save.refuse_lost()
    features = FeatureFile(options.features) if options.features else None
    every = seconds_between_frames(options)
    images = given(options.photos, options.list, options.resume)
    with open_predictor(options) as predictor:
        report(
            predictor,
            images,
            options.topk,
            save,
            options.on_error == "skip",
            options.resume,
            every,
            features,
            (lambda names: drawing(options, names)) if options.visualize else None,
        )
    return 0


def drawing(options: argparse.Namespace, names: Sequence[str]):
    """What writes the picture of an image; UserError where it would replace something."""
    from ppcls.inference.inputs import pixels_of
    from ppcls.inference.predictor import NOTHING
    from ppcls.report.labelled import Pictures, labelled
    from ppcls.utils.log import say

    replace = options.resume or options.overwrite
    pictures = Pictures(options.visualize, names, options.photos, replace)

    def draw(index: int, image: Any, prediction: Any) -> None:
        try:
            pixels = pixels_of(image, 3, names[index])
        except UserError as error:  # gone by now, or no longer to be had from its address
            say(f"note: no picture of it is drawn: {error}")
            return
        found = labelled(pixels, prediction.labels, prediction.scores, names[index], NOTHING)
        pictures.write(index, found)

    return draw

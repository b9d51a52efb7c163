"""`ppcls predict`: name what images show."""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
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
from ppcls.utils.files import expanded, is_shell_pipe, open_plain

STDIN = "-"


def add(commands) -> None:
    text = "name what is on images with an exported model or a checkpoint"
    examples = (
        "ppcls predict --model-dir exported/own_photos photo.jpg",
        "ppcls predict --model-dir exported/own_photos photos/val --topk 2 --save results.csv",
        "ppcls predict --model-dir runs/own_photos/best.safetensors photos/val --explain explained",
    )
    parser = add_command(commands, "predict", run, text, examples)
    add_image_arguments(parser)
    add_engine_options(parser)
    text = "write a picture of each image with its classes and scores into this folder, too"
    parser.add_argument("--visualize", type=Path, metavar="FOLDER", help=text)
    text = "write a picture of where the network saw the class of each image into this folder, "
    text += "too, of a model exported with --explain, or a checkpoint; with --topk N of N classes"
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help=text)
    text = "replace what an unfinished run has left of --save FILE, and the pictures of "
    text += "--visualize and --explain"
    add_result_options(parser, text)


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """What is to be predicted; see `given`."""
    text = "images, folders of images, patterns such as 'photos/**/*.jpg', http(s) addresses, "
    text += "videos, list files with a path in each line, and - for an image on standard input"
    parser.add_argument("photos", nargs="*", type=expanded, metavar="IMAGE|FOLDER|LIST", help=text)
    text = "file with a path in each line, whatever its ending; - for standard input"
    parser.add_argument("--list", type=expanded, metavar="FILE", help=text)
    add_video_options(parser)
    add_part_option(parser)


def add_result_options(parser: argparse.ArgumentParser, overwrite: str) -> None:
    """What comes of it, and into which files; see `results_of`."""
    text = "number of classes to name for each image; default: 5"
    parser.add_argument("--topk", type=positive, metavar="N", help=text)
    text = "write the results to this .csv, .json or .jsonl file, too, prediction by prediction"
    parser.add_argument("--save", type=Path, metavar="FILE", help=text)
    text = "keep each image's features in this .npz file, too, of a model exported with --features"
    parser.add_argument("--features", type=Path, metavar="FILE", help=text)
    add_on_error(parser, "skip gives it an error in the file instead of classes")
    text = "go on behind the last prediction of a --save FILE that was not finished"
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=text)
    again.add_argument("--overwrite", action="store_true", help=overwrite)


def add_video_options(parser: argparse.ArgumentParser) -> None:
    rate = parser.add_mutually_exclusive_group()
    text = "take a frame of a video every so many seconds; default: 1"
    rate.add_argument("--every", type=number, metavar="SECONDS", help=text)
    text = "take so many frames of a second of a video"
    rate.add_argument("--fps", type=number, metavar="N", help=text)


def add_part_option(parser: argparse.ArgumentParser) -> None:
    text = "predict the I-th of N parts of the images, which follow each other: 1/4, 2/4, 3/4 and "
    text += "4/4 are shared by four processes, each with files of its own"
    parser.add_argument("--part", type=part, metavar="I/N", help=text)


def part(text: str):
    """What `--part` is given."""
    from ppcls.inference.parts import part_of

    try:
        return part_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds_between_frames(options: argparse.Namespace) -> float:
    """UserError for a rate that is none."""
    for name in ("every", "fps"):
        value = getattr(options, name)
        if value is not None and not 1e-3 <= value <= 1e6:
            raise UserError(f"--{name} {value:g}: should be a number from 0.001")
    if options.fps is not None:
        return 1 / options.fps
    return 1.0 if options.every is None else options.every


def given(photos: Sequence[str], listed: str | None, resume: bool = False) -> Iterable[Any]:
    """What is to be predicted, to be gone through as often as needed; an image on standard input
    as its bytes.

    Raises:
        UserError: nothing, or standard input twice, or again.
    """
    from ppcls.inference.inputs import Content

    images: list[Any] = list(photos)
    if STDIN in images and (images.count(STDIN) > 1 or listed == STDIN):
        raise UserError("- is standard input, which can be read only once")
    if STDIN in images and resume:
        raise UserError("--resume: standard input (-) cannot be read again; give the image's file")
    lines = Lines(listed) if listed is not None else None
    if not images and lines is None:
        raise UserError("nothing to predict: name images, folders or lists, or --list FILE")
    if STDIN in photos:
        place = images.index(STDIN)
        images[place] = Content(STDIN, read_stdin("an image"))
    return images if lines is None else Listed(images, lines)


class Lines:
    """The paths in a list, relative to the working folder as they stand there.

    The file is read anew each time, so that millions are not held; what comes only once is kept.
    """

    def __init__(self, listed: str):
        """UserError: the list cannot be read, or is empty."""
        self.listed = listed
        self.data: bytes | None = None
        if listed == STDIN:
            self.data = read_stdin("paths")
        elif is_shell_pipe(listed):
            with self.opened() as file:
                self.data = file.read()
        if next(iter(self), None) is None:
            raise UserError(f"--list {listed}: names no images")

    def opened(self):
        if self.data is not None:
            return io.BytesIO(self.data)
        try:
            return open_plain(self.listed)
        except OSError as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: OSError) -> UserError:
        return UserError(f"--list {self.listed}: cannot be read ({error.strerror})")

    def __iter__(self) -> Iterator[str]:
        with (
            self.opened() as file,
            # A mark of UTF-8 at the beginning, as Windows writes it, is no part of a path.
            io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as text,
        ):
            try:
                for line in text:
                    if line.strip():
                        yield expanded(line.removesuffix("\n"))
            except OSError as error:
                raise self.unreadable(error) from None


class Listed:
    """What stands on the command line, and then a list's lines."""

    def __init__(self, images: Sequence[Any], lines: Lines):
        self.images = images
        self.lines = lines

    def __iter__(self) -> Iterator[Any]:
        yield from self.images
        yield from self.lines


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
    from ppcls.inference.results import report

    save, features = results_of(options)
    every = seconds_between_frames(options)
    images = given(options.photos, options.list, options.resume)
    with open_predictor(options) as predictor:
        if options.explain:
            predictor.require_maps()
        preprocess = predictor.manifest.preprocess
        draws = options.visualize or options.explain
        report(
            predictor,
            images,
            options.topk,
            save,
            options.on_error == "skip",
            options.resume,
            every,
            features,
            partial(drawing, options, preprocess) if draws else None,
            options.part,
            explain=options.explain is not None,
        )
    return 0


def results_of(options: argparse.Namespace):
    """The files of the results, None where none is asked for; nothing is opened yet.

    Raises:
        UserError: they cannot be written, or another run's would be lost.
    """
    from ppcls.inference.features import FeatureFile
    from ppcls.inference.results import PredictionFile

    if options.resume and not options.save:
        raise UserError("--resume is about the file of --save FILE; name it")
    if options.overwrite and not (options.save or options.visualize or options.explain):
        folders = "--visualize FOLDER and --explain FOLDER"
        raise UserError(f"--overwrite is about --save FILE, {folders}; name one")
    save = PredictionFile(options.save) if options.save else None
    if save and not (options.resume or options.overwrite):
        save.refuse_lost()
    features = FeatureFile(options.features) if options.features else None
    if options.part and not options.overwrite:
        refuse_replaced(save, features, options.resume)
    return save, features


def refuse_replaced(save, features, resume: bool) -> None:
    """UserError for the file of another part, which would be lost."""
    if save:
        save.refuse_replaced(resume)
    if features and features.target.exists() and not (resume and features.path.is_file()):
        raise UserError(
            f"{features.name}: exists, and may be another part's; name a file for each part"
        )


def drawing(
    options: argparse.Namespace, preprocess: Any, names: Sequence[str], first: int, behind: int
):
    """What writes the pictures of the images of these places; UserError where one would replace
    something.
    """
    from ppcls.inference.inputs import pixels_of
    from ppcls.inference.predictor import NOTHING
    from ppcls.prediction import classes_with_maps
    from ppcls.report.heatmaps import explained
    from ppcls.report.labelled import Pictures, labelled
    from ppcls.utils.log import say

    def planned(option: str, folder: Path | None) -> Pictures | None:
        replace = options.resume or options.overwrite
        if folder is None:
            return None
        return Pictures(folder, names, options.photos, replace, first, behind, option)

    if options.explain and options.explain == options.visualize:
        raise UserError(f"--explain {options.explain}: is --visualize's; name another folder")
    pictures = planned("--visualize", options.visualize)
    maps = planned("--explain", options.explain)
    most = options.topk or 1

    def draw(index: int, image: Any, prediction: Any) -> None:
        name = names[first + index]
        try:
            pixels = pixels_of(image, 3, name)
        except UserError as error:  # gone by now, or no longer to be had from its address
            say(f"note: no picture of it is drawn: {error}")
            return
        if pictures:
            above = "; ".join(filter(None, (prediction.doubt, prediction.decided)))
            about = (prediction.labels, prediction.scores, name, NOTHING, above)
            pictures.write(index, labelled(pixels, *about))
        if maps:
            classes = classes_with_maps(prediction, most)
            maps.write(index, explained(pixels, classes, preprocess, name, NOTHING))

    return draw

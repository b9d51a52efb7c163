"""`ppcls drift`: whether photos are still like those of the calibration."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_on_error, add_use_option, decimal_from, positive
from ppcls.commands.predict import add_video_options, given, seconds_between_frames
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "tell whether photos are still like those that an exported model was calibrated on"
    examples = (
        "ppcls drift --model-dir exported/own_photos photos/val --output drift",
        "ppcls drift --model-dir exported/own_photos 'kept/*.jpg' --window 200 "
        "--false-alarms 0.001",
    )
    parser = add_command(commands, "drift", run, text, examples)
    codes = "exit code: 0 no drift is seen, 1 a window of photos has drifted, 2 a mistake in the "
    parser.epilog = f"{codes}command\n\n{parser.epilog}"
    text = "images, folders of images, patterns, http(s) addresses, videos and list files, as of "
    text += "ppcls predict; they need no labels"
    parser.add_argument("photos", nargs="*", type=expanded, metavar="IMAGE|FOLDER|LIST", help=text)
    text = "file with a path in each line, whatever its ending; - for standard input"
    parser.add_argument("--list", type=expanded, metavar="FILE", help=text)
    text = "exported folder that ppcls calibrate has calibrated"
    parser.add_argument("--model-dir", type=expanded, required=True, metavar="FOLDER", help=text)
    text = "photos that are looked at together, in the order given: more find smaller changes; "
    text += "default: 500"
    parser.add_argument("--window", type=positive, default=500, metavar="N", help=text)
    text = "share of windows of like photos that raise an alarm all the same; default: 0.01"
    rate = decimal_from(0.0001, 0.5)
    parser.add_argument("--false-alarms", type=rate, default=0.01, metavar="SHARE", help=text)
    text = "write drift.json and a picture, drift.png, into this folder"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    text = "replace what is there of these"
    parser.add_argument("--overwrite", action="store_true", help=text)
    add_video_options(parser)
    add_on_error(parser, "skip leaves it out")
    text = "what runs the model, as of ppcls predict; default: auto, the fastest here"
    parser.add_argument("--engine", default="auto", help=text)
    add_use_option(parser)
    text = "where to run the model; default: auto, a GPU where there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    text = "number of CPU threads to compute with; default: the fastest"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    text = "number of images to predict at a time; default: 8"
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.drift import drift
    from ppcls.drift.permutation import FEWEST
    from ppcls.inference.exported_model import open_exported
    from ppcls.prediction import Predictor

    if options.window < FEWEST:
        raise UserError(f"--window {options.window}: too few to tell; give {FEWEST} or more")
    check_folder(options.output, (drift.FILE, drift.PICTURE), options.overwrite)
    every = seconds_between_frames(options)
    photos = given(options.photos, options.list)
    folder = Path(options.model_dir)
    sketch = drift.sketch_for(open_exported(folder))
    how = (options.device, options.threads, options.engine)
    with Predictor(folder, *how, batch_size=options.batch_size, calibrated=False) as predictor:
        found = drift.drift(
            predictor,
            sketch,
            photos,
            options.window,
            options.false_alarms,
            options.on_error == "skip",
            every,
        )
    return 0 if drift.report(found, options.output) else 1


def check_folder(folder: Path | None, files: tuple[str, ...], replace: bool) -> None:
    """UserError where the folder is a file, or files of another run in it would be lost."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; name a folder")
    there = [name for name in files if (folder / name).exists()]
    if there and not replace:
        raise UserError(
            f"--output {folder}: has a {there[0]}; --overwrite replaces it, or give another folder"
        )

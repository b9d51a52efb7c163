"""`ppcls similar`: the images that look most like one."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_engine_options, add_on_error, positive
from ppcls.commands.predict import (
    STDIN,
    add_video_options,
    given,
    open_predictor,
    seconds_between_frames,
)
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "find the images that look most like one to a model"
    examples = (
        "ppcls similar --model-dir runs/own_photos photo.jpg photos/ --visualize x.png",
        "ppcls similar --model-dir exported/own_photos photo.jpg --features photos.npz",
    )
    parser = add_command(commands, "similar", run, text, examples)
    text = "the image that others are compared with, or a folder or list of such; - for one on "
    text += "standard input"
    parser.add_argument("query", type=expanded, metavar="IMAGE", help=text)
    text = "images, folders, patterns, videos and lists to search"
    parser.add_argument("photos", nargs="*", type=expanded, metavar="IMAGE|FOLDER|LIST", help=text)
    add_engine_options(parser)
    add_video_options(parser)
    text = "number of images to name; default: 5"
    parser.add_argument("--topk", type=positive, default=5, metavar="N", help=text)
    text = "search the images of this .npz file of predict --features"
    parser.add_argument("--features", type=Path, metavar="FILE", help=text)
    text = "write the results to this .csv, .json or .jsonl file, too"
    parser.add_argument("--save", type=Path, metavar="FILE", help=text)
    text = "draw the image and those nearest to it as this .png or .jpg file"
    parser.add_argument("--visualize", type=Path, metavar="FILE", help=text)
    add_on_error(parser, "skip leaves it out")
    text = "replace what is there of --save FILE and --visualize FILE"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls import similar
    from ppcls.inference.inputs import find
    from ppcls.report.sheets import FORMATS
    from ppcls.utils.log import say

    if bool(options.photos) == bool(options.features):
        raise UserError("name the images to search, or --features FILE that has theirs")
    outputs = ((options.save, "--save", similar.SUFFIXES),
               (options.visualize, "--visualize", tuple(FORMATS)))  # fmt: skip
    for path, option, endings in outputs:
        check_output(path, option, endings, options.overwrite)
    every = seconds_between_frames(options)
    query = given([options.query], None)
    if STDIN in options.photos:
        raise UserError("- is standard input, which has one image: name files to search")
    with open_predictor(options) as predictor:
        predictor.require_features()
        kept = similar.kept_gallery(predictor, options.features) if options.features else None
        queries = find(query, False, every)
        asked = predictor.predict(queries, 1, features=True)
        skip = options.on_error == "skip"
        gallery = kept or similar.gallery_of(predictor, options.photos, skip, every)
    results = []
    for answer in asked:
        assert answer.features is not None
        found = similar.nearest(gallery, answer.features, options.topk, answer.path)
        results.append((answer.path or "", found))
        say(similar.line(answer.path or "", found))
    if options.save:
        similar.save(options.save, results)
        say(f"wrote {options.save}")
    if options.visualize:
        say(f"wrote {similar.draw(options.visualize, queries, results, every)}")
    return 0


def check_output(path: Path | None, option: str, endings: tuple[str, ...], replace: bool) -> None:
    """UserError for a file of another kind, or one that is there."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: the file name should end in {', '.join(endings)}")
    if path.exists() and not (replace and path.is_file()):
        fix = "--overwrite replaces it, or give another name" if path.is_file() else "name a file"
        raise UserError(f"{option} {path}: exists; {fix}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} does not exist")

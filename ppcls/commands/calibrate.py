"""`ppcls calibrate`: an exported model that knows how sure it is."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_on_error, decimal_from


def add(commands) -> None:
    text = "calibrate an exported model on labelled images: scores, sets of classes, the unknown"
    examples = (
        "ppcls calibrate --model-dir exported/own_photos --data photos/val",
        "ppcls calibrate --model-dir exported/own_photos --data photos/val --coverage 0.99 "
        "--per-class",
    )
    parser = add_command(commands, "calibrate", run, text, examples)
    text = "exported folder, which what is found is written into"
    parser.add_argument("--model-dir", type=Path, required=True, metavar="FOLDER", help=text)
    text = "labelled images that the model has not learnt from, some hundred"
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER|LIST", help=text)
    text = "how often a set of classes is to hold the right one; default: 0.95"
    rate = decimal_from(0.5, 0.9999)
    parser.add_argument("--coverage", type=rate, default=0.95, metavar="SHARE", help=text)
    text = "how sets are made: lac, the smallest; aps, larger where the model is less sure; raps, "
    text += "such with a limit, for many classes; default: lac"
    kinds = ("lac", "aps", "raps")
    parser.add_argument("--method", choices=kinds, default="lac", help=text)
    text = "hold the coverage in each class, not only in all images together"
    parser.add_argument("--per-class", action="store_true", help=text)
    text = "share of images of the classes that may be called unknown; default: 0.05"
    rate = decimal_from(0.0001, 0.5)
    parser.add_argument("--false-alarms", type=rate, default=0.05, metavar="SHARE", help=text)
    text = (
        "CSV file of what it costs to decide on a class (columns) where another is right (lines): "
    )
    text += "true,ant,bee; predictions then have the decision that costs least"
    parser.add_argument("--costs", type=Path, metavar="FILE", help=text)
    text = "what runs the model meanwhile, as of ppcls predict; default: auto, the fastest here"
    parser.add_argument("--engine", default="auto", help=text)
    add_on_error(parser, "skip leaves it out")


def run(options: argparse.Namespace) -> int:
    from ppcls.calibrate.calibrate import calibrate
    from ppcls.calibrate.fit import Wish

    wish = Wish(options.coverage, options.method, options.per_class, options.false_alarms)
    how = (options.on_error, options.engine, options.costs)
    calibrate(options.model_dir, options.data, wish, *how)
    return 0

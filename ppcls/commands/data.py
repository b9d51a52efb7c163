"""`ppcls data`: write a built-in data set."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command
from ppcls.utils.log import say


def add(commands) -> None:
    text = "write out a built-in data set as ordinary folders"
    examples = ("ppcls data digits", "ppcls data images --to photos/samples")
    parser = add_command(commands, "data", run, text, examples)
    text = "which one: digits, solar_cells, or images, which are scikit-learn's two"
    parser.add_argument("name", help=text)
    text = "folder to write it into; default: data/<name>"
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.data import builtin

    to = options.to or Path("data") / options.name
    if options.name in ("images", "photos"):  # the older name goes on working
        say(*builtin.copy_sample_images(to))
        return 0
    folder = builtin.write(options.name, to)
    say(*builtin.describe(options.name).split("\n"), folder)
    return 0

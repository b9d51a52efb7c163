"""`ppcls init`: write the recipe that `ppcls train` would choose for images."""

import argparse
import shlex
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_data_argument,
    add_override_option,
    add_overwrite_option,
    program,
)
from ppcls.utils.errors import UserError
from ppcls.utils.log import say


def add(commands) -> None:
    text = "write the recipe that train would choose for images, to read and change"
    examples = (
        "ppcls init photos/",
        "ppcls init photos/ -o train.epochs=20 --output my.yaml",
    )
    parser = add_command(commands, "init", run, text, examples)
    add_data_argument(parser, required=True)
    add_override_option(parser)
    text = "the file to write; default: the data's name, such as photos.yaml"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    add_overwrite_option(parser, "replace that file where it exists")


def run(options: argparse.Namespace) -> int:
    from ppcls.start.choose_recipe import choose
    from ppcls.utils.files import write_text

    found = choose(options.data, options.override)
    place = options.output or Path(f"{found.name}.yaml")
    if place.exists() and not options.overwrite:
        raise UserError(f"{place} exists: --overwrite replaces it, --output FILE writes elsewhere")
    write_text(place, found.text)
    say(*found.lines)
    say(f"wrote {place}; to train: {program()} train -c {shlex.quote(str(place))}")
    return 0

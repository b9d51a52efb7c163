"""`ppcls models`: list the networks."""

import argparse

from ppcls.commands.options import add_command
from ppcls.utils.errors import UserError
from ppcls.utils.log import say


def add(commands) -> None:
    text = "list the networks: accuracy, size, and whether weights are at hand"
    examples = ("ppcls models", 'ppcls models "*_vd*"', 'ppcls models "EfficientNet*" --names')
    parser = add_command(commands, "models", run, text, examples)
    text = 'pattern that the names must match, such as "*_vd*", in quotes; default: all'
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help=text)
    text = "print the names alone, one on each line, as scripts read them"
    parser.add_argument("--names", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.models.registry import list_models
    from ppcls.weights.store import table

    names = list_models(options.pattern)
    if not names:
        raise UserError(f"no network's name matches {options.pattern!r}")
    say(*(names if options.names else table(names)))
    return 0

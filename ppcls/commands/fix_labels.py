"""`ppcls fix-labels`: go through labels that are likely wrong, on a page."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, whole
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded

HIGHEST = 65535


def add(commands) -> None:
    text = "go through the labels that check-data --labels found, on a page in the browser"
    examples = (
        "ppcls fix-labels fixes.csv",
        "ppcls fix-labels fixes.csv photos/train --port 8765",
    )
    parser = add_command(commands, "fix-labels", run, text, examples)
    text = "the list of check-data --labels; decisions are written into it"
    parser.add_argument("fixes", type=Path, metavar="FIXES", help=text)
    text = "folders, lists or shards with the images: for the names of all classes, and for images "
    text += "in shards"
    parser.add_argument("data", nargs="*", type=expanded, metavar="DATA", help=text)
    text = "port of this machine that the page is at; default: a free one"
    parser.add_argument("--port", type=whole, default=0, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.check.fix_labels import fix_labels
    from ppcls.data.datasets import open_samples

    if options.port > HIGHEST:
        raise UserError(f"--port {options.port}: ports go up to {HIGHEST}")
    samples = [open_samples(path) for path in options.data]
    fix_labels(options.fixes, samples, options.port)
    return 0

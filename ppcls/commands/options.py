"""What several commands have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path

from ppcls.utils.files import expanded


def add_command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.register("type", Path, path)
    parser.set_defaults(run=run)
    return parser


def add_recipe_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "-c", "--config", type=expanded, required=required, help="recipe file (configs/*.yaml)"
    )
    parser.add_argument(
        "-o",
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="set a key of the recipe, such as train.epochs=10 or train.ops.0.scale=[0.5,1]",
    )


def add_overwrite_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_near_option(parser: argparse.ArgumentParser, text: str) -> None:
    """How many bits of a perceptual hash may differ."""
    parser.add_argument(
        "--near", type=int, choices=range(33), default=32, metavar="BITS", help=text
    )


def path(text: str) -> Path:
    """What `type=Path` does: `~` is the home folder, for few shells expand `--output=~/x`."""
    found = Path(expanded(text))
    return found if not str(found).startswith("~") else Path.cwd() / found  # it was "./~…"


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 1")
    return int(text)


def whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a share from 0 to 1")
    return value


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def counts(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]

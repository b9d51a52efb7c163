"""What several commands have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ppcls.utils.files import expanded
from ppcls.utils.log import print_error
from ppcls.utils.text import decimal, did_you_mean, whole_number


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line that names the command, and where to read on."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see {self.prog} --help", mark=f"{self.prog}: error: ")
        sys.exit(2)

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """The error for arguments that nobody asked for."""
        known = [name for action in self._actions for name in action.option_strings]
        first = extra[0].partition("=")[0]
        hint = did_you_mean(first, known) if first.startswith("-") else ""
        self.error(f"unknown argument{'s' * (len(extra) > 1)}: {' '.join(extra)}{hint}")


def add_command(
    commands, name: str, run: Callable, text: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """A command with a line that says what it does, and whole command lines to copy."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=listed_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.register("type", Path, path)
    parser.set_defaults(run=run, parser=parser)
    return parser


def listed_examples(examples: Sequence[str]) -> str:
    title = "example" if len(examples) == 1 else "examples"
    return "\n".join([f"{title}:", *(f"  {line}" for line in examples)])


def add_recipe_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=expanded,
        required=required,
        metavar="RECIPE",
        help="the recipe file, such as configs/finetune/EfficientNetLite0.yaml",
    )
    parser.add_argument(
        "-o",
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="set keys of the recipe, such as train.epochs=10 or 'train.ops.0.scale=[0.5, 1]'",
    )


def add_overwrite_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_near_option(parser: argparse.ArgumentParser, text: str) -> None:
    """How many bits of a perceptual hash may differ."""
    parser.add_argument(
        "--near", type=whole, choices=range(33), default=32, metavar="BITS", help=text
    )


def path(text: str) -> Path:
    """What `type=Path` does: `~` is the home folder, for few shells expand `--output=~/x`."""
    found = Path(expanded(text))
    return found if not str(found).startswith("~") else Path.cwd() / found  # it was "./~…"


def positive(text: str) -> int:
    number = whole_number(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 1")
    return number


def whole(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0")
    return number


def share(text: str) -> float:
    value = decimal(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a share from 0 to 1")
    return value


def number(text: str) -> float:
    value = decimal(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number such as 0.485")
    return value


def seconds(text: str) -> float:
    value = decimal(text)
    if value is None or not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of seconds from 0 to 3600")
    return value


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def counts(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]

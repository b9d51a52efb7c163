"""The command line: `ppcls train …`; the scripts in tools/ and deploy/ call the same functions."""

import argparse
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress

from ppcls import __version__
from ppcls.commands import (
    benchmark,
    calibrate,
    check_data,
    compare,
    data,
    drift,
    evaluate,
    export,
    fix_labels,
    import_paddleclas,
    init,
    make_shards,
    models,
    predict,
    predict_ray,
    quantize,
    select_unlabeled,
    serve,
    show_data,
    similar,
    teach,
    train,
    weights,
    zoo,
)
from ppcls.commands.options import Parser, listed_examples
from ppcls.train.launch import INTERRUPTED
from ppcls.utils import guard, modules
from ppcls.utils.log import never_fail, print_error
from ppcls.utils.text import did_you_mean

COMMANDS = (
    train,
    init,
    teach,
    select_unlabeled,
    evaluate,
    compare,
    export,
    predict,
    predict_ray,
    serve,
    similar,
    calibrate,
    drift,
    quantize,
    benchmark,
    models,
    weights,
    data,
    make_shards,
    show_data,
    check_data,
    fix_labels,
    zoo,
    import_paddleclas,
)


EXAMPLES = (
    "ppcls train photos/",
    "ppcls train -c configs/quick_start/digits.yaml",
    "ppcls predict --model-dir exported/digits data/digits/eval/7",
    "ppcls predict --help",
)


def make_parser() -> tuple[Parser, tuple[str, ...]]:
    """The parser of all commands, and their names."""
    text = "Image classification with PaddlePaddle: train, evaluate, export and predict."
    parser = Parser(
        prog="ppcls",
        description=text,
        epilog=listed_examples(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "print the version of ppcls and exit"
    parser.add_argument("--version", action="version", version=f"ppcls {__version__}", help=text)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser, tuple(commands.choices)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command line; what is unknown is said by the command it was given to."""
    parser, names = make_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        parser.error(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], names)}")
    for text in arguments:
        if text.startswith("--") and text.endswith("=--"):  # argparse takes it for an empty list
            parser.error(f"argument {text}: expected a value behind the =")
    options, extra = parser.parse_known_args(arguments)
    if extra:
        options.parser.refuse(extra)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: done; 2: a mistake of the user's, or the machine refused something; 70: a fault of ppcls.
    Whatever ended a command is one line, and its traceback is in a file that the line names.
    """
    open_closed()
    never_fail(sys.stdout, sys.stderr)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parse(given)
        modules.use(*getattr(options, "use", ()))
        return options.run(options)
    except BrokenPipeError as error:
        if not leave_pipes():
            return guard.ended(error)
        return 0
    except Exception as error:
        return guard.ended(error)
    except KeyboardInterrupt:
        print_error("interrupted", mark="")
        return INTERRUPTED


def open_closed() -> None:
    """Where the program was started with a stream closed (`>&-`), one that leads nowhere.

    Python has None there, and the next file that is opened would get the stream's number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def leave_pipes() -> bool:
    """Whether nobody reads a stream any more, as with `| head`; what is to come goes nowhere."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none at all
            number = stream.fileno()
            if is_left(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                found = True
    return found


def is_left(number: int) -> bool:
    """Whether an open file is a pipe without a reader, as far as the system can say."""
    if not hasattr(select, "poll"):  # on Windows
        return True
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))

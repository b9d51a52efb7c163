"""The command line: `ppcls train …`; the scripts in tools/ and deploy/ call the same functions."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from ppcls import __version__
from ppcls.commands import catalogue, checking, deployment, selecting, sharding, training
from ppcls.commands.options import Parser, listed_examples
from ppcls.errors import UserError
from ppcls.log import never_fail, print_error
from ppcls.utils.text import did_you_mean, visible

# Where a disk or a share of it is full, wherever that happens.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COMMANDS = (
    training.add_train,
    training.add_teach,
    selecting.add_select_unlabeled,
    training.add_eval,
    training.add_export,
    deployment.add_predict,
    deployment.add_quantize,
    deployment.add_bench,
    catalogue.add_models,
    catalogue.add_weights,
    catalogue.add_data,
    sharding.add_make_shards,
    training.add_show_data,
    checking.add_check_data,
    catalogue.add_zoo,
    catalogue.add_import,
)


EXAMPLES = (
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
    for add in COMMANDS:
        add(commands)
    return parser, tuple(commands.choices)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command line; what is unknown is said by the command it was given to."""
    parser, names = make_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        parser.error(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], names)}")
    options, extra = parser.parse_known_args(arguments)
    if extra:
        options.parser.refuse(extra)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user's."""
    never_fail(sys.stdout, sys.stderr)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    try:
        return options.run(options)
    except UserError as error:
        print_error(*error.lines)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # that nobody below has put into words
        print_error(in_words(error))
        return 2
    except ValueError as error:
        if "null byte" not in str(error) and "null character" not in str(error):
            raise
        print_error("a path has a NUL in it, which no file's name can have")
        return 2
    except RecursionError:
        print_error("a path or a file has too many levels in each other; give a shorter path")
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return training.INTERRUPTED


def in_words(error: OSError) -> str:
    """One line: the file, as far as it is known, and the reason."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if name]
    return f"{' or '.join(visible(name) for name in names) or 'a file'}: {reason}"


def script(command: str) -> None:
    """What a script of tools/ does: the command with the script's own arguments."""
    sys.exit(main([command, *sys.argv[1:]]))

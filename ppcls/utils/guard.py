"""What nobody below has put into words becomes one line here, its traceback a file.

The command line and the public functions are the doors at which this stands.
"""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import print_error
from ppcls.utils.text import visible

# exit codes: of the user or the machine; of ppcls (EX_SOFTWARE)
MISTAKE = 2
BUG = 70
SHOW = "PPCLS_TRACEBACK"  # set to 1: tracebacks are shown, and not put into files
# in ppcls's folder; the beginning of the files' names
FOLDER = "errors"
START = "error-"
KEPT = 20  # files
LONGEST_FILE = 1 << 20  # characters
LIMITS = (OSError, MemoryError, RecursionError, OverflowError, UnicodeError)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def ended(error: Exception) -> int:
    """Say in one line what ended a command; returns its exit code."""
    if isinstance(error, UserError):
        print_error(*error.lines)
        return error.code
    words = in_words(error)
    if words is None:
        words = f"{type(error).__name__}: {gist(error)}"
        words = f"{words}; a fault of ppcls: please report it"
    where = kept(error)
    print_error(f"{words} (details: {where})" if where else words)
    return BUG if in_words(error) is None else MISTAKE


def in_words(error: BaseException) -> str | None:
    """One line for what is the user's or the machine's; None for what is a fault of ppcls."""
    if isinstance(error, RecursionError):
        return "a path or a file has too many levels in each other; give a shorter path"
    if isinstance(error, MemoryError) or is_full_gpu(error):
        return f"out of memory ({gist(error)}); a smaller batch or smaller files need less"
    if isinstance(error, OverflowError):
        return f"a number is too large ({gist(error)})"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8, or is no name ({gist(error)})"
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, ImportError):
        return f"a package is missing or broken ({gist(error)}); install it again"
    if isinstance(error, ValueError) and any(
        word in str(error) for word in ("null byte", "null character")
    ):
        return "a path has a NUL in it, which no file's name can have"
    return None


def is_full_gpu(error: BaseException) -> bool:
    """Whether Paddle says that a GPU's memory is used up."""
    return "ResourceExhausted" in str(error)[:LONGEST_FILE]


def of_system(error: OSError) -> str:
    """The file, as far as it is known, and the reason."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2)
             if isinstance(name, str | bytes | os.PathLike) and name]  # fmt: skip
    shown = " or ".join(visible(name) for name in names) or "a file"
    return f"{shown}: {visible(str(reason))}"


def gist(error: BaseException) -> str:
    """What an error says, of many lines the last, which in Paddle's is the reason."""
    lines = [" ".join(line.split()) for line in str(error)[-LONGEST_FILE:].splitlines()]
    found = [line for line in lines if any(map(str.isalnum, line))]
    return visible(found[-1], 300) if found else type(error).__name__


# --------------------------------------------------------------------------- tracebacks


def kept(error: BaseException) -> str:
    """Where the traceback of an error is to be read: a file's name; "" where it is nowhere."""
    try:
        text = details(error)
        if os.environ.get(SHOW, "").lower() not in ("", "0", "false"):
            print_error(*text.splitlines(), mark="")
            return ""
        return visible(to_file(text), 500)
    except Exception:  # whatever this meets is not what the user came for
        return ""


def details(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    if len(text) > LONGEST_FILE:
        text = f"{text[: LONGEST_FILE // 2]}\n…\n{text[-LONGEST_FILE // 2 :]}"
    command = " ".join(visible(repr(word)) for word in sys.argv)
    version = sys.modules["ppcls"].__version__
    about = f"ppcls {version}, Python {platform.python_version()}, {platform.platform()}"
    return f"{about}\n{command}\n\n{text}"


def to_file(text: str) -> str:
    """Write a text into a file of its own in ppcls's folder, or where that cannot be, a temporary
    one; "" where neither can.
    """
    for folder in (environment.home() / FOLDER, Path(tempfile.gettempdir())):
        with suppress(OSError, ValueError):
            if folder.name == FOLDER:
                folder.mkdir(parents=True, exist_ok=True)
            start = START if folder.name == FOLDER else f"ppcls-{START}"
            stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f-}"
            number, name = tempfile.mkstemp(".txt", start + stamp, folder)
            try:
                with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
            except OSError:
                os.unlink(name)
                raise
            drop_oldest(folder, start)
            return name
    return ""


def drop_oldest(folder: Path, start: str) -> None:
    """Leave the newest files of that beginning, whose names tell their time."""
    for path in sorted(folder.glob(f"{start}*.txt"))[:-KEPT]:
        with suppress(OSError):  # another process's
            path.unlink()


# --------------------------------------------------------------------------- public functions


@contextmanager
def user_errors(what: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """While entered, what files and the machine refuse is an error of this kind, with its cause.

    Args:
        what: begins the message: a path, mostly.
    """
    try:
        yield
    except UserError:
        raise
    except (*LIMITS, ValueError) as error:
        words = in_words(error)
        if words is None:
            raise
        raise kind(f"{what}: {words}") from error


def guarded(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A public function whose errors about files and the machine are UserErrors."""

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with user_errors(function.__name__):
            return function(*args, **kwargs)

    return wrapped

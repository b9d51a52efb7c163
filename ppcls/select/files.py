"""The files beside the list that is made, and how one is written."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ppcls.errors import UserError

LONGEST = 1 << 20  # bytes of a header


def beside(output: Path, kind: str) -> Path:
    """`unlabeled.txt` and "scores" to `unlabeled.txt.scores`."""
    return output.with_name(f"{output.name}.{kind}")


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place when it is finished, or not at all; UserError if it cannot."""
    temporary = beside(path, "incomplete")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def header_line(header: dict[str, Any]) -> bytes:
    return json.dumps(header).encode() + b"\n"


def read_header(path: Path, form: str) -> dict[str, Any]:
    """The first line of one of this tool's files; UserError for any other file."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline(LONGEST))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != form:
        raise UserError(f"{path}: not a file of `ppcls select-unlabeled`: give another --output")
    return found

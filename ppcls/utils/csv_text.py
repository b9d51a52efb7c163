"""CSV that programs read as it is, and whose cells a spreadsheet shows and does not run."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ppcls.utils.text import BYTES, escaped

# What a spreadsheet takes for a formula, also behind spaces and quotes; and after what it may
# begin a cell: programs set to a language with decimal commas divide them by semicolons.
RUN = "[\\s\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20]|'*[\\t\\r\\n]"
RUN_FROM = re.compile(f"(?:^|(?<=[;\\t\\r\\n]))(?={RUN})")
QUOTED = re.compile(f"(?:^|(?<=[;\\t\\r\\n]))'(?={RUN})")
NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)", re.ASCII)


def cell(value: Any) -> Any:
    """A value as a cell; texts are made harmless.

    A text that a spreadsheet would run gets an apostrophe before it, which `from_cell` takes away;
    numbers stay numbers. Control characters but line breaks are shown as `visible` shows them.
    """
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return RUN_FROM.sub("'", escaped(value, kept=f"\n{BYTES}"))


def from_cell(text: str) -> str:
    """The text that `cell` was given, but for control characters."""
    return QUOTED.sub("", text)


def to_csv(rows: Iterable[Sequence[Any]], line_end: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=line_end).writerows(map(cell, row) for row in rows)
    return text.getvalue()

"""Words of messages: near names, long lists cut short, text of others made harmless."""

import codecs
import csv
import difflib
import io
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

LONGEST_WORD = 200  # characters of one that may be meant as another
SHOWN = 10  # texts that one message shows
MOST_DIGITS = 18  # of a whole number that fits into 64 bits, with or without a sign
DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
BYTES = "".join(map(chr, range(0xDC80, 0xDD00)))  # of names that are no UTF-8, as Python has them
LONGEST = 2000  # characters of a line that people read
# U+200C and U+200D join or part letters of Arabic, Persian and the scripts of India, and make one
# emoji of several; anywhere else nobody sees them.
LETTERS = "\u0600-\u109f\u1780-\u17ff"
PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff"
JOINERS = re.compile(
    f"(?<=[{LETTERS}])[\u200c\u200d](?=[{LETTERS}])|(?<=[{PICTURES}\ufe0f])\u200d(?=[{PICTURES}])"
)
UNFIT_FOR_JSON = re.compile(  # valid there, but commands to a terminal, or broken bytes
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def nearest(word: str, choices: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The choices nearest to a word, the nearest first; case counts least."""
    if len(word) > LONGEST_WORD:  # near to nothing, and slow to compare
        return []
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    near = difflib.get_close_matches(word.lower(), by_lower, count, cutoff)
    return [by_lower[text] for text in near]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean …?` where a choice is near, else nothing."""
    near = nearest(word, choices)
    return f"; did you mean {near[0]!r}?" if near else ""


def at_most(texts: Sequence[str], limit: int = SHOWN) -> str:
    """The first texts, and how many more there are."""
    return ", ".join(first_of(texts, limit))


def first_of(texts: Sequence[str], limit: int = SHOWN) -> list[str]:
    """As `at_most`, in several: a line each, for `UserError` and `say`."""
    more = [f"… and {len(texts) - limit:,} more"] if len(texts) > limit else []
    return [*texts[:limit], *more]


def plural(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`, `1,000 classes`."""
    ending = "es" if one.endswith(("s", "x", "sh")) else "s"
    return f"{count:,} {one if count == 1 else many or one + ending}"


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows of cells as lines of text, two spaces between; columns not in `left` end flush."""
    rows = [list(map(visible, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def whole_number(text: str, most_digits: int = MOST_DIGITS) -> int | None:
    """The number from 0 that plain digits say, not too many of them; None for any other text.

    Python takes more for digits: `"²".isdigit()` is true, `int("1_0")` is 10, and other scripts'
    digits count; and its `int` refuses 5,000 of them.
    """
    plain = text.isascii() and text.isdigit() and len(text) <= most_digits
    return int(text) if plain else None


def decimal(text: str) -> float | None:
    """The finite number that a text like -1, 0.5 or 1e-3 says; None for any other."""
    if len(text) > 100 or not DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def visible(text: str, limit: int = 200) -> str:
    """Text of others on one line: control characters and broken bytes shown, not sent, and cut.

    Line breaks, what moves the cursor or colours a terminal, what turns the direction of writing
    and what nobody sees stand as Python writes them, `\\x1b`; letters of all scripts, emoji and
    spaces of all kinds as they are. A name that is no UTF-8 (surrogates, from the file system)
    shows its bytes as `\\xb5`.
    """
    shown = escaped(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(value: object, limit: int = 60) -> str:
    """A value out of a file of others, in a message: short, and without a look into containers.

    `repr` of a list that holds one list twice, and so on, sixty times, would never end.
    """
    if type(value) is str:
        shown = visible(value, limit)
        mark = '"' if "'" in shown and '"' not in shown else "'"
        return f"{mark}{shown}{mark}"
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int:  # Python refuses to write numbers of thousands of digits
        bits = value.bit_length()
        return str(value) if bits <= 4 * limit else f"a number of {bits:,} bits"
    return f"a {type(value).__name__}"


# What stands in an address and is nobody's business: `https://me:word@host`, `?X-Amz-Signature=…`
PASSWORD = re.compile(r"(://)[^\s/@]*:[^\s/@]*@")
KEY = re.compile(r"([?&][\w.-]*(?:sig|token|key|secret|passw|credential)[\w.-]*=)[^\s&]+", re.I)


def one_line(text: str, limit: int = LONGEST) -> str:
    """A line for people, as `visible` shows it; a long one loses its middle, not what ends it.

    Passwords and keys in addresses are left out.
    """
    if "://" in text:
        text = KEY.sub(r"\1…", PASSWORD.sub(r"\1…@", text))
    shown = escaped(text) if len(text) <= limit else ""
    if (text and not shown) or len(shown) > limit:
        end = limit // 4
        head = escaped(text[:limit])
        tail = escaped(text[-end:])
        return f"{head[: limit - end - 1]}…{tail[-end:]}"
    return shown


def in_markdown(text: str) -> str:
    """Others' text in a page or a table of Markdown, without a meaning there."""
    return re.sub(r"[\\`*|<>\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", visible(text, 500))


def escaped(text: str, kept: str = "") -> str:
    """The text with escapes in the place of what cannot be seen, but for characters `kept`."""
    if text.isprintable():
        return text
    joiners = {found.start() for found in JOINERS.finditer(text)}
    return "".join(
        c if is_seen(c) or c in kept or place in joiners else escape(c)
        for place, c in enumerate(text)
    )


def is_seen(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # a space


def to_json(value: Any, **options: Any) -> str:
    """JSON that is valid UTF-8, its texts readable; broken bytes of names as `\\udcb5`.

    Python's `json.loads` gives the same names back, and `os.fsencode` their bytes. Nothing in it
    is a command to a terminal, nor an end of line where an ordinary reader sees one.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return UNFIT_FOR_JSON.sub(json_escape, text)


def json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def from_json(text: str | bytes) -> Any:
    """What a JSON text holds; ValueError for any that is none, or is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects stand too deep in each other") from None


def composed(name: str) -> str:
    """A class's name as it is compared: é may be one character (NFC), or two as macOS has it."""
    return unicodedata.normalize("NFC", name)


def is_broken(name: str) -> bool:
    """Whether a file's name is no UTF-8, as those out of an archive with GBK names."""
    return any("\ud800" <= c <= "\udfff" for c in name)


def spelt(name: str) -> str:
    """A folder's name as a class's: composed, and in UTF-8 whatever the locale's encoding is."""
    return composed(utf8(name))


def utf8(name: str) -> str:
    if sys.getfilesystemencoding() == "utf-8":
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


VISIBLE = "visible"  # an error handler as "strict" or "replace": writes what `escape` makes of it
PLAIN = {"…": "...", "\xd7": "x", "±": "+-", "≥": ">="}  # of what ppcls itself says


def made_visible(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or escape(c) for c in lost), error.end


codecs.register_error(VISIBLE, made_visible)


def showable(text: str, stream: TextIO) -> str:
    """The text as a stream can take it, whatever its encoding is."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, VISIBLE).decode(encoding)


def escape(character: str) -> str:
    """One character that cannot be printed, as Python would write it."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def duration(seconds: float) -> str:
    """A time in the unit one would say it in: `1 second`, `89 seconds`, `1.5 minutes`."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return plural(round(seconds), "second")


def three_digits(count: float) -> str:
    """A rate with the digits that count: `0.0512`, `35.2`, `1,840`."""
    return f"{count:.3g}" if count < 100 else f"{count:,.0f}"


# --------------------------------------------------------------------------
# CSV that programs read as it is, and whose cells a spreadsheet shows and does not run

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


def to_csv(rows: Iterable[Sequence[Any]], line_end: str = "\r\n", mark: str = ",") -> str:
    """Rows as CSV, their fields divided by `mark`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, delimiter=mark)
    writer.writerows(map(cell, row) for row in rows)
    return text.getvalue()

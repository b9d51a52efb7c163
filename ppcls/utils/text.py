"""Words of messages: near names, long lists cut short, text of others made harmless."""

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 10  # texts that one message shows


def nearest(word: str, choices: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The choices nearest to a word, the nearest first; case counts least."""
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    near = difflib.get_close_matches(word.lower(), by_lower, count, cutoff)
    return [by_lower[text] for text in near]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean …?` where a choice is near, else nothing."""
    near = nearest(word, choices)
    return f"; did you mean {near[0]!r}?" if near else ""


def at_most(texts: Sequence[str], separator: str = ", ", limit: int = SHOWN) -> str:
    """The first texts, and how many more there are."""
    more = [f"… and {len(texts) - limit:,} more"] if len(texts) > limit else []
    return separator.join([*texts[:limit], *more])


def plural(count: int, one: str, many: str = "") -> str:
    """`1 photo`, `2 photos`, `1,000 classes`."""
    ending = "es" if one.endswith(("s", "x", "sh")) else "s"
    return f"{count:,} {one if count == 1 else many or one + ending}"


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows of cells as lines of text, two spaces between; columns not in `left` end flush."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def visible(text: str, limit: int = 200) -> str:
    """Text of others on one line: control characters and broken bytes shown, not sent, and cut.

    A name that is no UTF-8 (surrogates, from the file system) shows its bytes as `\\xb5`.
    """
    shown = "".join(c if c.isprintable() else escape(c) for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def escape(character: str) -> str:
    """One character that cannot be printed, as Python would write it."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()

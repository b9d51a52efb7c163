"""List files of photos with any number of labels each: `path<TAB>0,1,0`, or a column a class."""

from collections import Counter
from os import PathLike
from pathlib import Path

import numpy as np

from ppcls.data.lists import (
    PATH_COLUMNS,
    Rows,
    column,
    csv_fields,
    joined,
    text_rows,
)
from ppcls.errors import UserError
from ppcls.utils.text import (
    SHOWN,
    at_most,
    composed,
    did_you_mean,
    first_of,
    plural,
    quoted,
    visible,
)

SPELT = {"0": 0, "1": 1}


def read_label_sets(
    path: str | PathLike, names: tuple[str, ...] = ()
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """A list file's photos as written, labels (uint8 [N, classes], 0 or 1), lines and class names.

    In a CSV file every column but the path's is a class and its header the class's name; with
    `names` the columns may stand in another order.

    Raises:
        UserError: up to ten mistakes at once, each with its file:line.
    """
    if Path(path).suffix.lower() == ".csv":
        rows, names = csv_sets(path, names)
    else:
        rows = text_rows(path)
    width = len(names) or (rows.labels[0].count(",") + 1 if rows.labels else 0)
    sets = {text: parse(text, width) for text in set(rows.labels)}
    wrong = [i for i, text in enumerate(rows.labels) if sets[text] is None]
    texts = [mistake(rows.labels[i], width) for i in wrong[:SHOWN]] + [""] * len(wrong[SHOWN:])
    mistakes = rows.mistakes + [(rows.lines[i], text) for i, text in zip(wrong, texts, strict=True)]
    if mistakes:
        found = [f"{path}:{line}: {text}" for line, text in sorted(mistakes)]
        raise UserError(*first_of(found))
    if not rows.photos:
        raise UserError(f"{path}: lists no photos")
    labels = np.array([sets[text] for text in rows.labels], np.uint8)
    return rows.photos, labels, np.array(rows.lines, np.int64), names


def parse(text: str, width: int) -> list[int] | None:
    """`0,1,0` as numbers; None for anything else than `width` of 0 and 1."""
    values = [SPELT.get(part.strip(), -1) for part in text.split(",")]
    return values if len(values) == width and -1 not in values else None


def mistake(text: str, width: int) -> str:
    shape = ",".join(["0", "1", "0", "…"][: min(width, 4)])
    return (
        f"expected {plural(width, 'label')} of 0 or 1 like {shape} (one per class), "
        f"found {quoted(text, 100)}"
    )


def csv_sets(path: str | PathLike, names: tuple[str, ...]) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a CSV file, labels joined with commas, and the classes in their order."""
    header, table, mistakes = csv_fields(path)
    header = [composed(field) for field in header]
    lowered = [field.lower() for field in header]
    photo_column = column(path, lowered, "path", PATH_COLUMNS)
    classes = [field for index, field in enumerate(header) if index != photo_column]
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if not classes or twice or not all(classes):
        found = (
            f"{at_most([visible(name, 60) for name in twice])} stands twice"
            if twice
            else "a class has no name"
        )
        raise UserError(f"{path}:1: every column but the path's names a class; {found}")
    place = {name: index for index, name in enumerate(header) if index != photo_column}
    known = set(names)
    unknown = [name for name in classes if name not in known] if names else []
    odd = [f"{quoted(name)}{did_you_mean(name, names)}" for name in unknown[:SHOWN]]
    odd += [""] * len(unknown[SHOWN:])
    lacking = [quoted(name) for name in names if name not in place]
    if odd or lacking:
        what = f"unknown: {at_most(odd)}" if odd else f"without a column: {at_most(lacking)}"
        raise UserError(f"{path}:1: its columns are not the classes of the label file; {what}")
    places = [place[name] for name in names or classes]
    rows = Rows([], [], [], mistakes)
    for line, fields in table:
        if not fields[photo_column]:
            mistakes.append((line, f"no path: {joined(fields)}"))
            continue
        rows.photos.append(fields[photo_column])
        rows.labels.append(",".join(fields[index] for index in places))
        rows.lines.append(line)
    return rows, names or tuple(classes)

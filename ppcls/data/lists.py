"""List files: paths, labels and class names, every mistake with its line."""

import csv
import io
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppcls.data.class_names import in_order, label_numbers
from ppcls.data.text_files import read_text, split_lines
from ppcls.errors import UserError
from ppcls.utils.csv_text import from_cell
from ppcls.utils.text import SHOWN, composed, did_you_mean, first_of, quoted, visible

PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_id", "target", "category")


class Rows(NamedTuple):
    """The well-formed rows of a list file, and a (line, text) for each of the others."""

    photos: list[str]
    labels: list[str]
    lines: list[int]
    mistakes: list[tuple[int, str]]


def read_list(
    path: str | PathLike, names: tuple[str, ...] = (), number_labels: bool = False
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """A list file's photos as written, labels (int64 [N]), lines (int64 [N]) and class names.

    With `number_labels`, and no names, labels are names themselves, numbers among them, too.
    Raises UserError with up to ten mistakes at once, each with its file:line.
    """
    is_csv = Path(path).suffix.lower() == ".csv"
    rows = csv_rows(path) if is_csv else text_rows(path)
    in_words = is_csv and not any(is_number(label) for label in set(rows.labels))
    if not names and (in_words or number_labels):
        names = in_order(set(map(composed, rows.labels)))
    numbers = label_numbers(set(rows.labels), names)
    wrong = [i for i, label in enumerate(rows.labels) if label not in numbers]
    # Finding near names is slow, so only for what can be shown.
    texts = [label_mistake(rows.labels[i], names, is_csv) for i in wrong[:SHOWN]]
    texts += [""] * len(wrong[SHOWN:])
    mistakes = rows.mistakes + [(rows.lines[i], text) for i, text in zip(wrong, texts, strict=True)]
    if mistakes:
        found = [f"{path}:{line}: {text}" for line, text in sorted(mistakes)]
        raise UserError(*first_of(found))
    if not rows.photos:
        raise UserError(f"{path}: lists no photos")
    labels = np.fromiter(map(numbers.__getitem__, rows.labels), np.int64, len(rows.labels))
    return rows.photos, labels, np.array(rows.lines, np.int64), names


def listed_paths(path: str | PathLike) -> Iterator[tuple[int, list[str]]]:
    """For each photo of a list file its line and what its path may be: a label may follow it."""
    if Path(path).suffix.lower() == ".csv":
        header, table, mistakes = csv_fields(path)
        for line, text in mistakes:
            raise UserError(f"{path}:{line}: {text}")
        place = column(path, [field.lower() for field in header], "path", PATH_COLUMNS)
        yield from ((line, [fields[place]]) for line, fields in table)
        return
    for number, line in enumerate(split_lines(read_text(path)), 1):
        whole = line.strip(" \t")
        if not whole:
            raise UserError(f"{path}:{number}: blank line; one photo a line is expected")
        before_label = whole.rpartition("\t" if "\t" in whole else " ")[0].rstrip(" \t")
        yield number, [whole, before_label] if before_label else [whole]


def text_rows(path: str | PathLike) -> Rows:
    """Lines `path label`: the last tab of a line divides it, else its last run of spaces."""
    rows = Rows([], [], [], [])
    for number, line in enumerate(split_lines(read_text(path)), 1):
        fields = line.strip(" \t")
        photo, _, label = fields.rpartition("\t" if "\t" in fields else " ")
        if not photo:
            found = f"found {quoted(line, 100)}" if fields else "found a blank line"
            rows.mistakes.append((number, f"expected 'path label', {found}"))
            continue
        rows.photos.append(photo.rstrip(" \t"))
        rows.labels.append(label.lstrip(" "))
        rows.lines.append(number)
    return rows


def csv_rows(path: str | PathLike) -> Rows:
    """Rows of a CSV file whose header names one path and one label column."""
    header, table, mistakes = csv_fields(path)
    header = [field.lower() for field in header]
    photo_column = column(path, header, "path", PATH_COLUMNS)
    label_column = column(path, header, "label", LABEL_COLUMNS)
    rows = Rows([], [], [], mistakes)
    for line, row in table:
        if row[photo_column] and row[label_column]:
            rows.photos.append(row[photo_column])
            rows.labels.append(row[label_column])
            rows.lines.append(line)
        else:
            rows.mistakes.append((line, f"no path or no label: {joined(row)}"))
    return rows


def csv_fields(
    path: str | PathLike,
) -> tuple[list[str], list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """A CSV file's header, its rows of as many fields, each with its line, and the mistakes.

    Fields that were made harmless for spreadsheets, as in ppcls's tables, mean what they meant.
    """
    table, mistakes = [], []
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    line = 1  # where the present row starts; a quoted field may run over several lines
    try:
        header = fields_of(next(reader, []))
        line = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                table.append((line, fields_of(row)))
            else:
                found = f"found {len(row)}: {joined(row)}" if row else "found a blank line"
                mistakes.append((line, f"expected {len(header)} fields, {found}"))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{line}: not CSV ({visible(str(error))}); is a quote left open?"
        ) from error
    return header, table, mistakes


def joined(fields: list[str]) -> str:
    """The beginning of a row, quoted."""
    return quoted(",".join(field[:100] for field in fields[:100]), 100)


def fields_of(row: list[str]) -> list[str]:
    return [from_cell(field.strip()) for field in row]


def column(path: str | PathLike, header: list[str], what: str, known: tuple[str, ...]) -> int:
    """The index of the one column whose name is among the known."""
    found = [index for index, name in enumerate(header) if name in known]
    if len(found) == 1:
        return found[0]
    have = f"the header {joined(header)} has {'several' if found else 'none'}"
    raise UserError(f"{path}:1: name one {what} column ({', '.join(known)}); {have}")


def label_mistake(label: str, names: tuple[str, ...], is_csv: bool) -> str:
    """What is wrong with a label that has no number."""
    shown = f"label {quoted(label, 100)}"
    if label in names:
        return f"{shown} is the name of several classes; write the number instead"
    if names:
        spaces = not is_csv and any(" " in name for name in names)
        tab = " (a name with spaces needs a tab before it)" if spaces else ""
        return f"{shown} is not a class name{did_you_mean(label, names)}{tab}"
    if re.fullmatch("[01](,[01])+", label):
        return f"{shown} has several classes: -o task.kind=multilabel learns such lists"
    return f"{shown} is not an integer ≥ 0; class names need a label file, one name a line"


def is_number(text: str) -> bool:
    """True for anything read as a number, such as 3, -1, 2.0 and nan."""
    try:
        float(text)
    except ValueError:
        return False
    return True

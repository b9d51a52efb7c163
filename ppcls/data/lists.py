"""List files and label files: paths, labels and class names, every mistake with its line."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppcls.errors import UserError
from ppcls.utils.files import existing, expanded, read_file
from ppcls.utils.text import SHOWN, at_most, composed, did_you_mean, visible

PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_id", "target", "category")


class Rows(NamedTuple):
    """The well-formed rows of a list file, and a (line, text) for each of the others."""

    photos: list[str]
    labels: list[str]
    lines: list[int]
    mistakes: list[tuple[int, str]]


def read_list(
    path: str | PathLike, names: tuple[str, ...] = ()
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """A list file's photos as written, labels (int64 [N]), lines (int64 [N]) and class names.

    Raises UserError with up to ten mistakes at once, each with its file:line.
    """
    is_csv = Path(path).suffix.lower() == ".csv"
    rows = csv_rows(path) if is_csv else text_rows(path)
    if is_csv and not names and not any(is_number(label) for label in set(rows.labels)):
        names = tuple(sorted(set(map(composed, rows.labels))))
    numbers = label_numbers(set(rows.labels), names)
    wrong = [i for i, label in enumerate(rows.labels) if label not in numbers]
    # Finding near names is slow, so only for what can be shown.
    texts = [label_mistake(rows.labels[i], names, is_csv) for i in wrong[:SHOWN]]
    texts += [""] * len(wrong[SHOWN:])
    mistakes = rows.mistakes + [(rows.lines[i], text) for i, text in zip(wrong, texts, strict=True)]
    if mistakes:
        found = [f"{path}:{line}: {text}" for line, text in sorted(mistakes)]
        raise UserError(at_most(found, "\n"))
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


def read_names(path: str | PathLike) -> tuple[str, ...]:
    """Class names of a label file, one per line; the numbers of PaddleClas's `0 tench` are removed.

    A name may stand twice only where the lines are numbered, as ImageNet's two cranes are. Raises
    UserError with the file:line of blank and repeated names.
    """
    names = [composed(line.strip()) for line in split_lines(read_text(path))]
    fields = [name.split(maxsplit=1) for name in names]
    numbered = all(len(field) == 2 and field[0] == str(i) for i, field in enumerate(fields))
    if numbered:
        names = [name for _, name in fields]
    first = {name: line for line, name in reversed(list(enumerate(names, 1)))}
    mistakes = []
    for line, name in enumerate(names, 1):
        if not name:
            mistakes.append(f"{path}:{line}: blank line where a class name should stand")
        elif first[name] < line and not numbered:
            mistakes.append(f"{path}:{line}: {name!r} already stands in line {first[name]}")
    if mistakes or not names:
        raise UserError(at_most(mistakes, "\n") or f"{path}: holds no class names")
    return tuple(names)


def text_rows(path: str | PathLike) -> Rows:
    """Lines `path label`: the last tab of a line divides it, else its last run of spaces."""
    rows = Rows([], [], [], [])
    for number, line in enumerate(split_lines(read_text(path)), 1):
        fields = line.strip(" \t")
        photo, _, label = fields.rpartition("\t" if "\t" in fields else " ")
        if not photo:
            found = f"found {line!r}" if fields else "found a blank line"
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
            rows.mistakes.append((line, f"no path or no label: {','.join(row)!r}"))
    return rows


def csv_fields(
    path: str | PathLike,
) -> tuple[list[str], list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """A CSV file's header, its rows of as many fields, each with its line, and the mistakes."""
    table, mistakes = [], []
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    line = 1  # where the present row starts; a quoted field may run over several lines
    try:
        header = [field.strip() for field in next(reader, [])]
        line = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                table.append((line, [field.strip() for field in row]))
            else:
                found = f"found {len(row)}: {','.join(row)!r}" if row else "found a blank line"
                mistakes.append((line, f"expected {len(header)} fields, {found}"))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV ({error}); is a quote left open?") from error
    return header, table, mistakes


def column(path: str | PathLike, header: list[str], what: str, known: tuple[str, ...]) -> int:
    """The index of the one column whose name is among the known."""
    found = [index for index, name in enumerate(header) if name in known]
    if len(found) == 1:
        return found[0]
    have = f"the header {','.join(header)!r} has {'several' if found else 'none'}"
    raise UserError(f"{path}:1: name one {what} column ({', '.join(known)}); {have}")


def label_numbers(labels: Iterable[str], names: tuple[str, ...]) -> dict[str, int]:
    """Each valid label's number: its place among the names, or the integer it is."""
    by_name = single_names(names)
    # Where a class is called '3' but is not number 3, an integer could mean either: names only.
    integers = all(not is_index(name) or int(name) == i for i, name in enumerate(names))
    numbers = {label: int(label) for label in labels if integers and is_index(label)}
    called = {label: composed(label) for label in labels}
    return numbers | {label: by_name[own] for label, own in called.items() if own in by_name}


def single_names(names: tuple[str, ...]) -> dict[str, int]:
    """The number of each name that belongs to one class only."""
    uses = Counter(names)
    return {name: number for number, name in enumerate(names) if uses[name] == 1}


def label_mistake(label: str, names: tuple[str, ...], is_csv: bool) -> str:
    """What is wrong with a label that has no number."""
    if label in names:
        return f"label {label!r} is the name of several classes; write the number instead"
    if names:
        spaces = not is_csv and any(" " in name for name in names)
        tab = " (a name with spaces needs a tab before it)" if spaces else ""
        return f"label {label!r} is not a class name{did_you_mean(label, names)}{tab}"
    if re.fullmatch("[01](,[01])+", label):
        return f"label {label!r} has several classes: -o task.kind=multilabel learns such lists"
    return f"label {label!r} is not an integer ≥ 0; class names need a label file, one name a line"


def is_index(text: str) -> bool:
    """True for the digits of an integer ≥ 0 that fits any number of classes."""
    return re.fullmatch("[0-9]{1,9}", text) is not None


def is_number(text: str) -> bool:
    """True for anything read as a number, such as 3, -1, 2.0 and nan."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_text(path: str | PathLike) -> str:
    """The file's text without a byte order mark; UserError names a line that is not UTF-8."""
    try:
        data = read_file(existing(expanded(path))).removeprefix(codecs.BOM_UTF8)
        text = data.decode()
        broken = text.find("\0")  # UTF-16 without its mark passes as UTF-8, full of zeros
    except OSError as error:
        raise UserError(f"{visible(str(path))}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        text, broken = error.object.decode("latin-1"), error.start
    if broken >= 0:
        line = text.count("\n", 0, broken) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` would also break at form feeds and the like."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines

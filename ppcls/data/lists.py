"""List files: paths with labels or sets of labels, every mistake with its line."""

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppcls.data.class_names import in_order, label_numbers
from ppcls.data.samples import Paths, ends_of
from ppcls.utils import remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import split_lines
from ppcls.utils.remote import read_text
from ppcls.utils.text import (
    SHOWN,
    at_most,
    composed,
    did_you_mean,
    first_of,
    from_cell,
    plural,
    quoted,
    visible,
)

PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_id", "target", "category")


class Rows(NamedTuple):
    """The well-formed rows of a list file, and a (line, text) for each of the others."""

    images: list[str]
    labels: list[str]
    lines: list[int]
    mistakes: list[tuple[int, str]]


def read_list(
    path: str | PathLike, names: tuple[str, ...] = (), number_labels: bool = False
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """A list file's images as written, labels (int64 [N]), lines (int64 [N]) and class names.

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
    check_rows(path, rows, wrong, lambda label: label_mistake(label, names, is_csv))
    labels = np.fromiter(map(numbers.__getitem__, rows.labels), np.int64, len(rows.labels))
    return rows.images, labels, np.array(rows.lines, np.int64), names


def check_rows(
    path: str | PathLike, rows: Rows, wrong: Sequence[int], text_of: Callable[[str], str]
) -> None:
    """UserError for all malformed rows at once, for those with a `wrong` label, and for none."""
    # Finding near names is slow, so only for what can be shown.
    texts = [text_of(rows.labels[i]) for i in wrong[:SHOWN]]
    texts += [""] * len(wrong[SHOWN:])
    mistakes = rows.mistakes + [(rows.lines[i], text) for i, text in zip(wrong, texts, strict=True)]
    if mistakes:
        found = [f"{path}:{line}: {text}" for line, text in sorted(mistakes)]
        raise UserError(*first_of(found))
    if not rows.images:
        raise UserError(f"{path}: lists no images")


def listed_paths(path: str | PathLike) -> Iterator[tuple[int, list[str]]]:
    """For each image of a list file its line and what its path may be: a label may follow it."""
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
            raise UserError(f"{path}:{number}: blank line; one image a line is expected")
        before_label = whole.rpartition("\t" if "\t" in whole else " ")[0].rstrip(" \t")
        yield number, [whole, before_label] if before_label else [whole]


def unfit(path: str) -> str:
    """Why no list of images can hold the path; "" where one can."""
    if re.search("[\n\r\t]", path):
        return "its name has a line break or a tab; rename it"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return ""


def line_of(path: str, folder: str) -> str:
    """An absolute path as a list in `folder` (absolute) says it: relative where it lies below."""
    start = os.path.join(folder, "")
    if not path.startswith(start) or "/../" in path:
        return path
    inside = path[len(start) :]
    return f"./{inside}" if inside.startswith(" ") else inside  # lists are read without spaces


def text_rows(path: str | PathLike) -> Rows:
    """Lines `path label`: the last tab of a line divides it, else its last run of spaces."""
    rows = Rows([], [], [], [])
    for number, line in enumerate(split_lines(read_text(path)), 1):
        fields = line.strip(" \t")
        image, _, label = fields.rpartition("\t" if "\t" in fields else " ")
        if not image:
            found = f"found {quoted(line, 100)}" if fields else "found a blank line"
            rows.mistakes.append((number, f"expected 'path label', {found}"))
            continue
        rows.images.append(image.rstrip(" \t"))
        rows.labels.append(label.lstrip(" "))
        rows.lines.append(number)
    return rows


def csv_rows(path: str | PathLike) -> Rows:
    """Rows of a CSV file whose header names one path and one label column."""
    header, table, mistakes = csv_fields(path)
    header = [field.lower() for field in header]
    image_column = column(path, header, "path", PATH_COLUMNS)
    label_column = column(path, header, "label", LABEL_COLUMNS)
    rows = Rows([], [], [], mistakes)
    for line, row in table:
        if row[image_column] and row[label_column]:
            rows.images.append(row[image_column])
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
    table = []
    mistakes = []
    text = read_text(path)
    rows = io.StringIO(text, newline="")
    reader = csv.reader(rows, strict=True, delimiter=separator(text))
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


def separator(text: str) -> str:
    """What divides a CSV file's fields: semicolons where its header has some and no comma.

    So spreadsheets write that are set to a language with decimal commas.
    """
    head = text.partition("\n")[0]
    return ";" if ";" in head and "," not in head else ","


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


def read_column(path: str | PathLike, name: str, lines: np.ndarray) -> list[str]:
    """What a further column of a CSV file says of the images on these lines.

    Raises:
        UserError: no such column; cells without a text, up to ten at once.
    """
    header, table, _ = csv_fields(path)
    place = column_called(path, header, name)
    cells = {line: fields[place] for line, fields in table}
    found = [cells[line] for line in lines.tolist()]
    empty = [line for line, cell in zip(lines.tolist(), found, strict=True) if not cell]
    if empty:
        raise UserError(*first_of([f"{path}:{line}: no {visible(name, 60)}" for line in empty]))
    return found


def column_called(path: str | PathLike, header: Sequence[str], name: str) -> int:
    """The index of a column by its name; case counts only where several differ in it."""
    columns = [composed(field) for field in header]
    wanted = composed(name.strip())
    found = [index for index, field in enumerate(columns) if field == wanted]
    found = found or [i for i, field in enumerate(columns) if field.lower() == wanted.lower()]
    if len(found) != 1:
        many = "several columns are" if found else "no column is"
        raise UserError(
            f"{path}:1: {many} called {quoted(name)}{did_you_mean(wanted, columns)}; the header is "
            f"{joined(list(header))}"
        )
    return found[0]


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


# --------------------------------------------------------------------------
# Long list files without oddities, block by block: millions of lines in seconds

BLOCK = 1 << 23  # bytes that are divided at a time
LINE, TAB, SPACE = b"\n\t "


class Divided(NamedTuple):
    """The lines of one block: paths with zeros between them, where each ends, and labels."""

    paths: bytes
    ends: np.ndarray
    labels: list[bytes]


def read_plain(
    path: str | PathLike,
    names: tuple[str, ...],
    root: str,
    number_labels: bool = False,
    size: int = BLOCK,
) -> tuple[Paths, np.ndarray, np.ndarray, tuple[str, ...]] | None:
    """Paths that start at `root`, labels, lines (int64 [N]) and names of a `path label` list.

    With `number_labels`, and no names, labels are names themselves. `size`: bytes that are divided
    at a time.
    None for a file in which any line is not plainly a path, one space or tab, and a valid label,
    and for one that cannot be read twice (a pipe) or at all.
    """
    elsewhere = remote.is_remote(path)
    if not elsewhere and not (os.path.isfile(path) and os.access(path, os.R_OK)):
        return None
    length = remote.open_file(str(path)).size if elsewhere else os.path.getsize(path)
    numbers: dict[bytes, int] = {}
    # One buffer, and not many pieces, which would stay behind in memory as holes.
    text = bytearray(length + 1)
    start = 0
    ends = []
    labels = []
    for data in blocks(path, size):
        block = divide(data)
        if block is None:
            return None
        new = set(block.labels) - numbers.keys()
        if number_labels and not names:  # in the order of coming, until all are known
            known = {label: len(numbers) + i for i, label in enumerate(new)}
        else:
            found = label_numbers({label.decode() for label in new}, names)
            known = {text.encode(): number for text, number in found.items()}
        numbers |= known
        if len(known) < len(new) or start + len(block.paths) > len(text):  # it is growing
            return None
        text[start : start + len(block.paths)] = block.paths
        ends.append(block.ends + start)
        labels.append(np.fromiter(map(numbers.__getitem__, block.labels), np.int64))
        start += len(block.paths) + 1
    if not ends:
        return None
    whole = bytes(memoryview(text)[: start - 1])
    paths = Paths.packed(whole, np.concatenate(ends), root)
    targets = np.concatenate(labels)
    if number_labels and not names:
        texts = [text.decode() for text in numbers]
        names = in_order(texts)
        place = {name: number for number, name in enumerate(names)}
        targets = np.array([place[text] for text in texts], np.int64)[targets]
    return paths, targets, np.arange(1, len(paths) + 1), names


def blocks(path: str | PathLike, size: int) -> Iterator[bytes]:
    """The file's lines, with plain line ends, about `size` bytes of whole ones at a time."""
    with remote.open_file(str(path)) if remote.is_remote(path) else open(path, "rb") as file:
        mark = len(codecs.BOM_UTF8)
        file.seek(mark if file.read(mark) == codecs.BOM_UTF8 else 0)
        while data := file.read(size):
            yield (data + file.readline()).replace(b"\r\n", b"\n")


def divide(data: bytes) -> Divided | None:
    """Whole lines at the last tab of each or, in a block without tabs, at its last space.

    None where a line is blank, has no path or label, or more space around them than the one that
    divides them, and for bytes that are no text.
    """
    data = data if data.endswith(b"\n") else data + b"\n"
    if b"\0" in data or not is_text(data):
        return None
    found = np.frombuffer(data, np.uint8)
    stops = np.flatnonzero(found == LINE)
    starts = np.append(0, stops[:-1] + 1)
    marks = np.flatnonzero(found == (TAB if b"\t" in data else SPACE))
    if not len(marks):
        return None
    cuts = marks[np.searchsorted(marks, stops) - 1]  # the last before each line's end
    if (cuts <= starts).any() or (cuts >= stops - 1).any():
        return None
    edges = found[np.concatenate([starts, cuts - 1, cuts + 1, stops - 1])]
    if ((edges == TAB) | (edges == SPACE)).any():
        return None
    begins = starts.tolist()
    limits = cuts.tolist()
    finishes = stops.tolist()
    paths = [data[begin:end] for begin, end in zip(begins, limits, strict=True)]
    labels = [data[cut + 1 : end] for cut, end in zip(limits, finishes, strict=True)]
    return Divided(b"\0".join(paths), ends_of(paths), labels)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# --------------------------------------------------------------------------
# List files of images with any number of labels each: `path<TAB>0,1,0`, or a column a class

SPELT = {"0": 0, "1": 1}


def read_label_sets(
    path: str | PathLike, names: tuple[str, ...] = (), group_column: str | None = None
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """A list file's images as written, labels (uint8 [N, classes], 0 or 1), lines and class names.

    In a CSV file every column but the path's, and `group_column` where it has that, is a class and
    its header the class's name; with `names` the columns may stand in another order.

    Raises:
        UserError: up to ten mistakes at once, each with its file:line.
    """
    if Path(path).suffix.lower() == ".csv":
        rows, names = csv_sets(path, names, group_column)
    else:
        rows = text_rows(path)
    width = len(names) or (rows.labels[0].count(",") + 1 if rows.labels else 0)
    sets = {text: parse(text, width) for text in set(rows.labels)}
    wrong = [i for i, text in enumerate(rows.labels) if sets[text] is None]
    check_rows(path, rows, wrong, lambda label: mistake(label, width))
    labels = np.array([sets[text] for text in rows.labels], np.uint8)
    return rows.images, labels, np.array(rows.lines, np.int64), names


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


def csv_sets(
    path: str | PathLike, names: tuple[str, ...], group_column: str | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a CSV file, labels joined with commas, and the classes in their order."""
    header, table, mistakes = csv_fields(path)
    if group_column:
        place = column_called(path, header, group_column)
        header = [*header[:place], *header[place + 1 :]]
        table = [(line, [*fields[:place], *fields[place + 1 :]]) for line, fields in table]
    header = [composed(field) for field in header]
    lowered = [field.lower() for field in header]
    image_column = column(path, lowered, "path", PATH_COLUMNS)
    classes = [field for index, field in enumerate(header) if index != image_column]
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if not classes or twice or not all(classes):
        found = (
            f"{at_most([visible(name, 60) for name in twice])} stands twice"
            if twice
            else "a class has no name"
        )
        raise UserError(f"{path}:1: every column but the path's names a class; {found}")
    place = {name: index for index, name in enumerate(header) if index != image_column}
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
        if not fields[image_column]:
            mistakes.append((line, f"no path: {joined(fields)}"))
            continue
        rows.images.append(fields[image_column])
        rows.labels.append(",".join(fields[index] for index in places))
        rows.lines.append(line)
    return rows, names or tuple(classes)

"""Long list files without oddities, block by block: millions of lines in seconds.

Whatever is odd is left to `ppcls.data.lists`, which knows every rule and says every mistake.
"""

import codecs
import os
from collections.abc import Iterator
from os import PathLike
from typing import NamedTuple

import numpy as np

from ppcls.data.class_names import in_order, label_numbers
from ppcls.data.paths import Paths, ends_of

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
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        return None
    numbers: dict[bytes, int] = {}
    # One buffer, and not many pieces, which would stay behind in memory as holes.
    text, start = bytearray(os.path.getsize(path) + 1), 0
    ends, labels = [], []
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
    with open(path, "rb") as file:
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
    begins, limits, finishes = starts.tolist(), cuts.tolist(), stops.tolist()
    paths = [data[begin:end] for begin, end in zip(begins, limits, strict=True)]
    labels = [data[cut + 1 : end] for cut, end in zip(limits, finishes, strict=True)]
    return Divided(b"\0".join(paths), ends_of(paths), labels)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

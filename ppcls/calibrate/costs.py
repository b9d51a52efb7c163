"""What each decision costs, by the class that is right: a table that people write, as CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppcls.data.class_names import label_numbers
from ppcls.data.lists import csv_fields, label_mistake
from ppcls.utils.errors import UserError
from ppcls.utils.text import at_most, decimal, first_of, quoted

EXAMPLE = "the first line should name the classes that are decided on: true,ant,bee"


class Costs(NamedTuple):
    """Costs, float64 [classes, classes]: a row for what is right, a column for what is decided."""

    source: str
    values: np.ndarray


def read_costs(path: Path, names: Sequence[str]) -> Costs:
    """The costs of a CSV file, in the order of the network's classes.

    Its first line names what is decided, behind a field that says nothing; each further line begins
    with the class that is right. Both may have any order.

    Args:
        names: of the network's classes; () where it has none, which have numbers in the file.

    Raises:
        UserError: up to ten mistakes at once, each with its file:line.
    """
    header, table, wrong = csv_fields(path)
    if len(header) < 2:
        raise UserError(f"{path}: {EXAMPLE}" if header else f"{path}: is empty; {EXAMPLE}")
    known = tuple(names) or tuple(map(str, range(len(header) - 1)))
    mistakes = [f"{path}:{line}: {text}" for line, text in wrong]
    decided = [(1, name) for name in header[1:]]
    right = [(line, row[0]) for line, row in table]
    columns, said = places_of(path, decided, known, "column")
    rows, more = places_of(path, right, known, "line")
    mistakes += said + (more if not wrong else [])  # a line that cannot be read is not missing
    values = np.zeros((len(known), len(known)))
    for (line, row), true in zip(table, rows, strict=True):
        for text, name, place in zip(row[1:], header[1:], columns, strict=True):
            cost = decimal(text)
            if cost is None or cost < 0:
                what = f"{quoted(text)} for {quoted(name)}: a cost is a number from 0"
                mistakes.append(f"{path}:{line}: {what}")
            elif true is not None and place is not None:
                values[true, place] = cost
    if mistakes:
        raise UserError(*first_of(mistakes))
    return Costs(str(path), values)


def places_of(
    path: Path, found: Sequence[tuple[int, str]], names: tuple[str, ...], what: str
) -> tuple[list[int | None], list[str]]:
    """The number of each class of (line, name), None for what is none; and the mistakes.

    Args:
        what: each of them is.
    """
    numbers = label_numbers([name for _, name in found], names)
    places: list[int | None] = []
    mistakes = []
    for line, name in found:
        place = numbers.get(name)
        if place is None or place >= len(names):
            place = None
            mistakes.append(f"{path}:{line}: {label_mistake(name, names, True)}")
        elif place in places:
            mistakes.append(f"{path}:{line}: {quoted(name)} has a {what} already")
        places.append(place)
    missing = [name for place, name in enumerate(names) if place not in places]
    if missing and not mistakes:
        mistakes.append(f"{path}: has no {what} for {at_most(missing)}")
    return places, mistakes

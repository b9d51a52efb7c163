"""Decisions on labels that are likely wrong, a CSV file: `data.fixes` applies them to a data set.

`ppcls check-data --labels` writes the file; people decide in it, with `ppcls fix-labels` or in a
spreadsheet. No image is touched.
"""

import math
import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.class_names import label_numbers
from ppcls.data.lists import PATH_COLUMNS, column, column_called, csv_fields
from ppcls.data.samples import Dataset, Members, Paths
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded, write_bytes
from ppcls.utils.log import say
from ppcls.utils.text import composed, did_you_mean, first_of, plural, quoted, to_csv

KEEP, CHANGE, DROP = "keep", "change", "drop"
DECISIONS = (KEEP, CHANGE, DROP)
# What `check-data --labels` writes; of these a file needs the first, and what is decided.
COLUMNS = ("path", "label", "suggested", "confidence", "why", "decision", "new_label")
DECISION, NEW_LABEL, SUGGESTED = "decision", "new_label", "suggested"
BOM = "\ufeff"  # by which spreadsheets know UTF-8


@dataclass(frozen=True)
class Fix:
    """What is to be done with an image; `label` is its new one, where that is to change."""

    path: str
    decision: str
    label: str | None
    line: int


@dataclass(frozen=True)
class Fixes:
    """The decisions of a file that change something, by the absolute path of the image."""

    file: str
    by_path: dict[str, Fix]


def read_fixes(file: str) -> Fixes:
    """What was decided.

    Relative paths start at the file's own folder. A label that is to be changed becomes
    `new_label` or, where that is empty, the one suggested. An empty decision keeps the label.

    Raises:
        UserError: up to ten mistakes at once, each with its file:line.
    """
    header, table, wrong = csv_fields(file)
    lower = [field.lower() for field in header]
    path_place = column(file, lower, "path", PATH_COLUMNS)
    decision_place = column_called(file, header, DECISION)
    places = [lower.index(name) for name in (NEW_LABEL, SUGGESTED) if name in lower]
    start = os.path.join(os.path.dirname(os.path.abspath(file)), "")
    mistakes = [f"{file}:{line}: {text}" for line, text in wrong]
    found: dict[str, Fix] = {}
    for line, row in table:
        decision = row[decision_place].lower() or KEEP
        label = next((composed(row[place]) for place in places if row[place]), None)
        mistake = mistake_of(row[path_place], decision, label)
        if mistake:
            mistakes.append(f"{file}:{line}: {mistake}")
            continue
        key = key_of(Paths([row[path_place]], start)[0])
        fix = Fix(key, decision, label if decision == CHANGE else None, line)
        first = found.setdefault(key, fix)
        if (first.decision, first.label) != (fix.decision, fix.label):
            mistakes.append(
                f"{file}:{line}: {row[path_place]} is decided otherwise on line {first.line}"
            )
    if mistakes:
        raise UserError(*first_of(mistakes))
    return Fixes(file, {key: fix for key, fix in found.items() if fix.decision != KEEP})


def mistake_of(path: str, decision: str, label: str | None) -> str:
    """What is wrong with a row, "" where nothing is."""
    if not path:
        return "no path"
    if decision not in DECISIONS:
        known = did_you_mean(decision, DECISIONS) or f"; it is {', '.join(DECISIONS)} or empty"
        return f"decision {quoted(decision)} is unknown{known}"
    if decision == CHANGE and label is None:
        return f"{CHANGE} to what? {NEW_LABEL} is empty, and so is {SUGGESTED}"
    return ""


def write_fixes(
    file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], mark: str = ","
) -> None:
    """Write a list of fixes, whole; its fields are divided by `mark`."""
    text = BOM + to_csv([header, *rows], mark=mark)
    write_bytes(file, text.encode("utf-8", "surrogateescape"))


def key_of(path: str) -> str:
    """By what a path is the same as another one."""
    return os.path.abspath(expanded(path))


def places_of(paths: Paths | Members, wanted: Set[str]) -> dict[int, str]:
    """The places of those paths that are wanted, and their keys.

    Of millions only those that have the name of a wanted one are looked at whole.
    """
    names = {os.path.basename(os.fsencode(key)) for key in wanted}
    found = {}
    place = 0
    for block in paths.names():
        for name in block.split(b"\0"):
            if name in names and (key := key_of(paths[place])) in wanted:
                found[place] = key
            place += 1
    return found


def with_fixes(samples: Dataset, fixes: Fixes, what: str, scored: bool = False) -> Dataset:
    """The samples as was decided, and a line that says what has changed.

    Args:
        what: `data.train` or `data.eval`.
        scored: these are to be scored on, and may lack classes of those to learn from: a new label
            that they lack becomes a further class, which is held against the others' later.

    Raises:
        UserError: a label that is no class, with its file:line.
    """
    found = places_of(samples.paths, fixes.by_path.keys())
    own = set(found.values())
    asked = [fix for key, fix in fixes.by_path.items() if key in own or not scored]
    if scored and samples.names:
        new = {fix.label for fix in asked if fix.label is not None}
        more = sorted(new - label_numbers(new, samples.names).keys())
        samples = replace(samples, names=(*samples.names, *more))
    numbers = numbers_of(asked, fixes.file, samples, scored)
    labels = samples.labels.copy()
    kept = np.ones(len(samples), bool)
    for place, key in found.items():
        fix = fixes.by_path[key]
        kept[place] = fix.decision != DROP
        if fix.label is not None:
            labels[place] = numbers[fix.label]
    changed = int((labels != samples.labels).sum())
    dropped = int((~kept).sum())
    other = len(fixes.by_path) - len(own)
    same = len(found) - changed - dropped
    said = [
        f"{plural(changed, 'label')} changed",
        f"{plural(dropped, 'image')} left out",
        *([f"{plural(same, 'label')} so already"] if same else []),
        *([f"{plural(other, 'decision')} on images that are not in it"] if other else []),
    ]
    say(f"{fixes.file}: {what}: {', '.join(said)}")
    if not kept.any():
        raise UserError(f"{fixes.file}: leaves no image of {what}")
    if fixes.by_path and not own:
        first = next(iter(fixes.by_path.values()))
        say(
            f"note: {fixes.file}:{first.line}: {first.path} is none of the images of "
            f"{samples.source}; relative paths start beside {Path(fixes.file).name}"
        )
    return replace(samples, labels=labels).subset(np.flatnonzero(kept))


def numbers_of(asked: Sequence[Fix], file: str, samples: Dataset, scored: bool) -> dict[str, int]:
    """The number of each new label as the samples number their classes.

    Raises:
        UserError: up to ten that are no class, each with its file:line.
    """
    wanted = {fix.label: fix.line for fix in reversed(asked) if fix.label is not None}
    numbers = label_numbers(wanted, samples.names)
    most = math.inf if scored and not samples.names else samples.classes
    mistakes = [
        f"{file}:{line}: {quoted(label)} is no class of {samples.source}"
        f"{did_you_mean(label, samples.names)}"
        for label, line in reversed(wanted.items())
        if numbers.get(label, most) >= most
    ]
    if mistakes:
        raise UserError(*first_of(mistakes))
    return numbers

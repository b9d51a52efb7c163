"""What a data set holds: paths, labels and class names, from a folder per class or a list file."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np

from ppcls.data import class_names
from ppcls.data.class_names import (
    in_order,
    is_whole,
    label_numbers,
    read_class_names,
    single_names,
)
from ppcls.data.images import SUFFIXES
from ppcls.data.label_sets import read_label_sets
from ppcls.data.lists import listed_paths, read_list
from ppcls.data.paths import Paths
from ppcls.data.plain_lists import read_plain
from ppcls.data.samples import Samples
from ppcls.data.shards import is_shards, open_shards
from ppcls.errors import UserError
from ppcls.log import say
from ppcls.utils.text import at_most, did_you_mean, plural

LIST_SUFFIXES = ("", ".csv", ".lst", ".tsv", ".txt")
PARTS = {"train", "val", "valid", "validation", "eval", "test"}
SPARE_CLASSES = 10  # without photos, and as many again as have some: above that, labels are ids
TABLE_ROWS = 20  # classes up to which a summary has a line for each


def open_samples(
    path: str | PathLike,
    root: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    several: bool = False,
    number_labels: bool = False,
) -> Samples:
    """Open a folder with one sub-folder per class, or a list file with `path label` in each line.

    A folder's classes are its sub-folders, numbered in the order of their names or, where these all
    are whole numbers, of their values, so that 2 comes before 10 and folder and list agree. In a
    list file (.txt, .tsv, .lst or no suffix) the last field is the label: a tab
    divides it from the path, or spaces where a line has no tab. A .csv file has a header with a
    path and a label column. Relative paths start at `root`, else at the list's own folder. Labels
    are integers ≥ 0, or names out of the label file `labels` (`ppcls.data.class_names`); in a CSV
    file without one, names are sorted and numbered, and so are with `number_labels` those of any
    list, whole numbers among them, too. With a label file, a folder may lack some classes.
    With `several`, a list says 0 or 1 for every class (`ppcls.data.label_sets`). Tar files are
    opened by `ppcls.data.shards`.
    No photo is opened. Raises UserError, with file:line where a list is wrong.
    """
    path = os.fspath(path)
    names = read_class_names(labels) if labels is not None else ()
    if is_shards(path) and not os.path.isdir(path):
        return open_shards(path, names, several, number_labels=number_labels)
    if os.path.isdir(path) and several:
        raise UserError(
            f"{path}: a folder for each class gives a photo one label; for several, name a list "
            "file of 'path<TAB>0,1,0' lines or a CSV file with a column for each class"
        )
    if os.path.isdir(path):
        return open_folder(path, names)
    if path.endswith(".parquet"):
        raise UserError(f"{path}: make shards of it first: tools/make_shards.py {path} FOLDER")
    if not os.path.exists(path):
        raise UserError(f"{path}: no such folder or list file")
    if Path(path).suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"{path}: a list of photos ends in .txt, .tsv, .lst or .csv")
    return open_list(path, root, names, several, number_labels)


def open_list(
    path: str,
    root: str | PathLike | None,
    names: tuple[str, ...],
    several: bool,
    number_labels: bool,
) -> Samples:
    """A list file, of plain lines with few copies of them in memory, else with every care."""
    start = os.path.join(os.path.dirname(path) if root is None else os.fspath(root), "")
    if not several and Path(path).suffix.lower() != ".csv":
        plain = read_plain(path, names, start, number_labels)
        if plain:
            paths, numbers, lines, names = plain
            return Samples(paths, numbers, names, path, lines)
    if several:
        listed, numbers, lines, names = read_label_sets(path, names)
    else:
        listed, numbers, lines, names = read_list(path, names, number_labels)
    return Samples(Paths(listed, start), numbers, names, path, lines)


def open_folder(path: str, names: tuple[str, ...]) -> Samples:
    """A folder per class; with `names` given, every sub-folder is one of them or its number.

    Photos stand in the order of the folders' names as text, whatever numbers the classes have: so
    they do in runs of versions that numbered them so.
    """
    entries = visible(path)
    folders = [entry.name for entry in entries if entry.is_dir()]
    stray = [entry.name for entry in entries if not entry.is_dir() and is_photo(entry.name)]
    if not folders:
        found = f"but {len(stray)} photos lie directly in it" if stray else "but there is none"
        raise UserError(f"{path}: expected one sub-folder per class, {found}")
    if stray:
        advice = "move them into a class folder or away"
        raise UserError(f"{path}: photos lie beside the class folders, {advice}: {at_most(stray)}")
    if set(folders) <= PARTS:
        advice = f"open one part, such as {os.path.join(path, folders[-1])}"
        raise UserError(f"{path}: {at_most(folders)}: parts of a data set, not classes; {advice}")
    if names and is_whole(folders) and not set(folders) & set(names):
        numbers = label_numbers(folders, names)
        numbers = {name: number for name, number in numbers.items() if number < len(names)}
    else:
        numbers = single_names(names or in_order(folders))
    unknown = [f"{name!r}{did_you_mean(name, numbers)}" for name in folders if name not in numbers]
    if unknown:
        raise UserError(f"{path}: folders that are not in the label file: {at_most(unknown)}")
    photos = {name: list(photos_in(os.path.join(path, name))) for name in folders}
    empty = [name for name in folders if not photos[name]]
    if empty:
        raise UserError(f"{path}: no photos ({', '.join(SUFFIXES)}) in: {', '.join(empty)}")
    sizes = [len(photos[name]) for name in folders]
    labels = np.repeat(np.array([numbers[name] for name in folders], np.int64), sizes)
    paths = Paths([photo for name in folders for photo in photos[name]])
    return Samples(paths, labels, names or in_order(folders), path)


def photos_in(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Every photo below a folder, through symbolic links too; UserError where links go round."""
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder}: a symbolic link to a folder above itself; remove it")
    for entry in visible(folder):
        if entry.is_dir():
            yield from photos_in(entry.path, (*above, real))
        elif is_photo(entry.name):
            yield entry.path


def find_photos(path: str | PathLike) -> list[str]:
    """The photos meant by a photo, a folder (all in it) or a list file, whose labels are let go.

    Raises UserError for a folder without photos and for lines of a list that name no photo.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        photos = list(photos_in(path))
        if not photos:
            raise UserError(f"{path}: no photos in this folder ({', '.join(SUFFIXES)})")
        return photos
    if Path(path).suffix.lower() not in LIST_SUFFIXES[1:] or not os.path.exists(path):
        return [path]
    found, mistakes = [], []
    for line, names in listed_paths(path):
        choices = [os.path.join(os.path.dirname(path), name) for name in names]
        existing = [choice for choice in choices if os.path.isfile(choice)]
        found += existing[:1]
        if not existing:
            mistakes.append(f"{path}:{line}: {choices[0]} does not exist")
    if mistakes or not found:
        raise UserError(at_most(mistakes, "\n") or f"{path}: lists no photos")
    return found


def visible(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: entry.name)


def is_photo(name: str) -> bool:
    """True for a file name with a photo's suffix in any case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def missing(samples: Samples, limit: int = 10) -> list[str]:
    """Where the first `limit` photos stand that do not exist."""
    return [samples.where(index) for index in islice(samples.paths.missing(), limit)]


def check(samples: Samples, num_classes: int, what: str) -> None:
    """UserError unless names and labels fit `num_classes`; `what` ("train") begins the message."""
    setting = f"model.num_classes is {num_classes}"
    if samples.names and len(samples.names) != num_classes:
        fix = f"set -o model.num_classes={len(samples.names)}"
        found = f"{samples.source} has {len(samples.names)} classes"
        raise UserError(f"{what}: {found} but {setting}; {fix}")
    if samples.classes != num_classes and samples.labels.ndim == 2:
        found = f"{samples.source} has {samples.classes} labels a photo"
        raise UserError(
            f"{what}: {found} but {setting}; set -o model.num_classes={samples.classes}"
        )
    if samples.labels.ndim == 2:
        if not samples.labels.any():
            raise UserError(f"{what}: {samples.source}: no photo in it has any label")
        return
    outside = np.flatnonzero(samples.labels >= num_classes)
    if len(outside):
        require_numbers(samples)
        label, top = samples.labels[outside[0]], samples.labels.max()
        more = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
        fix = "mend the list" if samples.names else f"set -o model.num_classes={top + 1}"
        if not samples.names and samples.labels.min() == 1 and top == num_classes:
            fix = "labels count from 0: -o data.number_labels=true numbers these so"
        place = samples.where(int(outside[0]))
        raise UserError(f"{what}: {place}: label {label}{more} but {setting}; {fix}")


def summary(samples: Samples) -> list[str]:
    """Lines to print: total, classes, photos per class (above 20 classes only the extremes)."""
    counts = samples.counts(samples.classes)
    names = [samples.class_name(label) for label in range(len(counts))]
    lines = [f"{samples.source}: {len(samples):,} photos, {len(counts):,} classes"]
    if len(counts) <= TABLE_ROWS:
        width = max(map(len, names), default=0)
        return lines + [f"  {n:<{width}}  {c:>7,}" for n, c in zip(names, counts, strict=True)]
    filled = np.flatnonzero(counts)
    low, high = filled[counts[filled].argmin()], filled[counts[filled].argmax()]
    lines.append(f"  smallest class: {names[low]} ({counts[low]:,})")
    lines.append(f"  median: {np.median(counts[filled]):,g}")
    lines.append(f"  largest class: {names[high]} ({counts[high]:,})")
    absent = [names[label] for label in np.flatnonzero(counts == 0)]
    return lines + ([f"  {len(absent)} without photos: {at_most(absent)}"] if absent else [])


def numbered_as(samples: Samples, names: Sequence[str], classes: int | None, whose: str) -> Samples:
    """The samples numbered as `whose` (a data set, a network's file) numbers its classes.

    Names are compared where both sides have some, and numbers that are names with numbers; what is
    assumed beyond that is said.

    Args:
        names: its class names in order, () where it has only numbers.
        classes: how many it has; None: as many as `names` or, without any, not known.

    Raises:
        UserError: classes that are not its classes.
    """
    own, source = tuple(names), samples.source
    if samples.names == own or (not own and classes is None):
        return samples
    if samples.labels.ndim == 2:
        return columns_as(samples, own, whose)
    if samples.names:
        count = len(own) or classes or 0
        found, note = class_names.places(samples.names, own, count, source, whose)
        labels = np.array(found, np.int64)[samples.labels]
        own = own or (samples.names if found == list(range(count)) else ())
    else:
        labels, note = values_as(samples, own, whose)
    if note:
        say(note)
    return replace(samples, labels=labels, names=own)


def values_as(samples: Samples, names: tuple[str, ...], whose: str) -> tuple[np.ndarray, str]:
    """The labels of a list without names as `names` number the classes, and what to say."""
    values, which = np.unique(samples.labels, return_inverse=True)
    texts = list(map(str, values.tolist()))
    numbers = label_numbers(texts, names)
    lost = next((place for place, text in enumerate(texts) if text not in numbers), None)
    if lost is not None:
        place = samples.where(int(np.flatnonzero(which == lost)[0]))
        raise UserError(
            f"{place}: label {texts[lost]} is not among the classes of {whose}, which are called "
            f"{at_most(list(map(repr, names)))}"
        )
    labels = np.array([numbers[text] for text in texts], np.int64)[which.reshape(-1)]
    first = int(values[0]) if len(values) else 0
    if is_whole(names) or first >= len(names):
        return labels, ""
    return labels, f"note: {samples.source}: label {first} is taken for {names[first]!r} of {whose}"


def columns_as(samples: Samples, names: tuple[str, ...], whose: str) -> Samples:
    """Samples with any number of labels each, their columns in the order of `names`."""
    if not samples.names or not names:
        return samples
    found, note = class_names.places(samples.names, names, len(names), samples.source, whose)
    if len(found) != len(names):
        lacking = sorted(set(names) - set(samples.names))
        raise class_names.other_names(samples.source, lacking, (), whose)
    if note:
        say(note)
    return replace(samples, labels=samples.labels[:, np.argsort(found)], names=names)


def require_numbers(samples: Samples) -> None:
    """UserError for labels that number no classes; `samples` say how many classes there are."""
    found = ids_in_words(samples)
    if found:
        raise UserError(
            f"{found}; -o data.number_labels=true numbers them, in order of value, and keeps them "
            "as the names of the classes"
        )


def ids_in_words(samples: Samples) -> str:
    """What the labels look like where they are few and far apart, else nothing."""
    if samples.names or samples.labels.ndim == 2 or not len(samples):
        return ""
    values = np.unique(samples.labels)
    if values[-1] < 2 * len(values) + SPARE_CLASSES:
        return ""
    return (
        f"{samples.source}: {plural(len(values), 'distinct label')} between {values[0]} and "
        f"{values[-1]}: ids, not class numbers from 0 to {len(values) - 1}"
    )


def note_numbers(samples: Samples, counted: bool = True) -> None:
    """Say how classes are numbered where that may surprise.

    Args:
        counted: whether the labels alone say how many classes there are.
    """
    names = samples.names
    if names and is_whole(names) and names == in_order(names) and list(names) != sorted(names):
        say(
            f"note: {samples.source}: its classes are numbers and stand in order of value "
            f"({', '.join(names[:3])}, …), not of text ({', '.join(sorted(names)[:3])}, …)"
        )
    alone = counted and not names and samples.labels.ndim == 1 and len(samples)
    low, high = (samples.labels.min(), samples.labels.max()) if alone else (0, 0)
    if low > 0:
        say(
            f"note: {samples.source}: labels run from {low} to {high} and classes count from 0, so "
            f"{'class 0 has' if low == 1 else f'classes 0 to {low - 1} have'} no photos; "
            "-o data.number_labels=true numbers them without gaps"
        )


def one_class(samples: Samples) -> str:
    """What is wrong with photos that all are of one class, and advice; "" where they are not."""
    labels = samples.labels
    if labels.ndim == 2 or not len(labels) or labels.min() != labels.max():
        return ""
    name = samples.class_name(int(labels[0]))
    found = f"all {len(labels):,} photos of {samples.source} are of one class, {name!r}"
    deeper, inner = samples.source, [name]
    while len(inner) == 1 and os.path.isdir(os.path.join(deeper, inner[0])):
        deeper = os.path.join(deeper, inner[0])
        inner = [entry.name for entry in visible(deeper) if entry.is_dir()]
    if len(inner) < 2:
        return f"{found}: there is nothing to tell apart; give photos of two classes or more"
    place = f"data.train={deeper}"
    if set(inner) <= PARTS and "train" in inner:
        held = next((part for part in inner if part != "train"), "")
        place = f"data.train={os.path.join(deeper, 'train')} data.eval={os.path.join(deeper, held)}"
    return f"{found}, but {deeper} has the folders {at_most(inner, limit=5)}: is -o {place} meant?"

"""What a data set holds: paths, labels and class names, from a folder per class or a list file."""

import os
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np

from ppcls.data.images import SUFFIXES
from ppcls.data.label_sets import read_label_sets
from ppcls.data.lists import listed_paths, read_list, read_names, single_names
from ppcls.data.paths import Paths
from ppcls.data.plain_lists import read_plain
from ppcls.data.samples import Samples
from ppcls.data.shards import is_shards, open_shards
from ppcls.errors import UserError
from ppcls.utils.text import at_most, did_you_mean, plural

LIST_SUFFIXES = ("", ".csv", ".lst", ".tsv", ".txt")
PARTS = {"train", "val", "valid", "validation", "eval", "test"}
TABLE_ROWS = 20  # classes up to which a summary has a line for each


def open_samples(
    path: str | PathLike,
    root: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    several: bool = False,
) -> Samples:
    """Open a folder with one sub-folder per class, or a list file with `path label` in each line.

    A folder's classes are its sub-folders, numbered in the order of their names (so "10" stands
    before "2"). In a list file (.txt, .tsv, .lst or no suffix) the last field is the label: a tab
    divides it from the path, or spaces where a line has no tab. A .csv file has a header with a
    path and a label column. Relative paths start at `root`, else at the list's own folder. Labels
    are integers ≥ 0, or names out of the label file `labels` (one name per line); in a CSV file
    without one, names are sorted and numbered. With a label file, a folder may lack some classes.
    With `several`, a list says 0 or 1 for every class (`ppcls.data.label_sets`). Tar files are
    opened by `ppcls.data.shards`.
    No photo is opened. Raises UserError, with file:line where a list is wrong.
    """
    path = os.fspath(path)
    names = read_names(labels) if labels is not None else ()
    if is_shards(path) and not os.path.isdir(path):
        return open_shards(path, names, several)
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
    return open_list(path, root, names, several)


def open_list(
    path: str, root: str | PathLike | None, names: tuple[str, ...], several: bool
) -> Samples:
    """A list file, of plain lines with few copies of them in memory, else with every care."""
    start = os.path.join(os.path.dirname(path) if root is None else os.fspath(root), "")
    if not several and Path(path).suffix.lower() != ".csv":
        plain = read_plain(path, names, start)
        if plain:
            paths, numbers, lines = plain
            return Samples(paths, numbers, names, path, lines)
    read = read_label_sets if several else read_list
    listed, numbers, lines, names = read(path, names)
    return Samples(Paths(listed, start), numbers, names, path, lines)


def open_folder(path: str, names: tuple[str, ...]) -> Samples:
    """A folder per class; with `names` given, every sub-folder must be among them."""
    entries = visible(path)
    folders = [entry.name for entry in entries if entry.is_dir()]
    stray = [entry.name for entry in entries if not entry.is_dir() and is_photo(entry.name)]
    if not folders:
        found = (
            f"but {plural(len(stray), 'photo lies', 'photos lie')} directly in it"
            if stray
            else "but there is none"
        )
        raise UserError(f"{path}: expected one sub-folder per class, {found}")
    if stray:
        advice = "move them into a class folder or away"
        raise UserError(f"{path}: photos lie beside the class folders, {advice}: {at_most(stray)}")
    if set(folders) <= PARTS:
        advice = f"open one part, such as {os.path.join(path, folders[-1])}"
        raise UserError(f"{path}: {at_most(folders)}: parts of a data set, not classes; {advice}")
    numbers = single_names(names or tuple(folders))
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
    return Samples(paths, labels, names or tuple(folders), path)


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
        found = f"{samples.source} has {plural(len(samples.names), 'class')}"
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
        label, top = samples.labels[outside[0]], samples.labels.max()
        more = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
        fix = "mend the list" if samples.names else f"set -o model.num_classes={top + 1}"
        place = samples.where(int(outside[0]))
        raise UserError(f"{what}: {place}: label {label}{more} but {setting}; {fix}")


def summary(samples: Samples) -> list[str]:
    """Lines to print: total, classes, photos per class (above 20 classes only the extremes)."""
    counts = samples.counts(samples.classes)
    names = [samples.class_name(label) for label in range(len(counts))]
    lines = [f"{samples.source}: {plural(len(samples), 'photo')}, {plural(len(counts), 'class')}"]
    if len(counts) <= TABLE_ROWS:
        width = max(map(len, names), default=0)
        return lines + [f"  {n:<{width}}  {c:>7,}" for n, c in zip(names, counts, strict=True)]
    filled = np.flatnonzero(counts)
    low, high = filled[counts[filled].argmin()], filled[counts[filled].argmax()]
    lines.append(f"  smallest class: {names[low]} ({counts[low]:,})")
    lines.append(f"  median: {np.median(counts[filled]):,g}")
    lines.append(f"  largest class: {names[high]} ({counts[high]:,})")
    absent = [names[label] for label in np.flatnonzero(counts == 0)]
    return lines + ([f"  {len(absent):,} without photos: {at_most(absent)}"] if absent else [])


def align(train: Samples, evaluation: Samples) -> None:
    """UserError unless both have the same names in the same order (or one has none)."""
    if not (train.names and evaluation.names) or train.names == evaluation.names:
        return
    lacking = sorted(set(train.names) - set(evaluation.names))
    surplus = sorted(set(evaluation.names) - set(train.names))
    differences = [f"lacks {at_most(list(map(repr, lacking)))}"] if lacking else []
    differences += [f"has besides {at_most(list(map(repr, surplus)))}"] if surplus else []
    differences = differences or ["has the same classes in another order"]
    fix = "make the classes the same, or open both with one label file that names them all"
    found = f"{evaluation.source} {' and '.join(differences)}"
    raise UserError(f"{found}, compared with {train.source}; {fix}")

"""What a path holds that nothing has been said about: where its parts are, what its labels and
images are like.

    photos/ants/1.jpg …            a folder for each class
    photos/train/ants/1.jpg …      parts of a data set, each with a folder for each class
    photos/train_list.txt          lists in a folder, or a list by itself
    shards/train-{000..127}.tar    tar shards, or the folder that they lie in
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ppcls.data import decode
from ppcls.data.datasets import EVAL_PARTS, LIST_SUFFIXES, TRAIN_PARTS, is_parted, part_of
from ppcls.data.folders import PassedOver, listing
from ppcls.data.lists import LABEL_COLUMNS, PATH_COLUMNS, csv_fields
from ppcls.data.samples import Dataset
from ppcls.data.shards import SUFFIX, is_shards
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing, expanded, split_lines
from ppcls.utils.remote import check_address, is_remote, read_text
from ppcls.utils.text import whole_number

NAME_FILES = ("label_list.txt", "labels.txt", "classes.txt", "class_names.txt")
LISTS = (".csv", ".txt", ".tsv", ".lst")  # of a folder's lists, the first kind to be taken first
SETS = re.compile("[01](,[01])+")  # labels of an image that may have several
PARTS_ONLY = {*TRAIN_PARTS, *EVAL_PARTS, "data", "labels", "list", "set", "shard"}  # say no more
PEEKED = 1000  # lines of a list that tell what its labels are
DEEPEST = 3  # folders with nothing but a folder in them
LOOKED_AT = 48  # images that tell what all are like
GREY = 2.0  # mean difference of colour channels, of 255, below which an image is grey


@dataclass(frozen=True)
class Layout:
    """Where the images of a data set are, and how they are labelled.

    Attributes:
        name: what the data is called, from its path.
        train, evaluation: folders, lists or shards; None: no part of its own to be scored on.
        multilabel: whether an image may have several labels.
        class_names: a file with the names of the classes that a list numbers.
        number_labels: whether a list's labels are names, to be numbered.
    """

    name: str
    train: str
    evaluation: str | None = None
    multilabel: bool = False
    class_names: str | None = None
    number_labels: bool = False


def find_layout(path: str) -> Layout:
    """What lies at a path; opening it will say what is wrong with it.

    Raises:
        UserError: there is nothing, or a list of which nothing can be read.
    """
    path = check_address(expanded(path))
    if is_shards(path):
        return Layout(name_of(path), path)
    if is_remote(path):
        return with_labels(Layout(name_of(path), path))
    path = existing(path.rstrip("/") or path)
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such folder, list or tar file")
    if os.path.isdir(path):
        return in_folder(path)
    return with_labels(Layout(name_of(path), path, part_beside(path)))


def in_folder(path: str) -> Layout:
    name = name_of(path)
    for _ in range(DEEPEST):
        if part_of(path, TRAIN_PARTS):
            return Layout(name, part_of(path, TRAIN_PARTS) or path, part_of(path, EVAL_PARTS))
        folders, images = listing(path, PassedOver())
        lists = lists_of(path)
        train = next((file for part, file in lists.items() if part in TRAIN_PARTS), None)
        if train:
            evaluation = next((lists[part] for part in EVAL_PARTS if part in lists), None)
            return with_labels(Layout(name, train, evaluation))
        if not folders and not images and (shards := shards_in(path)):
            train = next((shards[part] for part in TRAIN_PARTS if part in shards), None)
            evaluation = next((shards[part] for part in EVAL_PARTS if part in shards), None)
            return Layout(name, train or next(iter(shards.values())), evaluation if train else None)
        if len(folders) != 1 or images or is_parted(folders):
            break
        inner = os.path.join(path, folders[0])
        if not listing(inner, PassedOver())[0]:
            break
        path = inner  # a folder around the classes, as archives have it
    return Layout(name, path)


def name_of(path: str) -> str:
    """What data is called after its path: of `flowers/train` and `flowers/train.csv`, `flowers`."""
    place = Path(path) if is_remote(path) else Path(os.path.abspath(path))
    name = place.name.partition("{")[0] if is_shards(path) else place.name
    name = name if os.path.isdir(path) else Path(name).stem or name
    words = set(words_of(name))
    if words & {*TRAIN_PARTS, *EVAL_PARTS} and words <= PARTS_ONLY and place.parent.name:
        name = place.parent.name
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "data"


def part_named(name: str) -> str:
    """The part of a data set that a name without its ending says: of `train_list`, `train`."""
    return next((word for word in words_of(name) if word in (*TRAIN_PARTS, *EVAL_PARTS)), "")


def words_of(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def lists_of(folder: str) -> dict[str, str]:
    """The list files of a folder that are called after a part of a data set, by that part."""
    found: dict[str, str] = {}
    for ending in LISTS:
        for path in sorted(Path(folder).glob(f"*{ending}")):
            if path.is_file() and (part := part_named(path.stem)):
                found.setdefault(part, str(path))
    return found


def part_beside(path: str) -> str | None:
    """The list to be scored on that lies beside one to learn from, as `val.csv` by `train.csv`."""
    place = Path(path)
    if part_named(place.stem) not in TRAIN_PARTS:
        return None
    for part in EVAL_PARTS:
        for old in TRAIN_PARTS:
            other = place.with_name(place.name.replace(old, part))
            if other != place and other.is_file():
                return str(other)
    return None


def shards_in(folder: str) -> dict[str, str]:
    """The tar files of a folder by what their names begin with, numbered ones as one range."""
    groups: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        groups.setdefault(re.sub(r"[-_.]?[0-9]*$", "", path.stem), []).append(path.stem)
    found = {}
    for start, stems in groups.items():
        numbers = [re.sub(r"^.*?([0-9]*)$", r"\1", stem) for stem in stems]
        head = stems[0].removesuffix(numbers[0])
        whole = [f"{head}{int(numbers[0] or 0) + i:0{len(numbers[0])}}" for i in range(len(stems))]
        if len(stems) > 1 and whole != stems:
            raise UserError(f"{folder}: the numbers of {head}…{SUFFIX} have gaps: a shard is lost?")
        name = f"{head}{{{numbers[0]}..{numbers[-1]}}}" if len(stems) > 1 else stems[0]
        found[part_named(start) or start] = os.path.join(folder, name + SUFFIX)
    return found


# --------------------------------------------------------------------------
# What labels are like


def with_labels(layout: Layout) -> Layout:
    """The layout of a list with what its labels are."""
    path = layout.train
    known = LIST_SUFFIXES[1:] if is_remote(path) else LIST_SUFFIXES
    if Path(path).suffix.lower() not in known:
        return layout
    labels = csv_labels(path) if Path(path).suffix.lower() == ".csv" else text_labels(path)
    if labels is None:
        return replace(layout, multilabel=True)
    if labels and all(SETS.fullmatch(label) for label in labels):
        return replace(layout, multilabel=True, class_names=names_beside(path))
    if any(whole_number(label) is None for label in labels):
        names = names_beside(path)
        return replace(layout, class_names=names, number_labels=names is None)
    return replace(layout, class_names=names_beside(path))


def csv_labels(path: str) -> list[str] | None:
    """Labels of a CSV file's first rows; None where it has a column of 0 and 1 for each class."""
    header, table, _ = csv_fields(path)
    header = [field.lower() for field in header]
    places = [place for place, name in enumerate(header) if name in LABEL_COLUMNS]
    rows = [row for _, row in table[:PEEKED]]
    if len(places) == 1:
        return [row[places[0]] for row in rows]
    others = [place for place, name in enumerate(header) if name not in PATH_COLUMNS]
    if not places and others and all(row[p] in ("0", "1") for row in rows for p in others):
        return None
    return []


def text_labels(path: str) -> list[str]:
    lines = split_lines(read_text(path))[:PEEKED]
    fields = [line.strip(" \t") for line in lines]
    return [text.rpartition("\t" if "\t" in text else " ")[2].strip(" ") for text in fields if text]


def names_beside(path: str) -> str | None:
    """The file of class names that lies beside a list, as PaddleClas and `make-shards` call it."""
    places = (Path(path).with_name(name) for name in NAME_FILES)
    return next((str(place) for place in places if place.is_file()), None)


# --------------------------------------------------------------------------
# What images are like


@dataclass(frozen=True)
class Look:
    """What a data set's images are like, as far as some of them tell.

    Attributes:
        side: the median of their short sides, in pixels.
        grey: whether none has colours.
        mean, std: of all pixels, 0 to 1.
    """

    side: int
    grey: bool
    mean: float
    std: float


def look_at(samples: Dataset, count: int = LOOKED_AT) -> Look:
    """Look at some images, evenly spread over the data set; those that cannot be read are skipped.

    Raises:
        UserError: none can be read.
    """
    sides = []
    grey = True
    means = []
    squares = []
    mistakes: list[UserError] = []
    for index in spread(len(samples), count):
        try:
            pixels = decode.read(samples.paths[index])
        except UserError as error:
            mistakes.append(error)
            continue
        sides.append(min(pixels.shape[:2]))
        values = pixels.astype(np.float32)
        between = np.abs(values - values.mean(2, keepdims=True)).mean()
        grey = grey and bool(between < GREY)
        means.append(float(values.mean()) / 255)
        squares.append(float((values**2).mean()) / 255**2)
    if not sides:
        raise mistakes[0] if mistakes else UserError(f"{samples.source}: no images")
    mean = float(np.mean(means))
    deviation = max(0.0, float(np.mean(squares)) - mean**2) ** 0.5
    return Look(int(np.median(sides)), grey, mean, deviation)


def spread(total: int, count: int) -> Sequence[int]:
    """Up to `count` places out of `total`, evenly spread."""
    return [int(place) for place in np.unique(np.linspace(0, total - 1, min(total, count)))]

"""Images without labels, from which a student learns what its teacher sees in them."""

import os
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from ppcls.config.node import PathText, Share, node
from ppcls.data.datasets import require_addresses, require_open, say_passed_over
from ppcls.data.folders import PassedOver, walk, with_passed_over
from ppcls.data.samples import Dataset, Members, Paths
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing, expanded
from ppcls.utils.remote import check_address, is_remote, read_text
from ppcls.utils.text import plural, quoted

NO_LABEL = -1  # in labels
PADDING = re.compile(r"[ \t\r]*\n[ \t]*")  # what ends a line and what the next begins with
LIST_SUFFIXES = (".txt", ".tsv", ".lst")


@node
class Unlabeled:
    """Images whose labels nobody knows, and how many of them a step shows.

    An epoch is as many whole steps as there are images for, with and without labels together. Both
    kinds are shown at the share; within an epoch each image comes once before one comes again.
    """

    images: Annotated[
        PathText, AfterValidator(check_address)
    ]  # a folder with all below it, or a list file with a path in each line
    share: Share  # of the images of each step

    def __post_init__(self):
        if self.share in (0, 1):
            raise ValueError(
                f"share={self.share:g} would leave out one kind of images; 0.75 shows 3 of 4 "
                "without labels"
            )

    def split(self, images: int) -> tuple[int, int]:
        """How many of a step's images have labels and have none; UserError where one is 0."""
        without = round(self.share * images)
        if without in (0, images):
            raise UserError(
                f"data.unlabeled.share: {self.share:g} of a step of {plural(images, 'image')} is "
                f"{'none' if not without else 'all'} of them; larger batches have both kinds"
            )
        return images - without, without


def open_unlabeled(path: str | PathLike) -> Dataset:
    """The images of a folder or a list, without labels (all are -1).

    A list file (.txt, .tsv, .lst) has a path in each line, which starts at the list's own folder
    where it is relative. Raises UserError: none there, an image that is missing, lines with labels.
    """
    samples = find_unlabeled(path)
    lost = next(samples.paths.missing(), None)
    if lost is not None:
        raise UserError(f"data.unlabeled.images: {lost_line(samples, lost)}")
    return samples


def find_unlabeled(path: str | PathLike) -> Dataset:
    """As `open_unlabeled`, but without a look whether the images exist."""
    path = expanded(path)
    elsewhere = is_remote(path)
    is_list = Path(path).suffix.lower() in LIST_SUFFIXES
    path = path if elsewhere else existing(path)
    if not elsewhere and not os.path.exists(path):
        raise UserError(
            f"data.unlabeled.images: {path} does not exist (looked in {os.getcwd()}); "
            "tools/select_unlabeled.py writes such a list"
        )
    if not is_list if elsewhere else os.path.isdir(path):
        passed = PassedOver()
        paths = Paths(walk(path, passed), path.rstrip("/") + "/")
        lines = None
        require_open(path, passed)
        if not len(paths):
            raise with_passed_over(f"data.unlabeled.images: {path} has no images", passed)
        say_passed_over(path, passed)
    elif is_list and (elsewhere or os.path.isfile(path)):
        paths = listed(path)
        require_addresses(path, paths)
        lines = np.arange(1, len(paths) + 1)
    else:
        raise UserError(
            f"data.unlabeled.images: {path} is neither a folder nor a list file "
            f"({', '.join(LIST_SUFFIXES)}) with a path in each line"
        )
    if not len(paths):
        raise UserError(f"data.unlabeled.images: {path} has no images")
    return Dataset(paths, np.full(len(paths), NO_LABEL), (), path, lines)


def listed(path: str) -> Paths:
    """The lines of a file as paths."""
    text = PADDING.sub("\n", read_text(path)).removesuffix("\n").strip(" \t").encode()
    if not text:
        return Paths()
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")), len(text))
    root = os.path.join(os.path.dirname(path), "")
    return Paths.packed(text.replace(b"\n", b"\0"), ends.astype(np.int64), root)


def lost_line(samples: Dataset, index: int) -> str:
    """What is wrong with a line that is not the path of an image."""
    whole = samples.paths[index]
    place = samples.where(index)
    if samples.lines is not None and whole == os.path.join(os.path.dirname(samples.source), ""):
        return f"{samples.source}:{samples.lines[index]}: blank line; a path is expected"
    if os.path.isdir(whole):
        return f"{place} is a folder; give it as data.unlabeled.images itself, or list its images"
    for mark in "\t ":
        image, _, rest = whole.rpartition(mark)
        if image and os.path.isfile(image.rstrip(" \t")):
            return (
                f"{place} has the label {quoted(rest)}, and the labels of these images are not "
                "known: leave only the paths, or give a list with labels as data.train"
            )
    return f"{place} does not exist; relative paths start beside the list"


class Chained:
    """Several blocks of paths as one, with the part of their interface that reading needs."""

    def __init__(self, *parts: Paths | Members):
        self.parts = parts
        self.starts = [0, *np.cumsum([len(part) for part in parts]).tolist()]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> str:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]


@dataclass(frozen=True, eq=False)
class JoinedDataset:
    """Images with labels and, after them, those without, read as one data set."""

    labeled: Dataset
    unlabeled: Dataset

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> np.ndarray:
        return np.concatenate([self.labeled.labels, self.unlabeled.labels])

    @cached_property
    def paths(self) -> Chained:
        return Chained(self.labeled.paths, self.unlabeled.paths)

    def where(self, index: int) -> str:
        """As of `Samples`."""
        first = len(self.labeled)
        return self.labeled.where(index) if index < first else self.unlabeled.where(index - first)

    def label_of(self, index: int) -> str:
        """As of `Samples`."""
        return self.labeled.label_of(index) if index < len(self.labeled) else "no label"

    def digest(self) -> str:
        """As of `Samples`."""
        return self.labeled.digest() + self.unlabeled.digest()

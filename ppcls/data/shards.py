"""Photos in tar files, read by position: `shards/train-{000..127}.tar`."""

import os
import re
from collections.abc import Callable, Iterator
from os import PathLike

import numpy as np

from ppcls.data import label_sets, lists
from ppcls.data.class_names import in_order, label_numbers, read_class_names
from ppcls.data.paths import Members, Paths
from ppcls.data.samples import Samples
from ppcls.data.tar_index import LABELS, Index, index
from ppcls.errors import UserError
from ppcls.log import Progress
from ppcls.utils.text import at_most, first_of

SUFFIX = ".tar"
NAMES = "labels.txt"  # class names beside the shards, as in `data.labels`
RANGE = re.compile(r"\{([0-9]{1,18})\.\.([0-9]{1,18})\}")
MOST = 100_000  # shards; more is a slip of the pen


def is_shards(path: str | PathLike) -> bool:
    """Whether a path names tar files, or one with a range."""
    return os.fspath(path).lower().endswith(SUFFIX)


def is_web(path: str) -> bool:
    return path.lower().startswith(("http://", "https://"))


def expand(path: str) -> list[str]:
    """The files that `train-{000..127}.tar` means: each number of the range, as wide as its first.

    Raises:
        UserError: a range that is none, or more than one.
    """
    spans = RANGE.findall(path)
    if not spans and "{" not in path:
        return [path]
    first, last = spans[0] if len(spans) == 1 else ("", "")
    count = int(last) - int(first) + 1 if first else 0
    if RANGE.sub("", path).count("{") or not 0 < count <= MOST:
        raise UserError(f"{path}: a range of shards is written like train-{{000..127}}.tar")
    numbers = range(int(first), int(last) + 1)
    return [RANGE.sub(f"{number:0{len(first)}}", path) for number in numbers]


def open_shards(
    path: str,
    names: tuple[str, ...] = (),
    several: bool = False,
    local: Callable[[str], str] = str,
    number_labels: bool = False,
) -> Samples:
    """The photos of tar files in WebDataset's layout, in the order in which they stand there.

    Args:
        path: a tar, or many as in `shards/train-{000..127}.tar`.
        names: the classes' names; without any, those of `labels.txt` beside the shards, if any.
        several: whether labels are `0,1,0`, a number for each class.
        local: brings a shard here and gives its path.
        number_labels: whether labels, where there are no names, are names themselves.

    Raises:
        UserError: shards that do not exist or are damaged, labels that are no classes; with the
            shard and the member.
    """
    expanded = expand(path)
    files = tuple(map(local, Progress(expanded, "shards", len(expanded))))
    lost = [file for file in files if not os.path.isfile(file)]
    if lost:
        raise UserError(f"{path}: shards that do not exist: {at_most(lost)}")
    beside = os.path.join(os.path.dirname(files[0]), NAMES)
    if not names and os.path.isfile(beside):
        names = read_class_names(beside)
    found = [index(file) for file in Progress(files, "indexes of shards", len(files))]
    if number_labels and not names and not several:
        names = in_order({text for one in found for text in set(one.labels)})
    labels = np.concatenate(list(label_parts(files, found, names, several)))
    return Samples(members(files, found), labels, names, path)


def members(files: tuple[str, ...], found: list[Index]) -> Members:
    """The photos of all shards, in order."""
    counts = [len(one.photos) for one in found]
    starts = np.cumsum([0] + [len(one.photos.text) + 1 for one in found[:-1]])
    text = b"\0".join(one.photos.text for one in found)
    ends = [one.photos.ends + start for one, start in zip(found, starts, strict=True)]
    return Members(
        Paths.packed(text, np.concatenate(ends)),
        files,
        np.repeat(np.arange(len(files), dtype=np.int32), counts),
        np.concatenate([one.offsets for one in found]),
        np.concatenate([one.sizes for one in found]),
    )


def label_parts(
    files: tuple[str, ...], found: list[Index], names: tuple[str, ...], several: bool
) -> Iterator[np.ndarray]:
    """The labels of each shard: int64 [N], or uint8 [N, classes] with `several`."""
    width = len(names) or found[0].labels[0].count(",") + 1
    known: dict[str, int | list[int]] = {}
    for file, one in zip(files, found, strict=True):
        texts = list(one.labels)
        new = set(texts) - known.keys()
        if several:
            known |= {t: row for t in new if (row := label_sets.parse(t, width)) is not None}
        else:
            known |= label_numbers(new, names)
        wrong = [place for place, text in enumerate(texts) if text not in known]
        if wrong:
            shown = [mistake(file, one, i, names, several, width) for i in wrong[: lists.SHOWN]]
            raise UserError(*first_of(shown + [""] * len(wrong[lists.SHOWN :])))
        yield np.array([known[text] for text in texts], np.uint8 if several else np.int64)


def mistake(
    file: str, one: Index, place: int, names: tuple[str, ...], several: bool, width: int
) -> str:
    """What is wrong with a photo's label."""
    photo, text = one.photos[place], one.labels[place]
    folder, slash, name = photo.rpartition("/")
    where = f"{file}:{folder}{slash}{name.partition('.')[0]}{LABELS[one.endings[place]]}"
    if several:
        return f"{where}: {label_sets.mistake(text, width)}"
    return f"{where}: {lists.label_mistake(text, names, is_csv=True)}"

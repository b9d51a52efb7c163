"""A run's data: what is learnt from, what is scored, what the classes are called."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ppcls.data import builtin, datasets
from ppcls.data.class_names import read_class_names
from ppcls.data.datasets import folds_of, no_columns, part_out, split
from ppcls.data.fixes import read_fixes, with_fixes
from ppcls.data.groups import with_groups
from ppcls.data.own_dataset import OwnDataset
from ppcls.data.samples import Dataset
from ppcls.data.shards import is_shards, open_shards
from ppcls.data.unlabeled import JoinedDataset
from ppcls.recipe import Data
from ppcls.utils import environment, remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing
from ppcls.utils.log import say
from ppcls.utils.text import at_most, plural, quoted, visible
from ppcls.weights import download

LAYOUT = (
    "a folder with one sub-folder of images per class, a list file of 'path label' lines or tar "
    "shards; "
    "point elsewhere with -o data.train=PATH data.eval=PATH"
)


@dataclass(frozen=True)
class Datasets:
    """The opened data of a run; `names` are the class names, () when unknown."""

    train: Dataset
    eval: Dataset | None
    names: tuple[str, ...]
    unlabeled: Dataset | None = None

    @property
    def shown(self) -> Dataset | JoinedDataset:
        """All images that training shows."""
        return self.train if self.unlabeled is None else JoinedDataset(self.train, self.unlabeled)

    def digests(self) -> dict[str, str]:
        """What a resumed run must find again: how many images, and which."""
        parts = {"train": self.train, "eval": self.eval, "unlabeled": self.unlabeled}
        return {k: f"{len(v)} images ({v.digest()})" for k, v in parts.items() if v is not None}


def hold_out(train: Dataset, data: Data, seed: int) -> tuple[Dataset, Dataset]:
    """What is left to learn from, and what `data.holdout` or the fold keeps for evaluation.

    Raises:
        UserError: nothing could be kept, or nothing of what is learnt.
    """
    if data.folds and not data.fold:
        raise UserError(
            f"data.folds is {data.folds} and data.fold says none of them: -o data.fold=1 is the "
            "first; `ppcls train` alone takes each in turn"
        )
    if data.folds:
        folds = deal_folds(train, data, seed)
        return both_sides(*part_out(train, folds == (data.fold or 0) - 1))
    require_groups(train)
    rest, held = split(train, data.holdout, seed)
    if not len(held):
        raise UserError(
            f"data.holdout: {train.source} has too few images to keep any for evaluation; "
            "-o data.holdout=0 trains without"
        )
    return both_sides(rest, held)


def each_fold(train: Dataset, data: Data, seed: int) -> Iterator[tuple[Dataset, Dataset]]:
    """What `hold_out` gives for each fold, in turn."""
    folds = deal_folds(train, data, seed)
    for fold in range(data.folds or 0):
        yield both_sides(*part_out(train, folds == fold))


def both_sides(rest: Dataset, held: Dataset) -> tuple[Dataset, Dataset]:
    """The two; UserError where groups leave no class on both sides."""
    classes = max(rest.classes, held.classes)
    both = (rest.counts(classes) > 0) & (held.counts(classes) > 0)
    if rest.groups is not None and not both.any():
        raise UserError(
            f"data.group_by: of no class are there images in {rest.source} both to learn from and "
            "to be scored on, as each class is in one group alone; do its groups stand for classes?"
        )
    return rest, held


def deal_folds(train: Dataset, data: Data, seed: int) -> np.ndarray:
    """The fold, from 0, of each image, int64 [N].

    Raises:
        UserError: folds without images.
    """
    folds = data.folds or 0
    require_groups(train)
    found = folds_of(train, folds, seed)
    filled = len(np.unique(found))
    if filled < folds:
        what = "groups" if train.groups is not None else "images"
        raise UserError(
            f"data.folds: {train.source} has too few {what} for {folds} folds; "
            f"-o data.folds={max(2, filled)} has enough"
        )
    return found


def require_groups(train: Dataset) -> None:
    """UserError for images that all are of one group, of which nothing can be held out."""
    if train.groups is not None and train.groups.count < 2:
        raise UserError(
            f"data.group_by: all {plural(len(train), 'image')} of {train.source} are of one group, "
            f"{quoted(train.groups.names[0])}: nothing can be kept apart; "
            "-o data.group_by=null divides the images themselves"
        )


def about_split(data: Data, train: Dataset, rest: Dataset, held: Dataset) -> list[str]:
    """Lines on what folds or whole groups made of the share, and on classes of few groups."""
    if train.groups is None and not data.folds:
        return []
    asked = 1 / data.folds if data.folds else data.holdout
    share = len(held) / len(train)
    groups = ""
    if train.groups is not None and held.groups is not None:
        groups = f"{held.groups.count:,} of {plural(train.groups.count, 'group')}, "
    what = f"fold {data.fold} of {data.folds}" if data.folds else "held out for evaluation"
    lines = [f"{what}: {groups}{len(held):,} of {plural(len(train), 'image')} ({share:.1%})"]
    if train.groups is not None and not asked / 1.5 < share < asked * 1.5:
        sizes = np.bincount(train.groups.numbers)
        lines.append(
            f"note: {asked:.0%} was asked for and whole groups come to {share:.1%}; the largest, "
            f"{quoted(train.groups.names[sizes.argmax()])}, has {sizes.max() / len(train):.1%} of "
            "the images"
        )
    classes = train.classes
    learnt, scored = (part.counts(classes) > 0 for part in (rest, held))
    for found, words in ((learnt & ~scored, "not scored"), (scored & ~learnt, "never learnt")):
        if found.any():
            names = [visible(train.class_name(int(label)), 60) for label in np.flatnonzero(found)]
            lacking = "images" if train.groups is None else "groups"
            lines.append(
                f"note: {plural(len(names), 'class')} {words} for lack of {lacking}: "
                f"{at_most(names)}"
            )
    return lines


def keep_labeled(train: Dataset, share: float, seed: int) -> Dataset:
    """The share of the images that is learnt from as `data.labeled` says."""
    kept = split(train, share, seed, whole=True)[1]
    if train.groups is not None and kept.groups is not None:
        say(
            f"data.labeled: {kept.groups.count:,} of {plural(train.groups.count, 'group')}, "
            f"{len(kept):,} of {plural(len(train), 'image')}"
        )
    return kept


def located(data: Data) -> Data:
    """The data with a built-in set written out, and each part named by its own folder."""
    if isinstance(data.train, OwnDataset) or isinstance(data.eval, OwnDataset):
        return data
    if not data.builtin:
        parts = datasets.find_parts(data.train, data.eval, data.holds_out)
        return replace(data, train=parts[0], eval=parts[1])
    folder = Path("data") / data.builtin
    if not folder.exists():
        say(f"writing {folder}", *builtin.describe(data.builtin).split("\n"))
    builtin.write(data.builtin, folder)
    evaluation = None if data.folds else str(folder / "eval")
    return replace(data, builtin=None, train=str(folder / "train"), eval=evaluation)


def open_part(key: str, path: str | OwnDataset | None, data: Data, multilabel: bool) -> Dataset:
    """A part of the recipe's data, in the groups that it names, with the labels that it decides."""
    samples = open_ungrouped(key, path, data, multilabel)
    if data.group_by and data.group_by.path:
        samples = with_groups(samples, data.group_by.path)
    if data.fixes:
        samples = with_fixes(samples, read_fixes(data.fixes), key, key == "data.eval")
    return samples


def open_scored(key: str, path: str | OwnDataset | None, data: Data, multilabel: bool) -> Dataset:
    """As `open_part`, of images that are scored alone: without groups where they name none."""
    try:
        return open_part(key, path, data, multilabel)
    except UserError:
        if not data.group_by:
            raise
        return open_part(key, path, replace(data, group_by=None), multilabel)


def open_ungrouped(
    key: str, path: str | OwnDataset | None, data: Data, multilabel: bool
) -> Dataset:
    if not path:
        raise UserError(f"{key} is not given: {LAYOUT}")
    if isinstance(path, OwnDataset):
        return path.open(key, multilabel, class_names(data.class_names))
    column = data.group_by.column if data.group_by else None
    if is_shards(path) and column:
        raise UserError(f"{key}: {no_columns(path, column)}")
    if is_shards(path):
        names = class_names(data.class_names)
        local = partial(fetched, fetch=data.fetch)
        return open_shards(path, names, multilabel, local, data.number_labels)
    there = remote.is_remote(path) or os.path.exists(existing(path))
    if not there and not path.endswith(".parquet"):
        raise UserError(
            f"{key}: {path} does not exist (looked in {os.getcwd()}); expected {LAYOUT}"
        )
    return datasets.open_samples(
        path, data.root, data.class_names, multilabel, data.number_labels, column
    )


def require_images(key: str, samples: Dataset) -> None:
    lost = datasets.missing(samples)
    if lost:
        raise UserError(f"{key}: images that do not exist: {'; '.join(lost)}")


def fetched(file: str, fetch: bool | None = None) -> str:
    """The file, or where that of an address is kept: in `shards` of ppcls's folder.

    Args:
        fetch: whether to bring it here; None: from a web server, as not all of them send parts.
    """
    web = remote.scheme_of(file) in ("http", "https")
    if not remote.is_remote(file) or not (web if fetch is None else fetch):
        return file
    place = download.place(file).relative_to(download.folder())
    to = environment.home() / "shards" / place
    if web:
        return str(download.fetch(file, to=to))
    to.parent.mkdir(parents=True, exist_ok=True)
    with download.locked(to):
        if not to.is_file():
            remote.fetch(file, to)
    return str(to)


def class_names(labels: str | None) -> tuple[str, ...]:
    """The class names of a recipe's `data.class_names`, () for None."""
    return read_class_names(labels) if labels else ()

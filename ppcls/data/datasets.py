"""What a data set holds: paths, labels and class names, from a folder per class or a list file."""

import os
from collections import Counter
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
from ppcls.data.decode import EXPECTED
from ppcls.data.folders import PassedOver, listing, walk, with_passed_over
from ppcls.data.lists import read_column, read_label_sets, read_list, read_plain
from ppcls.data.samples import Dataset, Groups, Paths
from ppcls.data.shards import is_shards, open_shards
from ppcls.data.splits import deal_groups
from ppcls.utils import remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing, expanded, special_kind
from ppcls.utils.log import say
from ppcls.utils.text import at_most, did_you_mean, plural, quoted, spelt, visible

LIST_SUFFIXES = ("", ".csv", ".lst", ".tsv", ".txt")
# Names of the parts of a data set, in small letters, the first to be taken first.
TRAIN_PARTS = ("train", "training")
EVAL_PARTS = ("val", "valid", "validation", "eval", "test", "testing")
SPARE_CLASSES = 10  # without images, and as many again as have some: above that, labels are ids
TABLE_ROWS = 20  # classes up to which a summary has a line for each


def open_samples(
    path: str | PathLike,
    root: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    multilabel: bool = False,
    number_labels: bool = False,
    group_column: str | None = None,
) -> Dataset:
    """Open a folder with one sub-folder per class, or a list file with `path label` in each line.

    A folder's classes are its sub-folders, numbered in the order of their names or, where these all
    are whole numbers, of their values, so that 2 comes before 10 and folder and list agree. In a
    list file (.txt, .tsv, .lst or no suffix) the last field is the label: a tab
    divides it from the path, or spaces where a line has no tab. A .csv file has a header with a
    path and a label column. Relative paths start at `root`, else at the list's own folder. Labels
    are integers ≥ 0, or names out of the label file `labels` (`ppcls.data.class_names`); in a CSV
    file without one, names are sorted and numbered, and so are with `number_labels` those of any
    list, whole numbers among them, too. With a label file, a folder may lack some classes.
    With `several`, a list says 0 or 1 for every class (`ppcls.data.lists`). Tar files are
    opened by `ppcls.data.shards`. `group_column` is a column of a CSV file that says which images
    belong together.
    Any of it may lie elsewhere, at an address (`ppcls.utils.remote`); what ends as no list and no
    tar does is a folder there. No image is opened. Raises UserError, with file:line where a list
    is wrong.
    """
    path = expanded(path)
    root = None if root is None else expanded(root)
    for address in (path, root):
        remote.check_address(address or "")
    elsewhere = remote.is_remote(path)
    suffix = Path(path).suffix.lower()
    path = path.rstrip("/") if elsewhere else existing(path)
    is_folder = os.path.isdir(path) or (elsewhere and suffix not in (*LIST_SUFFIXES[1:], ".tar"))
    if group_column and (is_folder or suffix != ".csv"):
        raise UserError(no_columns(path, group_column))
    names = read_class_names(labels) if labels is not None else ()
    if is_shards(path) and not is_folder:
        return open_shards(path, names, multilabel, number_labels=number_labels)
    if is_folder and multilabel:
        raise UserError(
            f"{path}: a folder for each class gives an image one label; for several, name a list "
            "file of 'path<TAB>0,1,0' lines or a CSV file with a column for each class"
        )
    if is_folder:
        return open_folder(path, names)
    if path.endswith(".parquet"):
        raise UserError(f"{path}: make shards of it first: tools/make_shards.py {path} FOLDER")
    if not elsewhere and not os.path.exists(path):
        raise UserError(f"{path}: no such folder or list file")
    if suffix not in LIST_SUFFIXES:
        raise UserError(f"{path}: a list of images ends in .txt, .tsv, .lst or .csv")
    return open_list(path, root, names, multilabel, number_labels, group_column)


def no_columns(path: str, column: str) -> str:
    """What is wrong with a column of what is no CSV file."""
    return (
        f"{path} has no columns, so none is called {quoted(column)}: data.group_by.column is for "
        "CSV files; data.group_by.path finds groups in the paths of anything"
    )


def open_list(
    path: str,
    root: str | PathLike | None,
    names: tuple[str, ...],
    multilabel: bool,
    number_labels: bool,
    group_column: str | None = None,
) -> Dataset:
    """A list file, of plain lines with few copies of them in memory, else with every care."""
    start = os.path.join(os.path.dirname(path) if root is None else os.fspath(root), "")
    if not multilabel and Path(path).suffix.lower() != ".csv":
        plain = read_plain(path, names, start, number_labels)
        if plain:
            paths, numbers, lines, names = plain
            require_addresses(path, paths)
            return Dataset(paths, numbers, names, path, lines)
    if multilabel:
        listed, numbers, lines, names = read_label_sets(path, names, group_column)
    else:
        listed, numbers, lines, names = read_list(path, names, number_labels)
    groups = Groups.of(read_column(path, group_column, lines)) if group_column else None
    paths = Paths(listed, start)
    require_addresses(path, paths, lines)
    samples = Dataset(paths, numbers, names, path, lines, groups)
    if groups:
        require_one_group(samples)
    return samples


def require_addresses(path: str, paths: Paths, lines: np.ndarray | None = None) -> None:
    """UserError for addresses in a list that hold secrets and, where it lies elsewhere, for those
    of other servers and buckets than its own or the root's: such a list may be anybody's.

    Args:
        lines: of the paths in the list; None: 1 and so on.
    """
    if b"://" not in paths.text:
        return
    own = {remote.place_of(start) for start in (path, paths.root) if remote.is_remote(start)}
    closed = remote.is_remote(path)
    for index, image in enumerate(paths):
        line = index + 1 if lines is None else int(lines[index])
        if "?" in image or "@" in image:
            try:
                remote.check_address(image)
            except UserError as error:
                raise UserError(f"{path}:{line}: {error}") from None
        if closed and remote.place_of(image) not in own:
            raise UserError(
                f"{path}:{line}: {image} is on another server than the list; name its place as "
                "data.root, or keep the list on this machine"
            )


def open_folder(path: str, names: tuple[str, ...]) -> Dataset:
    """A folder per class; with `names` given, every sub-folder is one of them or its number.

    Images stand in the order of the folders' names as text, whatever numbers the classes have: so
    they do in runs of versions that numbered them so.
    """
    passed = PassedOver()
    folders, stray = listing(path, passed, names)
    if not folders:
        found = "but there is none"
        if stray:
            found = f"but {plural(len(stray), 'image lies', 'images lie')} directly in it"
        mistake = f"{path}: expected one sub-folder per class, {found}"
        raise with_passed_over(mistake, passed)
    if stray:
        advice = "move them into a class folder or away"
        raise UserError(f"{path}: images lie beside the class folders, {advice}: {at_most(stray)}")
    if is_parted(folders):
        advice = f"open one part, such as {os.path.join(path, folders[-1])}"
        raise UserError(f"{path}: {at_most(folders)}: parts of a data set, not classes; {advice}")
    called = {name: spelt(name) for name in folders}
    twins = [name for name, uses in Counter(called.values()).items() if uses > 1]
    if twins:
        raise UserError(f"{path}: several folders have the name {at_most(twins)}; make them one")
    own = tuple(called.values())
    if names and is_whole(own) and not set(own) & set(names):
        numbers = label_numbers(own, names)
        numbers = {name: number for name, number in numbers.items() if number < len(names)}
    else:
        numbers = single_names(names or in_order(own))
    unknown = [f"{n!r}{did_you_mean(n, numbers)}" for n in called.values() if n not in numbers]
    if unknown:
        raise UserError(f"{path}: folders that are not in the label file: {at_most(unknown)}")
    images = {}
    for place, name in enumerate(folders):
        if remote.is_remote(path):
            remote.list_ahead([f"{path}/{later}" for later in folders[place:]])
        images[name] = [f"{name}/{inside}" for inside in walk(os.path.join(path, name), passed)]
    require_open(path, passed)
    empty = [name for name in folders if not images[name]]
    if empty:
        raise with_passed_over(f"{path}: no images ({EXPECTED}) in: {', '.join(empty)}", passed)
    say_passed_over(path, passed)
    sizes = [len(images[name]) for name in folders]
    labels = np.repeat(np.array([numbers[called[name]] for name in folders], np.int64), sizes)
    listed = (image for name in folders for image in images[name])
    start = os.path.join(path, "")
    paths = Paths(listed, start) if remote.is_remote(path) else Paths(start + i for i in listed)
    return Dataset(paths, labels, names or in_order(own), path)


def images_in(folder: str, passed: PassedOver) -> Iterator[str]:
    """Every image below a folder, through symbolic links too; UserError where links go round."""
    return (os.path.join(folder, inside) for inside in walk(folder, passed))


def require_open(path: str, passed: PassedOver) -> None:
    """UserError for folders that cannot be listed: what is learnt from should not lack images."""
    if passed.closed:
        advice = "change their permissions, or move them away"
        raise UserError(
            f"{path}: folders in it that cannot be listed: {at_most(passed.closed)}; {advice}"
        )


def say_passed_over(path: str, passed: PassedOver) -> None:
    if text := passed.text():
        say(f"{path}: {text}")


def is_parted(folders: Sequence[str]) -> bool:
    """Whether a folder with these sub-folders is a data set's, and they are not its classes."""
    found = {name.lower() for name in folders}
    both = bool(found & set(TRAIN_PARTS)) and bool(found & set(EVAL_PARTS))
    return both or (bool(found) and found <= {*TRAIN_PARTS, *EVAL_PARTS})


def part_of(path: str | None, parts: Sequence[str]) -> str | None:
    """The folder of the first of `parts` (in small letters) that a data set's folder has.

    None where it has none of them, and for a folder of classes, a list and everything else.
    """
    if not path or not os.path.isdir(path):
        return None
    folders, images = listing(path, PassedOver())
    if images or not is_parted(folders):
        return None
    found = {name.lower(): name for name in reversed(folders)}
    return next((os.path.join(path, found[part]) for part in parts if part in found), None)


def find_parts(
    train: str | None, evaluation: str | None, held_out: bool = False
) -> tuple[str | None, str | None]:
    """What to learn from and what to be scored on, where one folder or each holds both.

    What is not given is the part beside the other, if there is one, unless images are `held_out`
    of those to learn from. Says which parts are taken.
    """
    first = part_of(train, TRAIN_PARTS)
    second = None
    if evaluation or not held_out:
        second = part_of(evaluation or train, EVAL_PARTS)
    taken = {train: f"{first} is learnt from"} if first else {}
    if second:
        before = f"{taken[train]}, " if evaluation in (None, train) and first else ""
        taken[evaluation or train] = f"{before}{second} is scored on"
    for folder, words in taken.items():
        say(f"{folder}: holds the parts of a data set: {words}")
    return first or train, second or evaluation


def missing(samples: Dataset, limit: int = 10) -> list[str]:
    """Where the first `limit` images stand that are no files, and what else they are, if any."""
    found = islice(samples.paths.missing(), limit)
    return [f"{samples.where(index)}{what_else(samples.paths[index])}" for index in found]


def what_else(path: str) -> str:
    """` is a pipe` and the like of what is no file; "" where there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    return f" is {special_kind(mode) or 'a folder'}"


def check(samples: Dataset, num_classes: int, what: str) -> None:
    """UserError unless names and labels fit `num_classes`; `what` ("train") begins the message."""
    setting = f"model.num_classes is {num_classes}"
    if samples.names and len(samples.names) != num_classes:
        fix = f"set -o model.num_classes={len(samples.names)}"
        found = f"{samples.source} has {plural(len(samples.names), 'class')}"
        raise UserError(f"{what}: {found} but {setting}; {fix}")
    if samples.classes != num_classes and samples.labels.ndim == 2:
        found = f"{samples.source} has {plural(samples.classes, 'label')} an image"
        raise UserError(
            f"{what}: {found} but {setting}; set -o model.num_classes={samples.classes}"
        )
    if samples.labels.ndim == 2:
        if not samples.labels.any():
            raise UserError(f"{what}: {samples.source}: no image in it has any label")
        return
    outside = np.flatnonzero(samples.labels >= num_classes)
    if len(outside):
        require_numbers(samples)
        label = samples.labels[outside[0]]
        top = samples.labels.max()
        more = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
        fix = "mend the list" if samples.names else f"set -o model.num_classes={top + 1}"
        if not samples.names and samples.labels.min() == 1 and top == num_classes:
            fix = "labels count from 0: -o data.number_labels=true numbers these so"
        place = samples.where(int(outside[0]))
        raise UserError(f"{what}: {place}: label {label}{more} but {setting}; {fix}")


def summary(samples: Dataset) -> list[str]:
    """Lines to print: total, classes, images per class (above 20 classes only the extremes)."""
    counts = samples.counts(samples.classes)
    names = [visible(samples.class_name(label)) for label in range(len(counts))]
    lines = [f"{samples.source}: {plural(len(samples), 'image')}, {plural(len(counts), 'class')}"]
    if len(counts) <= TABLE_ROWS:
        width = max(map(len, names), default=0)
        return lines + [f"  {n:<{width}}  {c:>7,}" for n, c in zip(names, counts, strict=True)]
    filled = np.flatnonzero(counts)
    low = filled[counts[filled].argmin()]
    high = filled[counts[filled].argmax()]
    lines.append(f"  smallest class: {names[low]} ({counts[low]:,})")
    lines.append(f"  median: {np.median(counts[filled]):,g}")
    lines.append(f"  largest class: {names[high]} ({counts[high]:,})")
    absent = [names[label] for label in np.flatnonzero(counts == 0)]
    return lines + ([f"  {len(absent):,} without images: {at_most(absent)}"] if absent else [])


def numbered_as(samples: Dataset, names: Sequence[str], classes: int | None, whose: str) -> Dataset:
    """The samples numbered as `whose` (a data set, a network's file) numbers its classes.

    Names are compared where both sides have some, and numbers that are names with numbers; what is
    assumed beyond that is said.

    Args:
        names: its class names in order, () where it has only numbers.
        classes: how many it has; None: as many as `names` or, without any, not known.

    Raises:
        UserError: classes that are not its classes.
    """
    own = tuple(names)
    source = samples.source
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


def labels_as(samples: Dataset, names: Sequence[str], classes: int, option: str) -> np.ndarray:
    """The labels as a network numbers its classes: by name where it knows the names.

    Args:
        names: the network's, () where it has none.
        classes: how many it has.
        option: begins the message where they are not its classes.

    Raises:
        UserError: so it is.
    """
    if samples.labels.ndim == 2:
        if samples.classes != classes:
            raise UserError(
                f"{option} {samples.source}: has {plural(samples.classes, 'label')} an image "
                f"and the network {plural(classes, 'class')}; give images of its classes"
            )
        known = bool(samples.names) and set(samples.names) == set(names)
        order = [samples.names.index(name) for name in names] if known else slice(None)
        return samples.labels[:, order]
    samples = numbered_as(samples, names, classes, "the network")
    outside = np.flatnonzero(samples.labels >= classes)
    if len(outside):
        first = int(outside[0])
        raise UserError(
            f"{option} {samples.where(first)}: label {samples.labels[first]}, but the network's "
            f"last class is {classes - 1}; give images of its classes"
        )
    return samples.labels


def values_as(samples: Dataset, names: tuple[str, ...], whose: str) -> tuple[np.ndarray, str]:
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


def columns_as(samples: Dataset, names: tuple[str, ...], whose: str) -> Dataset:
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


def require_numbers(samples: Dataset) -> None:
    """UserError for labels that number no classes; `samples` say how many classes there are."""
    found = ids_in_words(samples)
    if found:
        raise UserError(
            f"{found}; -o data.number_labels=true numbers them, in order of value, and keeps them "
            "as the names of the classes"
        )


def ids_in_words(samples: Dataset) -> str:
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


def note_numbers(samples: Dataset, counted: bool = True) -> None:
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
            f"{'class 0 has' if low == 1 else f'classes 0 to {low - 1} have'} no images; "
            "-o data.number_labels=true numbers them without gaps"
        )


def one_class(samples: Dataset) -> str:
    """What is wrong with images that all are of one class, and advice; "" where they are not."""
    labels = samples.labels
    if labels.ndim == 2 or not len(labels) or labels.min() != labels.max():
        return ""
    name = samples.class_name(int(labels[0]))
    found = f"all {len(labels):,} images of {samples.source} are of one class, {name!r}"
    deeper = samples.source
    inner = [name]
    while len(inner) == 1 and os.path.isdir(os.path.join(deeper, inner[0])):
        deeper = os.path.join(deeper, inner[0])
        inner, _ = listing(deeper, PassedOver())
    if len(inner) < 2:
        return f"{found}: there is nothing to tell apart; give images of two classes or more"
    return (
        f"{found}, but {deeper} has the folders {at_most(inner, limit=5)}: is -o "
        f"data.train={deeper} meant?"
    )


# --------------------------------------------------------------------------
# Images held out for evaluation


def split(
    samples: Dataset, holdout: float, seed: int, whole: bool = False
) -> tuple[Dataset, Dataset]:
    """Hold out a share of every class: (train, held_out), the same for the same files and seed.

    Each class with two images or more has at least one on both sides. An image that is listed twice
    stays on one side. Neither the order of listing nor the folder's own place matters. One with
    several labels counts as one of its rarest class. With `whole`, all of a class may be held out,
    and of a class with one image that is. Of samples with groups, whole groups are
    (`ppcls.data.splits`).
    """
    if not 0 < holdout < 1:
        raise UserError(f"the share to hold out lies between 0 and 1, not {holdout}")
    if samples.groups is not None:
        needed = (0, 1) if whole else (2, 1)  # of what is learnt from, most of all
        parts = deal_groups(samples.groups, samples.labels, (1 - holdout, holdout), needed, seed)
        return part_out(samples, parts == 1)
    labels = samples.labels if samples.labels.ndim == 1 else rarest(samples.labels)
    held: set[str] = set()
    found, counts = np.unique(labels, return_counts=True)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for label, members in zip(found, classes, strict=True):
        own = sorted(set(samples.paths.take(members)))
        count = min(max(int(len(own) * holdout + 0.5), 1), len(own) - (not whole))
        order = np.random.default_rng([seed, int(label)]).permutation(len(own))
        held.update(own[index] for index in order[:count])
    is_held = np.fromiter((path in held for path in samples.paths), bool, len(samples))
    return part_out(samples, is_held)


def part_out(samples: Dataset, is_held: np.ndarray) -> tuple[Dataset, Dataset]:
    """The other images, and those held."""
    return samples.subset(np.flatnonzero(~is_held)), samples.subset(np.flatnonzero(is_held))


def folds_of(samples: Dataset, folds: int, seed: int) -> np.ndarray:
    """The fold that each image is in, int64 [N] from 0: the same for the same files and seed.

    The images of each class are dealt out in an order that the seed draws, the folds' sizes differ
    by one at most, and an image that is listed twice is in one. Of samples with groups, whole
    groups are dealt out (`ppcls.data.splits`).
    """
    if samples.groups is not None:
        shares = [1 / folds] * folds
        return deal_groups(samples.groups, samples.labels, shares, [1] * folds, seed)
    labels = samples.labels if samples.labels.ndim == 1 else rarest(samples.labels)
    dealt: dict[str, int] = {}
    found, counts = np.unique(labels, return_counts=True)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for label, members in zip(found, classes, strict=True):
        own = sorted(set(samples.paths.take(members)) - dealt.keys())
        order = np.random.default_rng([seed, int(label)]).permutation(len(own))
        for index in order:
            dealt[own[index]] = len(dealt) % folds
    return np.fromiter((dealt[path] for path in samples.paths), np.int64, len(samples))


def require_one_group(samples: Dataset) -> None:
    """UserError for an image that is listed in two groups: it would be on both sides."""
    groups = samples.groups
    assert groups is not None
    known: dict[str, int] = {}
    for index, path in enumerate(samples.paths):
        first = known.setdefault(path, index)
        here, there = groups.numbers[index], groups.numbers[first]
        if here != there:
            raise UserError(
                f"{samples.where(index)}: is in the group {quoted(groups.names[here])} here and in "
                f"{quoted(groups.names[there])} at {samples.where(first)}; an image has one group"
            )


def rarest(labels: np.ndarray) -> np.ndarray:
    """Of uint8 [N, classes], the set class with the fewest images; `classes` where none is set."""
    counts = labels.sum(axis=0, dtype=np.int64)
    rank = np.where(labels == 1, counts, counts.sum() + 1)
    return np.where(labels.any(axis=1), rank.argmin(axis=1), labels.shape[1])

"""A run's data: what is learnt from, what is scored, what the classes are called."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ppcls.data import builtin, datasets
from ppcls.data.class_names import read_class_names
from ppcls.data.datasets import split
from ppcls.data.own_dataset import OwnDataset
from ppcls.data.samples import Dataset
from ppcls.data.shards import is_shards, is_web, open_shards
from ppcls.data.unlabeled import JoinedDataset
from ppcls.recipe import Data
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing
from ppcls.utils.log import say
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


def hold_out(train: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    rest, held = split(train, share, seed)
    if not len(held):
        raise UserError(
            f"data.holdout: {train.source} has too few images to keep any for evaluation; "
            "-o data.holdout=0 trains without"
        )
    return rest, held


def located(data: Data) -> Data:
    """The data with a built-in set written out, and each part named by its own folder."""
    if isinstance(data.train, OwnDataset) or isinstance(data.eval, OwnDataset):
        return data
    if not data.builtin:
        parts = datasets.find_parts(data.train, data.eval, data.holdout > 0)
        return replace(data, train=parts[0], eval=parts[1])
    folder = Path("data") / data.builtin
    if not folder.exists():
        say(f"writing {folder}", *builtin.describe(data.builtin).split("\n"))
    builtin.write(data.builtin, folder)
    return replace(data, builtin=None, train=str(folder / "train"), eval=str(folder / "eval"))


def open_part(key: str, path: str | OwnDataset | None, data: Data, multilabel: bool) -> Dataset:
    if not path:
        raise UserError(f"{key} is not given: {LAYOUT}")
    if isinstance(path, OwnDataset):
        return path.open(key, multilabel, class_names(data.class_names))
    if is_shards(path):
        return open_shards(
            path, class_names(data.class_names), multilabel, fetched, data.number_labels
        )
    if not os.path.exists(existing(path)) and not path.endswith(".parquet"):
        raise UserError(
            f"{key}: {path} does not exist (looked in {os.getcwd()}); expected {LAYOUT}"
        )
    return datasets.open_samples(path, data.root, data.class_names, multilabel, data.number_labels)


def require_images(key: str, samples: Dataset) -> None:
    lost = datasets.missing(samples)
    if lost:
        raise UserError(f"{key}: images that do not exist: {'; '.join(lost)}")


def fetched(file: str) -> str:
    """The file, or where an address's file is kept: in `shards` of ppcls's folder."""
    if not is_web(file):
        return file
    place = download.place(file).relative_to(download.folder())
    return str(download.fetch(file, to=environment.home() / "shards" / place))


def class_names(labels: str | None) -> tuple[str, ...]:
    """The class names of a recipe's `data.class_names`, () for None."""
    return read_class_names(labels) if labels else ()

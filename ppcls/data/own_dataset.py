"""Datasets of one's own: images that a class reads, beside folders, lists and shards."""

import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from ppcls.config.own import Own, words_of
from ppcls.data import decode
from ppcls.data.samples import Dataset, Drawn
from ppcls.utils.errors import UserError
from ppcls.utils.log import Progress
from ppcls.utils.modules import in_line
from ppcls.utils.text import plural, visible

LONGEST = 200  # characters of what an image is called
NO_TARGET = "a label from 0, a class name, or 0 and 1 for each class where several may hold"


class ReadsImages(Protocol):
    """What a dataset of one's own is: its length, and a sample by its index from 0.

    Where they are there, these are used, too:
        class_names: texts, one for each class.
        targets: those of all samples, as `read` gives them; else all samples are read once when
            the dataset is opened.
        path(index): what messages and reports call an image, each otherwise.
        digest(): a text that changes with the content, by which a resumed run knows it again; else
            its length, its targets and what it says of itself (`repr`).

    Data workers get a copy each, by pickle.
    """

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Any, Any]:
        """An image and its target.

        The image: uint8 [H, W] or [H, W, 1 | 3 | 4] as RGB or RGBA, a Pillow image, or the path or
        the bytes of an image's file. The target: a label from 0, a class name, or, where an image
        may have several, 0 and 1 for each class.
        """
        ...


@dataclass(frozen=True)
class OwnDataset(Own):
    """A dataset of one's own in a recipe."""

    called: ClassVar[str] = "a dataset with __len__ and read(index)"
    needs: ClassVar[tuple[str, ...]] = ("read", "__len__")
    argument: ClassVar[str] = "train_data or eval_data"

    def open(self, key: str, multilabel: bool, names: Sequence[str] = ()) -> Dataset:
        """Its targets and names; no image is read unless it has no `targets`.

        Args:
            names: of the classes, where it has none itself.

        Raises:
            UserError: it is empty, its code fails, or targets that are none.
        """
        part = self.require(key)
        images = OwnImages(part, self.name)
        with self.speaking():
            own = value_of(part, "class_names")
            targets = value_of(part, "targets")
        if not len(images):
            raise UserError(f"{key}: {self.name} is empty")
        if targets is None:
            every = range(len(images))
            read = (images.sample(index)[1] for index in every)
            targets = list(Progress(read, f"{self.name}: reading targets", len(images)))
        if len(targets) != len(images):
            raise UserError(
                f"{key}: {self.name} has {plural(len(images), 'sample')} and "
                f"{plural(len(targets), 'target')}"
            )
        found = tuple(map(str, names if own is None else own))
        labels = labels_of(targets, found, multilabel, lambda index: f"{key}: {images[index]}")
        return Dataset(images, labels, found, self.name)  # type: ignore[arg-type]  # as Paths


def value_of(part: Any, name: str) -> Any:
    """What an attribute is, or a method of that name gives; None where there is neither."""
    value = getattr(part, name, None)
    return value() if callable(value) else value


class OwnImage(Drawn):
    """An image of such a dataset: as text what it is called."""

    __slots__ = ("images", "index")
    images: "OwnImages"
    index: int

    def pixels(self, channels: int) -> np.ndarray:
        """uint8 [H, W, channels]. UserError where it cannot be read."""
        found = self.images.sample(self.index)[0]
        if isinstance(found, np.ndarray):
            return decode.convert(found, channels)
        if isinstance(found, Image.Image):
            return decode.convert(decode.pixels_of(found, str(self)), channels)
        if isinstance(found, bytes | bytearray | memoryview):
            return decode.decode(bytes(found), channels, str(self))
        if isinstance(found, str | os.PathLike):
            return decode.read(found, channels)
        raise UserError(
            f"{self}: read gave a {type(found).__name__} as the image: give a uint8 array, a "
            "Pillow image, or the path or bytes of a file"
        )

    def read(self) -> bytes:
        """The bytes of a file with these pixels: its own, or a PNG."""
        found = self.images.sample(self.index)[0]
        if isinstance(found, bytes | bytearray | memoryview):
            return bytes(found)
        if isinstance(found, str | os.PathLike):
            return decode.read_bytes(found)
        file = io.BytesIO()
        Image.fromarray(self.pixels(3)).save(file, "PNG")
        return file.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.images.__getitem__, (self.images.place(self.index),)


class OwnImages:
    """The images of such a dataset, with the interface of `ppcls.data.samples.Paths`.

    `indices` (int64 [N]) say which of its samples these are; None: all.
    """

    def __init__(self, part: Any, name: str, indices: np.ndarray | None = None):
        self.part = part
        self.name = name
        if indices is None:
            try:
                indices = np.arange(len(part))
            except Exception as error:
                raise UserError(f"{name}: {in_line(error)}") from error
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> OwnImage:
        index = int(self.indices[place])
        image = OwnImage(self.called(index))
        image.images = self
        image.index = index
        return image

    def __iter__(self) -> Iterator[OwnImage]:
        return (self[place] for place in range(len(self)))

    def place(self, index: int) -> int:
        """Where one of the dataset's samples stands among these."""
        return int(np.flatnonzero(self.indices == index)[0])

    def called(self, index: int) -> str:
        own = getattr(self.part, "path", None)
        if not callable(own):
            return f"{self.name}[{index}]"
        try:
            return visible(str(own(index)), LONGEST)
        except Exception as error:
            raise UserError(f"{self.name}: path({index}): {in_line(error)}") from error

    def sample(self, index: int) -> tuple[Any, Any]:
        """An image and its target as the dataset gives them; UserError where it does not."""
        try:
            found = self.part.read(index)
        except Exception as error:  # an image that cannot be read, whatever the reason
            raise UserError(f"{self.called(index)}: {in_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise UserError(
                f"{self.called(index)}: read({index}) gave a {type(found).__name__}: "
                "give an image and its target"
            )
        return found[0], found[1]

    def names(self) -> Iterator[bytes]:
        """What tells these images from others, for a digest."""
        own = getattr(self.part, "digest", None)
        try:
            text = str(own()) if callable(own) else words_of(self.part)
        except Exception as error:
            raise UserError(f"{self.name}: digest: {in_line(error)}") from error
        whole = text.encode("utf-8", "surrogateescape")
        yield whole + b"\0%d\0%d" % (len(self), zlib.crc32(self.indices.astype("<i8").tobytes()))

    def take(self, indices: np.ndarray) -> "OwnImages":
        """Those at `indices`, in that order."""
        return OwnImages(self.part, self.name, self.indices[indices])

    def missing(self) -> Iterator[int]:
        """None: whether they can be read, reading tells."""
        return iter(())


def labels_of(
    targets: Sequence[Any], names: Sequence[str], multilabel: bool, where: Callable[[int], str]
) -> np.ndarray:
    """Targets as a dataset keeps them: int64 [N] or, of several labels, uint8 [N, classes].

    Raises:
        UserError: one that is none; `where` names its image.
    """
    if multilabel:
        return label_sets(targets, where)
    numbers = {name: number for number, name in enumerate(names)}
    found = np.empty(len(targets), np.int64)
    for index, target in enumerate(targets):
        if isinstance(target, str) and target in numbers:
            found[index] = numbers[target]
            continue
        whole = np.ndim(target) == 0 and np.asarray(target).dtype.kind in "iu"
        if not whole or not 0 <= int(target) < (len(names) or 1 << 31):
            known = f", one of {plural(len(names), 'class')}" if names else ""
            raise UserError(
                f"{where(index)}: target {visible(repr(target))}{known} is not {NO_TARGET}"
            )
        found[index] = int(target)
    return found


def label_sets(targets: Sequence[Any], where: Callable[[int], str]) -> np.ndarray:
    """0 and 1 for each class: uint8 [N, classes]."""
    rows = []
    for index, target in enumerate(targets):
        row = np.asarray(target)
        fits = (
            row.ndim == 1 and row.size and row.dtype.kind in "biuf" and np.isin(row, (0, 1)).all()
        )
        if not fits or (rows and len(row) != len(rows[0])):
            raise UserError(
                f"{where(index)}: target {visible(repr(target))}: task.kind is multilabel: give "
                "0 and 1 for each class, for all images of as many classes"
            )
        rows.append(row.astype(np.uint8))
    return np.stack(rows)

"""Paths and labels: millions of paths in little memory, as files or parts of such."""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ppcls.utils import remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import existing, expanded

BLOCK = 1 << 16  # paths that are unpacked at a time
ASKED_FOR = 64  # files elsewhere, of all, that are looked for before they are read


class Paths:
    """Paths in one block of bytes, with zeros between them; a relative one starts at `root`.

    `ends` (int64 [N]) says where each ends. Millions pickle in little more than their text.
    """

    def __init__(self, paths: Iterable[str] = (), root: str = "") -> None:
        packed = [path_bytes(path) for path in paths]
        self.text = b"\0".join(packed)
        self.ends = ends_of(packed)
        self.root = root
        self.elsewhere = remote.is_remote(root)

    @classmethod
    def packed(cls, text: bytes, ends: np.ndarray, root: str = "") -> "Paths":
        """Of a block of bytes as described above."""
        made = cls(root=root)
        made.text = text
        made.ends = ends
        return made

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from map(self.whole, os.fsdecode(block).split("\0"))

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) + 1 if index else 0
        return self.whole(os.fsdecode(self.text[start : int(self.ends[index])]))

    def whole(self, path: str) -> str:
        """The path from its root on; below an address nothing means a file of this machine."""
        if "://" in path and remote.is_remote(path):
            return Address(path)
        if self.elsewhere:
            return Address(remote.below(self.root, path))
        if path[:2] in ("~", "~/"):  # only these: of many files the names begin with "~$"
            return expanded(path)
        return path if not self.root or os.path.isabs(path) else self.root + path

    def blocks(self) -> Iterator[bytes]:
        """The paths, without their root, some thousands at a time, zeros between them."""
        start = 0
        for first in range(0, len(self), BLOCK):
            end = int(self.ends[min(first + BLOCK, len(self)) - 1])
            yield self.text[start:end]
            start = end + 1

    def names(self) -> Iterator[bytes]:
        """The file names without their folders, in blocks as `blocks`."""
        return (b"\0".join([name for _, _, name in parted(block)]) for block in self.blocks())

    def take(self, indices: np.ndarray) -> "Paths":
        """The paths at `indices` (int64, from 0), in that order."""
        starts = np.where(indices > 0, self.ends[indices - 1] + 1, 0)
        ends = self.ends[indices]
        text = b"\0".join(
            b"\0".join([self.text[start:end] for start, end in zip(*pair, strict=True)])
            for pair in zip(batches(starts), batches(ends), strict=True)
        )
        return Paths.packed(text, np.cumsum(ends - starts + 1) - 1, self.root)

    def missing(self) -> Iterator[int]:
        """The places of those that are no file; each folder is listed only once.

        Of files elsewhere some are looked for, evenly spread: asking for all would take hours.
        """
        if self.elsewhere:
            yield from self.lost(range(len(self)))
            return
        elsewhere = []
        for index in self.unlisted():
            path = self[index]
            # A link, or a spelling that only this file system takes, is not in the listing.
            if isinstance(path, Address):
                elsewhere.append(index)
            elif not os.path.isfile(existing(path)):
                yield index
        yield from self.lost(elsewhere)

    def lost(self, elsewhere: Sequence[int]) -> Iterator[int]:
        """Of the places of files elsewhere, those of some that do not exist."""
        chosen = np.unique(np.linspace(0, len(elsewhere) - 1, min(len(elsewhere), ASKED_FOR)))
        places = [elsewhere[int(place)] for place in chosen]
        found = remote.exist([self[place] for place in places]) if places else []
        yield from (place for place, there in zip(places, found, strict=True) if not there)

    def unlisted(self) -> list[int]:
        """The places of the paths that their folder's listing lacks, in order."""
        numbers: dict[bytes, int] = {}
        folders = np.empty(len(self), np.int32)
        for start, block in zip(range(0, len(self), BLOCK), self.blocks(), strict=True):
            found = [numbers.setdefault(f, len(numbers)) for f, _, _ in parted(block)]
            folders[start : start + BLOCK] = found
        order = np.argsort(folders, kind="stable")
        bounds = np.searchsorted(folders[order], np.arange(len(numbers) + 1))
        lost: list[int] = []
        for number, folder in enumerate(numbers):
            listed = plain_files(self.whole(os.fsdecode(folder)) or ".")
            members = order[bounds[number] : bounds[number + 1]]
            files = b"\0".join(self.take(members).names()).split(b"\0")
            pairs = zip(members.tolist(), files, strict=True)
            lost += [index for index, file in pairs if file not in listed]
        return sorted(lost)


class Address(str):
    """An image elsewhere: as text its address, `s3://bucket/cats/1.jpg`."""

    __slots__ = ()

    @property
    def span(self) -> remote.Span:
        """What is to be read of which file."""
        return str(self), 0, None

    def read(self) -> bytes:
        """Its bytes; UserError where it cannot be read."""
        return remote.read(*self.span)


class Member(str):
    """An image inside a larger file: as text its name, `train-000003.tar:000123.jpg`."""

    __slots__ = ("file", "offset", "size")
    file: str
    offset: int
    size: int

    @property
    def span(self) -> remote.Span | None:
        """What is to be read of which file elsewhere; None of one of this machine."""
        return (self.file, self.offset, self.size) if remote.is_remote(self.file) else None

    def read(self) -> bytes:
        """Its bytes; UserError where the file has become shorter."""
        if self.span:
            data = remote.read(*self.span)
        else:
            with open(self.file, "rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) != self.size:
            raise UserError(f"{self}: {self.file} has changed or was cut short; start again")
        return data


class Drawn(str):
    """An image that is no file: as text what it is called."""

    __slots__ = ()

    def pixels(self, channels: int) -> np.ndarray:
        """uint8 [H, W, channels]. UserError where it cannot be read."""
        raise NotImplementedError

    def read(self) -> bytes:
        """The bytes of a file with these pixels."""
        raise NotImplementedError


class Members:
    """Images inside larger files, with the interface of `Paths`.

    `names` are theirs there, `numbers` (int32 [N]) tell which of the `files` each is in, `offsets`
    and `sizes` (int64 [N]) where in it.
    """

    def __init__(
        self,
        names: Paths,
        files: tuple[str, ...],
        numbers: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        self.inside = names
        self.files = files
        self.numbers = numbers
        self.offsets = offsets
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.inside)

    def __iter__(self) -> Iterator[Member]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Member:
        file = self.files[self.numbers[index]]
        member = Member(f"{file}:{self.inside[index]}")
        member.file = file
        member.offset = int(self.offsets[index])
        member.size = int(self.sizes[index])
        return member

    def names(self) -> Iterator[bytes]:
        """`train-000003.tar:000123.jpg`, without folders, some thousands at a time."""
        texts = (os.path.basename(os.fsencode(member)) for member in self)
        while block := list(islice(texts, BLOCK)):
            yield b"\0".join(block)

    def take(self, indices: np.ndarray) -> "Members":
        """Those at `indices`, in that order."""
        columns = (self.numbers[indices], self.offsets[indices], self.sizes[indices])
        return Members(self.inside.take(indices), self.files, *columns)

    def missing(self) -> Iterator[int]:
        """None: they were found in files that exist."""
        return iter(())


def path_bytes(path: str) -> bytes:
    """A path's bytes; what the locale's encoding lacks came out of a list, which is UTF-8."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")


def parted(block: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The folder, a slash and the name of each path of a block."""
    block = block.replace(b"\\", b"/") if os.sep == "\\" else block
    return [path.rpartition(b"/") for path in block.split(b"\0")]


def ends_of(texts: list[bytes]) -> np.ndarray:
    """Where each text ends (int64 [N]) when all are joined by one byte."""
    return np.cumsum([len(text) + 1 for text in texts], dtype=np.int64) - 1


def batches(numbers: np.ndarray) -> Iterator[list[int]]:
    """The numbers as Python's own, some thousands at a time."""
    return (numbers[i : i + BLOCK].tolist() for i in range(0, len(numbers), BLOCK))


def plain_files(folder: str) -> set[bytes]:
    """Names of the files in a folder, without links; none where there is no such folder."""
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()


# --------------------------------------------------------------------------
# A data set without its pixels: where its images are, their labels and the class names


@dataclass(frozen=True, eq=False)
class Groups:
    """Which images belong together: `numbers` (int64 [N]) are places in `names`, sorted texts."""

    numbers: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Groups":
        """Of the name of each image's group."""
        names = tuple(sorted(set(texts)))
        place = {name: number for number, name in enumerate(names)}
        return cls(np.fromiter(map(place.__getitem__, texts), np.int64, len(texts)), names)

    def take(self, indices: np.ndarray) -> "Groups":
        """Those of the images at `indices`, with all names."""
        return Groups(self.numbers[indices], self.names)

    @property
    def count(self) -> int:
        """How many there are of which any image is here."""
        return len(np.unique(self.numbers))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set without its pixels: paths, labels and names (() when unknown).

    `labels` are int64 [N], or uint8 [N, classes] of 0 and 1 where an image may have several.
    `source` is the folder, list file or shards it came from, `lines` (int64 [N]) each image's line
    in a list. Each of the paths is a text that `ppcls.data.decode.read` reads. `groups` are those
    that no split divides, None where each image stands for itself.
    """

    paths: Paths | Members
    labels: np.ndarray
    names: tuple[str, ...]
    source: str
    lines: np.ndarray | None = None
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> int:
        """How many classes there are, as far as names and labels tell."""
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return len(self.names) or int(self.labels.max(initial=-1)) + 1

    def where(self, index: int) -> str:
        """The place to look for image `index`: `cats/1.jpg`, or `list.txt:17 (cats/1.jpg)`."""
        path = self.paths[index]
        return path if self.lines is None else f"{self.source}:{self.lines[index]} ({path})"

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Dataset":
        """The images at `indices`, in that order, with the same names."""
        indices = np.asarray(indices, np.int64)
        lines = None if self.lines is None else self.lines[indices]
        groups = None if self.groups is None else self.groups.take(indices)
        return Dataset(
            self.paths.take(indices), self.labels[indices], self.names, self.source, lines, groups
        )

    def counts(self, num_classes: int) -> np.ndarray:
        """Images per class, int64 [num_classes]."""
        if self.labels.ndim == 2:
            return self.labels.sum(axis=0, dtype=np.int64)
        return np.bincount(self.labels, minlength=num_classes)

    def digest(self) -> str:
        """A number that changes with the images' file names, their labels and their order."""
        crc = 0
        for number, block in enumerate(self.paths.names()):
            text = block.decode("utf-8", "surrogateescape").encode(errors="replace")
            crc = zlib.crc32(text, zlib.crc32(b"\0", crc) if number else crc)
        return f"{zlib.crc32(self.labels.tobytes(), crc):08x}"

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where names are unknown."""
        return self.names[label] if self.names else str(label)

    def label_of(self, index: int) -> str:
        """What image `index` shows, in words."""
        own = self.labels[index]
        labels = [own] if self.labels.ndim == 1 else np.flatnonzero(own)
        return ", ".join(self.class_name(int(label)) for label in labels) or "nothing"

"""A data set without its pixels: where its photos are, their labels and the class names."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls.data.paths import Members, Paths


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set without its pixels: paths, labels and names (() when unknown).

    `labels` are int64 [N], or uint8 [N, classes] of 0 and 1 where a photo may have several.
    `source` is the folder, list file or shards it came from, `lines` (int64 [N]) each photo's line
    in a list. Each of the paths is a text that `ppcls.data.images.read` reads.
    """

    paths: Paths | Members
    labels: np.ndarray
    names: tuple[str, ...]
    source: str
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> int:
        """How many classes there are, as far as names and labels tell."""
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return len(self.names) or int(self.labels.max(initial=-1)) + 1

    def where(self, index: int) -> str:
        """The place to look for photo `index`: `cats/1.jpg`, or `list.txt:17 (cats/1.jpg)`."""
        path = self.paths[index]
        return path if self.lines is None else f"{self.source}:{self.lines[index]} ({path})"

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Samples":
        """The photos at `indices`, in that order, with the same names."""
        indices = np.asarray(indices, np.int64)
        lines = None if self.lines is None else self.lines[indices]
        return Samples(
            self.paths.take(indices), self.labels[indices], self.names, self.source, lines
        )

    def counts(self, num_classes: int) -> np.ndarray:
        """Photos per class, int64 [num_classes]."""
        if self.labels.ndim == 2:
            return self.labels.sum(axis=0, dtype=np.int64)
        return np.bincount(self.labels, minlength=num_classes)

    def digest(self) -> str:
        """A number that changes with the photos' file names, their labels and their order."""
        crc = 0
        for number, block in enumerate(self.paths.names()):
            text = block.decode("utf-8", "surrogateescape").encode(errors="replace")
            crc = zlib.crc32(text, zlib.crc32(b"\0", crc) if number else crc)
        return f"{zlib.crc32(self.labels.tobytes(), crc):08x}"

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where names are unknown."""
        return self.names[label] if self.names else str(label)

    def label_of(self, index: int) -> str:
        """What photo `index` shows, in words."""
        own = self.labels[index]
        labels = [own] if self.labels.ndim == 1 else np.flatnonzero(own)
        return ", ".join(self.class_name(int(label)) for label in labels) or "nothing"

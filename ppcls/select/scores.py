"""What a teacher says of each photo, in a file that goes on where it was cut.

The first line is a JSON header that says whose scores of what they are; a record for each photo
follows, in the order of the photos. Photos that cannot be read have a record, too, and a line in a
second file, which is written before the record: where a line is lacking, so is the record.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.check.photo import WORDS
from ppcls.config.tree import differences
from ppcls.errors import UserError
from ppcls.select.files import FOREIGN, beside
from ppcls.utils.files import header_line, read_header, write_whole
from ppcls.utils.text import one_line

FORMAT = "ppcls scores of unlabelled photos, 1"
RECORD = np.dtype(
    [
        ("pixels", "<u8"),  # digest of the decoded pixels; 0: left out
        ("hash", "<u8", (WORDS,)),  # perceptual; zeros: it shows nothing
        ("label", "<u4"),  # the likeliest class
        ("confidence", "<f4"),  # its probability
    ]
)
BLOCK = 1 << 16  # records that are read at a time


def begun(path: Path) -> bool:
    """Whether more than a header is in the file; else nothing is lost by writing it anew."""
    with path.open("rb") as file:
        return bool(file.readline() and file.read(1))


class Scores:
    """The file of a list that is being made; `done` photos are in it already."""

    def __init__(self, output: Path, header: dict[str, Any], photos: int, batch: int):
        """Begin the files, or go on with whole batches.

        Args:
            header: whose scores of what; `photos`: how many there will be.

        Raises:
            UserError: they cannot be written, or hold something else.
        """
        self.path, self.skipped = beside(output, "scores"), beside(output, "skipped")
        self.photos = photos
        header = {"format": FORMAT, **header}
        first = header_line(header)
        self.start = len(first)
        found = read_header(self.path, FORMAT, FOREIGN) if self.path.exists() else {}
        if found and begun(self.path):
            check(self.path, found, header, output)
        else:
            self.skipped.unlink(missing_ok=True)
            with write_whole(self.path) as file:
                file.write(first)
        try:
            self.file, self.reasons = self.path.open("r+b"), self.skipped.open("a+b")
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from None
        self.done = (self.path.stat().st_size - self.start) // RECORD.itemsize
        self.cut(batch)

    def cut(self, batch: int) -> None:
        """Keep whole batches, and of those what both files have."""
        left_out = self.left_out()
        self.reasons.seek(0)
        known = sum(line.endswith(b"\n") for line in self.reasons)
        if self.done < self.photos:
            if known < len(left_out):
                self.done = int(left_out[known])
            self.done -= self.done % batch
        self.file.truncate(self.start + self.done * RECORD.itemsize)
        self.file.seek(0, 2)
        self.reasons.seek(0)
        kept = islice(self.reasons, int(np.searchsorted(left_out, self.done)))
        self.reasons.truncate(sum(map(len, kept)))

    def left_out(self) -> np.ndarray:
        """The places of the photos without a score, int64 [n]."""
        found = [np.empty(0, np.int64)]
        for place, block in self.blocks():
            found.append(place + np.flatnonzero(block["pixels"] == 0))
        return np.concatenate(found)

    def add(self, records: np.ndarray, reasons: Sequence[tuple[str, str]]) -> None:
        """The next photos: RECORD [N], and the path of each left out with the reason."""
        lines = [
            f"{printable(path)}\t{one_line(' '.join(reason.split()))}\n" for path, reason in reasons
        ]
        parts = "".join(lines).encode(errors="backslashreplace"), records.tobytes()
        for file, data in zip((self.reasons, self.file), parts, strict=True):
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                raise UserError(
                    f"{file.name}: cannot be written ({error.strerror}); the same command goes on "
                    "from here"
                ) from None
        self.done += len(records)

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """The place of the first photo of each block, and the block, RECORD [n]."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            for place in range(0, self.done, size):
                yield place, np.fromfile(file, RECORD, min(size, self.done - place))

    def close(self) -> None:
        for file in (self.file, self.reasons):
            with suppress(OSError):  # of what `add` could not write, and has said so
                file.close()
        if not self.skipped.stat().st_size:
            self.skipped.unlink()


def printable(path: str) -> str:
    """The path as part of a line of UTF-8 text."""
    return path if path.isprintable() else json.dumps(path)


def check(path: Path, found: dict[str, Any], wanted: dict[str, Any], output: Path) -> None:
    """UserError unless a header says what is wanted."""
    changes = differences(found, wanted)
    if changes:
        text = "; ".join(f"{key}: {change}" for key, change in changes.items())
        raise UserError(
            f"{path}: holds scores of another teacher, view or list of photos ({text}): give "
            f"another --output, or delete {output} and what lies beside it under that name"
        )

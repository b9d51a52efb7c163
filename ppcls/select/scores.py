"""Images without labels, and the file of what the teachers say of each."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppcls.check.survey import WORDS, decoder_messages, fingerprint, read_messages
from ppcls.config.tree import differences
from ppcls.data import decode
from ppcls.data.datasets import say_passed_over
from ppcls.data.decode import EXPECTED
from ppcls.data.folders import PassedOver, walk, with_passed_over
from ppcls.data.lists import unfit
from ppcls.data.preprocess import Preprocess
from ppcls.data.unlabeled import LIST_SUFFIXES
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded, header_line, read_header, write_whole
from ppcls.utils.log import say
from ppcls.utils.text import one_line, plural

FOREIGN = "not a file of `ppcls select-unlabeled`: give another --output"


def beside(output: Path, kind: str) -> Path:
    """`unlabeled.txt` and "scores" to `unlabeled.txt.scores`."""
    return output.with_name(f"{output.name}.{kind}")


# --------------------------------------------------------------------------
# The images to choose from: those below a folder, or a list of theirs, never all in memory

LIST_FORMAT = "ppcls photos of a folder, 1"
LABELLED = re.compile(rb"(.*[^ \t])[ \t]+[0-9]+")
LOOKED_FOR = 100  # images of a list, one of which at least should be there
LIST_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class ImageList:
    """Images in the order of a file with one a line.

    Attributes:
        root: the absolute folder where relative paths start.
        walked: the file is our own, of a folder: it has a header, and odd paths are JSON strings.
        digest: of the file's lines.
    """

    file: Path
    root: str
    walked: bool
    count: int = 0
    digest: str = ""

    def paths(self, first: int = 0) -> Iterator[str]:
        """Their absolute paths, from image `first` on."""
        encoding = "utf-8" if self.walked else "utf-8-sig"
        with self.file.open(encoding=encoding, errors="surrogateescape", newline="\n") as lines:
            for line in islice(lines, first + self.walked, None):
                path = unquoted(line[:-1]) if self.walked else line.strip(" \t\r\n")
                yield os.path.join(self.root, expanded(path) if path[:2] == "~/" else path)


def open_images(given: str, output: Path) -> ImageList:
    """The images of a folder, which are written beside the output first, or of a list.

    Raises:
        UserError: there is no such folder or list, it has no images, its lines have labels.
    """
    if os.path.isdir(given):
        return open_walked(os.path.abspath(given), beside(output, "photos"))
    path = Path(given)
    if not path.is_file():
        raise UserError(f"--images {given}: no such folder or list file")
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"--images {given}: a list with a path a line ends in .txt, .tsv or .lst")
    return open_list(ImageList(path, os.path.abspath(path.parent), walked=False))


def open_walked(folder: str, file: Path) -> ImageList:
    """The images of a folder, looked for unless that was done before."""
    if file.exists():
        said = read_header(file, LIST_FORMAT, FOREIGN)["folder"]
        if said != folder:
            raise UserError(
                f"{file}: holds the images of {said}, not of {folder}: give another --output, or "
                f"delete {file.with_suffix('')} and what lies beside it under that name"
            )
        images = counted(ImageList(file, folder, walked=True))
        say(
            f"{plural(images.count, 'image')} of {folder}, as {file} says; another --output "
            "looks again"
        )
        return images
    say(f"looking for images in {folder}")
    with write_whole(file) as lines:
        lines.write(header_line({"format": LIST_FORMAT, "folder": folder}))
        found = False
        passed = PassedOver()
        for path in walk(folder, passed):
            lines.write(f"{quoted(path)}\n".encode("utf-8", "surrogateescape"))
            found = True
        if not found:
            raise with_passed_over(f"--images {folder}: no images in it ({EXPECTED})", passed)
    say_passed_over(folder, passed)
    images = counted(ImageList(file, folder, walked=True))
    say(f"{plural(images.count, 'image')} of {folder}, listed in {file}")
    return images


def counted(images: ImageList) -> ImageList:
    """With the number and the digest of its own file's lines."""
    # the header is none
    digest = hashlib.sha256()
    count = -1
    with images.file.open("rb") as file:
        while block := file.read(LIST_BLOCK):
            digest.update(block)
            count += block.count(b"\n")
    return ImageList(images.file, images.root, True, count, digest.hexdigest())


def open_list(images: ImageList) -> ImageList:
    """A list, its lines checked and counted."""
    digest = hashlib.sha256()
    count = 0
    try:
        with images.file.open("rb") as lines:
            for count, line in enumerate(lines, 1):
                digest.update(line)
                check_line(line.strip(b" \t\r\n"), f"{images.file}:{count}", images.root)
    except OSError as error:
        raise UserError(f"--images {images.file}: cannot be read ({error.strerror})") from None
    if not count:
        raise UserError(f"--images {images.file}: lists no images")
    if not any(os.path.exists(path) for path in islice(images.paths(), LOOKED_FOR)):
        first = next(images.paths())
        raise UserError(
            f"{images.file}:1: {first} does not exist, nor do the next; relative paths start "
            "beside the list"
        )
    return ImageList(images.file, images.root, False, count, digest.hexdigest())


def check_line(line: bytes, place: str, root: str) -> None:
    """UserError for a line of a list that is not one path."""
    if not line:
        raise UserError(f"{place}: blank line; one image a line is expected")
    if b"\0" in line:
        raise UserError(f"{place}: not UTF-8 text; save the file as UTF-8")
    labelled = LABELLED.fullmatch(line) if line[-1:].isdigit() else None
    if labelled:
        path, before = (os.path.join(root, os.fsdecode(text)) for text in (line, labelled[1]))
        if os.path.exists(before) and not os.path.exists(path):
            raise UserError(
                f"{place}: a label stands behind {os.fsdecode(labelled[1])}; --images takes a list "
                "of paths alone"
            )


def quoted(path: str) -> str:
    """The path as one line."""
    return json.dumps(path) if "\n" in path or path.startswith('"') else path


def unquoted(line: str) -> str:
    return json.loads(line) if line.startswith('"') else line


# --------------------------------------------------------------------------
# What a teacher says of each image, in a file that goes on where it was cut

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
    """The file of a list that is being made; `done` images are in it already."""

    def __init__(self, output: Path, header: dict[str, Any], images: int, batch: int):
        """Begin the files, or go on with whole batches.

        Args:
            header: whose scores of what; `images`: how many there will be.

        Raises:
            UserError: they cannot be written, or hold something else.
        """
        self.path = beside(output, "scores")
        self.skipped = beside(output, "skipped")
        self.images = images
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
        if self.done < self.images:
            if known < len(left_out):
                self.done = int(left_out[known])
            self.done -= self.done % batch
        self.file.truncate(self.start + self.done * RECORD.itemsize)
        self.file.seek(0, 2)
        self.reasons.seek(0)
        kept = islice(self.reasons, int(np.searchsorted(left_out, self.done)))
        self.reasons.truncate(sum(map(len, kept)))

    def left_out(self) -> np.ndarray:
        """The places of the images without a score, int64 [n]."""
        found = [np.empty(0, np.int64)]
        for place, block in self.blocks():
            found.append(place + np.flatnonzero(block["pixels"] == 0))
        return np.concatenate(found)

    def add(self, records: np.ndarray, reasons: Sequence[tuple[str, str]]) -> None:
        """The next images: RECORD [N], and the path of each left out with the reason."""
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
        """The place of the first image of each block, and the block, RECORD [n]."""
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
            f"{path}: holds scores of another teacher, view or list of images ({text}): give "
            f"another --output, or delete {output} and what lies beside it under that name"
        )


# --------------------------------------------------------------------------
# A look at images in a worker process: what teachers see of them, and what tells them apart


@dataclass(frozen=True)
class Looked:
    """Of N images, n of which can be read.

    Attributes:
        images: uint8 [n, height, width, C].
        records: RECORD [N], whose label and confidence the teacher has yet to say.
        reasons: for each other image its path and why it is left out, in their order.
    """

    images: np.ndarray
    records: np.ndarray
    reasons: list[tuple[str, str]]


def look(paths: Sequence[str], preprocess: Preprocess) -> Looked:
    """Read each image once."""
    records = np.zeros(len(paths), RECORD)
    kept = 0
    reasons = []
    shape = (preprocess.height, preprocess.width, preprocess.channels)
    seen = np.empty((len(paths), *shape), np.uint8)
    with warnings.catch_warnings(), decoder_messages() as messages:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for place, path in enumerate(paths):
            try:
                pixels = read(path, preprocess.channels)
                seen[kept] = preprocess(pixels)
            except UserError as error:
                said = error.without(path)
                read_messages(messages)
            else:
                said = read_messages(messages)
                said = said and f"decoded with damage ({said})"
            if said:
                reasons.append((path, said))
                continue
            digest, words, blank = fingerprint(pixels)
            records["pixels"][place] = digest
            records["hash"][place] = 0 if blank else words
            kept += 1
    return Looked(seen[:kept], records, reasons)


def read(path: str, channels: int) -> np.ndarray:
    """The image's pixels; UserError, too, for a path that no list can hold."""
    if unfit(path):
        raise UserError(unfit(path))
    return decode.read(path, channels)

"""The photos to choose from: those below a folder, or a list of theirs, never all in memory."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ppcls.data.datasets import say_passed_over
from ppcls.data.images import EXPECTED
from ppcls.data.unlabeled import LIST_SUFFIXES
from ppcls.data.walk import PassedOver, walk, with_passed_over
from ppcls.errors import UserError
from ppcls.log import say
from ppcls.select.files import FOREIGN, beside
from ppcls.utils.files import expanded, header_line, read_header, write_whole
from ppcls.utils.text import plural

FORMAT = "ppcls photos of a folder, 1"
LABELLED = re.compile(rb"(.*[^ \t])[ \t]+[0-9]+")
LOOKED_FOR = 100  # photos of a list, one of which at least should be there
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Photos:
    """Photos in the order of a file with one a line.

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
        """Their absolute paths, from photo `first` on."""
        encoding = "utf-8" if self.walked else "utf-8-sig"
        with self.file.open(encoding=encoding, errors="surrogateescape", newline="\n") as lines:
            for line in islice(lines, first + self.walked, None):
                path = unquoted(line[:-1]) if self.walked else line.strip(" \t\r\n")
                yield os.path.join(self.root, expanded(path) if path[:2] == "~/" else path)


def open_photos(given: str, output: Path) -> Photos:
    """The photos of a folder, which are written beside the output first, or of a list.

    Raises:
        UserError: there is no such folder or list, it has no photos, its lines have labels.
    """
    if os.path.isdir(given):
        return open_walked(os.path.abspath(given), beside(output, "photos"))
    path = Path(given)
    if not path.is_file():
        raise UserError(f"--photos {given}: no such folder or list file")
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"--photos {given}: a list with a path a line ends in .txt, .tsv or .lst")
    return open_list(Photos(path, os.path.abspath(path.parent), walked=False))


def open_walked(folder: str, file: Path) -> Photos:
    """The photos of a folder, looked for unless that was done before."""
    if file.exists():
        said = read_header(file, FORMAT, FOREIGN)["folder"]
        if said != folder:
            raise UserError(
                f"{file}: holds the photos of {said}, not of {folder}: give another --output, or "
                f"delete {file.with_suffix('')} and what lies beside it under that name"
            )
        photos = counted(Photos(file, folder, walked=True))
        say(
            f"{plural(photos.count, 'photo')} of {folder}, as {file} says; another --output "
            "looks again"
        )
        return photos
    say(f"looking for photos in {folder}")
    with write_whole(file) as lines:
        lines.write(header_line({"format": FORMAT, "folder": folder}))
        found, passed = False, PassedOver()
        for path in walk(folder, passed):
            lines.write(f"{quoted(path)}\n".encode("utf-8", "surrogateescape"))
            found = True
        if not found:
            raise with_passed_over(f"--photos {folder}: no photos in it ({EXPECTED})", passed)
    say_passed_over(folder, passed)
    photos = counted(Photos(file, folder, walked=True))
    say(f"{plural(photos.count, 'photo')} of {folder}, listed in {file}")
    return photos


def counted(photos: Photos) -> Photos:
    """With the number and the digest of its own file's lines."""
    digest, count = hashlib.sha256(), -1  # the header is none
    with photos.file.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            count += block.count(b"\n")
    return Photos(photos.file, photos.root, True, count, digest.hexdigest())


def open_list(photos: Photos) -> Photos:
    """A list, its lines checked and counted."""
    digest, count = hashlib.sha256(), 0
    try:
        with photos.file.open("rb") as lines:
            for count, line in enumerate(lines, 1):
                digest.update(line)
                check_line(line.strip(b" \t\r\n"), f"{photos.file}:{count}", photos.root)
    except OSError as error:
        raise UserError(f"--photos {photos.file}: cannot be read ({error.strerror})") from None
    if not count:
        raise UserError(f"--photos {photos.file}: lists no photos")
    if not any(os.path.exists(path) for path in islice(photos.paths(), LOOKED_FOR)):
        first = next(photos.paths())
        raise UserError(
            f"{photos.file}:1: {first} does not exist, nor do the next; relative paths start "
            "beside the list"
        )
    return Photos(photos.file, photos.root, False, count, digest.hexdigest())


def check_line(line: bytes, place: str, root: str) -> None:
    """UserError for a line of a list that is not one path."""
    if not line:
        raise UserError(f"{place}: blank line; one photo a line is expected")
    if b"\0" in line:
        raise UserError(f"{place}: not UTF-8 text; save the file as UTF-8")
    labelled = LABELLED.fullmatch(line) if line[-1:].isdigit() else None
    if labelled:
        path, before = (os.path.join(root, os.fsdecode(text)) for text in (line, labelled[1]))
        if os.path.exists(before) and not os.path.exists(path):
            raise UserError(
                f"{place}: a label stands behind {os.fsdecode(labelled[1])}; --photos takes a list "
                "of paths alone"
            )


def quoted(path: str) -> str:
    """The path as one line."""
    return json.dumps(path) if "\n" in path or path.startswith('"') else path


def unquoted(line: str) -> str:
    return json.loads(line) if line.startswith('"') else line


def unfit(path: str) -> str:
    """Why no list of photos can hold the path; "" where one can."""
    if re.search("[\n\r\t]", path):
        return "its name has a line break or a tab; rename it"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return ""


def line_of(path: str, folder: str) -> str:
    """An absolute path as a list in `folder` (absolute) says it: relative where it lies below."""
    start = os.path.join(folder, "")
    if not path.startswith(start) or "/../" in path:
        return path
    inside = path[len(start) :]
    return f"./{inside}" if inside.startswith(" ") else inside  # lists are read without spaces

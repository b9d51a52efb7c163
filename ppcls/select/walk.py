"""Every photo below a folder, in order, however many lie in it."""

import heapq
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

from ppcls.data.datasets import is_photo
from ppcls.errors import UserError

BLOCK = 1 << 18  # names that are sorted in memory


def walk(folder: str, inside: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """The photos below `folder`, relative to it, sorted by their whole paths as text.

    Hidden files and folders are left out; links to folders are followed. A folder that cannot be
    listed is given in the place of its photos: who reads it as a photo learns why. UserError where
    links go round.
    """
    here = os.path.join(folder, inside)
    real = os.path.realpath(here)
    if real in above:
        raise UserError(f"{here}: a symbolic link to a folder above itself; remove it")
    try:
        entries = os.scandir(here)
    except OSError:
        yield inside
        return
    with entries, ExitStack() as files:
        for name in ordered(filter(None, map(name_of, entries)), files):
            if name.endswith("/"):
                yield from walk(folder, inside + name, (*above, real))
            else:
                yield inside + name


def name_of(entry: os.DirEntry[str]) -> str:
    """The name of a photo, or of a folder with a slash behind it; "" for everything else."""
    if entry.name.startswith("."):
        return ""
    linked = entry.is_symlink() and os.path.isdir(entry.path)
    if linked or entry.is_dir(follow_symlinks=False):
        return f"{entry.name}/"
    return entry.name if is_photo(entry.name) else ""


def ordered(names: Iterator[str], files: ExitStack) -> Iterator[str]:
    """The names sorted; many in parts, each in a temporary file that `files` will close."""
    parts = []
    while block := sorted(islice(names, BLOCK)):
        if not parts and len(block) < BLOCK:
            return iter(block)
        parts.append(files.enter_context(put_by(block)))
    return heapq.merge(*parts)


@contextmanager
def put_by(names: list[str]) -> Iterator[Iterator[str]]:
    """The names again, from a temporary file."""
    with tempfile.TemporaryFile("w+", encoding="ascii") as file:
        file.writelines(f"{json.dumps(name)}\n" for name in names)
        file.seek(0)
        yield map(json.loads, file)

"""The images below a folder, in order, however many lie in it; and what is passed over there."""

import heapq
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ppcls.data.decode import AVIF, HEAD, HEIF, OTHER_SUFFIXES, kind_of, readable
from ppcls.utils import remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import open_plain, special_kind
from ppcls.utils.text import at_most, plural, visible

BLOCK = 1 << 18  # names that are sorted in memory
# Folders, in small letters, that systems, network stores and programs leave among images, with
# thumbnails, deleted files and older states in them. Nobody calls a class so.
SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        ".@__thumb",  # QNAP
        "@recycle",
        "@recently-snapshot",
        "_thumb",
        "_thumbs",
        "_thumbnails",
        "__macosx",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "found.000",
        "lost+found",
        "network trash folder",
        "temporary items",
        "__pycache__",
    }
)
SAMPLED = 3  # files of an unknown ending that are looked into …
MOST_ENDINGS = 50  # … of so many endings
FOLDER = "\0"  # behind a folder's name; sorts before every other character


class Unknown(NamedTuple):
    """The number of files with an unknown ending, and some of them."""

    count: int
    some: list[str]


@dataclass
class PassedOver:
    """What looks like images below a folder and is none that is read, counted by kind."""

    pictures: Counter[str] = field(default_factory=Counter)  # by ending
    unknown: dict[str, Unknown] = field(default_factory=dict)  # by ending
    folders: Counter[str] = field(default_factory=Counter)  # of systems and hidden ones, by name
    hidden: int = 0  # images
    first_hidden: str = ""
    special: Counter[str] = field(default_factory=Counter)  # pipes …, by kind
    first_special: str = ""
    closed: list[str] = field(default_factory=list)  # folders, with the reason

    def file(self, path: str, suffix: str) -> None:
        """Count a file that has no image's ending."""
        if suffix in OTHER_SUFFIXES or suffix in AVIF or suffix in HEIF:
            self.pictures[suffix] += 1
            return
        count, some = self.unknown.get(suffix, Unknown(0, []))
        if len(some) < SAMPLED and (some or len(self.unknown) < MOST_ENDINGS):
            some.append(path)
        self.unknown[suffix if some else ""] = Unknown(count + 1, some)

    def look_into_unknown(self) -> Counter[str]:
        """How many files of each unknown ending there are, of which one is an image inside."""
        found: Counter[str] = Counter()
        for suffix, (count, some) in self.unknown.items():
            if any(map(holds_image, some)):
                found[suffix or "without an ending"] = count
        return found

    def text(self) -> str:
        """What was passed over, in one line; "" if nothing was."""
        odd = self.look_into_unknown()
        parts = []
        if pictures := self.pictures + odd:
            total = plural(sum(pictures.values()), "file that looks", "files that look")
            a_picture = "like a picture" if sum(pictures.values()) == 1 else "like pictures"
            parts.append(f"{total} {a_picture}: {numbers(pictures)} ({self.advice(odd)})")
        if self.special:
            total = ", ".join(
                plural(n, kind.removeprefix("a ")) for kind, n in self.special.items()
            )
            parts.append(f"{total} (such as {visible(self.first_special)})")
        if self.hidden:
            total = plural(self.hidden, "hidden image")
            parts.append(f"{total} (such as {visible(self.first_hidden)})")
        if self.folders:
            names = [
                f"{visible(n)}{f' ({c:,})' * (c > 1)}" for n, c in sorted(self.folders.items())
            ]
            kind = "hidden or of a system or program"
            count = plural(sum(self.folders.values()), "folder")
            parts.append(f"{count} {kind}: {at_most(names, limit=5)}")
        if self.closed:
            count = plural(len(self.closed), "folder that cannot", "folders that cannot")
            parts.append(f"{count} be listed: {at_most(self.closed, limit=3)}")
        return f"passed over {'; '.join(parts)}" if parts else ""

    def advice(self, odd: Iterable[str]) -> str:
        """What to do with pictures that are not read."""
        if all(suffix in odd for suffix in self.pictures):
            return "rename them: images end in .jpg, .png and the like"
        ways = ["convert them to JPEG or PNG"]
        if any(suffix in HEIF for suffix in self.pictures):
            ways.append("pip install pillow-heif for .heic")
        if any(suffix in AVIF for suffix in self.pictures):
            ways.append("pip install 'pillow>=11.3' for .avif")
        return ", or ".join(ways)


def numbers(counts: Counter[str]) -> str:
    """`9 .heic, 3 .svg`, the most first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return at_most([f"{count:,} {visible(suffix)}" for suffix, count in ordered])


def holds_image(path: str) -> bool:
    """Whether a plain file begins as images do."""
    try:
        with open_plain(path) as file:
            return kind_of(file.read(HEAD)) != ""
    except (OSError, UserError):
        return False


def with_passed_over(mistake: str, passed: PassedOver) -> UserError:
    """An error, with what was passed over behind it: that may be the reason."""
    text = passed.text()
    return UserError(f"{mistake}; {text}" if text else mistake)


def is_image(name: str) -> bool:
    """True for a file name with the ending, in any case, of images that can be read here."""
    return os.path.splitext(name)[1].lower() in readable()


def is_system_folder(name: str) -> bool:
    """True for hidden folders, and those which systems leave."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def walk(folder: str, passed: PassedOver, block: int = BLOCK) -> Iterator[str]:
    """The images below `folder`, relative to it: by name, those of a folder where its name stands.

    Hidden files, and folders that are hidden or a system's, are left out, links are followed.
    Fills `passed`, to which folders belong that cannot be listed. Up to `block` names of a folder
    are sorted in memory, more in temporary files.

    Raises:
        UserError: links go round, or `folder` itself cannot be listed.
    """
    try:
        levels = [Level.open(folder, "", passed, (), block)]
    except OSError as error:
        raise UserError(closed_line(folder, error)) from None
    try:
        while levels:
            here = levels[-1]
            name = next(here.names, None)
            if name is None:
                levels.pop().files.close()
            elif name.endswith(FOLDER):
                inside = f"{here.inside}{name.removesuffix(FOLDER)}/"
                try:
                    levels.append(Level.open(folder, inside, passed, levels, block))
                except OSError as error:
                    passed.closed.append(f"{visible(inside)} ({error.strerror or error})")
            else:
                yield here.inside + name
    finally:
        for level in levels:
            level.files.close()


def closed_line(folder: str, error: OSError) -> str:
    """What is said of a folder that must be listed and cannot be."""
    why = error.strerror or error
    return f"{visible(folder)}: cannot be listed ({why}); change its permissions or move it away"


@dataclass
class Level:
    """A folder on the way down, and the names in it that are still to come."""

    inside: str  # below the first folder; ends in a slash
    names: Iterator[str]
    files: ExitStack
    identity: tuple[int, int] | str

    @classmethod
    def open(
        cls,
        folder: str,
        inside: str,
        passed: PassedOver,
        above: "Iterable[Level]",
        block: int,
    ) -> "Level":
        """OSError where the folder cannot be listed, UserError where a link leads back to it."""
        here = os.path.join(folder, inside)
        identity = here
        if not remote.is_remote(here):
            found = os.stat(here)
            identity = (found.st_dev, found.st_ino)
        if any(identity == level.identity for level in above):
            place = visible(here.rstrip("/"))
            raise UserError(f"{place}: a symbolic link to a folder above itself; remove it")
        files = ExitStack()
        try:
            names = ordered(sorted_out(here, passed), files, block)
        except BaseException:
            files.close()
            raise
        return cls(inside, names, files, identity)


def listing(
    folder: str, passed: PassedOver, keep: Iterable[str] = ()
) -> tuple[list[str], list[str]]:
    """The names of the folders, and those of the images, that lie in a folder, sorted.

    Fills `passed`; `keep` are names of folders that count although they look like a system's.
    UserError where the folder cannot be listed.
    """
    try:
        names = sorted(sorted_out(folder, passed, frozenset(keep)))
    except OSError as error:
        raise UserError(closed_line(folder, error)) from None
    folders = [name.removesuffix(FOLDER) for name in names if name.endswith(FOLDER)]
    return folders, [name for name in names if not name.endswith(FOLDER)]


def sorted_out(
    folder: str, passed: PassedOver, keep: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Names of images, and of folders with FOLDER behind them, in the file system's order."""
    with elsewhere(folder) if remote.is_remote(folder) else os.scandir(folder) as entries:
        for entry in entries:
            if name := name_of(entry, passed, keep):
                yield name


class Elsewhere(NamedTuple):
    """A name below an address, with what is asked of an `os.DirEntry`."""

    name: str
    path: str
    folder: bool

    def is_dir(self) -> bool:
        return self.folder

    def is_file(self) -> bool:
        return not self.folder


@contextmanager
def elsewhere(folder: str) -> Iterator[Iterator[Elsewhere]]:
    """What is below an address, as `os.scandir` gives it of a folder."""
    start = folder.rstrip("/")
    yield (Elsewhere(name, f"{start}/{name}", is_dir) for name, is_dir in remote.folder(start))


def name_of(entry: os.DirEntry[str] | Elsewhere, passed: PassedOver, keep: frozenset[str]) -> str:
    """The name of an image, or of a folder with FOLDER behind it; "" for everything else."""
    name = entry.name
    if leads_to_folder(entry):
        if is_system_folder(name) and name not in keep:
            passed.folders[name] += 1
            return ""
        return name + FOLDER
    suffix = os.path.splitext(name)[1].lower()
    image = suffix in readable()
    if name.startswith("."):
        if image or suffix in OTHER_SUFFIXES:
            passed.hidden += 1
            passed.first_hidden = passed.first_hidden or entry.path
        return ""
    if not image:
        passed.file(entry.path, suffix)
        return ""
    kind = kind_of_entry(entry)
    if kind:
        passed.special[kind] += 1
        passed.first_special = passed.first_special or entry.path
        return ""
    return name


def leads_to_folder(entry: os.DirEntry[str] | Elsewhere) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def kind_of_entry(entry: os.DirEntry[str] | Elsewhere) -> str:
    """What a file is that is no plain one; "" for a link to nothing: reading it tells."""
    try:
        if isinstance(entry, Elsewhere) or entry.is_file():
            return ""
        return special_kind(entry.stat().st_mode)
    except OSError:
        return ""


def ordered(names: Iterator[str], files: ExitStack, block: int) -> Iterator[str]:
    """The names sorted; from `block` on in parts, in temporary files that `files` will close."""
    parts = []
    while part := sorted(islice(names, block)):
        if not parts and len(part) < block:
            return iter(part)
        parts.append(files.enter_context(put_by(part)))
    return heapq.merge(*parts)


@contextmanager
def put_by(names: list[str]) -> Iterator[Iterator[str]]:
    """The names again, from a temporary file."""
    with tempfile.TemporaryFile("w+", encoding="ascii") as file:
        file.writelines(f"{json.dumps(name)}\n" for name in names)
        file.seek(0)
        yield map(json.loads, file)

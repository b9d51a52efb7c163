"""Tar shards as a data set, read through an index that is kept.

What is in a tar of images (WebDataset's layout), and where: read once, then kept in the cache.

An image `000123.jpg` has a label beside it, `000123.cls` (one class, in text) or, without one,
`000123.txt` (`0,1,0`). What stands before a name's first dot tells what belongs together; other
members are left alone.
"""

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ppcls.data import lists
from ppcls.data.class_names import in_order, label_numbers, read_class_names
from ppcls.data.decode import AVIF, HEIF, SUFFIXES, readable
from ppcls.data.samples import Dataset, Members, Paths
from ppcls.utils import environment, remote
from ppcls.utils.errors import UserError
from ppcls.utils.files import open_plain, require_plain, write_whole
from ppcls.utils.log import Progress, say
from ppcls.utils.text import at_most, first_of, quoted, visible

LABELS = (".cls", ".txt")  # endings of labels, the one that counts first
LONGEST_LABEL = 1 << 21  # bytes: a 0 or 1 for each of a million classes
VERSION = 2  # of a kept index; another one is written anew
# Headers that stand for the next one's name and the like, and what one may hold at most.
ABOUT_NEXT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
ABOUT_NEXT += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LONGEST_ABOUT = 1 << 16  # bytes
MOST_FOR_ALL = 1000  # entries of global headers, which tarfile copies for every member
DIGITS = re.compile(rb"[0-9]{256}")  # longer than any number; Python's tarfile is slow with many


class Index(NamedTuple):
    """The images of a tar in its order: names, bytes (int64 [N] each) and the text of the labels.

    `endings` (uint8 [N]) is each label's place in LABELS.
    """

    images: Paths
    offsets: np.ndarray
    sizes: np.ndarray
    labels: Paths
    endings: np.ndarray


def index(file: str, there: remote.State | None = None) -> Index:
    """The images of a tar, from the cache where the tar's size and time are those kept there.

    Args:
        there: the state of a tar elsewhere.

    Raises:
        UserError: not a tar or a compressed one, one cut short, an image without a label, …: up to
            ten mistakes at once, each with its `train-000003.tar:000123.jpg`.
    """
    place = place_of(file)
    if there:
        state = np.array([VERSION, *there])
    else:
        try:
            found = os.stat(file)
            require_plain(file, found.st_mode, seekable=True)
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from error
        state = np.array([VERSION, found.st_size, found.st_mtime_ns])
    kept = read_kept(place, state)
    if kept:
        return kept
    read = scan(file, int(state[1]))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(place, synced=False) as content:
            keep(read, content, state)
    except (OSError, UserError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        say(f"note: the index of {file} cannot be kept ({place.parent}: {reason})")
    return read


def place_of(file: str) -> Path:
    """Where the index of a tar is kept."""
    whole = file if remote.is_remote(file) else os.path.abspath(file)
    name = hashlib.sha256(os.fsencode(whole)).hexdigest()[:32]
    return environment.home() / "shards" / "index" / f"{name}.npz"


def read_kept(place: Path, state: np.ndarray) -> Index | None:
    """The kept index of a tar in this state; None where there is none, or one that is not whole."""
    try:
        with open_plain(place) as content:
            if not is_stored(content):
                return None
            content.seek(0)
            with np.load(content, allow_pickle=False) as kept:
                if not np.array_equal(kept["state"], state):
                    return None
                index = unpack(kept)
        return index if is_whole(index, int(state[1])) else None
    except Exception:  # numpy raises many kinds at a file that is none of its own
        return None


def is_stored(content: BinaryIO) -> bool:
    """Whether a zip file's members are no larger than it is."""
    with zipfile.ZipFile(content) as archive:
        total = sum(member.file_size for member in archive.infolist())
    return total <= os.fstat(content.fileno()).st_size


def is_whole(index: Index, size: int) -> bool:
    """Whether an index can be that of a tar of so many bytes: its parts agree, and lie inside."""
    count = len(index.offsets)
    numbers = (index.images.ends, index.labels.ends, index.offsets, index.sizes)
    right = all(part.dtype == np.int64 and part.shape == (count,) for part in numbers)
    endings = index.endings
    right = right and endings.dtype == np.uint8 and endings.shape == (count,) and count > 0
    return bool(
        right
        and (endings < len(LABELS)).all()
        and (index.sizes >= 0).all()
        and (index.offsets >= 0).all()
        and (index.sizes <= size).all()
        and (index.offsets <= size - index.sizes).all()
        and all(map(are_divided, (index.images, index.labels)))
    )


def are_divided(paths: Paths) -> bool:
    """Whether the places where texts end are those of the zeros between them."""
    zeros = np.flatnonzero(np.frombuffer(paths.text, np.uint8) == 0)
    return np.array_equal(np.append(zeros, len(paths.text)), paths.ends)


def keep(read: Index, file: BinaryIO, state: np.ndarray) -> None:
    np.savez(
        file,
        state=state,
        photos=np.frombuffer(read.images.text, np.uint8),
        photo_ends=read.images.ends,
        labels=np.frombuffer(read.labels.text, np.uint8),
        label_ends=read.labels.ends,
        offsets=read.offsets,
        sizes=read.sizes,
        endings=read.endings,
    )


def unpack(kept: "np.lib.npyio.NpzFile") -> Index:
    images = Paths.packed(kept["photos"].tobytes(), kept["photo_ends"])
    labels = Paths.packed(kept["labels"].tobytes(), kept["label_ends"])
    return Index(images, kept["offsets"], kept["sizes"], labels, kept["endings"])


def scan(file: str, size: int) -> Index:
    """Read a tar's headers and labels; every mistake in it is in the message.

    Args:
        size: its bytes.
    """
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, dict[str, str]] = {}
    mistakes: list[str] = []
    try:
        with remote.File(file, size) if remote.is_remote(file) else open_plain(file) as content:
            read_members(content, size, images, labels, mistakes)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # tarfile raises many kinds at headers that are none
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{file}: not an uncompressed tar, damaged or cut short ({reason}); fetch it again"
        ) from None
    beside = " or ".join(LABELS)
    mistakes += [
        f"{visible(member.name)}: no label {beside} beside it"
        for key, member in images.items()
        if key not in labels
    ]
    mistakes += [f"{visible(key)}{next(iter(labels[key]))}: no image beside it"
                 for key in labels if ".cls" in labels[key] and key not in images]  # fmt: skip
    if mistakes or not images:
        found = [f"{file}:{text}" for text in mistakes] or [f"{file}: no images in it"]
        raise UserError(*first_of(found))
    endings = [0 if LABELS[0] in labels[key] else 1 for key in images]
    return Index(
        Paths([member.name for member in images.values()]),
        np.array([member.offset_data for member in images.values()], np.int64),
        np.array([member.size for member in images.values()], np.int64),
        Paths([labels[key][LABELS[end]] for key, end in zip(images, endings, strict=True)]),
        np.array(endings, np.uint8),
    )


class Within:
    """An open file of which no more is asked than it has, whatever a header says."""

    def __init__(self, file: BinaryIO | remote.File, size: int):
        self.file = file
        self.size = size

    def read(self, count: int) -> bytes:
        if count < 0:
            raise tarfile.ReadError("a negative size")
        return self.file.read(min(count, max(0, self.size - self.file.tell())))

    def seek(self, place: int) -> int:
        if not 0 <= place <= self.size:
            raise tarfile.ReadError("a member reaches past the end")
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()


class Headers(Within):
    """What tarfile reads of a tar: headers, and what stands for the next one."""

    def read(self, count: int) -> bytes:
        data = super().read(count)
        if len(data) > tarfile.BLOCKSIZE and DIGITS.search(data):
            raise tarfile.ReadError("a header that is none")
        return data


class Header(tarfile.TarInfo):
    """A member's header; ReadError for a size that none has."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0:
            raise tarfile.ReadError("a negative size")
        if found.type in ABOUT_NEXT and found.size > LONGEST_ABOUT:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


def read_members(
    file: BinaryIO | remote.File,
    size: int,
    images: dict[str, tarfile.TarInfo],
    labels: dict[str, dict[str, str]],
    mistakes: list[str],
) -> None:
    """Put every member where it belongs; each begins behind the one before."""
    content = Within(file, size)
    end = 0
    with tarfile.open(fileobj=Headers(file, size), mode="r:", tarinfo=Header) as tar:  # type: ignore
        for member in tar:
            if not (member.size >= 0 and member.offset_data <= tar.offset and end < tar.offset):
                raise tarfile.ReadError("a negative size")
            if member.isreg() and member.offset_data + member.size > content.size:
                raise tarfile.ReadError("a member reaches past the end")
            if len(tar.pax_headers) > MOST_FOR_ALL:
                raise tarfile.ReadError("a global header that is none")
            end = tar.offset
            member.pax_headers = {}  # a copy of the global ones, too
            take(content, member, images, labels, mistakes)
        check_end(content, end)


def take(
    content: Within,
    member: tarfile.TarInfo,
    images: dict[str, tarfile.TarInfo],
    labels: dict[str, dict[str, str]],
    mistakes: list[str],
) -> None:
    """Put a member where it belongs."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, ending = name.partition(".")
    key = folder + slash + stem
    ending = f".{ending.lower()}"
    if not stem or ending not in (*SUFFIXES, *AVIF, *HEIF, *LABELS):
        return
    if "\0" in member.name:
        mistakes.append(f"{member.name}: a NUL in its name")
        return
    if not member.isreg() or member.issparse():
        mistakes.append(f"{visible(member.name)}: a link or no plain file; write the file itself")
    elif ending not in LABELS and ending not in readable():
        mistakes.append(
            f"{visible(member.name)}: is not read here; pip install pillow-heif 'pillow>=11.3'"
        )
    elif ending not in LABELS and key in images:
        mistakes.append(
            f"{visible(member.name)}: {visible(images[key].name)} has the same key {quoted(key)}"
        )
    elif ending not in LABELS:
        images[key] = member
    elif ending in labels.setdefault(key, {}):
        mistakes.append(f"{visible(member.name)}: stands in it twice")
    else:
        if member.size > LONGEST_LABEL:
            mistakes.append(f"{visible(member.name)}: {member.size:,} bytes are no label")
            return
        content.seek(member.offset_data)
        text = content.read(member.size).decode("utf-8", "replace").strip()
        labels[key][ending] = text
        if not text or "\0" in text or "\ufffd" in text:
            mistakes.append(f"{visible(member.name)}: {'not UTF-8 text' if text else 'empty'}")


def check_end(content: Within, end: int) -> None:
    """A tar ends in a block of zeros: tarfile takes a cut between members, or bytes that are no
    header, for its end as well.
    """
    content.seek(end)
    if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {end:,}")


# --------------------------------------------------------------------------
# Images in tar files, read by position: `shards/train-{000..127}.tar`

SUFFIX = ".tar"
AHEAD = 8  # shards elsewhere whose beginning is asked for, and as many again, ahead of their turn
NAMES = "labels.txt"  # class names beside the shards, as in `data.class_names`
RANGE = re.compile(r"\{([0-9]{1,18})\.\.([0-9]{1,18})\}")
MOST = 100_000  # shards; more is a slip of the pen


def is_shards(path: str | PathLike) -> bool:
    """Whether a path names tar files, or one with a range."""
    return os.fspath(path).lower().endswith(SUFFIX)


def expand(path: str) -> list[str]:
    """The files that `train-{000..127}.tar` means: each number of the range, as wide as its first.

    Raises:
        UserError: a range that is none, or more than one.
    """
    spans = RANGE.findall(path)
    if not spans and "{" not in path:
        return [path]
    first, last = spans[0] if len(spans) == 1 else ("", "")
    count = int(last) - int(first) + 1 if first else 0
    if RANGE.sub("", path).count("{") or not 0 < count <= MOST:
        raise UserError(f"{path}: a range of shards is written like train-{{000..127}}.tar")
    numbers = range(int(first), int(last) + 1)
    return [RANGE.sub(f"{number:0{len(first)}}", path) for number in numbers]


def open_shards(
    path: str,
    names: tuple[str, ...] = (),
    multilabel: bool = False,
    local: Callable[[str], str] = str,
    number_labels: bool = False,
) -> Dataset:
    """The images of tar files in WebDataset's layout, in the order in which they stand there.

    Args:
        path: a tar, or many as in `shards/train-{000..127}.tar`.
        names: the classes' names; without any, those of `labels.txt` beside the shards, if any.
        several: whether labels are `0,1,0`, a number for each class.
        local: brings a shard here and gives its path.
        number_labels: whether labels, where there are no names, are names themselves.

    Raises:
        UserError: shards that do not exist or are damaged, labels that are no classes; with the
            shard and the member.
    """
    expanded = expand(path)
    files = tuple(map(local, Progress(expanded, "shards", len(expanded))))
    elsewhere = remote.is_remote(files[0])
    there = remote.states(files) if elsewhere else [None] * len(files)
    exist = there if elsewhere else [os.path.isfile(file) for file in files]
    lost = [file for file, found in zip(files, exist, strict=True) if not found]
    if lost:
        raise UserError(f"{path}: shards that do not exist: {at_most(lost)}")
    beside = os.path.join(os.path.dirname(files[0]), NAMES)
    if not names and (is_there(beside) if elsewhere else os.path.isfile(beside)):
        names = read_class_names(beside)
    found = []
    for number, file in enumerate(Progress(files, "indexes of shards", len(files))):
        if elsewhere and number % AHEAD == 0:
            begin(files[number : number + 2 * AHEAD], there[number : number + 2 * AHEAD])
        found.append(index(file, there[number]))
    if number_labels and not names and not multilabel:
        names = in_order({text for one in found for text in set(one.labels)})
    labels = np.concatenate(list(label_parts(files, found, names, multilabel)))
    return Dataset(members(files, found), labels, names, path)


def begin(files: Sequence[str], there: Sequence[remote.State | None]) -> None:
    """Begin to read those of the shards elsewhere whose index is not kept here."""
    pairs = zip(files, there, strict=True)
    new = [(file, state) for file, state in pairs if state and not place_of(file).exists()]
    remote.read_ahead([remote.first_block(file, state.size) for file, state in new])


def is_there(address: str) -> bool:
    """Whether a file lies beside shards elsewhere; stores refuse what is not there to some."""
    try:
        return remote.exist([address])[0]
    except remote.RefusedError:
        return False


def members(files: tuple[str, ...], found: list[Index]) -> Members:
    """The images of all shards, in order."""
    counts = [len(one.images) for one in found]
    starts = np.cumsum([0] + [len(one.images.text) + 1 for one in found[:-1]])
    text = b"\0".join(one.images.text for one in found)
    ends = [one.images.ends + start for one, start in zip(found, starts, strict=True)]
    return Members(
        Paths.packed(text, np.concatenate(ends)),
        files,
        np.repeat(np.arange(len(files), dtype=np.int32), counts),
        np.concatenate([one.offsets for one in found]),
        np.concatenate([one.sizes for one in found]),
    )


def label_parts(
    files: tuple[str, ...], found: list[Index], names: tuple[str, ...], multilabel: bool
) -> Iterator[np.ndarray]:
    """The labels of each shard: int64 [N], or uint8 [N, classes] with `several`."""
    width = len(names) or found[0].labels[0].count(",") + 1
    known: dict[str, int | list[int]] = {}
    for file, one in zip(files, found, strict=True):
        texts = list(one.labels)
        new = set(texts) - known.keys()
        if multilabel:
            known |= {t: row for t in new if (row := lists.parse(t, width)) is not None}
        else:
            known |= label_numbers(new, names)
        wrong = [place for place, text in enumerate(texts) if text not in known]
        if wrong:
            shown = [mistake(file, one, i, names, multilabel, width) for i in wrong[: lists.SHOWN]]
            raise UserError(*first_of(shown + [""] * len(wrong[lists.SHOWN :])))
        yield np.array([known[text] for text in texts], np.uint8 if multilabel else np.int64)


def mistake(
    file: str, one: Index, place: int, names: tuple[str, ...], multilabel: bool, width: int
) -> str:
    """What is wrong with an image's label."""
    image = one.images[place]
    text = one.labels[place]
    folder, slash, name = image.rpartition("/")
    where = f"{file}:{folder}{slash}{name.partition('.')[0]}{LABELS[one.endings[place]]}"
    if multilabel:
        return f"{where}: {lists.mistake(text, width)}"
    return f"{where}: {lists.label_mistake(text, names, is_csv=True)}"

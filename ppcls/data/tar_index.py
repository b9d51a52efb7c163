"""What is in a tar of photos (WebDataset's layout), and where: read once, then kept in the cache.

A photo `000123.jpg` has a label beside it, `000123.cls` (one class, in text) or, without one,
`000123.txt` (`0,1,0`). What stands before a name's first dot tells what belongs together; other
members are left alone.
"""

import hashlib
import os
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np

from ppcls import environment
from ppcls.data.images import AVIF, HEIF, SUFFIXES, readable
from ppcls.data.paths import Paths
from ppcls.errors import UserError
from ppcls.utils.files import require_plain
from ppcls.utils.text import first_of

LABELS = (".cls", ".txt")  # endings of labels, the one that counts first
VERSION = 2  # of a kept index; another one is written anew


class Index(NamedTuple):
    """The photos of a tar in its order: names, bytes (int64 [N] each) and the text of the labels.

    `endings` (uint8 [N]) is each label's place in LABELS.
    """

    photos: Paths
    offsets: np.ndarray
    sizes: np.ndarray
    labels: Paths
    endings: np.ndarray


def index(file: str) -> Index:
    """The photos of a tar, from the cache where the tar's size and time are those kept there.

    Raises:
        UserError: not a tar or a compressed one, one cut short, a photo without a label, …: up to
            ten mistakes at once, each with its `train-000003.tar:000123.jpg`.
    """
    name = hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:32]
    place = environment.home() / "shards" / "index" / f"{name}.npz"
    try:
        found = os.stat(file)
        require_plain(file, found.st_mode, seekable=True)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    state = np.array([VERSION, found.st_size, found.st_mtime_ns])
    try:
        with place.open("rb") as content, np.load(content) as kept:
            if np.array_equal(kept["state"], state):
                return unpack(kept)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        pass  # not there, of another version, or damaged by hand
    read = scan(file)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{uuid4().hex}.npz")
        keep(read, temporary, state)
        temporary.replace(place)
    except OSError as error:
        advice = "make room or give access there, or set PPCLS_HOME to another folder"
        raise UserError(f"{place}: {error.strerror}: {advice}") from error
    return read


def keep(read: Index, file: Path, state: np.ndarray) -> None:
    np.savez(
        file,
        state=state,
        photos=np.frombuffer(read.photos.text, np.uint8),
        photo_ends=read.photos.ends,
        labels=np.frombuffer(read.labels.text, np.uint8),
        label_ends=read.labels.ends,
        offsets=read.offsets,
        sizes=read.sizes,
        endings=read.endings,
    )


def unpack(kept: "np.lib.npyio.NpzFile") -> Index:
    photos = Paths.packed(kept["photos"].tobytes(), kept["photo_ends"])
    labels = Paths.packed(kept["labels"].tobytes(), kept["label_ends"])
    return Index(photos, kept["offsets"], kept["sizes"], labels, kept["endings"])


def scan(file: str) -> Index:
    """Read a tar's headers and labels; every mistake in it is in the message."""
    photos: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, dict[str, str]] = {}
    mistakes: list[str] = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                take(tar, member, photos, labels, mistakes)
            check_end(tar, file)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{file}: not an uncompressed tar, damaged or cut short ({error}); fetch it again"
        ) from None
    beside = " or ".join(LABELS)
    mistakes += [
        f"{member.name}: no label {beside} beside it"
        for key, member in photos.items()
        if key not in labels
    ]
    mistakes += [f"{key}{next(iter(labels[key]))}: no photo beside it"
                 for key in labels if ".cls" in labels[key] and key not in photos]  # fmt: skip
    if mistakes or not photos:
        found = [f"{file}:{text}" for text in mistakes] or [f"{file}: no photos in it"]
        raise UserError(*first_of(found))
    endings = [0 if LABELS[0] in labels[key] else 1 for key in photos]
    return Index(
        Paths([member.name for member in photos.values()]),
        np.array([member.offset_data for member in photos.values()], np.int64),
        np.array([member.size for member in photos.values()], np.int64),
        Paths([labels[key][LABELS[end]] for key, end in zip(photos, endings, strict=True)]),
        np.array(endings, np.uint8),
    )


def take(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    photos: dict[str, tarfile.TarInfo],
    labels: dict[str, dict[str, str]],
    mistakes: list[str],
) -> None:
    """Put a member where it belongs."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, ending = name.partition(".")
    key, ending = folder + slash + stem, f".{ending.lower()}"
    if not stem or ending not in (*SUFFIXES, *AVIF, *HEIF, *LABELS):
        return
    if not member.isreg() or member.issparse():
        mistakes.append(f"{member.name}: a link or no plain file; write the file itself")
    elif ending not in LABELS and ending not in readable():
        mistakes.append(f"{member.name}: is not read here; pip install pillow-heif 'pillow>=11.3'")
    elif ending not in LABELS and key in photos:
        mistakes.append(f"{member.name}: {photos[key].name} has the same key {key!r}")
    elif ending not in LABELS:
        photos[key] = member
    elif ending in labels.setdefault(key, {}):
        mistakes.append(f"{member.name}: stands in it twice")
    else:
        content = tar.extractfile(member)
        assert content
        text = content.read().decode("utf-8", "replace").strip()
        labels[key][ending] = text
        if not text or "\0" in text or "\ufffd" in text:
            mistakes.append(f"{member.name}: {'not UTF-8 text' if text else 'empty'}")


def check_end(tar: tarfile.TarFile, file: str) -> None:
    """A tar ends in a block of zeros: tarfile takes a cut between members, or bytes that are no
    header, for its end as well.
    """
    with open(file, "rb") as content:
        content.seek(tar.offset)
        block = content.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {tar.offset:,}")

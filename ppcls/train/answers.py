"""A teacher's answers to a data set in a file, so that a heavy teacher runs once.

The first line is a JSON header that says whose answers to what they are. A record for each image
follows, in the order of the data set: the `top` classes, the likeliest first, their log
probabilities in float16, and the log of all others' probability together. Records are appended, so
that a file that was cut goes on where it ends.
"""

import errno
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config.tree import differences
from ppcls.utils.errors import UserError
from ppcls.utils.files import (
    LONGEST_HEADER,
    header_line,
    locked,
    read_header,
    require_plain,
    write_bytes,
    writing,
)
from ppcls.utils.text import plural

FORMAT = "ppcls answers of a teacher, 1"
FOREIGN = "holds no answers of a teacher; `ppcls teach` writes such files"
NOTHING = -60000.0  # the logarithm of 0, in float16


def record_of(top: int, classes: int) -> np.dtype:
    """The type of an image's record."""
    number = "<u2" if classes <= 1 << 16 else "<u4"
    return np.dtype([("classes", number, (top,)), ("logs", "<f2", (top,)), ("rest", "<f2")])


def pack(logits: np.ndarray, top: int) -> np.ndarray:
    """Logits [N, classes] to records [N]."""
    logits = logits.astype(np.float64)
    highest = logits.max(axis=1, keepdims=True)
    logs = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    order = np.argsort(-logs, axis=1, kind="stable")
    ordered = np.take_along_axis(logs, order, axis=1)
    records = np.zeros(len(logs), record_of(top, logs.shape[1]))
    records["classes"] = order[:, :top]
    records["logs"] = np.maximum(ordered[:, :top], NOTHING)
    with np.errstate(divide="ignore"):  # where nothing is left
        rest = np.log(np.exp(ordered[:, top:]).sum(axis=1))
    records["rest"] = np.maximum(rest, NOTHING)
    return records


def unpack(records: np.ndarray, classes: int) -> np.ndarray:
    """Records [N] to logits float32 [N, classes]; classes that were left out share the rest."""
    top = records["classes"].shape[1]
    others = max(1, classes - top)
    rest = records["rest"].astype(np.float32) - math.log(others)
    logits = np.repeat(rest[:, None], classes, axis=1)
    logs = records["logs"].astype(np.float32)
    np.put_along_axis(logits, records["classes"].astype(np.int64), logs, axis=1)
    return logits


class Writing:
    """A file of answers that is being written; `done` images are in it already."""

    def __init__(self, path: Path, header: Mapping[str, Any]):
        """Begin the file, or go on with one that was cut.

        Raises:
            UserError: it cannot be written, or holds something else.
        """
        self.path = path
        self.record = record_of(header["top"], header["classes"])
        first = header_line(header)
        busy = "wait for it, or end it; another --output writes elsewhere"
        self.stack = ExitStack()  # of the lock, as two processes would mix their answers
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            name = f".{path.name[:200]}.lock"
            self.stack.enter_context(locked(path.with_name(name), str(path), busy))
            if path.exists():
                require_plain(path, seekable=True)
            if path.exists() and path.stat().st_size:
                found = read_header(path, FORMAT, FOREIGN)
                check(path, found, header, "give another --output, or delete it")
                records = path.stat().st_size - len(first)
                self.done = min(records // self.record.itemsize, header["photos"])
            else:
                write_bytes(path, first)
                self.done = 0
            self.file = path.open("r+b", buffering=0)  # a full disk is known at once
        except OSError as error:
            self.stack.close()
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        except UserError:
            self.stack.close()
            raise
        self.start = len(first)
        self.cut(self.done)

    def cut(self, images: int) -> None:
        """Keep the answers to the first so many images."""
        self.file.truncate(self.start + images * self.record.itemsize)
        self.file.seek(0, 2)

    def add(self, logits: np.ndarray) -> None:
        """The answers to the next images, [N, classes]."""
        records = pack(logits, self.record["classes"].shape[0]).tobytes()
        with writing(str(self.path), "make room, and the same command goes on"):
            if self.file.write(records) < len(records):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        self.file.close()
        self.stack.close()


def check(path: Path, found: dict[str, Any], wanted: Mapping[str, Any], remedy: str) -> None:
    """UserError unless a header says what is wanted, as far as that goes."""
    changes = differences({key: found.get(key) for key in wanted}, dict(wanted))
    if changes:
        text = "; ".join(f"{key}: {change}" for key, change in changes.items())
        raise UserError(f"{path}: holds other answers than are wanted ({text}): {remedy}")


def open_answers(path: Path, wanted: Mapping[str, Any]) -> np.ndarray:
    """The records of all images, mapped from the file.

    Raises:
        UserError: no such file, cut, or of another teacher, view or data set than `wanted`.
    """
    header = read_header(path, FORMAT, FOREIGN)
    check(path, header, wanted, "write it anew with `ppcls teach`, or leave out teacher.cache")
    with path.open("rb") as file:
        start = len(file.readline(LONGEST_HEADER))
    record = record_of(header["top"], header["classes"])
    images = header["photos"]
    there = (path.stat().st_size - start) // record.itemsize
    if there < images:
        raise UserError(
            f"{path}: has answers to {there:,} of {plural(images, 'image')}: `ppcls teach` "
            "goes on with it"
        )
    return np.memmap(path, record, "r", start, (images,))

"""Pooled features of images in a file: written row by row, gone on with, and read again."""

import json
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ppcls.utils.errors import UserError
from ppcls.utils.files import lock, place_to_write, write_whole, writing
from ppcls.utils.text import from_json, plural, visible

FORM = "ppcls features 1"
SUFFIX = ".npz"
# What the features of one file have in common with those of another image, of a run's origin.
SAME = ("model", "preprocessing", "precision")
AGAIN = "--resume goes on with the same images and model, --overwrite begins anew"


@dataclass(frozen=True)
class Features:
    """A file's features: paths of N images, float32 [N, D], and what they were made with."""

    paths: list[str]
    features: np.ndarray
    about: dict[str, Any]


def read(path: str | os.PathLike[str]) -> Features:
    """What `predict --features` wrote; nothing in it is run.

    Raises:
        UserError: it is missing, damaged or something else.
    """
    mistake = f"{path}: is no file of predict --features"
    try:
        with np.load(path, allow_pickle=False) as file:
            names, values = file["paths"], file["features"]
            about = from_json(str(file["about"]))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; predict --features makes it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError, MemoryError, TypeError) as error:
        reason = visible(" ".join(str(error).split()))
        raise UserError(f"{mistake}, or is damaged ({reason})") from None
    fits = names.ndim == 1 and names.dtype.kind == "U" and values.ndim == 2
    fits = fits and values.dtype == np.float32 and len(names) == len(values)
    if not fits or not isinstance(about, dict) or about.get("format") != FORM:
        raise UserError(mistake)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: has features that are no numbers; make it again")
    return Features(names.tolist(), values, about)


class FeatureFile:
    """A file of features that grows image by image.

    While it does, rows of an image's number and its features stand in `x.npz.incomplete`; in the
    end `x.npz` is written from them, whole.
    """

    def __init__(self, target: str | os.PathLike[str]):
        """Say where; nothing is opened yet.

        Raises:
            UserError: `target` cannot be written, or has another ending.
        """
        self.name = f"--features {target}"
        if Path(target).suffix.lower() != SUFFIX:
            raise UserError(f"{self.name}: the file name should end in {SUFFIX}")
        self.target = place_to_write(self.name, target)
        self.path = self.target.with_name(self.target.name + ".incomplete")
        self.file: IO[bytes] | None = None
        self.row = np.dtype([])

    def begin(self, count: int, done: int) -> None:
        """Open it.

        Args:
            count: of features of an image.
            done: images of an earlier run, whose rows are kept.

        Raises:
            UserError: an earlier run kept no features, or it cannot be written.
        """
        self.row = np.dtype([("index", "<u8"), ("features", "<f4", (count,))])
        if done and not self.path.is_file():
            raise UserError(
                f"{self.name}: {self.path.name} is not there, so the features of "
                f"{plural(done, 'image')} of the earlier run are unknown; --overwrite begins anew"
            )
        with writing(self.name):
            number = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self.file = open(number, "r+b", buffering=0)  # noqa: SIM115
            if lock(number) is False:
                raise UserError(f"{self.path}: another process is writing it")
            rows = self.rows()
            kept = int((rows["index"] < done).sum()) if done else 0
            del rows
            self.file.truncate(kept * self.row.itemsize)
            self.file.seek(0, os.SEEK_END)

    def rows(self) -> np.ndarray:
        """The whole rows that are there, not read into memory at once."""
        count = self.path.stat().st_size // self.row.itemsize
        if not count:
            return np.empty(0, self.row)
        return np.memmap(self.path, self.row, "r", shape=(count,))

    def write(self, index: int, features: np.ndarray) -> None:
        """The features of the image of that number, float32 [D]."""
        assert self.file
        row = np.empty(1, self.row)
        row["index"] = index
        row["features"] = features
        data = row.tobytes()
        with writing(self.name, f"make room; {AGAIN}"):
            while data:
                data = data[self.file.write(data) or 0 :]

    def finish(self, images: Sequence[str], about: dict[str, Any]) -> None:
        """All is there: write the file."""
        assert self.file
        rows = self.rows()
        paths = [str(images[index]) for index in rows["index"]]
        text = json.dumps({"format": FORM, **{key: about[key] for key in SAME}})
        with write_whole(self.target, self.name, "make room") as file:
            np.savez(
                file,
                paths=np.array(paths, "U") if paths else np.empty(0, "U1"),
                features=rows["features"],
                about=np.array(text),
            )
        del rows
        self.close(keep=False)

    def close(self, keep: bool) -> None:
        """End; without `keep`, the rows are removed."""
        if not self.file or self.file.closed:
            return
        self.file.close()
        if not keep:
            with suppress(OSError):
                self.path.unlink()

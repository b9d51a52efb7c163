"""A run's folder: one run at a time, an old one put aside, what was not read or is no number."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from ppcls.data.loader import Batch
from ppcls.train.checkpoint import BEST, LATEST
from ppcls.train.distributed import Processes
from ppcls.utils.errors import UserError
from ppcls.utils.files import beside, locked, read_file, remove, write_text, write_whole, writing
from ppcls.utils.log import KEEPS, say
from ppcls.utils.text import BYTES, escaped, from_json, plural

FILE = "skipped.txt"


class Skipped:
    """Each such image once, with the reason; in the run's folder, a line each."""

    def __init__(self, folder: Path, writes: bool):
        self.path = folder / FILE
        self.writes = writes
        known = read(self.path)
        self.lines = dict.fromkeys(known)
        self.said = len(known)
        self.last = ""  # the one met last

    def add(self, lines: Iterable[str]) -> None:
        met = dict.fromkeys(escaped(line, kept=BYTES) for line in lines)  # a line each
        self.last = next(reversed(met), self.last)
        new = [line for line in met if line not in self.lines]
        self.lines |= dict.fromkeys(new)
        if new and self.writes:
            text = "".join(f"{line}\n" for line in new)
            with writing(str(self.path), KEEPS), self.path.open("ab") as file:
                file.write(text.encode("utf-8", "surrogateescape"))

    def tell(self) -> None:
        """Say how many there are, when there are more than last time."""
        if len(self.lines) > self.said:
            self.said = len(self.lines)
            first = next(iter(self.lines))
            many = (
                plural(self.said, "image cannot be read and is", "images cannot be read and are")
                + " left out"
            )
            say(f"note: {many}, such as {first}; all of them: {self.path}")


def read(path: Path) -> list[str]:
    text = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
    return text.removesuffix("\n").split("\n") if text else []


# --------------------------------------------------------------------------
# A run's folder: one run at a time writes there, and a new run replaces an old one when it can

LOCK = ".lock"
TRACKERS = "trackers.json"  # what their runs are called where they are kept
TRACKED = ("vdl", "tensorboard", "wandb", TRACKERS)  # what trackers write
RECIPE = "recipe.yml"
REPLACED = ".replaced"
LISTED = "files.json"
CHECKPOINTS = (LATEST, BEST, "step-*.safetensors")
OTHERS = ("run.jsonl", RECIPE, "curves.png", FILE, *TRACKED)
ELSEWHERE = "-o output=FOLDER writes elsewhere"


@contextmanager
def alone(folder: Path, processes: Processes) -> Iterator[None]:
    """While entered, no other run writes to the folder, where nothing half replaced is left.

    Raises:
        UserError: another run does, or it cannot be written; in all processes that train together.
    """
    with ExitStack() as stack:
        mistake = ""
        if processes.first:  # the one that writes
            try:
                stack.enter_context(one_run(folder))
            except UserError as error:
                mistake = str(error)
        (mistake, *_) = processes.gather(mistake)
        if mistake:
            raise UserError(mistake)
        yield


@contextmanager
def one_run(folder: Path) -> Iterator[None]:
    busy = f"wait for it, or end it; {ELSEWHERE}"
    with ExitStack() as stack:
        with writing_to(folder):
            stack.enter_context(locked(folder / LOCK, f"output: {folder}", busy))
            settle(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # the next run does it
                settle(folder)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """While entered, what the file system refuses is one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"output: {folder} cannot be written ({error.strerror or error}): -o output=FOLDER"
        ) from None


def own_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def has_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LATEST, BEST))


def require_free(folder: Path) -> None:
    """UserError for a folder that holds a run, which would have to be gone on with or replaced."""
    if has_run(folder):
        raise UserError(
            f"{folder} already holds a run: --resume goes on with it, --overwrite starts anew, "
            f"{ELSEWHERE}"
        )


def make_way(folder: Path) -> None:
    """Put an earlier run's files aside, for a new run that may end before it has a checkpoint.

    The folder `REPLACED` appears with a list of all of them, from which each step can be undone.
    """
    checkpoints = own_files(folder, CHECKPOINTS)
    others = own_files(folder, OTHERS)
    if not checkpoints + others:
        return
    states = {path.name: state(path) for path in checkpoints}
    listed = {"checkpoints": states, "others": [path.name for path in others]}
    aside = beside(folder / REPLACED, "tmp")
    aside.mkdir()
    write_text(aside / LISTED, json.dumps(listed))
    os.rename(aside, folder / REPLACED)
    for path in others:
        os.rename(path, folder / REPLACED / path.name)


def settle(folder: Path) -> None:
    """Forget the run that was put aside if the new one has a checkpoint, else put it back."""
    aside = folder / REPLACED
    if not aside.is_dir():
        return
    try:
        listed = from_json(read_file(aside / LISTED))
        states = dict(listed["checkpoints"])
        others = list(map(str, listed["others"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{aside / LISTED}: damaged, so it does not tell which files of the earlier run are "
            f"where: move what {aside} holds out of it by hand, and delete it"
        ) from None
    there = own_files(folder, CHECKPOINTS)
    old = [path for path in there if states.get(path.name) == state(path)]
    if len(old) < len(there):
        for path in old:
            path.unlink()
    else:
        put_back(folder, aside, others)
        if old:
            say(f"{folder}: the earlier run is back, for the new one has no checkpoint")
    shutil.rmtree(aside)


def put_back(folder: Path, aside: Path, others: Sequence[str]) -> None:
    for path in own_files(folder, OTHERS):
        if path.name not in others or (aside / path.name).exists():  # the new run's
            remove(path)
    for name in others:
        if (aside / name).exists():
            os.rename(aside / name, folder / name)


def state(path: Path) -> list[int]:
    """Tells a file from another one that is later written in its place."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


# --------------------------------------------------------------------------
# What a run leaves for whoever looks into it when its numbers are none any more

FILES = ("not_finite.txt", "not_finite.npz")


def keep_not_finite(folder: Path, places: Sequence[str], batches: Sequence[Batch]) -> str:
    """Keep the images of a step whose loss is no number; returns the words that say where.

    Args:
        places: where the images of all processes' batches stand.
        batches: this process's, whose pixels and targets are written as arrays.
    """
    if not places:
        return ""
    text, arrays = (folder / name for name in FILES)
    numbered = {f"{what}_{i}": value for i, b in enumerate(batches) for what, value in arrays_of(b)}
    try:
        write_text(text, "".join(f"{escaped(place, kept=BYTES)}\n" for place in places))
        with write_whole(arrays) as file:
            np.savez(file, allow_pickle=False, **numbered)
    except UserError as error:
        return f"; its images could not be noted: {error}"
    return f"; its images are listed in {text}, their pixels as the network saw them in {arrays}"


def arrays_of(batch: Batch) -> list[tuple[str, np.ndarray]]:
    return [("images", batch.images), ("targets", batch.targets), ("indices", batch.indices)]

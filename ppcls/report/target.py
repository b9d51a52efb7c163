"""A report's files are written beside their places and moved there when they are whole."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcls.errors import UserError


@contextmanager
def staged(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """A place to write the files `names`, some or all; at the end they replace those in `folder`.

    Other files in the folder stay; when something is raised meanwhile, nothing there has changed.

    Raises:
        UserError: `folder` is no folder, one of the names is taken by one, or it cannot be written.
    """
    temporary = folder / ".incomplete"
    with writing(folder):
        check(folder, names)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
        yield temporary
        with writing(folder):
            for name in names:
                if (temporary / name).exists():
                    (temporary / name).replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
        made = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for place in made:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """While entered, what the file system refuses is the user's mistake."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--report {folder}: cannot be written ({reason})") from None


def check(folder: Path, names: Collection[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--report {folder}: exists and is no folder; name another one")
    taken = [name for name in names if (folder / name).is_dir()]
    if taken:
        raise UserError(f"--report {folder}: {folder / taken[0]} is a folder; name another one")

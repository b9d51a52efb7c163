"""A report's folder: replaced whole, and not by a report on something else."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ppcls.errors import UserError
from ppcls.utils import files
from ppcls.utils.text import from_json

FIX = "name another folder, or make room"


@contextmanager
def staged(
    folder: Path,
    names: Collection[str],
    record: str = "",
    about: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """A place to write the files `names`, some or all; at the end they replace those in `folder`.

    Other files in the folder stay; when something is raised meanwhile, nothing there has changed.
    A kill leaves the old or the new files, all of them, where there are no others.

    Args:
        names: the last of them is the one without which there is no report.
        record: the one that says what the report is on.
        about: what the new report is on.
        overwrite: replace a report on something else, too.

    Raises:
        UserError: `folder` is no folder, one of the names is taken by one, it holds another
            report, or it cannot be written.
    """
    *_, last = names
    with writing(folder):
        check(folder, names)
        if about and not overwrite:
            refuse_other(folder, names, record, about)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        given = {"what": f"--report {folder}", "fix": FIX, "shared": True}
        with files.staged_folder(folder, last, (*names, ".incomplete"), **given) as temporary:
            yield temporary
        made = []
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def writing(folder: Path) -> AbstractContextManager[None]:
    """While entered, what the file system refuses is the user's mistake."""
    return files.writing(f"--report {folder}", FIX)


def check(folder: Path, names: Collection[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--report {folder}: exists and is no folder; name another one")
    taken = [name for name in names if (folder / name).is_dir()]
    if taken:
        raise UserError(f"--report {folder}: {folder / taken[0]} is a folder; name another one")


def refuse_other(
    folder: Path, names: Collection[str], record: str, about: Mapping[str, str]
) -> None:
    """UserError where a report on something else is, or files of its names that are of none."""
    advice = "--overwrite replaces it, --report FOLDER writes elsewhere"
    if not (folder / record).exists():
        taken = [name for name in names if (folder / name).exists()]
        if taken:
            raise UserError(
                f"--report {folder}: {folder / taken[0]} is there, of no report: {advice}"
            )
        return
    try:
        found = from_json((folder / record).read_bytes())
    except ValueError:  # cut by a crash
        return
    found = found if isinstance(found, dict) else {}
    if any(found.get(key) != value for key, value in about.items()):
        known = "; ".join(f"{key} {found[key]}" for key in about if key in found)
        raise UserError(
            f"--report {folder}: already holds a report on {known or 'something else'}: {advice}"
        )

"""The folder that an exported network is written into: whole, and in no other network's place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ppcls.errors import UserError
from ppcls.inference import folder, manifest
from ppcls.log import say
from ppcls.utils.files import staged_folder, writing

OWN = (manifest.FILE, *folder.NAMES, folder.CACHE)


@dataclass(frozen=True)
class Origin:
    """What an exported network was made from: two exports of the same may replace each other."""

    model: str
    source: str  # the file of its weights, "" when unknown
    precision: str = "fp32"

    @classmethod
    def of(cls, about: manifest.Manifest) -> "Origin":
        return cls(about.model, str(about.about.get("source", "")), about.precision)

    def same(self, other: "Origin") -> bool:
        if not self.source or not other.source:
            return False
        own, others = (
            (origin.model, origin.precision, os.path.abspath(origin.source))
            for origin in (self, other)
        )
        return own == others

    def __str__(self) -> str:
        source = f" made from {self.source}" if self.source else ""
        return f"{self.model} in {self.precision}{source}"


@contextmanager
def staged(output: Path, origin: Origin, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write `output`'s files into; it takes the place of `output` when all went well.

    Args:
        origin: what the new export is made from.
        overwrite: replace an export of something else, too.

    Raises:
        UserError: `output` is something else than an exported folder, or another network's, or
            cannot be written.
    """
    fix = "--output FOLDER"
    with writing(str(output), fix):
        replaced = check(output, origin, overwrite)
        clear_rest(output.with_name(f"{output.name}.incomplete"))
    # What is written into the folder meanwhile fails as the folder itself does.
    with writing(str(output), fix), staged_folder(output, manifest.FILE, OWN, fix=fix) as temporary:
        yield temporary
    if replaced:
        say(f"{output}: replaced the export of {replaced} that was there")


def check(output: Path, origin: Origin, overwrite: bool) -> Origin | None:
    """What the export in a folder was made from, None without one."""
    if not output.exists() and not output.is_symlink():
        return None
    if not (output.is_dir() and (is_export(output) or is_rest(output))):
        raise UserError(f"{output} exists and is no exported folder; --output FOLDER")
    if not is_export(output):
        return None
    try:
        found = Origin.of(manifest.read(output))
    except UserError:  # not one that this version can read
        found = Origin("another network", "", "an unknown form")
    if not overwrite and not found.same(origin):
        raise UserError(
            f"{output} already holds an export of {found}: --overwrite replaces it, "
            "--output FOLDER writes elsewhere"
        )
    return found


def is_export(output: Path) -> bool:
    return (output / manifest.FILE).exists()


def is_rest(output: Path) -> bool:
    """Whether nothing but an export's files is there: one was killed while it was replaced."""
    return all(path.name in OWN for path in output.iterdir())


def clear_rest(incomplete: Path) -> None:
    """Remove what earlier versions left beside the folder when they were killed."""
    if incomplete.is_dir() and not incomplete.is_symlink() and is_rest(incomplete):
        shutil.rmtree(incomplete)


def sizes(temporary: Path) -> dict[str, int]:
    """Bytes of the network's files, by name."""
    return {path.name: path.stat().st_size for path in folder.network_files(temporary)}

"""Findings as lines for people, as a table, and as a sheet of pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppcls.check.findings import KINDS, NOTES, Finding
from ppcls.check.survey import Album
from ppcls.data import images
from ppcls.errors import UserError
from ppcls.report import sheets
from ppcls.report.sheets import Card
from ppcls.utils.csv_text import to_csv

SHOWN = 10  # findings of a kind, on the screen
NAMED = 3  # photos of a group, on the screen
DRAWN = 50  # pairs on the sheets
MANY = 0.05  # share of all photos from which near-duplicates need a word of explanation
COLUMNS = ("kind", "group", "part", "path", "line", "label", "detail")
EXACT = ("leak", "two labels", "duplicate")
DOUBTFUL = ("near leak", "near two labels", "near duplicate")  # which eyes must judge: drawn first


def lines(album: Album, found: Sequence[Finding]) -> Iterator[str]:
    """What the screen says: at most ten findings of each kind, one of each note."""
    for kind, text in (KINDS | NOTES).items():
        own = [finding for finding in found if finding.kind == kind]
        if not own:
            continue
        yield f"{'note: ' if kind in NOTES else ''}{kind} ({len(own):,}): {text}"
        shown = own[: 1 if kind in NOTES else SHOWN]
        yield from (f"  {describe(album, finding)}" for finding in shown)
        if len(own) > len(shown):
            yield f"  … and {len(own) - len(shown):,} more"
    alike = {photo for f in found if f.kind in (*DOUBTFUL, "crowd") for photo in f.photos}
    if len(alike) > MANY * len(album):
        yield (
            f"note: {len(alike) / len(album):.0%} of the photos look much like another one. Photos "
            "taken alike of things that are alike do; look at --sheet, and if they differ, ask for "
            "less with --near 8 or --near 0. Series of shots do, too: keep each on one side."
        )


def describe(album: Album, finding: Finding) -> str:
    """One line: the places of the photos, with labels where they matter, and the detail."""
    labelled = finding.kind.endswith("two labels")
    places = [
        f"{album.where(photo)} [{album.label(photo)}]" if labelled else album.where(photo)
        for photo in finding.photos[:NAMED]
    ]
    more = len(finding.photos) - len(places)
    places += [f"{more} more"] if more else []
    joined = (" = " if finding.kind in EXACT else " ~ ").join(places)
    return f"{joined}: {finding.detail}" if joined else finding.detail


def table(album: Album, found: Sequence[Finding]) -> bytes:
    """CSV with a row for each photo of each finding; `group` numbers the findings."""
    return to_csv(rows(album, found), "\n").encode("utf-8", "surrogateescape")


def rows(album: Album, found: Sequence[Finding]) -> Iterator[Sequence[Any]]:
    yield COLUMNS
    for group, finding in enumerate(found, 1):
        for photo in finding.photos:
            part, samples, index = album.find(photo)
            line = "" if samples.lines is None else samples.lines[index]
            place = [part, samples.paths[index], line, album.label(photo)]
            yield [finding.kind, group, *place, finding.detail]
        if not finding.photos:
            yield [finding.kind, group, "", "", "", "", finding.detail]


def pair_sheet(album: Album, found: Sequence[Finding], output: Path, what: str) -> str:
    """Draw a card for each pair, the first two photos of a group; the files' names, "" without any.

    Raises:
        UserError: a file that cannot be written.
    """
    groups = [f for kind in DOUBTFUL + EXACT for f in found if f.kind == kind][:DRAWN]
    if not groups:
        return ""
    drawn = sheets.draw_pages((pair(album, group) for group in groups), layout(len(groups)))
    return sheets.write_pages(what, output, drawn)


def layout(pairs: int) -> sheets.Layout:
    return sheets.lay_out(pairs, 2, sheets.TILE, lines=2)


def pair(album: Album, group: Finding) -> Card:
    """Two photos, their files beneath, their labels where those matter, and the finding."""
    two = group.photos[:2]
    heads = ["/".join(Path(album.path(photo)).parts[-3:]) for photo in two]
    more = len(group.photos) - len(two)
    about = f"{group.kind}: {group.detail}" + (f", {more} more alike" if more else "")
    labels = " | ".join(f"{album.part(photo)}: {album.label(photo)}" for photo in two)
    return Card([images.read(album.path(photo)) for photo in two], heads, (about, labels))


def require_target(option: str, path: Path | None, suffix: str, overwrite: bool = False) -> None:
    """UserError, before the work, for a file that is there, or that could not be written after."""
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise UserError(f"{option} {path}: the file name should end in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option} {path}: cannot be written; does the folder exist?")
    sheets.refuse_existing(f"{option} {path}", path, overwrite)

"""`ppcls check-data`: findings as lines for people, as a table, and as sheets of images."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppcls.check.check_labels import LABELLED, LabelCheck
from ppcls.check.findings import KINDS, NOTES, Finding, findings, ordered
from ppcls.check.survey import UNLABELED, Album, Demands, survey
from ppcls.data import datasets, decode
from ppcls.data.groups import GroupBy, with_groups
from ppcls.data.preprocess import both
from ppcls.data.samples import Dataset
from ppcls.data.transforms import ResizeShort, sides
from ppcls.data.unlabeled import find_unlabeled
from ppcls.recipe import Recipe
from ppcls.report import sheets
from ppcls.report.sheets import Card, require_room
from ppcls.train.open_data import each_fold, located, open_part
from ppcls.train.setup import open_listed, with_preprocess
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_bytes
from ppcls.utils.log import say
from ppcls.utils.text import plural, to_csv

SHOWN = 10  # findings of a kind, on the screen
NAMED = 3  # images of a group, on the screen
DRAWN = 50  # pairs on the sheets
MANY = 0.05  # share of all images from which near-duplicates need a word of explanation
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
    alike = {image for f in found if f.kind in (*DOUBTFUL, "crowd") for image in f.images}
    if len(alike) > MANY * len(album):
        yield (
            f"note: {len(alike) / len(album):.0%} of the images look much like another one. Images "
            "taken alike of things that are alike do; look at --sheet, and if they differ, ask for "
            "less with --near 8 or --near 0. Series of shots do, too: keep each on one side."
        )


def describe(album: Album, finding: Finding) -> str:
    """One line: the places of the images, with labels where they matter, and the detail."""
    labelled = finding.kind.endswith("two labels") or finding.kind in LABELLED
    places = [
        f"{album.where(image)} [{album.label(image)}]" if labelled else album.where(image)
        for image in finding.images[:NAMED]
    ]
    more = len(finding.images) - len(places)
    places += [f"{more} more"] if more else []
    joined = (" = " if finding.kind in EXACT else " ~ ").join(places)
    return f"{joined}: {finding.detail}" if joined else finding.detail


def table(album: Album, found: Sequence[Finding]) -> bytes:
    """CSV with a row for each image of each finding; `group` numbers the findings."""
    return to_csv(rows(album, found), "\n").encode("utf-8", "surrogateescape")


def rows(album: Album, found: Sequence[Finding]) -> Iterator[Sequence[Any]]:
    yield COLUMNS
    for group, finding in enumerate(found, 1):
        for image in finding.images:
            part, samples, index = album.find(image)
            line = "" if samples.lines is None else samples.lines[index]
            place = [part, samples.paths[index], line, album.label(image)]
            yield [finding.kind, group, *place, finding.detail]
        if not finding.images:
            yield [finding.kind, group, "", "", "", "", finding.detail]


def pair_sheet(album: Album, found: Sequence[Finding], output: Path, what: str) -> str:
    """Draw a card for each pair, the first two images of a group; the files' names, "" without any.

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
    """Two images, their files beneath, their labels where those matter, and the finding."""
    two = group.images[:2]
    heads = ["/".join(Path(album.path(image)).parts[-3:]) for image in two]
    more = len(group.images) - len(two)
    about = f"{group.kind}: {group.detail}" + (f", {more} more alike" if more else "")
    labels = " | ".join(f"{album.part(image)}: {album.label(image)}" for image in two)
    return Card([decode.read(album.path(image)) for image in two], heads, (about, labels))


def require_target(option: str, path: Path | None, suffix: str, overwrite: bool = False) -> None:
    """UserError, before the work, for a file that is there, or that could not be written after."""
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise UserError(f"{option} {path}: the file name should end in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option} {path}: cannot be written; does the folder exist?")
    sheets.refuse_existing(f"{option} {path}", path, overwrite)


# --------------------------------------------------------------------------
# The check of a data set from its opening to its report


def check_data(
    album: Album,
    demands: Demands,
    near: int,
    output: Path | None,
    sheet: Path | None,
    overwrite: bool = False,
    labels: LabelCheck | None = None,
) -> bool:
    """Look at every image, say what is found, write the files; True where nothing is wrong.

    Args:
        labels: judge labels, too.

    Raises:
        UserError: a file that is there already, or that cannot be written.
    """
    require_target("--output", output, ".csv", overwrite=True)
    if sheet:
        require_target("--sheet", sheet, ".png", overwrite)
        require_room(f"--sheet {sheet}", sheet, layout(DRAWN), overwrite)
    if labels:
        labels.require_one_label(album)
        require_target("--fixes", labels.fixes, ".csv", overwrite)
        require_target("--labels-sheet", labels.sheet, ".png", overwrite)
    start = time.monotonic()
    seen = survey(album, demands)
    seconds = time.monotonic() - start
    found = findings(seen, near)
    judged = labels.judge(seen) if labels else None
    if judged:
        found = ordered([*found, *judged.findings()])
    for _, samples in album.labelled():
        say(*datasets.summary(samples))
    if more := album.parts.get(UNLABELED):
        say(f"{more.source}: {plural(len(more), 'image')} without labels")
    for line in lines(album, found):
        say(line)
    if output:
        write_bytes(output, table(album, found), f"--output {output}")
    if sheet:
        files = pair_sheet(album, found, sheet, f"--sheet {sheet}")
        say(f"wrote {files}" if files else f"--sheet {sheet}: not written, there are no pairs")
    if labels and judged:
        judged.write(labels.fixes, labels.sheet)
    wrong = sum(finding.kind in KINDS for finding in found)
    rate = f"{len(album) / seconds:,.0f} a second"
    many = plural(wrong, "finding") if wrong else "no findings"
    say(f"{plural(len(album), 'image')} looked at, {rate}: {many}")
    return not wrong


# --------------------------------------------------------------------------
# What is looked at


def of_recipe(recipe: Recipe) -> tuple[Album, Demands]:
    """The images a recipe trains on and is scored on, and what it asks of them."""
    recipe = replace(recipe, data=replace(recipe.data, labeled=1.0))  # all that there is
    if recipe.data.folds and not recipe.data.fold:
        recipe = with_preprocess(recipe)
        album = Album(folds_in_turn(recipe))
    else:
        recipe, inputs = open_listed(recipe)
        note_groups(recipe.data.group_by, inputs.eval)
        album = album_of(inputs.train, inputs.eval)
    if recipe.data.unlabeled:
        album.parts[UNLABELED] = find_unlabeled(recipe.data.unlabeled.images)
    least = max(min(both(size)) for size in sides(recipe.train_size))
    short = [op.pixels or least for op in recipe.train.transforms if isinstance(op, ResizeShort)]
    preprocess = recipe.preprocess
    if preprocess.fit == "crop" and isinstance(preprocess.resize, int):
        short.append(preprocess.resize)
    whole = preprocess.fit == "letterbox"
    return album, Demands(recipe.model.in_channels, max(short, default=0), preprocess.crop, whole)


def folds_in_turn(recipe: Recipe) -> dict[str, Dataset]:
    """The parts of a recipe whose folds are all trained: what each keeps for evaluation."""
    data = located(recipe.data)
    train = open_part("data.train", data.train, data, recipe.task.multilabel)
    datasets.check(train, recipe.model.num_classes or train.classes, "data.train")
    folds = enumerate(each_fold(train, data, recipe.seed), 1)
    return {f"fold {number}": held for number, (_, held) in folds}


def note_groups(group_by: GroupBy | None, evaluation: Dataset | None) -> None:
    """Say where images that are scored name no groups, so that none can be compared."""
    if group_by and evaluation is not None and evaluation.groups is None:
        say(
            f"note: {evaluation.source}: {group_by} names no group of its images, so groups are "
            "not looked at"
        )


def of_paths(paths: Sequence[str], group_by: GroupBy | None = None) -> tuple[Album, Demands]:
    """The images of one or two folders or lists: to train on, to be scored on."""
    train, evaluation = datasets.find_parts(paths[0], paths[1] if len(paths) > 1 else None)
    given = [path for path in (train, evaluation) if path]
    opened, *rest = [open_grouped(path, group_by) for path in given]
    ids = datasets.ids_in_words(opened)
    if ids:  # a finding; and so that the images can be looked at, names
        ids += "; a recipe numbers them with data.number_labels: true"
        opened, *rest = [open_grouped(path, group_by, number_labels=True) for path in given]
    datasets.note_numbers(opened)
    if rest:
        rest[0] = datasets.numbered_as(rest[0], opened.names, opened.classes, opened.source)
    return album_of(opened, rest[0] if rest else None, ids), Demands()


def open_grouped(path: str, group_by: GroupBy | None, number_labels: bool = False) -> Dataset:
    column = group_by.column if group_by else None
    samples = datasets.open_samples(path, number_labels=number_labels, group_column=column)
    return with_groups(samples, group_by.path) if group_by and group_by.path else samples


def album_of(train: Dataset, evaluation: Dataset | None, labels: str = "") -> Album:
    parts = {"train": train} | ({"eval": evaluation} if evaluation is not None else {})
    return Album(parts, labels)

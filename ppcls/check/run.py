"""The check of a data set from its opening to its report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ppcls.check.findings import KINDS, findings
from ppcls.check.photo import Demands
from ppcls.check.report import DRAWN, layout, lines, pair_sheet, require_target, table
from ppcls.check.survey import UNLABELED, Album, survey
from ppcls.data import datasets
from ppcls.data.datasets import Samples
from ppcls.data.sizes import sides
from ppcls.data.transforms import ResizeShort
from ppcls.data.unlabeled import find_unlabeled
from ppcls.inputs import open_listed
from ppcls.log import say
from ppcls.recipe import Recipe
from ppcls.report.sheets import require_room
from ppcls.utils.files import write_bytes
from ppcls.utils.text import plural


def check_data(
    album: Album,
    demands: Demands,
    near: int,
    output: Path | None,
    sheet: Path | None,
    overwrite: bool = False,
) -> bool:
    """Look at every photo, say what is found, write the files; True where nothing is wrong.

    Raises:
        UserError: a file that is there already, or that cannot be written.
    """
    require_target("--output", output, ".csv", overwrite=True)
    if sheet:
        require_target("--sheet", sheet, ".png", overwrite)
        require_room(f"--sheet {sheet}", sheet, layout(DRAWN), overwrite)
    start = time.monotonic()
    seen = survey(album, demands)
    seconds = time.monotonic() - start
    found = findings(seen, near)
    for _, samples in album.labelled():
        say(*datasets.summary(samples))
    if more := album.parts.get(UNLABELED):
        say(f"{more.source}: {plural(len(more), 'photo')} without labels")
    for line in lines(album, found):
        say(line)
    if output:
        write_bytes(output, table(album, found), f"--output {output}")
    if sheet:
        files = pair_sheet(album, found, sheet, f"--sheet {sheet}")
        say(f"wrote {files}" if files else f"--sheet {sheet}: not written, there are no pairs")
    wrong = sum(finding.kind in KINDS for finding in found)
    rate = f"{len(album) / seconds:,.0f} a second"
    many = plural(wrong, "finding") if wrong else "no findings"
    say(f"{plural(len(album), 'photo')} looked at, {rate}: {many}")
    return not wrong


def of_recipe(recipe: Recipe) -> tuple[Album, Demands]:
    """The photos a recipe trains on and is scored on, and what it asks of them."""
    recipe = replace(recipe, data=replace(recipe.data, labeled=1.0))  # all that there is
    recipe, inputs = open_listed(recipe)
    album = album_of(inputs.train, inputs.eval)
    if recipe.data.unlabeled:
        album.parts[UNLABELED] = find_unlabeled(recipe.data.unlabeled.photos)
    largest = sides(recipe.train_size)[-1]
    short = [op.pixels or largest for op in recipe.train.ops if isinstance(op, ResizeShort)]
    resize = max([recipe.preprocess.resize, *short])
    return album, Demands(recipe.model.in_channels, resize, recipe.preprocess.crop)


def of_paths(paths: Sequence[str]) -> tuple[Album, Demands]:
    """The photos of one or two folders or lists: to train on, to be scored on."""
    train, evaluation = datasets.find_parts(paths[0], paths[1] if len(paths) > 1 else None)
    given = [path for path in (train, evaluation) if path]
    opened, *rest = [datasets.open_samples(path) for path in given]
    ids = datasets.ids_in_words(opened)
    if ids:  # a finding; and so that the photos can be looked at, names
        ids += "; a recipe numbers them with data.number_labels: true"
        opened, *rest = [datasets.open_samples(path, number_labels=True) for path in given]
    datasets.note_numbers(opened)
    if rest:
        rest[0] = datasets.numbered_as(rest[0], opened.names, opened.classes, opened.source)
    return album_of(opened, rest[0] if rest else None, ids), Demands()


def album_of(train: Samples, evaluation: Samples | None, labels: str = "") -> Album:
    parts = {"train": train} | ({"eval": evaluation} if evaluation is not None else {})
    return Album(parts, labels)

"""The check of a data set from its opening to its report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ppcls.check.findings import KINDS, findings
from ppcls.check.photo import Demands
from ppcls.check.report import lines, pair_sheet, require_target, table
from ppcls.check.survey import UNLABELED, Album, survey
from ppcls.data import datasets
from ppcls.data.datasets import Samples
from ppcls.data.sizes import sides
from ppcls.data.transforms import ResizeShort
from ppcls.data.unlabeled import find_unlabeled
from ppcls.inputs import open_listed
from ppcls.log import say
from ppcls.recipe import Recipe
from ppcls.utils.files import write_bytes


def check_data(
    album: Album, demands: Demands, near: int, output: Path | None, sheet: Path | None
) -> bool:
    """Look at every photo, say what is found, write the files; True where nothing is wrong.

    Raises:
        UserError: a file that cannot be written.
    """
    require_target("--output", output, ".csv")
    require_target("--sheet", sheet, ".png")
    start = time.monotonic()
    seen = survey(album, demands)
    seconds = time.monotonic() - start
    found = findings(seen, near)
    for _, samples in album.labelled():
        say("\n".join(datasets.summary(samples)))
    if more := album.parts.get(UNLABELED):
        say(f"{more.source}: {len(more):,} photos without labels")
    for line in lines(album, found):
        say(line)
    if output:
        write_bytes(output, table(album, found), f"--output {output}")
    if sheet:
        drawn = pair_sheet(album, found)
        if drawn:
            write_bytes(sheet, drawn, f"--sheet {sheet}")
        else:
            say(f"--sheet {sheet}: not written, there are no pairs")
    wrong = sum(finding.kind in KINDS for finding in found)
    rate = f"{len(album) / seconds:,.0f} a second"
    say(f"{len(album):,} photos looked at, {rate}: {wrong or 'no'} findings")
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
    train, *rest = [datasets.open_samples(path) for path in paths]
    ids = datasets.ids_in_words(train)
    if ids:  # a finding; and so that the photos can be looked at, names
        ids += "; a recipe numbers them with data.number_labels: true"
        train, *rest = [datasets.open_samples(path, number_labels=True) for path in paths]
    datasets.note_numbers(train)
    if rest:
        rest[0] = datasets.numbered_as(rest[0], train.names, train.classes, train.source)
    return album_of(train, rest[0] if rest else None, ids), Demands()


def album_of(train: Samples, evaluation: Samples | None, labels: str = "") -> Album:
    parts = {"train": train} | ({"eval": evaluation} if evaluation is not None else {})
    return Album(parts, labels)

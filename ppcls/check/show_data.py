"""Sheets of images as the network will see them: `ppcls show-data -c recipe.yaml`."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ppcls.data import decode
from ppcls.data.loader import Pipeline, load_batch
from ppcls.data.preprocess import both
from ppcls.data.samples import Dataset
from ppcls.data.transforms import in_words, sides
from ppcls.data.unlabeled import JoinedDataset
from ppcls.recipe import Recipe
from ppcls.report import sheets
from ppcls.report.sheets import Card
from ppcls.train.setup import eval_pipeline, open_datasets, train_pipeline
from ppcls.utils.errors import UserError
from ppcls.utils.files import writing
from ppcls.utils.text import plural

LINES = 2  # of a caption: the label, the file


def show_data(
    recipe: Recipe,
    output: Path,
    count: int,
    epochs: int,
    evaluation: bool,
    overwrite: bool = False,
) -> str:
    """Write the sheet, of several pages where needed; returns one line that says what is on it.

    For each of `count` images spread over the data set: the whole image, then what the network is
    trained on in each of the first epochs, or with `evaluation` what it is scored on.

    Raises:
        UserError: data that is missing, a broken image, ops that do not end in the training size,
            an output that is there already or cannot be written.
    """
    if output.suffix.lower() not in sheets.FORMATS:
        raise UserError(f"{output}: a sheet's name ends in {', '.join(sheets.FORMATS)}")
    sheets.refuse_existing(str(output), output, overwrite)
    recipe, inputs = open_datasets(recipe)
    samples = inputs.eval if evaluation else inputs.shown
    if samples is None:
        raise UserError("data.eval is not given and data.holdout is 0: -o data.eval=PATH")
    view = eval_pipeline(recipe) if evaluation else train_pipeline(recipe)
    size = recipe.preprocess.crop if evaluation else recipe.train_size
    epochs = 1 if evaluation else epochs
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    longest = max(max(both(one)) for one in sides(size))
    layout = sheets.lay_out(len(chosen), 1 + epochs, longest, LINES)
    sheets.require_room(str(output), output, layout, overwrite)
    heads = [
        "image",
        *(["evaluation"] if evaluation else [f"epoch {e + 1}" for e in range(epochs)]),
    ]
    drawn = sheets.draw_pages(cards(samples, view, chosen, heads), layout)
    with writing(str(output)):
        output.parent.mkdir(parents=True, exist_ok=True)
    files = sheets.write_pages(str(output), output, drawn)
    shape = f"{size}x{size}" if isinstance(size, int) else f"{in_words(size)} px"
    what = "evaluation" if evaluation else f"{plural(epochs, 'epoch')} of training"
    many = f"{len(chosen):,} of {plural(len(samples), 'image')}"
    return f"{files}: {many} at {shape}, {what}"


def cards(
    samples: Dataset | JoinedDataset, view: Pipeline, chosen: np.ndarray, heads: list[str]
) -> Iterator[Card]:
    """A card for each image: its pixels as the network sees them, its label and its file."""
    for index in map(int, chosen):
        shown = row(samples, view, index, len(heads) - 1)
        name = os.path.basename(samples.paths[index])
        yield Card(shown, heads, (samples.label_of(index), name))


def row(
    samples: Dataset | JoinedDataset, view: Pipeline, index: int, epochs: int
) -> list[np.ndarray]:
    """The image and its views in the first epochs, uint8 [H, W, C], as the loader gives them."""
    one = np.array([index])
    views = [load_batch((samples, view), one, epoch).images[0] for epoch in range(epochs)]
    return [decode.read(samples.paths[index], view.channels), *views]

"""A sheet of photos as the network will see them: `ppcls show-data -c recipe.yaml`."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ppcls.data import images
from ppcls.data.datasets import Samples
from ppcls.data.loader import View, load_batch
from ppcls.data.sizes import in_words, sides
from ppcls.data.unlabeled import Joined
from ppcls.errors import UserError
from ppcls.inputs import eval_view, open_inputs, train_view
from ppcls.recipe import Recipe
from ppcls.report.fonts import Lettering
from ppcls.utils.files import write_bytes

TILE = 192  # side in pixels above which a view is shown smaller
GAP, LINE = 4, 16
PAPER, INK = (255, 255, 255), (0, 0, 0)
SUFFIXES = (".png", ".jpg", ".jpeg")


def show_data(recipe: Recipe, output: Path, count: int, epochs: int, evaluation: bool) -> str:
    """Write the sheet; returns one line that says what is on it.

    A row for each of `count` photos spread over the data set: the whole photo, then what the
    network is trained on in each of the first epochs, or with `evaluation` what it is scored on.

    Raises:
        UserError: data that is missing, a broken photo, ops that do not end in the training size,
            an output that cannot be written.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"{output}: a sheet's name ends in {', '.join(SUFFIXES)}")
    recipe, inputs = open_inputs(recipe)
    samples = inputs.eval if evaluation else inputs.shown
    if samples is None:
        raise UserError("data.eval is not given and data.holdout is 0: -o data.eval=PATH")
    view = eval_view(recipe) if evaluation else train_view(recipe)
    size = recipe.preprocess.crop if evaluation else recipe.train_size
    epochs = 1 if evaluation else epochs
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    rows = [row(samples, view, int(index), epochs) for index in chosen]
    names = [f"{samples.label_of(i)} ({i})" for i in chosen]
    heads = ["photo", *(["evaluation"] if evaluation else [f"epoch {e}" for e in range(epochs)])]
    picture = sheet(rows, names, heads, min(sides(size)[-1], TILE))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drawn = io.BytesIO()
        picture.save(drawn, Image.registered_extensions()[output.suffix.lower()])
        write_bytes(output, drawn.getvalue())
    except (OSError, ValueError) as error:  # ValueError: more pixels than the format allows
        raise UserError(f"{output}: cannot be written ({error})") from None
    shape = f"{size}x{size}" if isinstance(size, int) else f"{in_words(size)} px"
    what = "evaluation" if evaluation else f"{epochs} epochs of training"
    return f"{output}: {len(rows)} of {len(samples)} photos at {shape}, {what}"


def row(samples: Samples | Joined, view: View, index: int, epochs: int) -> list[np.ndarray]:
    """The photo and its views in the first epochs, uint8 [H, W, C], as the loader gives them."""
    one = np.array([index])
    views = [load_batch((samples, view), one, epoch).images[0] for epoch in range(epochs)]
    return [images.read(samples.paths[index], view.channels), *views]


def sheet(
    rows: list[list[np.ndarray]], names: list[str], heads: list[str], tile: int
) -> Image.Image:
    """The images in a grid, each fit into tile x tile, columns headed and rows named."""
    font = Lettering([*names, *heads], 12)
    step, high = tile + GAP, tile + LINE + GAP
    width = max(GAP + len(heads) * step, int(GAP + max(map(font.length, names))))
    picture = Image.new("RGB", (width, LINE + GAP + len(rows) * high), PAPER)
    draw = ImageDraw.Draw(picture)
    for column, head in enumerate(heads):
        font.write(draw, (GAP + column * step, 2), head, INK)
    for y, (pixels, name) in enumerate(zip(rows, names, strict=True)):
        top = LINE + GAP + y * high
        for x, one in enumerate(pixels):
            picture.paste(fit(one, tile), (GAP + x * step, top))
        font.write(draw, (GAP, top + tile), name, INK)
    return picture


def fit(pixels: np.ndarray, tile: int) -> Image.Image:
    """The pixels as RGB without alpha, shrunk to at most tile x tile, their shape kept."""
    image = Image.fromarray(images.convert(pixels, 3))
    image.thumbnail((tile, tile), Image.Resampling.BOX)
    return image

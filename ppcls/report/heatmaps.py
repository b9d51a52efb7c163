"""Maps of where a network saw a class, over the image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ppcls.data import decode
from ppcls.data.preprocess import Box, Preprocess
from ppcls.report.fonts import Lettering
from ppcls.report.sheets import FAINT, INK, PAPER, elided, fit

SIDE = 480  # pixels of an image's longer side
NARROWEST = 300  # pixels that an image has for its words at least
FONT_SIZE = 18
SMALL = 13
LINE = 26
MARGIN = 8
GAP = 8
BAR = (202, 222, 246)  # behind a class, as long as its score
LEGEND = 12  # pixels from top to bottom of the scale of colours
UNSEEN = 0.3  # how bright is what did not come to the network
# From nothing to the most: lightness rises all the way, and blue to yellow is told apart by people
# who take red for green.
COLOURS = np.array(
    [(20, 30, 90), (40, 85, 160), (95, 135, 165), (190, 180, 110), (255, 225, 60)], np.float32
)
OPAQUE = 0.75  # of the strongest colour over the image
MIDDLE = 150.0  # grey of an image, on which scales show the colours


def explained(
    pixels: np.ndarray,
    classes: Sequence[tuple[str, float, np.ndarray]],
    preprocess: Preprocess,
    name: str,
    nothing: str,
) -> Image.Image:
    """The image and, beside it, the image with each class's map over it.

    Beneath a map stand the class, its score as a bar, and what the colours mean: the share of the
    class's logit that is found at a place. What speaks against a class has no colour.

    Args:
        pixels: uint8 [H, W, C], upright.
        classes: names, scores and maps, float32 [h, w].
        preprocess: what the image went through before the network.
        name: of the image.
        nothing: what to say where there are no classes.
    """
    image = fit(pixels, SIDE)
    width = max(image.width, NARROWEST)
    panels = [image, *(over(pixels, values, preprocess, SIDE) for _, _, values in classes)]
    height = image.height + 2 * LINE + LEGEND + MARGIN
    picture = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), PAPER)
    draw = ImageDraw.Draw(picture)
    font = Lettering([label for label, _, _ in classes], FONT_SIZE)
    small = Lettering([name, nothing], SMALL)
    below = image.height
    for number, panel in enumerate(panels):
        left = number * (width + GAP)
        picture.paste(panel, (left + (width - image.width) // 2, 0))
    lines = [elided(name, width - 2 * MARGIN, small)]
    if is_cut(preprocess, pixels):
        lines.append("dark: did not come to the network")
    lines += [] if classes else [nothing]
    for number, text in enumerate(lines):
        small.write(draw, (MARGIN, below + 6 + 18 * number), text, FAINT)
    for number, (label, score, values) in enumerate(classes, 1):
        left = number * (width + GAP)
        draw.rectangle((left, below + 1, left + score * (width - 1), below + LINE - 2), BAR)
        text = f"{score:.4f}"
        room = width - font.length(text) - 3 * MARGIN
        font.write(draw, (left + MARGIN, below + 3), elided(label, room, font), INK)
        font.write(draw, (left + width - MARGIN - font.length(text), below + 3), text, INK)
        draw_legend(picture, (left, below + LINE + 4), width, values, small)
    return picture


def is_cut(preprocess: Preprocess, pixels: np.ndarray) -> bool:
    """Whether a row or column of an image, or more, does not come to the network."""
    height, width = pixels.shape[:2]
    top, left, bottom, right = preprocess.seen(height, width)
    return top >= 1 or left >= 1 or height - bottom >= 1 or width - right >= 1


def draw_legend(
    picture: Image.Image, place: tuple[int, int], width: int, values: np.ndarray, font: Lettering
) -> None:
    """The scale of a map's colours, with what its ends stand for."""
    left, top = place
    draw = ImageDraw.Draw(picture)
    most = float(values.max(initial=0))
    if most <= 0:
        font.write(draw, (left + MARGIN, top), "no evidence at any place", FAINT)
        return
    scale = np.linspace(0, 1, width - 2 * MARGIN, dtype=np.float32)
    bar = np.repeat(mixed(np.full(scale.shape, MIDDLE), scale)[None], LEGEND, axis=0)
    picture.paste(Image.fromarray(bar.round().astype(np.uint8)), (left + MARGIN, top))
    below = top + LEGEND + 3
    font.write(draw, (left + MARGIN, below), "no evidence", FAINT)
    text = f"most: {most:+.3g} of its logit"
    font.write(draw, (left + width - MARGIN - font.length(text), below), text, FAINT)


def over(pixels: np.ndarray, values: np.ndarray, preprocess: Preprocess, side: int) -> Image.Image:
    """The image in grey, within side x side, with a map of it in colours over it.

    Args:
        pixels: uint8 [H, W, C].
        values: float32 [h, w]; the strongest has the last colour, 0 and less none.
    """
    image = fit(pixels, side)
    height, width = image.height, image.width
    down, across = height / pixels.shape[0], width / pixels.shape[1]
    top, left, bottom, right = preprocess.seen(*pixels.shape[:2])
    box = Box(top * down, left * across, bottom * down, right * across)
    found = spread(values, box, height, width)
    seen = ~np.isnan(found)
    most = float(values.max(initial=0))
    share = np.where(seen, found / most, 0).clip(0, 1) if most > 0 else np.zeros_like(found)
    drawn = mixed(decode.convert(np.asarray(image), 1)[..., 0], share)
    drawn[~seen] *= UNSEEN
    return Image.fromarray(drawn.round().astype(np.uint8))


def mixed(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours of values from 0 to 1 over grey, both of one shape: [..., 3] of 0 to 255."""
    alpha = OPAQUE * share[..., None]
    return (1 - alpha) * grey[..., None] + alpha * colours(share)


def colours(share: np.ndarray) -> np.ndarray:
    """The colours of values from 0 to 1, float32 [..., 3]."""
    place = share * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    part = (place - low)[..., None]
    return (1 - part) * COLOURS[low] + part * COLOURS[low + 1]


def spread(values: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """A map at each pixel of an image, float32 [height, width], NaN where it does not reach.

    Each value stands for the middle of its place, and between the middles is interpolated.

    Args:
        values: [h, w].
        box: where the map lies in the image.
    """
    rows, tall = shares(height, box.top, box.bottom, values.shape[0])
    columns, broad = shares(width, box.left, box.right, values.shape[1])
    found = (rows @ values.astype(np.float32) @ columns.T).astype(np.float32)
    found[~(tall[:, None] & broad)] = np.nan
    return found


def shares(pixels: int, start: float, end: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How much each of `count` values from start to end has of each pixel, float32 [pixels, count],
    and which pixels' middles lie between these.
    """
    middles = np.arange(pixels) + 0.5
    inside = (middles >= start) & (middles <= end)
    place = ((middles - start) / (end - start) * count - 0.5).clip(0, count - 1)
    low = np.minimum(place.astype(int), max(count - 2, 0))
    part = place - low
    found = np.zeros((pixels, count), np.float32)
    every = np.arange(pixels)
    found[every, low] = 1 - part
    found[every, np.minimum(low + 1, count - 1)] += part
    return found, inside

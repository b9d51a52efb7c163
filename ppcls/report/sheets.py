"""Contact sheets: cards of images, each with its words close beneath, on pages of a screen's shape.

All sheets of images are drawn here, so that they look and behave alike.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from ppcls.data import decode
from ppcls.report.fonts import Lettering
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_bytes
from ppcls.utils.text import plural, visible

PAGE = (1600, 1200)  # width and height in pixels that no page exceeds
MOST_PAGES = 50
TILE = 192  # pixels of a side above which an image is shown smaller
# small images are enlarged in whole steps up to the latter
LEAST_TILE = 128
GOOD_TILE = 144
# around the page, between cards, between images of one card
MARGIN = 16
GUTTER = 28
GAP = 4
ROW_GAP = 44  # from the words of a card to the next row: farther than to their own images
NEAR = 2  # from an image to its words
FONT_SIZE = 12
LINE = 16
PAPER = (255, 255, 255)
INK = (0, 0, 0)
FAINT = (90, 90, 90)
SHAPE = 1.2  # width over height that a page with few cards comes nearest to
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass(frozen=True)
class Card:
    """Images that belong together, side by side.

    Attributes:
        images: uint8 [H, W, C].
        heads: a line beneath each image.
        caption: lines beneath them all.
    """

    images: Sequence[np.ndarray]
    heads: Sequence[str]
    caption: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """How cards are laid out.

    Attributes:
        cards: how many there are, where those of too many images are divided.
        tile: pixels of a tile's side.
        images: at most, of a card.
        columns, rows: of cards on a page, at most.
        lines: of a caption.
    """

    cards: int
    tile: int
    images: int
    columns: int
    rows: int
    lines: int

    @property
    def width(self) -> int:
        """Of a card."""
        return self.images * (self.tile + GAP) - GAP

    @property
    def height(self) -> int:
        """Of a card with its words, without the gap to the next row."""
        return self.tile + NEAR + (1 + self.lines) * LINE

    @property
    def pages(self) -> int:
        return -(-self.cards // (self.columns * self.rows))

    def cards_by_page(self) -> list[int]:
        """As many rows on each page, or one more: no strip on the last."""
        rows = -(-self.cards // self.columns)
        pages = self.pages
        return [
            self.columns * (rows * (page + 1) // pages - rows * page // pages)
            for page in range(pages)
        ]


# --------------------------------------------------------------------------- layout


def lay_out(cards: int, images: int, side: int, lines: int) -> Layout:
    """The layout for so many cards of so many images, of at most `side` pixels.

    Where the images of one card do not fit beside each other, `Layout.images` is lower: the rest
    of them goes on further cards.
    """
    wide, high = (pixels - 2 * MARGIN for pixels in PAGE)
    natural = min(enlarged(side, GOOD_TILE), TILE)
    fitting = (wide + GAP) // (min(natural, LEAST_TILE) + GAP)
    cards = cards * -(-images // fitting)
    images = min(images, fitting)

    def room(columns: int) -> int:
        """Pixels of a tile's side that so many columns leave."""
        card = (wide + GUTTER) // columns - GUTTER
        return (card + GAP) // images - GAP

    columns = 1
    while columns < cards and room(columns + 1) >= min(natural, GOOD_TILE):
        columns += 1
    for fewer in range(1, columns):  # a few cards: a page of a screen's shape, not a strip
        own = Layout(cards, min(natural, room(fewer)), images, fewer, -(-cards // fewer), lines)
        tall = own.rows * (own.height + ROW_GAP)
        if tall <= high and fewer * (own.width + GUTTER) >= SHAPE * tall:
            columns = fewer
            break
    own = Layout(cards, min(natural, room(columns)), images, columns, 1, lines)
    rows = max(1, (high + ROW_GAP) // (own.height + ROW_GAP))
    return Layout(cards, own.tile, images, columns, rows, lines)


def enlarged(side: int, limit: int) -> int:
    """The side in the largest whole multiple within the limit, or as it is."""
    return side * max(1, limit // max(side, 1))


def split(cards: Iterable[Card], images: int) -> Iterator[Card]:
    """Cards of at most so many images; what is divided has its caption on each part."""
    for card in cards:
        for first in range(0, len(card.images), images):
            part = slice(first, first + images)
            yield Card(card.images[part], card.heads[part], card.caption)


# --------------------------------------------------------------------------- drawing


def draw_pages(cards: Iterable[Card], layout: Layout) -> Iterator[Image.Image]:
    """The pages, each with its words as the text "Description", too."""
    rest = split(cards, layout.images)
    for count in layout.cards_by_page():
        yield draw_page(list(islice(rest, count)), layout)


def draw_page(cards: Sequence[Card], layout: Layout) -> Image.Image:
    """One page; an image stands on its words, however low it is."""
    columns = min(layout.columns, len(cards))
    across = layout.width + GUTTER
    words = layout.height - layout.tile
    tiles = [[fit(one, layout.tile) for one in card.images] for card in cards]
    floors = []
    bottom = MARGIN - ROW_GAP
    for first in range(0, len(cards), columns):
        row = tiles[first : first + columns]
        floors.append(bottom + ROW_GAP + max(tile.height for own in row for tile in own))
        bottom = floors[-1] + words
    width = 2 * MARGIN + columns * across - GUTTER
    picture = Image.new("RGB", (width, bottom + MARGIN), PAPER)
    font = Lettering([text for card in cards for text in (*card.heads, *card.caption)], FONT_SIZE)
    for index, (card, own) in enumerate(zip(cards, tiles, strict=True)):
        place = (MARGIN + index % columns * across, floors[index // columns])
        draw_card(picture, card, own, place, layout, font)
    picture.info["Description"] = "\n".join(map(in_words, cards))
    return picture


def draw_card(
    picture: Image.Image,
    card: Card,
    tiles: Sequence[Image.Image],
    place: tuple[int, int],
    layout: Layout,
    font: Lettering,
) -> None:
    """The images of a card with their lower edge at `place`, and beneath them the words."""
    draw, (left, floor) = ImageDraw.Draw(picture), place
    for number, (tile, head) in enumerate(zip(tiles, card.heads, strict=True)):
        x = left + number * (layout.tile + GAP)
        picture.paste(tile, (x, floor - tile.height))
        shown = elided(head, layout.tile - 2 * GAP, font)
        font.write(draw, (x, floor + NEAR), shown, FAINT)
    for number, text in enumerate(card.caption, 1):
        shown = elided(text, layout.width, font)
        font.write(draw, (left, floor + NEAR + number * LINE), shown, INK)


def elided(text: str, width: float, font: Lettering) -> str:
    """The text with its middle left out where it is longer than `width` pixels."""
    text = visible(text)
    if font.length(text) <= width:
        return text
    least = 0
    most = len(text)
    while least < most:  # the largest number of characters that fits
        kept = -(-(least + most) // 2)
        least, most = (kept, most) if font.length(cut(text, kept)) <= width else (least, kept - 1)
    return cut(text, least)


def cut(text: str, kept: int) -> str:
    """So many characters of the text: its beginning, and a little more of its end."""
    end = -(-kept // 2)
    return f"{text[: kept - end]}…{text[len(text) - end :]}"


def in_words(card: Card) -> str:
    return visible(f"{' | '.join(card.heads)}: {' | '.join(card.caption)}", 1000)


def fit(pixels: np.ndarray, tile: int) -> Image.Image:
    """The pixels as RGB without alpha, within tile x tile, their shape kept.

    Small ones are enlarged in whole steps, so that each pixel is seen.
    """
    image = Image.fromarray(decode.convert(pixels, 3))
    longer = max(image.size)
    steps = enlarged(longer, tile) // longer
    if steps > 1:
        size = (image.width * steps, image.height * steps)
        return image.resize(size, Image.Resampling.NEAREST)
    image.thumbnail((tile, tile), Image.Resampling.BOX)
    return image


# --------------------------------------------------------------------------- files


def numbered(output: Path, page: int) -> Path:
    """The file of a page, counted from 1: `sheet.png`, `sheet-2.png` …"""
    return output if page == 1 else output.with_name(f"{output.stem}-{page}{output.suffix}")


def require_room(what: str, output: Path, layout: Layout, overwrite: bool) -> None:
    """Before the work.

    Raises:
        UserError: too many pages, or files of their names and no leave to replace them.
    """
    if layout.pages > MOST_PAGES:
        pages = f"{layout.pages:,} pages, more than {MOST_PAGES}"
        raise UserError(f"{what}: would be {pages}; ask for less")
    for page in range(1, layout.pages + 1):
        refuse_existing(what, numbered(output, page), overwrite)


def refuse_existing(what: str, path: Path, overwrite: bool) -> None:
    if path.exists() and path.is_file() and not overwrite:
        name = what if what.endswith(str(path)) else f"{what}: {path}"
        raise UserError(f"{name} exists; --overwrite replaces it, or give another name")


def write_pages(what: str, output: Path, pages: Iterable[Image.Image]) -> str:
    """Write all pages when the last is drawn; returns their names in words.

    Raises:
        UserError: a file that cannot be written.
    """
    files = [encoded(page, FORMATS[output.suffix.lower()]) for page in pages]
    for number, data in enumerate(files, 1):
        write_bytes(numbered(output, number), data, what)
    last = numbered(output, len(files)).name
    after = numbered(output, len(files) + 1)
    old = f" ({after.name} is of an earlier sheet)" if after.exists() else ""
    if len(files) == 1:
        return f"{output}{old}"
    return f"{output} to {last} ({plural(len(files), 'page')}){old}"


def encoded(page: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    if form == "PNG":
        about = PngImagePlugin.PngInfo()
        about.add_itxt("Description", page.info["Description"])
        page.save(file, form, pnginfo=about)
    else:
        page.save(file, form, quality=90)
    return file.getvalue()

"""Images with what was found on them: a picture for each, readable on a screen."""

import io
import os
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, ImageDraw

from ppcls.report.fonts import Lettering
from ppcls.report.sheets import FAINT, INK, PAPER, elided, fit
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_bytes
from ppcls.utils.text import visible

SIDE = 640  # pixels of an image's longer side
NARROWEST = 420  # pixels that a picture has for its words at least
FONT_SIZE = 20
SMALL = 14
LINE = 28
MARGIN = 10
BAR = (202, 222, 246)
MOST_LINES = 10
QUALITY = 90
KEPT = (".jpg", ".jpeg")


def labelled(
    pixels: np.ndarray,
    labels: Sequence[str],
    scores: Sequence[float],
    name: str,
    nothing: str,
    doubt: str = "",
) -> Image.Image:
    """The image with a line beneath it for each class, its score as a bar, and its own name.

    Args:
        pixels: uint8 [H, W, C].
        nothing: what to say where there are no classes.
        doubt: what to say above them, where the answer is not sure or decided by costs.
    """
    image = fit(pixels, SIDE)
    width = max(image.width, NARROWEST)
    rows = list(zip(labels, scores, strict=True))[:MOST_LINES]
    height = image.height + (bool(doubt) + max(1, len(rows))) * LINE + LINE
    picture = Image.new("RGB", (width, height), PAPER)
    picture.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(picture)
    font = Lettering([*labels, nothing, doubt], FONT_SIZE)
    small = Lettering([name], SMALL)
    above = image.height
    low = (LINE - FONT_SIZE) // 2 - 1
    if doubt:
        font.write(draw, (MARGIN, above + low), elided(doubt, width - 2 * MARGIN, font), INK)
        above += LINE
    for label, score in rows:
        text = f"{score:.4f}"
        draw.rectangle((0, above + 1, score * (width - 1), above + LINE - 2), BAR)
        room = width - font.length(text) - 3 * MARGIN
        font.write(draw, (MARGIN, above + low), elided(label, room, font), INK)
        font.write(draw, (width - MARGIN - font.length(text), above + low), text, INK)
        above += LINE
    if not rows:
        font.write(draw, (MARGIN, above + low), nothing, INK)
        above += LINE
    shown = elided(name, width - 2 * MARGIN, small)
    small.write(draw, (MARGIN, above + (LINE - SMALL) // 2), shown, FAINT)
    return picture


class Pictures:
    """A folder of pictures, one for each image, each written whole."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        given: Iterable[str],
        replace: bool = False,
        first: int = 0,
        behind: int | None = None,
        option: str = "--visualize",
    ):
        """Plan the pictures' names; nothing is written yet.

        Args:
            names: of all images.
            given: what was named on the command line; the pictures must not lie in a folder of it.
            replace: pictures of an earlier run.
            first, behind: the places among `names` of the images that are drawn; default: all.
            option: that names the folder.

        Raises:
            UserError: a picture would take the place of an image, or of any other file.
        """
        self.name = f"{option} {folder}"
        self.folder = folder
        here = os.path.realpath(folder)
        for path in given:
            if os.path.isdir(path) and is_within(here, os.path.realpath(path)):
                raise UserError(
                    f"{self.name}: lies in {path}, whose images are read: the pictures would be "
                    "taken for some of them; name a folder elsewhere"
                )
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{self.name}: is a file; name a folder")
        self.places = [os.path.join(folder, place) for place in places(names)[first:behind]]
        images = {os.path.realpath(name) for name in names}
        for place in self.places:
            if os.path.realpath(place) in images:
                raise UserError(
                    f"{self.name}: {visible(place)} is one of the images; name another folder"
                )
            if not replace and os.path.lexists(place):
                raise UserError(
                    f"{self.name}: {visible(place)} exists; --overwrite replaces such pictures, or "
                    "name another folder"
                )

    def write(self, index: int, picture: Image.Image) -> None:
        """The picture of the image of that number, from 0 for the first that is drawn.

        Raises:
            UserError: it cannot be written.
        """
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=QUALITY)
        place = Path(self.places[index])
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{self.name}: {place.parent} cannot be made ({reason})") from None
        write_bytes(place, data.getvalue(), self.name, "make room, or name another folder")


def is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def places(names: Sequence[str]) -> list[str]:
    """A path for each image's picture, below what the images' folders have in common."""
    parts = [parts_of(name) for name in names]
    folders = [part[:-1] for part in parts]
    first = min(folders, default=[])
    shared = sum(1 for _ in takewhile(all_equal, zip(first, max(folders, default=[]))))  # noqa: B905
    found = []
    taken = set()
    for part in parts:
        stem, ending = os.path.splitext(os.path.join(*part[shared:]))
        place = f"{stem}{ending}" if ending.lower() in KEPT else f"{stem}{ending}.jpg"
        stem, ending = os.path.splitext(place)
        count = 1
        while place.lower() in taken:  # as some file systems have it
            count += 1
            place = f"{stem}-{count}{ending}"
        taken.add(place.lower())
        found.append(place)
    return found


def all_equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def parts_of(name: str) -> list[str]:
    """The folders and the file of an image's name, as they may stand in any folder."""
    if re.match("https?://", name, re.IGNORECASE):
        address = urlsplit(name)
        parts = [address.netloc, *PurePath(unquote(address.path)).parts, address.query]
    elif name == "-":
        parts = ["stdin"]
    else:
        parts = list(Path(os.path.abspath(name)).parts)
    kept = [re.sub(r'[/\\:*?"<>|\0-\x1f]', "_", part)[-200:] for part in parts]
    return [part for part in kept if part.strip("_.")] or ["image"]

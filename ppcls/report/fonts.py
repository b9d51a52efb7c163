"""Fonts that have the characters of names, whatever they are written in."""

import os
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ImageDraw, ImageFont

from ppcls.utils.log import say
from ppcls.utils.text import escape, visible

if TYPE_CHECKING:  # matplotlib takes its time and not every command draws
    from matplotlib.ft2font import FT2Font

# Debian's packages that have the characters from the first on; the last one that fits counts.
PACKAGES = {0: "fonts-noto-core", 0x2E80: "fonts-noto-cjk", 0xA4D0: "fonts-noto-core"}
PACKAGES |= {0xAC00: "fonts-noto-cjk", 0xD7B0: "fonts-noto-core", 0xF900: "fonts-noto-cjk"}
PACKAGES |= {0xFB00: "fonts-noto-core", 0xFF00: "fonts-noto-cjk", 0x10000: "fonts-noto-core"}
PACKAGES |= {0x1F000: "fonts-symbola", 0x20000: "fonts-noto-cjk"}
# Words of file names: plain shapes come before all others.
ODD_SHAPES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "serif")
INVISIBLE = "\u200b\u200c\u200d\ufe0e\ufe0f"  # join or part letters, or choose their form
OPEN = 32  # font files at a time
SHOWN = 10  # characters in a note


def fonts_for(text: str) -> list[str]:
    """Files of fonts that together have the characters of a text, as far as any does.

    The first is DejaVu Sans, which comes with matplotlib.
    """
    chosen = [dejavu()]
    lacking = set(lacked(text, [dejavu()]))
    for path in system_fonts() if lacking else ():
        has = lacking - set(lacked("".join(lacking), [path]))
        if has:
            chosen.append(path)
            lacking -= has
        if not lacking:
            break
    return chosen


def lacked(text: str, paths: Sequence[str]) -> str:
    """The characters of a text that none of the fonts has."""
    fonts = [font for font in map(opened, paths) if font]
    return "".join(c for c in text if not any(has_glyph(font, c) for font in fonts))


def has_glyph(font: "FT2Font", character: str) -> bool:
    return character in INVISIBLE or font.get_char_index(ord(character)) != 0


@cache
def dejavu() -> str:
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache(OPEN)
def opened(path: str) -> "FT2Font | None":
    """A font; None for one of fixed size, such as of coloured emoji, and for broken files."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return font if font.scalable else None
    except (OSError, RuntimeError, ValueError):
        return None


@cache
def system_fonts() -> tuple[str, ...]:
    """Files of the installed fonts, plain ones first.

    The file system is asked: matplotlib's own list does not know fonts installed after it.
    """
    from matplotlib import font_manager

    def oddness(path: str) -> tuple[int, str]:
        name = Path(path).name.lower()
        return sum(word in name for word in ODD_SHAPES), name

    return tuple(sorted(font_manager.findSystemFonts(), key=oddness))


told: set[str] = set()  # characters that a note has named


def drawable(text: str, paths: Sequence[str]) -> str:
    """The text on one line, with escapes for what none of the fonts has; says so once."""
    text = visible(text)
    lacking = set(lacked(text, paths))
    tell(lacking)
    return "".join(escaped(c) if c in lacking else c for c in text)


def escaped(character: str) -> str:
    return escape(character) if not character.isascii() else "?"


def tell(lacking: Iterable[str]) -> None:
    new = sorted(set(lacking) - told)
    if not new:
        return
    told.update(new)
    starts = [max(start for start in PACKAGES if start <= ord(c)) for c in new]
    packages = " ".join(dict.fromkeys(PACKAGES[start] for start in starts))
    more = f" and {len(new) - SHOWN:,} more" if len(new) > SHOWN else ""
    say(
        f"note: no installed font has {' '.join(new[:SHOWN])}{more}: pictures show numbers or "
        f"escapes instead; on Debian and Ubuntu, apt install {packages}"
    )


def families(paths: Sequence[str]) -> list[str]:
    """The fonts' names as matplotlib takes them for `fontfamily`: each character from the first."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in paths:
        if path not in known:
            font_manager.fontManager.addfont(path)
    return [font_manager.FontProperties(fname=path).get_name() for path in paths]


class Lettering:
    """Texts of one size on Pillow's images."""

    def __init__(self, texts: Iterable[str], size: int):
        self.size = size
        whole = "".join(map(visible, texts))
        whole += "" if whole.isascii() else "…"  # of what is cut
        self.plain: Any = ImageFont.load_default(size)
        self.paths = [] if whole.isascii() else fonts_for(whole)
        if self.paths:
            tell(lacked(whole, self.paths))

    def parts(self, text: str) -> list[tuple[str, Any]]:
        """The text in pieces of one font each."""
        text = visible(text)
        if text.isascii() or not self.paths:
            return [(text, self.plain)]
        pieces: list[tuple[str, str]] = []
        for character in drawable(text, self.paths):
            path = next(p for p in self.paths if not lacked(character, [p]))
            if pieces and (pieces[-1][1] == path or character in INVISIBLE):
                pieces[-1] = (pieces[-1][0] + character, pieces[-1][1])
            else:
                pieces.append((character, path))
        return [(piece, truetype(path, self.size)) for piece, path in pieces]

    def length(self, text: str) -> float:
        """Pixels."""
        return sum(font.getlength(piece) for piece, font in self.parts(text))

    def write(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        ink: tuple[int, int, int],
    ) -> None:
        """Draw the text from its upper left corner on, all fonts on one line."""
        x, y = place
        for piece, font in self.parts(text):
            draw.text((x, y + self.plain.getmetrics()[0]), piece, ink, font, anchor="ls")
            x += font.getlength(piece)


@cache
def truetype(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)

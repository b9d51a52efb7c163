"""Names that try a terminal, a spreadsheet, a browser and a list, and what finds them raw."""

import csv
import io
import re
import unicodedata
from html.parser import HTMLParser

from photos import write_photo

CLASSES = (
    "=cmd|' C calc'!A0 \x1b[31m\n<script>alert(1)<b>",
    '@b`|*$x_{ \u202e\u2028\x85 \x9b7m"><img src=x onerror=alert(1)>',
)
PHOTOS = (
    "=1+1",
    "-2+3|cmd",
    "+\u3000猫 é👩\u200d🔬",
    "@SUM(A1)",
    "\t=tab",
    '"=quote',
    "'=apostrophe",
    "a;=semicolon\n=line",
    "\x1b]0;title\x07\x1b[31m",
    "two\nlines",
    "three\r\x0b\x0c\x1c\x85\u2028\u2029lines",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "back\b\x08\x7f\x9b31m",
    "<script>alert(1)<",
    "|`$x_{y",
    "n" * 251,
)
REPLACED = "👩\u200d🔬"  # the one joiner that belongs where it stands
FORMULA = re.compile('(?:^|[;\t\r\n])[\\s"]*[=+\\-@]')
NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?")


def furnish(folder):
    """Images to train on and to evaluate, of two classes, and `recipe.yaml`."""
    for part, names in (("train", PHOTOS), ("eval", PHOTOS[:8])):
        for label, name in enumerate(CLASSES):
            for i, photo in enumerate(names):
                write(folder / "photos" / part / name / f"{photo}.png", 100 * label + i)
    (folder / "recipe.yaml").write_text(
        "model: {name: EfficientNetLite0}\n"
        "data: {train: photos/train, eval: photos/eval, workers: 0}\n"
        "preprocess: {resize: 36, crop: 32}\n"
        "train: {epochs: 1, batch_size: 8, schedule: {lr: 0.005}}\n"
        "output: runs/small\n"
    )


def write(path, seed):
    """An image under a name that OpenCV may not take."""
    made = path.parent / f"{seed}.made.png"
    write_photo(made, seed)
    made.rename(path)


def raw(text):
    """The control characters, but line breaks, and what nobody sees, in a text."""
    text = text.replace(REPLACED, "")
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}


def run_by_spreadsheets(text):
    """The cells of a CSV text that one of them would run, of any separator."""
    rows = csv.reader(io.StringIO(text, newline=""))
    return [c for row in rows for c in row if FORMULA.search(c) and not NUMBER.fullmatch(c)]


class Tags(HTMLParser):
    """The tags of a page, and what runs in it."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

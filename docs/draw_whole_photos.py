"""Draws docs/whole_photos.png: a sign that is long, as each way of `preprocess.fit` shows it.

`python docs/draw_whole_photos.py` writes it anew.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ppcls.data.preprocess import Preprocess
from ppcls.report import sheets
from ppcls.report.sheets import Card
from ppcls.utils.opencv import cv2

DRAWING = Path(__file__).resolve().parent / "whole_photos.png"
WAYS = {
    "fit: crop": Preprocess(resize=192, crop=192),
    "fit: squash": Preprocess(fit="squash", crop=192),
    "fit: letterbox": Preprocess(fit="letterbox", crop=192),
    "letterbox [96, 192]": Preprocess(fit="letterbox", crop=(96, 192)),
}


def sign() -> np.ndarray:
    """A road sign with an arrow at its end, uint8 [150, 450, 3], before a sky."""
    sky = np.linspace(225, 160, 150)[:, None, None] + np.array([0, 12, 30])
    drawn = Image.fromarray(np.clip(sky, 0, 255).repeat(450, 1).astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    pen.rounded_rectangle((14, 24, 435, 126), 14, (12, 92, 60), (255, 255, 255), 5)
    pen.text((34, 47), "HARBOUR", (255, 255, 255), ImageFont.load_default(56))
    pen.line((335, 75, 400, 75), (255, 255, 255), 12)
    pen.polygon(((390, 50), (424, 75), (390, 100)), (255, 255, 255))
    return cv2.GaussianBlur(np.array(drawn), (0, 0), 0.7)


def card() -> Card:
    """The sign as it is, and as each way shows it."""
    image = sign()
    shown = {"image": image, **{name: way(image) for name, way in WAYS.items()}}
    return Card(list(shown.values()), list(shown), ())


def main() -> None:
    layout = sheets.lay_out(1, 1 + len(WAYS), 192, 0)
    (page,) = sheets.draw_pages([card()], layout)
    page.save(DRAWING, optimize=True)


if __name__ == "__main__":
    main()

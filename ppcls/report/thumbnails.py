"""Photos as small JPEG files."""

import io

from PIL import Image

from ppcls.data import images

SIDE = 208  # pixels of a photo's longer side


def thumbnail(path: str) -> bytes:
    """The photo, upright and in RGB, within SIDE x SIDE; a tiny one is enlarged in whole steps.

    Raises:
        UserError: a photo that cannot be read.
    """
    photo = Image.fromarray(images.read(path))
    steps = SIDE // max(photo.size)
    if steps > 1:
        size = (photo.width * steps, photo.height * steps)
        photo = photo.resize(size, Image.Resampling.NEAREST)
    photo.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    target = io.BytesIO()
    photo.save(target, "JPEG", quality=85)
    return target.getvalue()

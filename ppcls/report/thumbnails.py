"""Photos as small JPEG files."""

import io

from ppcls.data import images
from ppcls.report.sheets import fit

SIDE = 208  # pixels of a photo's longer side


def thumbnail(path: str) -> bytes:
    """The photo, upright and in RGB, within SIDE x SIDE; a tiny one is enlarged in whole steps.

    Raises:
        UserError: a photo that cannot be read.
    """
    target = io.BytesIO()
    fit(images.read(path), SIDE).save(target, "JPEG", quality=85)
    return target.getvalue()

"""A look at photos in a worker process: what teachers see of them, and what tells them apart."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ppcls.check.photo import decoder_messages, fingerprint, read_messages
from ppcls.data import images
from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError
from ppcls.select.photos import unfit
from ppcls.select.scores import RECORD


@dataclass(frozen=True)
class Looked:
    """Of N photos, n of which can be read.

    Attributes:
        images: uint8 [n, crop, crop, C].
        records: RECORD [N], whose label and confidence the teacher has yet to say.
        reasons: for each other photo its path and why it is left out, in their order.
    """

    images: np.ndarray
    records: np.ndarray
    reasons: list[tuple[str, str]]


def look(paths: Sequence[str], preprocess: Preprocess) -> Looked:
    """Read each photo once."""
    records, kept, reasons = np.zeros(len(paths), RECORD), 0, []
    shape = (preprocess.crop, preprocess.crop, preprocess.channels)
    seen = np.empty((len(paths), *shape), np.uint8)
    with warnings.catch_warnings(), decoder_messages() as messages:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for place, path in enumerate(paths):
            try:
                pixels = read(path, preprocess.channels)
                seen[kept] = preprocess(pixels)
            except UserError as error:
                said = error.without(path)
                read_messages(messages)
            else:
                said = read_messages(messages)
                said = said and f"decoded with damage ({said})"
            if said:
                reasons.append((path, said))
                continue
            digest, words, blank = fingerprint(pixels)
            records["pixels"][place] = digest
            records["hash"][place] = 0 if blank else words
            kept += 1
    return Looked(seen[:kept], records, reasons)


def read(path: str, channels: int) -> np.ndarray:
    """The photo's pixels; UserError, too, for a path that no list can hold."""
    if unfit(path):
        raise UserError(unfit(path))
    return images.read(path, channels)

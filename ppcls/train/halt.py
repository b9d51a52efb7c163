"""What a run leaves for whoever looks into it when its numbers are none any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text, write_whole
from ppcls.utils.text import BYTES, escaped

if TYPE_CHECKING:
    from ppcls.data.loader import Batch

FILES = ("not_finite.txt", "not_finite.npz")


def diverged(what: str, value: float, step: int, rate: float, left: str) -> UserError:
    """The error that ends a run in which something is no number; `left`: what `leave` says."""
    return UserError(
        f"the {what} became {value} after step {step}, at learning rate {rate:.3g}: "
        "lower train.schedule.lr or lengthen train.schedule.warmup; the last checkpoint stays"
        f"{left}"
    )


def leave(folder: Path, places: Sequence[str], batches: Sequence[Batch]) -> str:
    """Keep the photos of a step whose loss is no number; returns the words that say where.

    Args:
        places: where the photos of all processes' batches stand.
        batches: this process's, whose pixels and targets are written as arrays.
    """
    if not places:
        return ""
    text, arrays = (folder / name for name in FILES)
    numbered = {f"{what}_{i}": value for i, b in enumerate(batches) for what, value in parts(b)}
    try:
        write_text(text, "".join(f"{escaped(place, kept=BYTES)}\n" for place in places))
        with write_whole(arrays) as file:
            np.savez(file, allow_pickle=False, **numbered)
    except UserError as error:
        return f"; its photos could not be noted: {error}"
    return f"; its photos are listed in {text}, their pixels as the network saw them in {arrays}"


def parts(batch: Batch) -> list[tuple[str, np.ndarray]]:
    return [("images", batch.images), ("targets", batch.targets), ("indices", batch.indices)]

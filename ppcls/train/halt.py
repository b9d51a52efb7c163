"""When a run ends before its last step, and what it leaves for whoever looks into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppcls.config.node import Span, node
from ppcls.errors import UserError
from ppcls.metrics import Score, goodness
from ppcls.train.schedule import Evaluations, Length
from ppcls.utils.files import write_text, write_whole
from ppcls.utils.text import BYTES, escaped

if TYPE_CHECKING:
    from ppcls.data.loader import Batch

FILES = ("not_finite.txt", "not_finite.npz")


@node
class EarlyStop:
    """The run ends when evaluations brought no better score for as long as `patience`."""

    patience: Length = Span(10, "epochs")
    score: Score | None = None  # None: the one that chooses the best weights

    def reached(self, evaluations: Evaluations, score: Score, patience: int) -> bool:
        """Whether the best of the evaluations is so many steps older than the last.

        Args:
            score: the one to look at where none is given.
            patience: in steps.
        """
        best, since, last = -math.inf, 0, 0
        for evaluation in evaluations:
            last, found = int(evaluation["step"]), goodness(evaluation, self.score or score)
            if found > best:
                best, since = found, last
        return last - since >= patience


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

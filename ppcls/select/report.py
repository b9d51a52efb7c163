"""What a selection came to, in words and as a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppcls.report.plots import BLUE, new_figure, png
from ppcls.select.choose import Chosen
from ppcls.utils.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 5  # classes with few photos that are named


def lines(
    chosen: Chosen, names: tuple[str, ...], classes: int, per_class: int, output: Path
) -> Iterator[str]:
    """What the screen says."""
    yield total(chosen, output)
    counts = chosen.counts(classes)
    few = np.flatnonzero(counts < per_class)
    if len(few):
        first = [f"{names[c] if names else c} ({counts[c]:,})" for c in few[:NAMED]]
        more = ", …" if len(few) > NAMED else ""
        yield (
            f"{plural(len(few), 'class has', 'classes have')} fewer than {per_class:,}: "
            f"{', '.join(first)}{more}"
        )
    classes_there = int((counts > 0).sum())
    yield (
        f"{output}: {plural(len(chosen.rows), 'photo')} of {plural(classes_there, 'class')}, "
        f"mean confidence {chosen.rows['confidence'].mean(dtype=np.float64):.4f}"
    )


def total(chosen: Chosen, output: Path) -> str:
    """How many photos there are, and why some were not chosen."""
    parts = {
        f"cannot be read ({output.name}.skipped)": chosen.left_out,
        "are evaluation photos, or nearly": chosen.near,
        "are below the least confidence": chosen.below,
        "are copies of chosen ones": chosen.copies,
    }
    said = [f"{count:,} {what}" for what, count in parts.items() if count]
    return ": ".join(filter(None, [plural(chosen.photos, "photo"), ", ".join(said)]))


def sheet(chosen: Chosen, classes: int, per_class: int) -> bytes:
    """PNG: how many photos each class has, and how sure the teacher is of them."""
    figure = new_figure((10, 4))
    left, right = figure.subplots(1, 2)
    draw_counts(left, np.sort(chosen.counts(classes))[::-1], per_class)
    right.hist(chosen.rows["confidence"], bins=50, range=(0, 1), color=BLUE)
    right.set(xlabel="confidence: probability of the likeliest class", ylabel="chosen photos")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return png(figure)


def draw_counts(axes: "Axes", counts: np.ndarray, per_class: int) -> None:
    edges = np.arange(len(counts) + 1)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.axhline(per_class, color="black", linewidth=1, linestyle=":")
    axes.set(xlabel="classes, the largest first", ylabel="chosen photos", xlim=(0, len(counts)))

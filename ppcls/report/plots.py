"""A report's two plots as PNG bytes."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.report.figures import Bin
from ppcls.report.fonts import families, fonts_for, lacked, tell
from ppcls.utils.text import visible

if TYPE_CHECKING:  # matplotlib takes its time and evaluation alone does not need it
    from matplotlib.figure import Figure

DPI = 100
# classes up to which cells and axes are written on
WITH_COUNTS = 20
WITH_NAMES = 50
CELLS = 200  # per side of a matrix; of more classes, neighbours share a cell
LONGEST = 20  # characters of a name on an axis
BLUE = "#3b6fb6"
RED = "#c8553d"
GREY = "#777777"


def confusion(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """The matrix of images by true (rows) and predicted class, coloured by share of the row."""
    count = len(matrix)
    group = -(-count // CELLS)
    cells = pooled(matrix, group)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.42 * count, 4.5, 11))
    figure = new_figure((side + 0.8, side))
    axes = figure.subplots()
    extent = (-0.5, len(cells) * group - 0.5, len(cells) * group - 0.5, -0.5)
    norm: dict[str, Any] = {"vmin": 0, "vmax": 1}
    if count > WITH_NAMES:  # small shares are to be seen
        from matplotlib.colors import PowerNorm

        norm = {"norm": PowerNorm(0.5, 0, 1)}
    image = axes.imshow(shares, cmap="Blues", interpolation="nearest", extent=extent, **norm)
    figure.colorbar(image, ax=axes, label="share of the true class's images", shrink=0.8)
    if count <= WITH_COUNTS:
        for y, x in np.argwhere(cells):
            ink = "white" if shares[y, x] > 0.6 else "black"
            axes.text(x, y, str(cells[y, x]), ha="center", va="center", color=ink, fontsize=8)
    if count <= WITH_NAMES:
        paths = fonts_for("".join(map(visible, names)))
        labels = [short(name, number, paths) for number, name in enumerate(names)]
        style: dict[str, Any] = {"fontsize": 8, "fontfamily": families(paths), "parse_math": False}
        axes.set_xticks(range(count), labels, rotation=90, **style)
        axes.set_yticks(range(count), labels, **style)
    axes.set(xlabel="predicted class", ylabel="true class")
    if group > 1:
        axes.set_title(f"each cell is {group} x {group} classes", fontsize=9)
    return png(figure)


def pooled(matrix: np.ndarray, group: int) -> np.ndarray:
    """Sums over blocks of group x group cells, the last ones maybe smaller."""
    starts = np.arange(0, len(matrix), group)
    return np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)


def short(name: str, number: int, paths: Sequence[str]) -> str:
    """The name, cut where it is long; the number where none of the fonts has its letters."""
    name = visible(name)
    if lacking := lacked(name, paths):
        tell(lacking)
        return str(number)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def reliability(bins: Sequence[Bin]) -> bytes:
    """Accuracy against confidence, and below how many images lie in each bin."""
    figure = new_figure((6, 6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [one for one in bins if one.photos]
    middles = [(one.low + one.high) / 2 for one in filled]
    bars = {"width": bins[0].high - bins[0].low, "edgecolor": "white"}
    upper.bar(middles, [one.accuracy for one in filled], color=BLUE, label="accuracy", **bars)
    upper.plot(middles, [one.confidence for one in filled], "o-", color=RED, label="confidence")
    upper.set(ylabel="accuracy, mean confidence", xlim=(0, 1), ylim=(0, 1.03))
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    lower.bar(middles, [one.photos for one in filled], color=GREY, **bars)
    lower.set(xlabel="confidence: probability of the predicted class", ylabel="photos")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return png(figure)


def new_figure(size: tuple[float, float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    target = io.BytesIO()
    figure.savefig(target, metadata={"Software": None})
    return target.getvalue()

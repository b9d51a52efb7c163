"""The two pictures: latency by network and engine, and published accuracy against latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ppcls.bench.store import Record
from ppcls.bench.tables import unique
from ppcls.docs.plots import DPI, picture, spots
from ppcls.report.fonts import drawable, families, fonts_for
from ppcls.utils.text import plural, visible
from ppcls.weights.store import registry

LATENCY, ACCURACY = "benchmark_latency.png", "benchmark_accuracy.png"
COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore
MARKERS = "osD^vPX*<>"
WIDTH, PANEL, ROW, MARGIN = 12, 7, 0.22, 2.0  # inches
ACROSS = 3  # panels beside each other
FEW_DECADES = (2, 0.4)  # of an axis: its minor ticks have numbers, too


def write(cells: Sequence[Record], folder: Path) -> list[Path]:
    """Draw as PNG files what there is to draw."""
    measured = [cell for cell in cells if "median_ms" in cell]
    figures = {LATENCY: latency(measured), ACCURACY: accuracy(measured)}
    paths = []
    for name, figure in figures.items():
        if figure:
            paths.append(folder / name)
            figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def latency(cells: Sequence[Record]) -> Figure | None:
    """A panel for each batch size: a row for each network, a point for each way it ran."""
    if not cells:
        return None
    batches, ways = sorted({cell["batch"] for cell in cells}), unique(map(way_of, cells))
    names = unique(cell["model"] for cell in cells)
    columns = min(ACROSS, len(batches))
    rows = -(-len(batches) // columns)
    size = (WIDTH if columns == 1 else PANEL * columns, rows * (MARGIN + ROW * len(names)))
    figure = Figure(size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes, batch in zip(every, batches, strict=False):
        own = [cell for cell in cells if cell["batch"] == batch]
        draw_latency(axes, own, names, ways)
        axes.set_title(f"batch of {batch}", fontsize=10)
    for axes in list(every)[len(batches) :]:
        axes.set_visible(False)
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def draw_latency(
    axes: Axes, cells: Sequence[Record], names: Sequence[str], ways: Sequence[str]
) -> None:
    for index, way in enumerate(ways):
        own = [cell for cell in cells if way_of(cell) == way]
        if own:
            axes.scatter(
                [cell["median_ms"] for cell in own],
                [names.index(cell["model"]) for cell in own],
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                label=way,
                s=24,
            )
    paths = fonts_for("".join(map(visible, names)))
    style: dict[str, Any] = {"fontsize": 8, "fontfamily": families(paths), "parse_math": False}
    axes.set_yticks(range(len(names)), [drawable(name, paths) for name in names], **style)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=FEW_DECADES))
    axes.set_xlabel("median latency of a batch, ms")
    axes.grid(True, which="both", alpha=0.2)


def way_of(cell: Record) -> str:
    return f"{cell['engine']}, {cell['precision']}, {plural(cell['threads'], 'thread')}"


def accuracy(cells: Sequence[Record]) -> Figure | None:
    """Networks with published weights, each with its fastest engine in fp32, by batch size."""
    chosen = [c for c in cells if c["model"] in registry() and c["precision"] == "fp32"]
    panels = []
    for batch in sorted({cell["batch"] for cell in chosen}):
        best: dict[str, float] = {}
        for cell in chosen:
            if cell["batch"] == batch:
                name = cell["model"]
                best[name] = min(cell["median_ms"], best.get(name, cell["median_ms"]))
        points = [(spot, ms) for name, ms in best.items() for spot in spots(name)]
        title = f"Published accuracy against measured latency, fastest engine, batch of {batch}"
        panels.append((title, "median latency, ms", points))
    return picture(panels, (14, 8 * len(panels))) if panels else None

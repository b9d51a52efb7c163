"""The two pictures: latency by network and engine, and published accuracy against latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ppcls.bench.store import Record
from ppcls.bench.tables import plural, published_networks, unique
from ppcls.docs.facts import facts
from ppcls.docs.plots import DPI, picture
from ppcls.report.fonts import drawable, families, fonts_for
from ppcls.utils.text import visible

LATENCY, ACCURACY = "benchmark_latency.png", "benchmark_accuracy.png"
COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore
MARKERS = "osD^vPX*<>"
WIDTH, ROW, MARGIN = 12, 0.22, 2.0  # inches
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
    """A row for each network, a point for each way it ran, at the smallest batch size."""
    if not cells:
        return None
    batch = min(cell["batch"] for cell in cells)
    chosen = [cell for cell in cells if cell["batch"] == batch]
    names = unique(cell["model"] for cell in chosen)
    figure = Figure((WIDTH, MARGIN + ROW * len(names)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, way in enumerate(unique(map(way_of, chosen))):
        own = [cell for cell in chosen if way_of(cell) == way]
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
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=FEW_DECADES))
    axes.set_xlabel(f"median latency, batch of {batch}, ms")
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return figure


def way_of(cell: Record) -> str:
    return f"{cell['engine']}, {cell['precision']}, {plural(cell['threads'])}"


def accuracy(cells: Sequence[Record]) -> Figure | None:
    """Published networks, each with its fastest engine in fp32, at the least and largest batch."""
    chosen = [c for c in cells if c["model"] in published_networks() and c["precision"] == "fp32"]
    batches = sorted({cell["batch"] for cell in chosen})
    panels = []
    for batch in unique(batches[:1] + batches[-1:]):
        best: dict[str, float] = {}
        for cell in chosen:
            if cell["batch"] == batch:
                name = cell["model"]
                best[name] = min(cell["median_ms"], best.get(name, cell["median_ms"]))
        points = [(facts(name), ms) for name, ms in best.items()]
        title = f"Published accuracy against measured latency, fastest engine, batch of {batch}"
        panels.append((title, "median latency, ms", points))
    return picture(panels, (WIDTH, 7 * len(panels))) if panels else None

"""The two pictures of docs/models.md: accuracy against multiply-adds, and against latency."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ppcls.docs.facts import FAMILIES, ROOT, Facts, facts, published

MULTIPLY_ADDS, LATENCY = "accuracy_multiply_adds.png", "accuracy_latency.png"
DPI = 100
SIZES = {MULTIPLY_ADDS: (12, 8.5), LATENCY: (12, 17)}  # inches

COLOURS = dict(zip(FAMILIES, matplotlib.colormaps["tab10"].colors, strict=True))  # type: ignore
MARKERS = dict(zip(FAMILIES, "osD^vPX*<>", strict=True))

BATCH = "1"
PANELS = {  # latency kind → title
    "V100 fp32": "V100, fp32, batch of 1",
    "T4 fp32": "T4, fp32, batch of 1",
    "GPU not stated fp32": "GPU not stated, fp32, batch of 1",
}

LABEL_SIZE = 7
HALF = 4  # of a marker's side, pixels
DISTANCES = (6, 10, 16, 24, 34, 46, 60, 76)  # of a label from its point, pixels
DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))

Point = tuple[Facts, float]  # a network and its abscissa


def label(own: Facts) -> str:
    """The name without what the family, which colour and marker tell, says already."""
    short = own.name
    for word in ("Fix_ResNeXt", "EfficientNet", "RegNetX_", "Res2Net", "ResNeSt", "ResNeXt"):
        short = short.replace(word, "Fix " if word.startswith("Fix") else "")
    if own.family != "SE":
        short = short.replace("ResNet", "").replace("_wsl", "")
    if own.family.endswith("_vd"):
        short = short.replace("_vd", "")
    return short.removeprefix("SE_").replace("_", " ")


def draw(axes: Axes, points: Sequence[Point], x_label: str) -> None:
    """Points by family, joined by a faint line, each with a label where there is room."""
    for family in FAMILIES:
        own = sorted((x, 100 * o.top1) for o, x in points if o.family == family)
        if own:
            colour, marker = COLOURS[family], MARKERS[family]
            axes.plot(*zip(*own, strict=True), color=colour, alpha=0.25, zorder=1)
            xs, ys = zip(*own, strict=True)
            axes.scatter(xs, ys, s=28, color=colour, marker=marker, label=family, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel("top-1 accuracy, published, %")
    axes.grid(True, which="both", alpha=0.2)
    axes.margins(x=0.07, y=0.07)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9)


def place_labels(axes: Axes, points: Sequence[Point]) -> None:
    """Put each label where it covers least around its point; the axes must be final."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore
    spots = [axes.transData.transform((x, 100 * own.top1)) for own, x in points]
    taken = [Bbox.from_bounds(x - HALF, y - HALF, 2 * HALF, 2 * HALF) for x, y in spots]
    taken.append(axes.get_legend().get_window_extent(renderer))  # type: ignore
    for (own, x), spot in zip(points, spots, strict=True):
        text = axes.annotate(
            label(own),
            (x, 100 * own.top1),
            fontsize=LABEL_SIZE,
            color=[0.7 * part for part in COLOURS[own.family]],
            xytext=(0, 0),
            textcoords="offset pixels",
            arrowprops={"arrowstyle": "-", "color": "grey", "lw": 0.4},
        )
        size = Text.get_window_extent(text, renderer).size
        offset, box = least_covering(spot, size, taken, axes.bbox)  # type: ignore
        text.set_position(offset)  # type: ignore
        taken.append(box)


def least_covering(
    spot: np.ndarray, size: np.ndarray, taken: Sequence[Bbox], inside: Bbox
) -> tuple[np.ndarray, Bbox]:
    """Offset in pixels of a label's lower left corner from its point, and the label's box."""
    best = None
    for distance in DISTANCES:
        for direction in DIRECTIONS:
            side = np.array(direction)
            offset = side * distance + (side - 1) / 2 * size
            box = Bbox.from_bounds(*(spot + offset), *size)
            covered = sum(box.overlaps(other) for other in taken)
            covered += not (inside.contains(*box.min) and inside.contains(*box.max))
            if best is None or covered < best[0]:
                best = covered, offset, box
            if not covered:
                return offset, box
    assert best is not None
    return best[1:]


def picture(
    panels: Sequence[tuple[str, str, Sequence[Point]]], size: tuple[float, float]
) -> Figure:
    """A figure with a panel below the other for each (title, label of the abscissa, points)."""
    figure = Figure(size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (title, x_label, points) in zip(every, panels, strict=True):
        draw(axes, points, x_label)
        axes.set_title(title, fontsize=10)
    figure.canvas.draw()  # lays the panels out
    figure.set_layout_engine("none")
    for axes, (_, _, points) in zip(every, panels, strict=True):
        place_labels(axes, points)
    return figure


def write_plots(names: Iterable[str] | None = None, folder: Path = ROOT / "docs") -> list[Path]:
    """Draw both pictures of the networks, by default of all published ones, as PNG files."""
    every = [facts(name) for name in names or published()]
    macs = [(own, own.macs / 1e9) for own in every]
    first = picture(
        [("Accuracy against multiply-adds", "multiply-adds for one image, G, counted", macs)],
        SIZES[MULTIPLY_ADDS],
    )
    panels = [(title, latencies(every, kind)) for kind, title in PANELS.items()]
    second = picture(
        [(title, "published latency, ms", points) for title, points in panels if points],
        SIZES[LATENCY],
    )
    paths = []
    for figure, file in ((first, MULTIPLY_ADDS), (second, LATENCY)):
        paths.append(folder / file)
        figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def latencies(every: Iterable[Facts], kind: str) -> list[Point]:
    found = ((own, own.latency.get(kind, {}).get(BATCH)) for own in every)
    return [(own, ms) for own, ms in found if ms is not None]

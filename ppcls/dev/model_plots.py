"""The two pictures of docs/models.md: accuracy against multiply-adds, and against latency."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ppcls.dev.facts import GROUPS, ROOT, group_of, published
from ppcls.models import registry
from ppcls.weights.store import counted, read_registry

MULTIPLY_ADDS = "accuracy_multiply_adds.png"
LATENCY = "accuracy_latency.png"
DPI = 100
SIZES = {MULTIPLY_ADDS: (14, 10), LATENCY: (14, 24)}  # inches

TEN = matplotlib.colormaps["tab10"].colors  # type: ignore
COLOURS = dict(
    zip(GROUPS, cycle((*TEN, "black", "#b8860b", "#00008b", "#8b0000", "#ff1493")), strict=False)
)
MARKERS = dict(zip(GROUPS, cycle("os*D^vPX<>hdp"), strict=False))
RECOMMENDED = ("EfficientNetLite0", "ResNet50_vd", "ResNet50_vd_ssld")  # in bold

BATCH = "1"
PANELS = {  # latency kind → title
    "V100 fp32": "V100, fp32, batch of 1",
    "T4 fp32": "T4, fp32, batch of 1",
    "GPU not stated fp32": "GPU not stated, fp32, batch of 1",
}

LABEL_SIZE = 7
HALF = 4  # of a marker's side, pixels
DISTANCES = (6, 10, 16, 24, 34, 46, 60, 76, 94, 114, 140)  # of a label from its point, pixels
DIRECTIONS = tuple(
    (round(np.cos(angle), 3), round(np.sin(angle), 3))
    for angle in np.pi / 8 * np.array([0, 4, 12, 8, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11])
)


@dataclass(frozen=True)
class Spot:
    """A network with one of its weights, as far as the plots show it; `top1` is 0 to 1."""

    name: str
    top1: float

    @property
    def group(self) -> str:
        return group_of(self.name)


Point = tuple[Spot, float]  # a network and its abscissa


def label(own: Spot) -> str:
    """The whole name, but for the longest word of all."""
    return own.name.replace("EfficientNet", "EffNet")


def series(own: Spot) -> str:
    """What the networks have in common that differ in depth, or of WSL in width, alone."""
    if own.group == "ResNeXt WSL":
        return own.group if own.name.startswith("ResNeXt") else own.name
    name = own.name
    for family in registry.FAMILIES:
        name = re.sub(*family.series, name)
    return name


def draw(axes: Axes, points: Sequence[Point], x_label: str) -> None:
    """Points by group; a faint line joins those that differ in size alone."""
    for group in GROUPS:
        own = [(spot, x) for spot, x in points if spot.group == group]
        if not own:
            continue
        colour = COLOURS[group]
        marker = MARKERS[group]
        for name in dict.fromkeys(series(spot) for spot, _ in own):
            chain = sorted((x, 100 * spot.top1) for spot, x in own if series(spot) == name)
            axes.plot(*zip(*chain, strict=True), color=colour, alpha=0.35, zorder=1)
        xs, ys = zip(*((x, 100 * spot.top1) for spot, x in own), strict=True)
        axes.scatter(xs, ys, s=28, color=colour, marker=marker, label=group, zorder=3)
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
            fontweight="bold" if own.name in RECOMMENDED else "normal",
            color=[0.7 * part for part in to_rgb(COLOURS[own.group])],
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
    """Draw both pictures of the networks, by default of all with published weights, as PNG."""
    every = [(spot, name) for name in names or read_registry() for spot in spots(name)]
    macs = [(spot, counted()[name]["macs"] / 1e9) for spot, name in every]
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


def spots(name: str) -> list[Spot]:
    """The network with its own weights, and with others, such as SSLD's, under their tag."""
    first, *others = read_registry().get(name, {}).items()
    found = [Spot(name, first[1]["top1"])]
    longer = [(f"{name}_{tag}", facts["top1"]) for tag, facts in others]
    return found + [Spot(own, top1) for own, top1 in longer if own not in read_registry()]


def latencies(every: Iterable[tuple[Spot, str]], kind: str) -> list[Point]:
    """The spots with the published latency of their network."""
    known = published()
    found = [(spot, known.get(name, {}).get("latency", {}).get(kind, {})) for spot, name in every]
    return [(spot, own[BATCH]) for spot, own in found if own.get(BATCH) is not None]

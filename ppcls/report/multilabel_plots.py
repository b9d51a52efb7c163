"""The plots of a report on several labels per image, as PNG bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.report.fonts import families, fonts_for
from ppcls.report.multilabel import MultiLabelReport
from ppcls.report.plots import (
    BLUE,
    CELLS,
    RED,
    WITH_COUNTS,
    WITH_NAMES,
    new_figure,
    png,
    short,
)
from ppcls.thresholds import cuts
from ppcls.utils.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 8  # curves that have a colour and a name, those of the classes with the lowest figures
DRAWN = 200  # curves at most
SPREAD = 30  # classes whose scores are drawn
PALETTE = ("#3b6fb6", "#d9822b", "#5a9a4a", "#c8553d", "#7d5ba6", "#8c6d46", "#d06ba8", "#3aa6a6")


def curves(report: MultiLabelReport) -> bytes:
    """Precision over recall, and F1 over the threshold; a dot where each class's threshold is."""
    figure = new_figure((11, 5))
    left, right = figure.subplots(1, 2)
    order = sorted(
        (one for one in report.classes if one.average_precision is not None),
        key=lambda one: one.average_precision or 0.0,
    )[:DRAWN]
    style = lettering(report, [one.number for one in order[:NAMED]])
    grid = np.linspace(0, 1, 201)
    every = []
    for place, one in reversed(list(enumerate(order))):
        own = cuts(
            report.outcomes.probabilities[:, one.number], report.outcomes.labels[:, one.number]
        )
        seen = own.taken > 0
        named = place < NAMED
        line = {"color": PALETTE[place], "linewidth": 1.6} if named else {"color": "#bbbbbb"}
        line |= {} if named else {"linewidth": 0.7}
        label = f"{style['names'][one.number]}: AP {one.average_precision:.3f}" if named else None
        left.step(own.recall[seen], own.precision[seen], where="pre", label=label, **line)
        # The cut that a threshold makes is the last whose own threshold is not below it.
        f1 = own.f1[np.searchsorted(-own.thresholds, -grid, "right").clip(1) - 1]
        every.append(f1)
        right.plot(grid, f1, **line)
        if one.recall is not None:
            dot: dict[str, Any] = {"color": line["color"], "markersize": 5, "zorder": 4}
            left.plot([one.recall], [one.precision or 0.0], "o", **dot)
            right.plot([one.threshold], [one.f1 or 0.0], "o", **dot)
    if len(every) > 1:
        mean = {"color": "black", "linewidth": 1.6, "linestyle": "--"}
        right.plot(grid, np.mean(every, axis=0), label="mean of the classes", **mean)
        right.legend(fontsize=8, loc="lower center")
    left.set(xlabel="recall", ylabel="precision", title="precision and recall")
    right.set(xlabel="threshold", ylabel="F1", title="F1 over the threshold")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.grid(alpha=0.25)
    handles, labels = left.get_legend_handles_labels()
    if handles:
        given = {"prop": {"family": style["fonts"], "size": 8}}
        shown = left.legend(handles[::-1], labels[::-1], loc="lower left", **given)
        for text in shown.get_texts():
            text.set_parse_math(False)
    return png(figure)


def spread(report: MultiLabelReport) -> bytes:
    """Of each class how the scores lie of images that have it and that have it not.

    A thin line from 5 to 95 % of the images, a thick one from 25 to 75 %, the median in white, and
    the threshold across. Of many classes those with the lowest F1.
    """
    order = sorted(report.classes, key=lambda one: 2.0 if one.f1 is None else one.f1)[:SPREAD]
    figure = new_figure((9, 1.6 + 0.42 * len(order)))
    axes = figure.subplots()
    style = lettering(report, [one.number for one in order])
    for place, one in enumerate(order):
        for scores, colour, shift in ((one.with_it, BLUE, -0.16), (one.without_it, RED, 0.16)):
            if scores:
                low, quarter, middle, three, high = scores
                y = place + shift
                axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
                axes.plot(
                    [quarter, three], [y, y], color=colour, linewidth=6, solid_capstyle="butt"
                )
                axes.plot([middle], [y], "o", color="white", mec=colour, markersize=4, zorder=4)
        limits = [place - 0.36, place + 0.36]
        axes.plot([one.threshold] * 2, limits, color="black", linewidth=1.6, zorder=5)
    axes.plot([], [], color=BLUE, linewidth=6, label="images that have the class")
    axes.plot([], [], color=RED, linewidth=6, label="images that have it not")
    axes.plot([], [], color="black", linewidth=1.6, label="threshold")
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    axes.set_yticks(
        range(len(order)), [style["names"][one.number] for one in order], **style["axis"]
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(len(order) - 0.4, -0.6), xlabel="score")
    axes.grid(alpha=0.25, axis="x")
    return png(figure)


def confusion(report: MultiLabelReport) -> bytes:
    """Classes that are wrongly named, by those that the image has."""
    side = side_of(len(report.names))
    figure = new_figure((side + 0.9, side))
    axes = figure.subplots()
    image = matrix(axes, report.confusion, report)
    figure.colorbar(image, ax=axes, label="share of those images on which it is named", shrink=0.8)
    axes.set(xlabel="is named (off the diagonal: wrongly)", ylabel="images that have")
    return png(figure)


def together(report: MultiLabelReport) -> bytes:
    """How often classes come together, in the labels and in the answers."""
    side = side_of(len(report.names))
    figure = new_figure((2 * side + 1, side + 0.4))
    left, right = figure.subplots(1, 2)
    for axes, shares, title in zip(
        (left, right), report.together, ("in the labels", "in the answers"), strict=True
    ):
        image = matrix(axes, shares, report)
        axes.set(xlabel="that also have", ylabel="of the images that have", title=title)
    figure.colorbar(image, ax=(left, right), label="share", shrink=0.8)
    return png(figure)


def matrix(axes: "Axes", shares: np.ndarray, report: MultiLabelReport) -> Any:
    """Shares by class and class, those that there are none of in grey; returns the image."""
    count = len(shares)
    group = -(-count // CELLS)
    if group > 1:
        axes.set_title(f"each cell is the mean of {group} x {group} classes", fontsize=9)
        shares = block_means(shares, group)
    end = len(shares) * group - 0.5
    axes.set_facecolor("#eeeeee")
    norm: dict[str, Any] = {"vmin": 0, "vmax": 1}
    if count > WITH_NAMES:
        from matplotlib.colors import PowerNorm

        norm = {"norm": PowerNorm(0.5, 0, 1)}
    extent = (-0.5, end, end, -0.5)
    image = axes.imshow(shares, cmap="Blues", interpolation="nearest", extent=extent, **norm)
    if count <= WITH_COUNTS:
        for (y, x), share in np.ndenumerate(shares):
            if share > 0:
                ink = "white" if share > 0.6 else "black"
                text = f"{100 * share:.0f}" if share >= 0.01 else "<1"
                axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)
    if count <= WITH_NAMES:
        style = lettering(report, range(count))
        names = [style["names"][number] for number in range(count)]
        axes.set_xticks(range(count), names, rotation=90, **style["axis"])
        axes.set_yticks(range(count), names, **style["axis"])
    return image


def block_means(shares: np.ndarray, group: int) -> np.ndarray:
    """Means over blocks of group x group cells, of those that are numbers."""
    starts = np.arange(0, len(shares), group)
    known = ~np.isnan(shares)
    sums, counts = (
        np.add.reduceat(np.add.reduceat(values, starts, axis=0), starts, axis=1)
        for values in (np.where(known, shares, 0.0), known.astype(float))
    )
    with np.errstate(invalid="ignore"):
        return sums / counts


def side_of(count: int) -> float:
    return float(np.clip(2.4 + 0.42 * count, 4.5, 11))


def lettering(report: MultiLabelReport, numbers: Sequence[int] | range) -> dict[str, Any]:
    """The classes' names as they fit on a plot, and the fonts that have their letters."""
    texts = [report.names[number] for number in numbers]
    paths = fonts_for("".join(map(visible, texts)))
    fonts = families(paths)
    names = {n: short(t, n, paths) for n, t in zip(numbers, texts, strict=True)}
    axis = {"fontsize": 8, "fontfamily": fonts, "parse_math": False}
    return {"names": names, "fonts": fonts, "axis": axis}

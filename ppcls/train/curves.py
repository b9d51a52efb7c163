"""A run's records as a picture."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.metrics import Score, goodness
from ppcls.utils.files import write_bytes
from ppcls.utils.log import is_number, read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]

# inches
SIZE = (15, 4.6)
# Around the axes; below them are the legends, as high as the longest.
LEFT, BETWEEN, RIGHT, ABOVE, BELOW = 0.7, 0.8, 0.15, 0.65, 0.5
LINE = 0.175
DPI = 100
LONG = 40  # characters of a legend's line that need no more
FEW = 40  # points up to which each is marked
BLUE = "#3b6fb6"
ORANGE = "#d9822b"
GREEN = "#5a9a4a"
GREY = "#777777"
WORDS = {"map": "mAP", "f1": "F1", "top1": "top-1", "top5": "top-5", "loss": "loss"}
WATCHED = {"label_accuracy": "labels right", "top1": "top-1"}  # of training steps
SCORES = ("map", "f1", "top1", "top5")  # of evaluations, as far as they are recorded


@dataclass(frozen=True)
class Course:
    """What a picture says beside the records.

    Attributes:
        epoch_steps: steps of an epoch.
        best: the score that chooses the best weights.
        objective: what training steps minimise.
        measured: the loss of an evaluation.
    """

    epoch_steps: int = 1
    best: Score = "top1"
    objective: str = "cross entropy"
    measured: str = "cross entropy"


def draw(records_path: Path, picture: Path, of: Course) -> None:
    """Loss, scores and learning rate over the epochs, as PNG; its words are in it as text, too.

    Raises:
        UserError: the picture cannot be written.
    """
    records = read_records(records_path)
    figure = figure_of(records, of)
    target = io.BytesIO()
    about = {"Description": "\n".join(words(figure)), "Software": None}
    figure.savefig(target, metadata=about)
    write_bytes(picture, target.getvalue(), fix="the run's checkpoints are whole")


def figure_of(records: Iterable[Record], of: Course) -> "Figure":
    """The three panels of a run's records."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = list(records)
    numbered = [r for r in records if is_number(r.get("step"))]
    train = [r for r in numbered if r.get("event") == "train"]
    evals = [r for r in numbered if r.get("event") == "eval"]
    figure = Figure(SIZE, dpi=DPI)
    FigureCanvasAgg(figure)
    loss, scores, rate = figure.subplots(1, 3)
    draw_losses(loss, train, evals, of)
    draw_scores(scores, train, evals, of)
    line(rate, ends(train, of), column(train, "lr"), "learning rate", BLUE)
    rate.set_title("learning rate")
    mark_best(loss if of.best == "loss" else scores, evals, of)
    last = max((r["step"] for r in (*train, *evals)), default=of.epoch_steps)
    for axes in (loss, scores, rate):
        finish(axes, last, of.epoch_steps)
    place(figure)
    return figure


def place(figure: "Figure") -> None:
    """Room for what stands around the axes; measuring it takes half of the time of drawing."""
    wide, high = SIZE
    lines = max(len(axes.get_legend_handles_labels()[0]) for axes in figure.axes)
    bottom = BELOW + LINE * max(lines, 1)
    each = (wide - LEFT - RIGHT - 2 * BETWEEN) / 3
    figure.subplots_adjust(
        left=LEFT / wide,
        right=1 - RIGHT / wide,
        top=1 - ABOVE / high,
        bottom=bottom / high,
        wspace=BETWEEN / each,
    )
    for axes in figure.axes:
        if legend := axes.get_legend():
            lower = (0.5, -(BELOW - 0.05) / (high - ABOVE - bottom))
            legend.set_bbox_to_anchor(lower, axes.transAxes)


def draw_losses(axes: "Axes", train: Sequence[Record], evals: Sequence[Record], of: Course) -> None:
    learnt = f"training: {of.objective}"
    learnt += "" if len(learnt) > LONG else ", on augmented images"
    line(axes, middles(train, of), column(train, "loss"), learnt, BLUE)
    measured = f"evaluation: {of.measured}{' alone' if of.objective != of.measured else ''}"
    line(axes, ends(evals, of), column(evals, "loss"), measured, ORANGE)
    axes.set_title("loss")


def draw_scores(axes: "Axes", train: Sequence[Record], evals: Sequence[Record], of: Course) -> None:
    watched = next((key for key in WATCHED if any(key in r for r in train)), "")
    if watched:
        name = f"training: {WATCHED[watched]}, on augmented images"
        line(axes, middles(train, of), percent(train, watched), name, BLUE)
    keys = [key for key in SCORES if any(key in r for r in evals)]
    keys.sort(key=lambda key: key != of.best)
    for key, colour in zip(keys, (ORANGE, GREEN, GREY, "black"), strict=False):
        line(axes, ends(evals, of), percent(evals, key), f"evaluation: {WORDS[key]}", colour)
    axes.set_title("scores, %")


def mark_best(axes: "Axes", evals: Sequence[Record], of: Course) -> None:
    """A star on the first of the best evaluations, with its value and epoch."""
    scored = [r for r in evals if r.get(of.best) is not None]
    if not scored:
        return
    best = max(scored, key=lambda record: goodness(record, of.best))
    x = best["step"] / of.epoch_steps
    value = best[of.best]
    shown = value if of.best == "loss" else 100 * value
    text = f"{shown:.4f}" if of.best == "loss" else f"{shown:.2f} %"
    name = f"best: {WORDS[of.best]} {text} (epoch {x:g})"
    axes.plot([x], [shown], "*", color="black", markersize=12, label=name, zorder=5)
    axes.axvline(x, color="black", linewidth=0.8, linestyle=":", zorder=1)


def line(axes: "Axes", xs: Sequence[float], ys: Sequence[float], name: str, colour: str) -> None:
    """A line through the points, each marked where they are few; nothing without any."""
    if not any(y == y for y in ys):
        return
    marker = {"marker": "o", "markersize": 4 if len(xs) > 1 else 6} if len(xs) <= FEW else {}
    axes.plot(xs, ys, color=colour, label=name, linewidth=1.5 if marker else 1.2, **marker)


def finish(axes: "Axes", steps: int, epoch_steps: int) -> None:
    """Epochs below, steps above, grid and legend."""
    from matplotlib.ticker import MaxNLocator

    end = steps / epoch_steps
    axes.set_xlim(-0.03 * end, 1.03 * end)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=end >= 3))
    both = (lambda epochs: epochs * epoch_steps, lambda steps: steps / epoch_steps)
    above = axes.secondary_xaxis("top", functions=both)  # type: ignore
    above.set_xlabel("step", fontsize=8, color=GREY)
    above.tick_params(labelsize=8, colors=GREY)
    above.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper center", frameon=False)
    else:
        place = {"transform": axes.transAxes, "ha": "center", "color": GREY}
        axes.text(0.5, 0.5, "nothing recorded yet", **place)


def words(figure: "Figure") -> list[str]:
    """What the panels and their lines are called, with the last value of each line."""
    found = []
    for axes in figure.axes:
        for one in axes.get_lines():
            label = str(one.get_label())
            last = np.asarray(one.get_ydata())[-1]
            if not label.startswith("_"):
                end = "" if label.startswith("best") else f", last {last:.6g}"
                found.append(f"{axes.get_title()}: {label}{end}")
    return found


def middles(train: Sequence[Record], of: Course) -> list[float]:
    """In epochs, the middle of the steps that each record is the mean of."""
    before = 0
    found = []
    for record in train:
        found.append((min(before + 1, record["step"]) + record["step"]) / 2 / of.epoch_steps)
        before = record["step"]
    return found


def ends(records: Sequence[Record], of: Course) -> list[float]:
    return [record["step"] / of.epoch_steps for record in records]


def column(records: Sequence[Record], key: str) -> list[float]:
    """The values, NaN where a record has none."""
    found = (record.get(key) for record in records)
    return [value if is_number(value) else float("nan") for value in found]


def percent(records: Sequence[Record], key: str) -> list[float]:
    return [100 * value for value in column(records, key)]

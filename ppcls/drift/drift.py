"""`ppcls drift`: from photos to whether they are still like those of the calibration, in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.drift import PARTS
from ppcls.drift.permutation import FEWEST, Verdict, compare, finds
from ppcls.drift.sketch import FINE, Rows, Sketch, sketch_in
from ppcls.drift.words import class_name, words
from ppcls.inference.exported_model import ExportedModel
from ppcls.inference.inputs import find, with_frames
from ppcls.inference.looks import LOOKS
from ppcls.inference.predictor import MANY_CLASSES, Asked, Predictor, batched
from ppcls.report.fonts import families, fonts_for
from ppcls.report.plots import BLUE, GREY, RED, new_figure, png, short
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import staged_folder, write_text
from ppcls.utils.log import Progress, say
from ppcls.utils.text import SHOWN, plural, to_json, visible

FILE = "drift.json"
PICTURE = "drift.png"
BARS = 12  # classes in the picture
UNITS = {
    "brightness": "levels of 255",
    "contrast": "levels of 255",
    "warmth": "red - blue, levels of 255",
    "tint": "green - red and blue, levels of 255",
    "sharpness": "octaves",
}


@dataclass(frozen=True, eq=False)
class Window:
    """Photos that are looked at together: of all, those from the `first` up to the `last`."""

    first: int
    last: int
    rows: Rows
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Drift:
    """What was found.

    Attributes:
        model: the exported folder.
        digest: of its network's files.
        names: of its classes, () where they are unknown.
        unread: photos that could not be read.
    """

    model: Path
    digest: str
    names: tuple[str, ...]
    sketch: Sketch
    windows: Sequence[Window]
    unread: int

    @property
    def alarms(self) -> list[Window]:
        return [one for one in self.windows if one.verdict.alarm]

    @property
    def furthest(self) -> Window:
        """The window that is least like the reference."""
        return min(self.windows, key=lambda one: (one.verdict.p, -one.verdict.parts[0].surplus))


def sketch_for(opened: ExportedModel) -> Sketch:
    """What an exported folder keeps of the images that it was calibrated on.

    Raises:
        UserError: it keeps nothing, or too few.
    """
    known, path = opened.manifest.calibration, opened.path
    fix = f"ppcls calibrate --model-dir {path} --data LABELLED"
    if known is None:
        raise UserError(
            f"{path}: is not calibrated, and knows nothing of the photos it is made for; run {fix}"
        )
    sketch = sketch_in(known, path)
    if sketch is None:
        raise UserError(
            f"{path}: its calibration is of an older ppcls, and keeps nothing of its photos; run "
            f"{fix} again"
        )
    if len(sketch.rows) < FEWEST:
        raise UserError(
            f"{path}: was calibrated on {plural(known.made_from.images, 'photo')}, too few to hold "
            f"others against; run {fix} again with some hundred"
        )
    return sketch


def drift(
    predictor: Predictor,
    sketch: Sketch,
    photos: Any,
    window: int,
    false_alarms: float,
    skip: bool = False,
    every: float = 1.0,
) -> Drift:
    """Predict photos and hold them against the sketch, window by window, in the order given.

    Args:
        predictor: opened without calibration: the sketch is of the network's own answers.
        photos: as `Predictor.predict` takes them.
        window: photos that are looked at together, about: all windows are of one size, or one
            photo more.
        skip: leave out photos that cannot be read.

    Raises:
        UserError: there are too few photos, or one cannot be read.
    """
    rows, unread = rows_of(predictor, sketch, find(photos, skip, every), skip)
    if len(rows) < FEWEST:
        raise UserError(few(len(rows), len(sketch.rows), false_alarms))
    several = max(1, round(len(rows) / window))
    parts = np.array_split(np.arange(len(rows)), several)
    windows = []
    for part in Progress(parts, "comparing", several) if several > 1 else parts:
        own = rows.take(slice(part[0], part[-1] + 1))
        verdict = compare(sketch.rows, own, false_alarms)
        windows.append(Window(int(part[0]) + 1, int(part[-1]) + 1, own, verdict))
    folder = predictor.folder
    return Drift(folder.path, folder.digest(), predictor.class_names, sketch, windows, unread)


def rows_of(
    predictor: Predictor, sketch: Sketch, images: Sequence[Any], skip: bool
) -> tuple[Rows, int]:
    """What is compared of each photo, and how many could not be read."""
    features = sketch.of == "features"
    asked = Asked(1 if features else MANY_CLASSES, skip, features, looks=True)
    size = predictor.batch_size
    batches = batched(with_frames(images), size, False)
    stream = predictor.answer(batches, -(-len(images) // size), asked)
    found: list[Rows] = []
    unread = 0
    try:
        for answer in Progress(stream, "predicting", len(images)):
            if answer.error:
                unread += 1
                if unread <= SHOWN:
                    say(f"skipped: {answer.error}")
                continue
            row = np.zeros((1, sketch.class_count), np.float32)
            row[0, answer.classes] = answer.scores
            pooled = None if answer.features is None else answer.features[None]
            assert answer.looks is not None
            found.append(sketch.rows_of(row, pooled, answer.looks[None]))
    except DataError as error:
        raise UserError(f"{error} (--on-error skip goes on without it)") from None
    if not found:
        raise UserError(f"none of {plural(len(images), 'photo')} can be read")
    return Rows.joined(*found), unread


def few(count: int, reference: int, false_alarms: float) -> str:
    said = "; ".join(
        f"{size} would find {found(reference, size, false_alarms)}" for size in (100, 500)
    )
    return f"{plural(count, 'photo')}: too few to tell, {FEWEST} are needed; {said}"


def found(reference: int, window: int, false_alarms: float) -> str:
    """What so many photos find."""
    mean, share = finds(reference, window, false_alarms)
    points = f"{100 * min(share, 1):.0f} points"
    return (
        f"means that move by {mean:.2f} deviations, or by {points} the share of a class of half of "
        "the photos"
    )


# --------------------------------------------------------------------------- words


def lines(found_all: Drift) -> list[str]:
    """What people read."""
    windows = found_all.windows
    count = windows[-1].last
    one = windows[0].verdict
    of = "scores, classes and looks"
    if found_all.sketch.of == "features":
        of = f"features, {of}"
    said = [
        f"{found_all.model}: {plural(count, 'photo')} held against {one.reference:,} of the "
        f"calibration, by {of}"
    ]
    if len(windows) > 1:
        said[0] += f", in {len(windows)} windows of {one.images} or so, in the order given"
    if found_all.unread:
        said.append(f"note: {plural(found_all.unread, 'photo')} cannot be read and are left out")
    for window in windows:
        head = f"photos {window.first:,} to {window.last:,}: " if len(windows) > 1 else ""
        said.append(head + words(window.verdict, found_all.sketch.of, found_all.names))
    rate = one.false_alarms
    said.append(
        f"{one.images} photos find, four times in five, {found(one.reference, one.images, rate)}"
    )
    if len(windows) > 1:
        alarms = len(found_all.alarms)
        said.append(
            f"{plural(alarms, 'alarm')} in {len(windows)} windows; like photos would raise "
            f"{rate * len(windows):.2g}"
        )
    return said


def to_plain(found_all: Drift) -> dict[str, Any]:
    """For programs; shares and chances from 0 to 1."""
    first = found_all.windows[0].verdict
    return {
        "model": str(found_all.model),
        "digest": found_all.digest,
        "reference": {"images": first.reference, "of": found_all.sketch.of},
        "images": found_all.windows[-1].last,
        "unread": found_all.unread,
        "false_alarms": first.false_alarms,
        "alarms": len(found_all.alarms),
        "windows": [
            {
                "first": window.first,
                "last": window.last,
                "alarm": window.verdict.alarm,
                "p": window.verdict.p,
                "parts": [asdict(one) for one in window.verdict.parts],
                "features_by_classes": window.verdict.by_classes["features"],
                "looks_by_classes": window.verdict.by_classes["looks"],
                "scores": dict(zip(("before", "after"), window.verdict.scores, strict=True)),
                "classes": [
                    {"name": class_name(found_all.names, one.number)} | asdict(one)
                    for one in window.verdict.shifts
                ],
                "looks": [asdict(one) for one in window.verdict.looks],
            }
            for window in found_all.windows
        ],
    }


def report(found_all: Drift, output: Path | None) -> bool:
    """Say what was found and write the files; whether no window is alarming."""
    say(*lines(found_all))
    if output:
        text = to_json(to_plain(found_all), indent=1, allow_nan=False) + "\n"
        picture = draw(found_all)
        with staged_folder(output, FILE, (FILE, PICTURE), f"--output {output}") as temporary:
            write_text(temporary / FILE, text)
            (temporary / PICTURE).write_bytes(picture)
        say(f"wrote {output / FILE} and {PICTURE}")
    return not found_all.alarms


# --------------------------------------------------------------------------- the picture


def draw(found_all: Drift) -> bytes:
    """PNG: scores, shares of classes, two axes of the features and the look that moved most, of the
    window that is least like the reference; and, where there are several, how far apart each is.
    """
    several = len(found_all.windows) > 1
    figure = new_figure((18, 8 if several else 5))
    parts: Any = figure.subfigures(2, 1) if several else (figure, None)
    upper, lower = parts
    window = found_all.furthest
    color = RED if window.verdict.alarm else BLUE
    name = f"photos {window.first:,} to {window.last:,}" if several else "these photos"
    upper.suptitle(
        f"{name}: {'drift' if window.verdict.alarm else 'no drift is seen'} "
        f"(p {window.verdict.p:.3g})"
    )
    left, middle, right, last = upper.subplots(1, 4)
    kinds = ((found_all.sketch.rows, GREY, "calibration"), (window.rows, color, name))
    bins = np.linspace(0, 1, 21)
    for rows, own, label in kinds:
        weights = np.full(len(rows), 100 / len(rows))
        left.hist(rows.scores, bins, weights=weights, color=own, alpha=0.6, label=label)
    left.set(
        xlabel="score of the likeliest class", ylabel="photos, %", title=title("scores", window)
    )
    left.legend(fontsize=9)
    draw_classes(middle, found_all, window, color)
    draw_axes(right, kinds, window, found_all.sketch.of)
    draw_look(last, kinds, window)
    for axes in (left, middle, right, last):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    if lower:
        draw_windows(lower.subplots(), found_all)
    return png(figure)


def title(name: str, window: Window) -> str:
    return f"{name.capitalize()}: {window.verdict.part(name).distance:.1f} times chance"


def draw_classes(axes: Any, found_all: Drift, window: Window, color: str) -> None:
    """The shares of the classes, of many those that moved most."""
    shown = sorted(one.number for one in window.verdict.shifts[:BARS])
    most = found_all.sketch.class_count
    if most <= BARS:
        shown = list(range(most))
    places = np.arange(len(shown))
    counted = (found_all.sketch.rows, window.rows)
    shares = [
        100 * np.bincount(rows.classes, minlength=most)[shown] / len(rows) for rows in counted
    ]
    axes.barh(places - 0.2, shares[0], 0.4, color=GREY)
    axes.barh(places + 0.2, shares[1], 0.4, color=color)
    names = [class_name(found_all.names, number) for number in shown]
    paths = fonts_for("".join(map(visible, names)))
    labels = [short(name, number, paths) for name, number in zip(names, shown, strict=True)]
    style: dict[str, Any] = {"fontfamily": families(paths), "parse_math": False}
    axes.set_yticks(places, labels, **style)
    axes.invert_yaxis()
    what = "photos, %" if most <= BARS else "photos, %; the classes that moved most"
    axes.set(xlabel=what, title=title("classes", window))


def draw_axes(axes: Any, kinds: Sequence[tuple[Rows, str, str]], window: Window, of: str) -> None:
    """Photos along the two axes on which the window lies furthest from the reference."""
    reference, own = (rows.places / FINE for rows, _, _ in kinds)
    apart = np.abs(own.mean(axis=0) - reference.mean(axis=0))
    first, second = np.sort(np.argsort(-apart, kind="stable")[:2]) if len(apart) > 1 else (0, 0)
    for rows, color, _ in kinds:
        places = rows.places / FINE
        axes.scatter(places[:, first], places[:, second], 6, color=color, alpha=0.5, linewidths=0)
    what = "features" if of == "features" else "scores"
    axes.set(
        xlabel=f"axis {first + 1} of the {what}, deviations",
        ylabel=f"axis {second + 1}",
        title=title("features", window),
    )


def draw_look(axes: Any, kinds: Sequence[tuple[Rows, str, str]], window: Window) -> None:
    """How the photos are spread in the look that moved most."""
    name = window.verdict.looks[0].name
    values = [rows.looks[:, LOOKS.index(name)].astype(np.float64) for rows, _, _ in kinds]
    bins = np.histogram_bin_edges(np.concatenate(values), 24)
    for own, (_, color, _) in zip(values, kinds, strict=True):
        axes.hist(own, bins, weights=np.full(len(own), 100 / len(own)), color=color, alpha=0.6)
    axes.set(xlabel=f"{name}, {UNITS[name]}", ylabel="photos, %", title=title("looks", window))


def draw_windows(axes: Any, found_all: Drift) -> None:
    """How far apart each window is, in each part."""
    ends = [one.last for one in found_all.windows]
    for name, color in zip(PARTS, (BLUE, GREY, "black", "darkorange"), strict=True):
        values = [one.verdict.part(name).distance for one in found_all.windows]
        axes.plot(ends, values, "o-", color=color, label=name, markersize=4)
    for one in found_all.alarms:
        axes.axvspan(one.first - 0.5, one.last + 0.5, color=RED, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
    axes.set(
        xlabel="photos, in the order given; red: drift",
        ylabel="times as far apart as by chance",
        title="Windows",
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)

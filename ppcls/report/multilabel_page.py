"""The files of a report on several labels per image: the page, its plots, CSV and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.report import multilabel_plots
from ppcls.report.figures import RATE
from ppcls.report.multilabel import LabelFigures, Mistake, MultiLabelReport
from ppcls.report.page import (
    ALL,
    PAGE,
    RECORD,
    SHOWN,
    TOP,
    about,
    data_uri,
    document,
    escape,
    nine,
    percent,
    share,
    table,
    thumbnail,
    write_csv,
)
from ppcls.thresholds import MIDDLE, remark, shares
from ppcls.utils.text import VISIBLE, at_most, plural, to_json

PLOTS = {
    "precision_recall.png": multilabel_plots.curves,
    "scores.png": multilabel_plots.spread,
    "confusion.png": multilabel_plots.confusion,
    "together.png": multilabel_plots.together,
}
FILES = ("scores.csv", "scores.npz", "classes.csv", "confusion.csv", *PLOTS, RECORD, PAGE)


def write(report: MultiLabelReport, folder: Path) -> None:
    """Write FILES into a folder; scores.npz only where scores.csv has not all probabilities.

    Raises:
        UserError: an image of the worst mistakes cannot be read any more.
        OSError: the folder cannot be written.
    """
    plots = {name: draw(report) for name, draw in PLOTS.items()}
    write_csv(folder / "scores.csv", score_rows(report))
    if len(report.names) > ALL:
        own = report.outcomes
        np.savez(folder / "scores.npz", labels=own.labels, probabilities=own.probabilities)
    write_csv(folder / "classes.csv", class_rows(report))
    write_csv(folder / "confusion.csv", confusion_rows(report))
    for name, picture in plots.items():
        (folder / name).write_bytes(picture)
    text = to_json(to_plain(report), indent=1, allow_nan=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
    page = to_html(report, plots)
    (folder / PAGE).write_text(page, encoding="utf-8", errors=VISIBLE)


# --------------------------------------------------------------------------
# For programs


def score_rows(report: MultiLabelReport) -> Iterator[list[Any]]:
    """A row per image: its labels, those named, and of each class label and probability.

    Above ALL classes the TOP highest probabilities. They have the nine digits that give the same
    float32 back.
    """
    names = report.names
    every = len(names) <= ALL
    head = ["path", "labels", "named", "wrong"]
    if every:
        head += [f"{what}_{name}" for what in ("y", "p") for name in names]
    else:
        head += [
            f"{what}_{place}" for place in range(1, TOP + 1) for what in ("class", "probability")
        ]
    yield head
    own = report.outcomes
    for path, labels, said, row in zip(
        own.samples.paths, own.labels == 1, report.decisions, own.probabilities, strict=True
    ):
        listed = ["; ".join(names[i] for i in np.flatnonzero(marks)) for marks in (labels, said)]
        if every:
            rest = [*labels.astype(int).tolist(), *map(nine, row)]
        else:
            order = np.argsort(-row, kind="stable")[:TOP].tolist()
            rest = [value for k in order for value in (k, nine(row[k]))]
        yield [path, *listed, int((labels != said).sum()), *rest]


def class_rows(report: MultiLabelReport) -> Iterator[list[Any]]:
    """A row per class, as in report.json without the quantiles."""
    for place, one in enumerate(report.classes):
        values = {k: v for k, v in asdict(one).items() if k not in ("with_it", "without_it")}
        if not place:
            yield list(values)
        yield ["" if value is None else value for value in values.values()]


def confusion_rows(report: MultiLabelReport) -> Iterator[list[Any]]:
    yield ["has \\ is named", *report.names]
    for name, row in zip(report.names, report.confusion, strict=True):
        yield [name, *("" if np.isnan(value) else f"{value:.6g}" for value in row)]


def to_plain(report: MultiLabelReport) -> dict[str, Any]:
    """The report without the images' own rows; a score that there is none of is null."""

    def numbers(values: dict[str, float]) -> dict[str, float | None]:
        return {key: value if np.isfinite(value) else None for key, value in values.items()}

    return {
        **report.about,
        "photos": len(report.outcomes.labels),
        "scores": numbers(report.scores),
        "thresholds": {
            "from": report.source,
            "chosen": report.chosen.to_plain() if report.chosen else None,
        },
        "averages": report.averages,
        "attributes": {kind: numbers(own) for kind, own in report.attributes.items()},
        "exact": report.exact,
        "classes": [asdict(one) for one in report.classes],
        "confused": [asdict(one) for one in report.confused],
        "together": [asdict(one) for one in report.pairs],
        "wrongly_named": [in_plain(report, one) for one in report.alarms],
        "missed": [in_plain(report, one) for one in report.misses],
    }


def in_plain(report: MultiLabelReport, one: Mistake) -> dict[str, Any]:
    path = report.outcomes.samples.paths[one.index]
    return {"path": path, "class": one.number, "probability": one.score}


# --------------------------------------------------------------------------
# The page


def to_html(report: MultiLabelReport, plots: dict[str, bytes]) -> str:
    """The page; `plots` are PNG files by their names."""
    title = f"Evaluation of {report.about['model']}"
    worst = len(report.classes) > multilabel_plots.NAMED
    few = "the classes of lowest average precision have colours; " if worst else ""
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            about(report.about),
            tiles(report),
            alarms(report),
            misses(report),
            confused(report),
            plot(
                plots["confusion.png"],
                "Named beside",
                "A row: of the images that have a class and have not the column's, the percentage "
                "on which the column's is named all the same. On the diagonal: recall.",
                f"How often each of {plural(len(report.names), 'class')} is wrongly named on "
                "images that have another",
            ),
            classes(report),
            thresholds(report),
            plot(
                plots["precision_recall.png"],
                "Precision, recall, F1",
                f"One line per class ({few}a dot marks the threshold in force).",
                "Precision over recall, and F1 over the threshold, of each class",
            ),
            plot(
                plots["scores.png"],
                "How the scores spread",
                "Thin: from 5 to 95 % of the images; thick: from 25 to 75 %; white: the median. "
                "Where red and blue lie apart, the threshold between them hardly matters.",
                "The quantiles of each class's scores, of images that have it and that have it not",
            ),
            together(report, plots["together.png"]),
            attributes(report),
        ],
    )


def plot(picture: bytes, title: str, note: str, alt: str) -> str:
    image = f'<img class="plot" src="{data_uri(picture, "png")}" alt="{alt}">'
    return f'<h2>{title}</h2><p class="faint">{note}</p><div class="scroll">{image}</div>'


def tiles(report: MultiLabelReport) -> str:
    """The figures that sum it up."""
    labels = report.outcomes.labels
    ma = report.attributes["in force"]["ma"]
    values = {
        "mAP": optional(report.scores["map"], 2),
        "macro F1": percent(report.averages["macro"]["f1"], 2),
        "micro F1": percent(report.averages["micro"]["f1"], 2),
        "mA": optional(ma, 2),
        "loss": f"{report.scores['loss']:.4f}",
        "all labels right": percent(report.exact),
        "photos": f"{len(labels):,}",
        "classes": f"{len(report.names):,}",
        "labels per photo": f"{(labels == 1).sum(axis=1).mean():.2f}",
    }
    items = "".join(f"<li>{name} <b>{value}</b></li>" for name, value in values.items())
    return f'<ul class="tiles">{items}</ul>'


def optional(value: float, digits: int = 1) -> str:
    return "" if np.isnan(value) else percent(value, digits)


def alarms(report: MultiLabelReport) -> str:
    note = "Named, and not among the labels, with the highest scores: wrong labels gather here."
    return sheet(report, "Worst wrong names", note, report.alarms, "named")


def misses(report: MultiLabelReport) -> str:
    note = "Among the labels, and not named, with the lowest scores."
    return sheet(report, "Worst misses", note, report.misses, "missed")


def sheet(
    report: MultiLabelReport, title: str, note: str, found: Sequence[Mistake], word: str
) -> str:
    """A contact sheet of mistakes of one kind."""
    if not found:
        return f"<h2>{title}</h2><p>None.</p>"
    figures = []
    for one in found:
        name = escape(report.names[one.number])
        path = report.outcomes.samples.paths[one.index]
        own = np.flatnonzero(report.outcomes.labels[one.index] == 1)
        has = escape(at_most([report.names[i] for i in own], 6)) or "nothing"
        picture = data_uri(thumbnail(path), "jpeg")
        limit = percent(float(report.thresholds[one.number]))
        figures.append(
            f'<figure><img src="{picture}" alt="an image of {has}, on which {name} is {word}">'
            f"<figcaption>{word}: <b>{name}</b>, {percent(one.score)}<br>"
            f'<span class="faint">threshold {limit}</span><br>labels: {has}'
            f'<br><span class="faint">{escape("/".join(Path(path).parts[-2:]))}</span>'
            "</figcaption></figure>"
        )
    return f'<h2>{title}</h2><p class="faint">{note}</p><div class="sheet">{"".join(figures)}</div>'


def confused(report: MultiLabelReport) -> str:
    head = "<h2>Classes named beside or instead of others</h2>"
    if not report.confused:
        return head + "<p>None: nothing is wrongly named where another class is.</p>"
    heads = [("text", "has"), ("text", "and is wrongly named"), ("", "photos"), ("", "share")]
    heads.append(("", "of them instead"))
    rows = [
        [
            ("text", report.names[one.true]),
            ("text", report.names[one.named]),
            ("", f"{one.photos:,} of {one.of:,}"),
            ("", percent(one.photos / one.of)),
            ("", f"{one.instead:,}"),
        ]
        for one in report.confused
    ]
    note = (
        '<p class="faint">Of the images that have one class and not the other, those on which the '
        "other is named; “instead”: the first was not found there.</p>"
    )
    return head + note + table(heads, rows)


def classes(report: MultiLabelReport) -> str:
    """Averages and every class, those with the lowest F1 first and those without images last."""
    order = sorted(report.classes, key=lambda one: 2.0 if one.f1 is None else one.f1)
    missing = sum(not one.photos for one in order)
    note = (
        f"At the thresholds {escape(report.source)}. AP: average precision, at no threshold. "
        f"TPR: recall where at most {percent(RATE)} of the other images are named. Lowest F1 "
        "first; a click on a heading sorts."
    )
    if missing:
        note += f" Classes without images ({missing:,}) are left out of the averages."
    head = f'<h2>Classes</h2>{averages(report)}<p class="faint">{note}</p>'
    if len(order) <= SHOWN:
        return head + class_table(order)
    every = plural(len(order), "class")
    rest = f"<details><summary>All {every}</summary>{class_table(order)}</details>"
    return f"{head}<h3>The {SHOWN} worst</h3>{class_table(order[:SHOWN])}{rest}"


def averages(report: MultiLabelReport) -> str:
    heads = [("text", "average"), *(("", name) for name in ("precision", "recall", "F1"))]
    kinds = {"macro": "macro: each class alike", "micro": "micro: each label alike"}
    rows = [
        [("text", text), *(("", percent(value, 2)) for value in report.averages[kind].values())]
        for kind, text in kinds.items()
    ]
    return table(heads, rows)


def class_table(rows: Sequence[LabelFigures]) -> str:
    names = ("F1", "precision", "recall", "AP", "mA", "TPR", "threshold", "photos", "named", "no.")
    heads = [("text", "class"), *(("", name) for name in names)]
    body = []
    for one in rows:
        values = (one.f1, one.precision, one.recall, one.average_precision, one.mean_accuracy)
        cells = [("", *share(value)) for value in (*values, one.tpr_at_fpr)]
        cells.append(("", f"{one.threshold:.3f}", one.threshold))
        photos = f"{one.photos:,}" if one.photos else "no images"
        counts = [("", photos, one.photos), ("", f"{one.named:,}", one.named)]
        body.append([("text", one.name, one.name), *cells, *counts, ("", one.number, one.number)])
    return table(heads, body, "sortable")


def thresholds(report: MultiLabelReport) -> str:
    """How the thresholds were chosen and what that says; nothing where no aim was given."""
    if not report.chosen:
        return ""
    found = report.chosen
    heads = [("text", "class"), ("", "threshold"), ("", "precision"), ("", "95 %"), ("", "recall")]
    heads += [("", "95 %"), ("", "photos"), ("text", "remark")]
    rows = []
    for name, one in zip(report.names, found.classes, strict=True):
        precision, recall = shares(one)
        values = (f"{one.value:.4f}", *precision, *recall, f"{one.images:,}")
        cells = [*(("", value) for value in values), ("text", remark(one))]
        rows.append([("text", name), *cells])
        if not found.one_aim:
            rows[-1].insert(1, ("text", str(one.aim)))
    if not found.one_aim:
        heads.insert(1, ("text", "aim"))
    note = (
        f"Chosen for {escape(found.aim)} on these {plural(found.images, 'image')}, so that "
        "others will reach a little less; the columns 95 % say where the share may lie for images "
        "like these (Clopper and Pearson)."
    )
    shown = table(heads, rows)
    if len(rows) > SHOWN:
        shown = f"<details><summary>All {plural(len(rows), 'class')}</summary>{shown}</details>"
    return f'<h2>Thresholds</h2><p class="faint">{note}</p>{shown}'


def together(report: MultiLabelReport, picture: bytes) -> str:
    head = plot(
        picture,
        "Classes that come together",
        "A row: of the images that have a class, the percentage that has the column's. Where the "
        "right differs from the left, classes are taken for companions more or less often than "
        "they are.",
        "How often classes come together, in the labels and in the answers",
    )
    if not report.pairs:
        return head + "<p>No image has two labels.</p>"
    heads = [("text", "class"), ("text", "and"), ("", "photos with both"), ("", "named both")]
    rows = []
    for one in report.pairs:
        names = [("text", report.names[number]) for number in (one.first, one.second)]
        rows.append([*names, ("", f"{one.photos:,}"), ("", f"{one.both:,}")])
    return f"{head}<details><summary>The pairs</summary>{table(heads, rows)}</details>"


def attributes(report: MultiLabelReport) -> str:
    names = {
        "ma": "mA: mean of true positive and true negative rate, over the classes",
        "accuracy": "accuracy: an image's labels that are right, of those it has or is given",
        "precision": "precision of an image's labels",
        "recall": "recall of an image's labels",
        "f1": "F1 of the two",
    }
    kinds = {"in force": "at the thresholds in force", f"at {MIDDLE:g}": f"at {MIDDLE:g}"}
    heads = [("text", "metric"), *(("", text) for text in kinds.values())]
    rows = [
        [("text", text), *(("", optional(report.attributes[kind][key], 2)) for kind in kinds)]
        for key, text in names.items()
    ]
    note = (
        '<p class="faint">As in the literature of pedestrian attributes (arXiv:1603.07054); all '
        "but mA are means over the images.</p>"
    )
    return f"<h2>Attribute metrics</h2>{note}{table(heads, rows)}"

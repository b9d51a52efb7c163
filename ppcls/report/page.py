"""A report as one HTML file that needs no other."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppcls.report.figures import ClassFigures, Report
from ppcls.report.style import CSS, SORT
from ppcls.report.tables import mistake
from ppcls.report.thumbnails import thumbnail
from ppcls.utils.text import plural, visible

SHOWN = 50  # rows of a table of classes that are seen at once
POLICY = (  # nothing is fetched from anywhere, whatever stands in a name
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def escape(text: str) -> str:
    """Others' text in an element or an attribute."""
    return html.escape(visible(text))


def to_html(report: Report, confusion: bytes, calibration: bytes) -> str:
    """The page; `confusion` and `calibration` are PNG files."""
    title = escape(f"Evaluation of {report.about['model']}")
    sections = [
        f"<h1>{title}</h1>",
        about(report),
        tiles(report),
        pairs(report),
        mistakes(report),
        classes(report),
        matrix(report, confusion),
        reliability(report, calibration),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>{CSS}</style>
</head>
<body>
{chr(10).join(sections)}
<script>{SORT}</script>
</body>
</html>
"""


def about(report: Report) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.about.items())
    return f'<dl class="about">{items}</dl>'


def tiles(report: Report) -> str:
    """The figures that sum it up."""
    macro = report.averages["macro"]
    values = {f"top-{k[3:]}": percent(v, 2) for k, v in report.scores.items() if k != "loss"}
    values |= {
        "loss": f"{report.scores['loss']:.4f}",
        "macro F1": percent(macro["f1"]),
        "ECE": percent(report.ece),
        "photos": f"{len(report.outcomes.labels):,}",
        "mistakes": f"{int((~report.outcomes.right).sum()):,}",
        "classes": f"{len(report.names):,}",
    }
    items = "".join(f"<li>{name} <b>{value}</b></li>" for name, value in values.items())
    return f'<ul class="tiles">{items}</ul>'


def pairs(report: Report) -> str:
    head = "<h2>Most confused classes</h2>"
    if not report.pairs:
        return head + "<p>None: there are no mistakes.</p>"
    rows = []
    for pair in report.pairs:
        of = report.classes[pair.true].photos
        names = [("text", report.names[number]) for number in (pair.true, pair.predicted)]
        counts = [f"{pair.photos:,} of {of:,}", percent(pair.photos / of)]
        rows.append([*names, *(("", text) for text in counts)])
    heads = [("text", "true class"), ("text", "taken for"), ("", "photos"), ("", "share")]
    return head + table(heads, rows)


def mistakes(report: Report) -> str:
    """The contact sheet of the worst mistakes."""
    if not report.worst:
        return "<h2>Worst mistakes</h2><p>None: there are no mistakes.</p>"
    figures = []
    for index in report.worst:
        one = mistake(report, index)
        true, said = (escape(report.names[one[key]]) for key in ("true", "predicted"))
        picture = data_uri(thumbnail(one["path"]), "jpeg")
        place = "/".join(Path(one["path"]).parts[-2:])
        figures.append(
            f'<figure><img src="{picture}" alt="a photo of {true}, taken for {said}">'
            f"<figcaption>taken for <b>{said}</b>, {percent(one['probability'])}"
            f'<br>true: <b>{true}</b><br><span class="faint">{escape(place)}</span>'
            "</figcaption></figure>"
        )
    note = '<p class="faint">The mistakes the network is surest of.</p>'
    return f'<h2>Worst mistakes</h2>{note}<div class="sheet">{"".join(figures)}</div>'


def classes(report: Report) -> str:
    """Averages and every class, those with the lowest F1 first and those without photos last."""
    order = sorted(report.classes, key=lambda one: 2.0 if one.f1 is None else one.f1)
    missing = sum(not one.photos for one in order)
    note = "Lowest F1 first; a click on a heading sorts."
    if missing:
        note += f" Classes without photos ({missing:,}) are left out of the averages."
    head = f'<h2>Classes</h2>{averages(report)}<p class="faint">{note}</p>'
    if len(order) <= SHOWN:
        return head + class_table(order)
    rest = (
        f"<details><summary>All "
        f"{plural(len(order), 'class')}</summary>{class_table(order)}</details>"
    )
    return f"{head}<h3>The {SHOWN} worst</h3>{class_table(order[:SHOWN])}{rest}"


def averages(report: Report) -> str:
    heads = [("text", "average"), *(("", name) for name in ("precision", "recall", "F1"))]
    kinds = {"macro": "macro: each class alike", "weighted": "weighted by photos"}
    rows = [
        [("text", text), *(("", percent(value, 2)) for value in report.averages[kind].values())]
        for kind, text in kinds.items()
    ]
    return table(heads, rows)


def class_table(rows: Sequence[ClassFigures]) -> str:
    names = ("F1", "precision", "recall", "photos", "predicted", "no.")
    heads = [("text", "class"), *(("", name) for name in names)]
    body = []
    for one in rows:
        shares = [("", *share(value)) for value in (one.f1, one.precision, one.recall)]
        photos = f"{one.photos:,}" if one.photos else "no photos"
        counts = [("", photos, one.photos), ("", f"{one.predicted:,}", one.predicted)]
        body.append([("text", one.name, one.name), *shares, *counts, ("", one.number, one.number)])
    return table(heads, body, "sortable")


def share(value: float | None) -> tuple[str, float | str]:
    """What a cell shows and what it is sorted by."""
    return ("", "") if value is None else (percent(value), value)


def matrix(report: Report, picture: bytes) -> str:
    right = percent(float(report.outcomes.right.mean()))
    alt = (
        f"Confusion matrix of {plural(len(report.names), 'class')}, true ones in rows, "
        "predicted ones in "
        f"columns; {right} of the photos lie on the diagonal"
    )
    note = (
        '<p class="faint">A row per true class; colour off the diagonal is a class taken for '
        "another. The counts are in confusion.csv.</p>"
    )
    plot = f'<img class="plot" src="{data_uri(picture, "png")}" alt="{alt}">'
    return f'<h2>Confusion matrix</h2>{note}<div class="scroll">{plot}</div>'


def reliability(report: Report, picture: bytes) -> str:
    alt = (
        f"Accuracy of the photos in each of {len(report.bins)} bins of confidence; the expected "
        f"calibration error is {percent(report.ece)}"
    )
    heads = [("text", "confidence"), ("", "photos"), ("", "mean"), ("", "accuracy")]
    rows = []
    for one in report.bins:
        span = ("text", f"{percent(one.low)} to {percent(one.high)}")
        means = [("", share(value)[0]) for value in (one.confidence, one.accuracy)]
        rows.append([span, ("", f"{one.photos:,}"), *means])
    note = (
        '<p class="faint">Of photos a network is 80 % sure of, 80 % should be right. Expected '
        f"calibration error: {percent(report.ece, 2)}.</p>"
    )
    plot = f'<img class="plot" src="{data_uri(picture, "png")}" alt="{alt}">'
    values = f"<details><summary>The bins</summary>{table(heads, rows)}</details>"
    return f"<h2>Calibration</h2>{note}{plot}{values}"


Cell = tuple  # (CSS class, text) or (CSS class, text, value to sort by)


def table(heads: Sequence[Cell], rows: Iterable[Sequence[Cell]], kind: str = "") -> str:
    """An HTML table; of a sortable one each heading is a button and each cell has its value."""
    button = "<button>{}</button>" if kind else "{}"
    top = "".join(f"<th{css(style)}>{button.format(text)}</th>" for style, text in heads)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def cell(given: Cell) -> str:
    style, text, *value = given
    key = f' data-value="{escape(str(value[0]))}"' if value else ""
    return f"<td{css(style)}{key}>{escape(str(text))}</td>"


def css(style: str) -> str:
    return f' class="{style}"' if style else ""


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"  # not broken across lines


def data_uri(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"

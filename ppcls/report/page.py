"""A report's files: the page, its tables and images, CSV and JSON, and their folder."""

import base64
import csv
import html
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppcls.data import decode
from ppcls.report import plots
from ppcls.report.figures import RATE, ClassFigures, Report
from ppcls.report.heatmaps import COLOURS, MIDDLE, mixed
from ppcls.report.sheets import fit
from ppcls.utils import files
from ppcls.utils.errors import UserError
from ppcls.utils.text import VISIBLE, cell, from_json, plural, to_json, visible

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --faint: #59636e;
  --line: #d8dee4; --panel: #f5f7f9; --accent: #2f62a8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e4e8ec; --faint: #9aa5b1; --line: #333a42;
    --panel: #1d2126; --accent: #8ab4f0; }
  img.plot { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
p, dl { margin: 0.4rem 0; }
.faint { color: var(--faint); font-size: 0.9rem; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dl.about dt { color: var(--faint); }
dl.about dd { margin: 0; }
ul.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr));
  gap: 0.6rem; list-style: none; margin: 1rem 0; padding: 0; }
ul.tiles li { background: var(--panel); border: 1px solid var(--line); border-radius: 0.5rem;
  padding: 0.5rem 0.75rem; }
ul.tiles b { display: block; font-size: 1.3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: break-word; }
@media (max-width: 40rem) { th, td { padding: 0.25rem 0.3rem; font-size: 0.9rem; } }
th button { all: unset; cursor: pointer; color: var(--accent); font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; }
.sheet figure { margin: 0; font-size: 0.9rem; line-height: 1.35; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.25rem; }
.scale { display: inline-block; width: 8rem; height: 0.7rem; margin: 0 0.4rem;
  background: linear-gradient(90deg, @SCALE@); }
@media (max-width: 21rem) { .pairs { grid-template-columns: 1fr; } }
.sheet img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel);
  border-radius: 0.4rem; }
img.plot { display: block; max-width: 100%; height: auto; border-radius: 0.4rem; }
.scroll img.plot { max-width: max(100%, 30rem); }
summary { cursor: pointer; color: var(--accent); padding: 0.5rem 0; }
"""
STEPS = np.linspace(0, 1, len(COLOURS))
SCALE = mixed(np.full(len(STEPS), MIDDLE), STEPS).tolist()
CSS = CSS.replace("@SCALE@", ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in SCALE))

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.ariaSort ? head.ariaSort !== "ascending" : head.className === "text";
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => head.className === "text" ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows];
    const known = rows.filter(row => value(row) !== "");
    const unknown = rows.filter(row => value(row) === "");
    known.sort((a, b) => compare(value(a), value(b)) * (up ? 1 : -1));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...known, ...unknown);
  }));
}
"""


# --------------------------------------------------------------------------
# Images as small JPEG files

SIDE = 208  # pixels of an image's longer side


def thumbnail(path: str) -> bytes:
    """The image, upright and in RGB, within SIDE x SIDE; a tiny one is enlarged in whole steps.

    Raises:
        UserError: an image that cannot be read.
    """
    return jpeg(fit(decode.read(path), SIDE))


def jpeg(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=85)
    return target.getvalue()


# --------------------------------------------------------------------------
# A report's files for programs: CSV, JSON and npz

# classes up to which a row has every probability; above, so many highest
ALL = 100
TOP = 20


def write_scores(report: Report, path: Path) -> None:
    """A row per image: what it is, what it was taken for, rank and loss, and probabilities.

    Probabilities are written with the nine digits that give the same float32 back.
    """
    write_csv(path, score_rows(report))


def score_rows(report: Report) -> Iterator[list[Any]]:
    outcomes = report.outcomes
    names = report.names
    labels = outcomes.labels.tolist()
    predicted = outcomes.predicted.tolist()
    confidences = outcomes.confidences.tolist()
    ranks = outcomes.ranks.tolist()
    every = outcomes.classes <= ALL
    head = ["path", "label", "name", "predicted", "predicted_name", "probability", "rank", "loss"]
    top = [f"{what}_{place}" for place in range(1, TOP + 1) for what in ("class", "probability")]
    yield head + ([f"p_{name}" for name in names] if every else top)
    for i, image in enumerate(outcomes.samples.paths):
        row = outcomes.probabilities[i]
        order = range(len(row)) if every else np.argsort(-row, kind="stable")[:TOP].tolist()
        values = [nine(row[k]) for k in order]
        rest = values if every else [v for pair in zip(order, values, strict=True) for v in pair]
        said = [predicted[i], names[predicted[i]], nine(confidences[i]), ranks[i]]
        yield [image, labels[i], names[labels[i]], *said, repr(float(outcomes.losses[i])), *rest]


def nine(value: float) -> str:
    return f"{value:.9g}"


def write_arrays(report: Report, path: Path) -> None:
    """What scores.csv holds, in the same order, with every class's probability."""
    own = report.outcomes
    np.savez(
        path,
        labels=own.labels,
        predicted=own.predicted,
        ranks=own.ranks,
        losses=own.losses,
        probabilities=own.probabilities,
    )


def write_confusion(report: Report, path: Path) -> None:
    """A row per true class, a column per predicted one."""
    names = report.names
    matrix = report.confusion
    rows = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
    write_csv(path, [["true \\ predicted", *names], *rows])


def write_csv(path: Path, rows: Iterable[list[Any]]) -> None:
    # A file name that is not UTF-8 is written with the bytes it has.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(map(cell, row) for row in rows)


def write_json(report: Report, path: Path) -> None:
    text = to_json(to_plain(report), indent=1, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def to_plain(report: Report) -> dict[str, Any]:
    """The report without the images' own rows; `confusion` lists (true, predicted, images)."""
    cells = np.argwhere(report.confusion)
    counts = report.confusion[tuple(cells.T)]
    return {
        **report.about,
        "photos": len(report.outcomes.labels),
        "mistakes": int((~report.outcomes.right).sum()),
        "scores": report.scores,
        "averages": report.averages,
        "calibration": {"ece": report.ece, "bins": [asdict(one) for one in report.bins]},
        "classes": [asdict(one) for one in report.classes],
        "confused": [asdict(pair) for pair in report.pairs],
        "worst": [mistake(report, index) for index in report.worst],
        "confusion": np.column_stack([cells, counts]).tolist(),
    }


def mistake(report: Report, index: int) -> dict[str, Any]:
    own = report.outcomes
    return {
        "path": own.samples.paths[index],
        "true": int(own.labels[index]),
        "predicted": int(own.predicted[index]),
        "probability": float(own.confidences[index]),
    }


# --------------------------------------------------------------------------
# A report as one HTML file that needs no other

SHOWN = 50  # rows of a table of classes that are seen at once
POLICY = (  # nothing is fetched from anywhere, whatever stands in a name
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def escape(text: str) -> str:
    """Others' text in an element or an attribute."""
    return html.escape(visible(text))


# Pictures of where the network saw the predicted class, by the places of the report's images.
Maps = Mapping[int, Image.Image]


def to_html(report: Report, confusion: bytes, calibration: bytes, maps: Maps) -> str:
    """The page; `confusion` and `calibration` are PNG files."""
    title = f"Evaluation of {report.about['model']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        about(report.about),
        tiles(report),
        pairs(report),
        mistakes(report, maps),
        classes(report),
        matrix(report, confusion),
        reliability(report, calibration),
    ]
    return document(title, sections)


def document(title: str, sections: Iterable[str]) -> str:
    """A whole page of sections; `title` is others' text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
{chr(10).join(sections)}
<script>{SORT}</script>
</body>
</html>
"""


def about(words: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in words.items())
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


def mistakes(report: Report, maps: Maps) -> str:
    """The contact sheet of the worst mistakes, each with its map where there is one."""
    if not report.worst:
        return "<h2>Worst mistakes</h2><p>None: there are no mistakes.</p>"
    figures = []
    for index in report.worst:
        one = mistake(report, index)
        true, said = (escape(report.names[one[key]]) for key in ("true", "predicted"))
        picture = data_uri(thumbnail(one["path"]), "jpeg")
        place = "/".join(Path(one["path"]).parts[-2:])
        shown = f'<img src="{picture}" alt="an image of {true}, taken for {said}">'
        if index in maps:
            where = data_uri(jpeg(maps[index]), "jpeg")
            beside = f'<img src="{where}" alt="where the network saw {said} in it">'
            shown = f'<div class="pair">{shown}{beside}</div>'
        figures.append(
            f"<figure>{shown}<figcaption>taken for <b>{said}</b>, {percent(one['probability'])}"
            f'<br>true: <b>{true}</b><br><span class="faint">{escape(place)}</span>'
            "</figcaption></figure>"
        )
    note = '<p class="faint">The mistakes the network is surest of.</p>'
    kind = "sheet"
    if maps:
        kind = "sheet pairs"
        note += (
            '<p class="faint">Beside each image, where the network saw the class that it took it '
            'for: nothing <span class="scale"></span> most; what is dark did not come to it.</p>'
        )
    return f'<h2>Worst mistakes</h2>{note}<div class="{kind}">{"".join(figures)}</div>'


def classes(report: Report) -> str:
    """Averages and every class, those with the lowest F1 first and those without images last."""
    order = sorted(report.classes, key=lambda one: 2.0 if one.f1 is None else one.f1)
    missing = sum(not one.photos for one in order)
    note = (
        f"TPR: recall where at most {percent(RATE)} of the other images are taken for it. Lowest "
        "F1 first; a click on a heading sorts."
    )
    if missing:
        note += f" Classes without images ({missing:,}) are left out of the averages."
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
    kinds = {"macro": "macro: each class alike", "weighted": "weighted by images"}
    rows = [
        [("text", text), *(("", percent(value, 2)) for value in report.averages[kind].values())]
        for kind, text in kinds.items()
    ]
    return table(heads, rows)


def class_table(rows: Sequence[ClassFigures]) -> str:
    names = ("F1", "precision", "recall", "TPR", "photos", "predicted", "no.")
    heads = [("text", "class"), *(("", name) for name in names)]
    body = []
    for one in rows:
        values = (one.f1, one.precision, one.recall, one.tpr_at_fpr)
        shares = [("", *share(value)) for value in values]
        photos = f"{one.photos:,}" if one.photos else "no images"
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
        f"columns; {right} of the images lie on the diagonal"
    )
    note = (
        '<p class="faint">A row per true class; colour off the diagonal is a class taken for '
        "another. The counts are in confusion.csv.</p>"
    )
    plot = f'<img class="plot" src="{data_uri(picture, "png")}" alt="{alt}">'
    return f'<h2>Confusion matrix</h2>{note}<div class="scroll">{plot}</div>'


def reliability(report: Report, picture: bytes) -> str:
    alt = (
        f"Accuracy of the images in each of {len(report.bins)} bins of confidence; the expected "
        f"calibration error is {percent(report.ece)}"
    )
    heads = [("text", "confidence"), ("", "photos"), ("", "mean"), ("", "accuracy")]
    rows = []
    for one in report.bins:
        span = ("text", f"{percent(one.low)} to {percent(one.high)}")
        means = [("", share(value)[0]) for value in (one.confidence, one.accuracy)]
        rows.append([span, ("", f"{one.photos:,}"), *means])
    note = (
        '<p class="faint">Of images a network is 80 % sure of, 80 % should be right. Expected '
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
    body = "\n".join(f"<tr>{''.join(map(html_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def html_cell(given: Cell) -> str:
    style, text, *value = given
    key = f' data-value="{escape(str(value[0]))}"' if value else ""
    return f"<td{css(style)}{key}>{escape(str(text))}</td>"


def css(style: str) -> str:
    return f' class="{style}"' if style else ""


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"  # not broken across lines


def data_uri(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


# --------------------------------------------------------------------------
# A report's folder

PAGE = "report.html"
RECORD = "report.json"
FILES = (
    "scores.csv",
    "scores.npz",
    "confusion.csv",
    "confusion.png",
    "calibration.png",
    RECORD,
    PAGE,
)


def write(report: Report, folder: Path, maps: Maps | None = None) -> None:
    """Write FILES into a folder; scores.npz only where scores.csv has not all probabilities.

    Args:
        maps: of the worst mistakes.

    Raises:
        UserError: an image of the worst mistakes cannot be read any more.
        OSError: the folder cannot be written.
    """
    confusion = plots.confusion(report.confusion, report.names)
    calibration = plots.reliability(report.bins)
    write_scores(report, folder / "scores.csv")
    if report.outcomes.classes > ALL:
        write_arrays(report, folder / "scores.npz")
    write_confusion(report, folder / "confusion.csv")
    (folder / "confusion.png").write_bytes(confusion)
    (folder / "calibration.png").write_bytes(calibration)
    write_json(report, folder / RECORD)
    text = to_html(report, confusion, calibration, maps or {})
    (folder / PAGE).write_text(text, encoding="utf-8", errors=VISIBLE)


# --------------------------------------------------------------------------
# A report's folder: replaced whole, and not by a report on something else

FIX = "name another folder, or make room"


@contextmanager
def staged(
    folder: Path,
    names: Collection[str],
    record: str = "",
    about: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """A place to write the files `names`, some or all; at the end they replace those in `folder`.

    Other files in the folder stay; when something is raised meanwhile, nothing there has changed.
    A kill leaves the old or the new files, all of them, where there are no others.

    Args:
        names: the last of them is the one without which there is no report.
        record: the one that says what the report is on.
        about: what the new report is on.
        overwrite: replace a report on something else, too.

    Raises:
        UserError: `folder` is no folder, one of the names is taken by one, it holds another
            report, or it cannot be written.
    """
    *_, last = names
    with writing(folder):
        check(folder, names)
        if about and not overwrite:
            refuse_other(folder, names, record, about)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        given = {"what": f"--report {folder}", "fix": FIX, "shared": True}
        with files.staged_folder(folder, last, (*names, ".incomplete"), **given) as temporary:
            yield temporary
        made = []
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def writing(folder: Path) -> AbstractContextManager[None]:
    """While entered, what the file system refuses is the user's mistake."""
    return files.writing(f"--report {folder}", FIX)


def check(folder: Path, names: Collection[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--report {folder}: exists and is no folder; name another one")
    taken = [name for name in names if (folder / name).is_dir()]
    if taken:
        raise UserError(f"--report {folder}: {folder / taken[0]} is a folder; name another one")


def refuse_other(
    folder: Path, names: Collection[str], record: str, about: Mapping[str, str]
) -> None:
    """UserError where a report on something else is, or files of its names that are of none."""
    advice = "--overwrite replaces it, --report FOLDER writes elsewhere"
    if not (folder / record).exists():
        taken = [name for name in names if (folder / name).exists()]
        if taken:
            raise UserError(
                f"--report {folder}: {folder / taken[0]} is there, of no report: {advice}"
            )
        return
    try:
        found = from_json((folder / record).read_bytes())
    except ValueError:  # cut by a crash
        return
    found = found if isinstance(found, dict) else {}
    if any(found.get(key) != value for key, value in about.items()):
        known = "; ".join(f"{key} {found[key]}" for key in about if key in found)
        raise UserError(
            f"--report {folder}: already holds a report on {known or 'something else'}: {advice}"
        )

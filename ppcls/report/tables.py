"""A report's files for programs: CSV, JSON and npz."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.report.figures import Report
from ppcls.utils.csv_text import cell
from ppcls.utils.text import to_json

ALL, TOP = 100, 20  # classes up to which a row has every probability; above, so many highest


def write_scores(report: Report, path: Path) -> None:
    """A row per photo: what it is, what it was taken for, rank and loss, and probabilities.

    Probabilities are written with the nine digits that give the same float32 back.
    """
    write_csv(path, score_rows(report))


def score_rows(report: Report) -> Iterator[list[Any]]:
    outcomes, names = report.outcomes, report.names
    labels, predicted = outcomes.labels.tolist(), outcomes.predicted.tolist()
    confidences, ranks = outcomes.confidences.tolist(), outcomes.ranks.tolist()
    every = outcomes.classes <= ALL
    head = ["path", "label", "name", "predicted", "predicted_name", "probability", "rank", "loss"]
    top = [f"{what}_{place}" for place in range(1, TOP + 1) for what in ("class", "probability")]
    yield head + ([f"p_{name}" for name in names] if every else top)
    for i, photo in enumerate(outcomes.samples.paths):
        row = outcomes.probabilities[i]
        order = range(len(row)) if every else np.argsort(-row, kind="stable")[:TOP].tolist()
        values = [nine(row[k]) for k in order]
        rest = values if every else [v for pair in zip(order, values, strict=True) for v in pair]
        said = [predicted[i], names[predicted[i]], nine(confidences[i]), ranks[i]]
        yield [photo, labels[i], names[labels[i]], *said, repr(float(outcomes.losses[i])), *rest]


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
    names, matrix = report.names, report.confusion
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
    """The report without the photos' own rows; `confusion` lists (true, predicted, photos)."""
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

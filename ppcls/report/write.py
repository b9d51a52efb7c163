"""A report's folder."""

from pathlib import Path

from ppcls.report import page, plots, tables
from ppcls.report.figures import Report
from ppcls.utils.text import VISIBLE

PAGE, RECORD = "report.html", "report.json"
FILES = (
    "scores.csv",
    "scores.npz",
    "confusion.csv",
    "confusion.png",
    "calibration.png",
    RECORD,
    PAGE,
)


def write(report: Report, folder: Path) -> None:
    """Write FILES into a folder; scores.npz only where scores.csv has not all probabilities.

    Raises:
        UserError: a photo of the worst mistakes cannot be read any more.
        OSError: the folder cannot be written.
    """
    confusion = plots.confusion(report.confusion, report.names)
    calibration = plots.reliability(report.bins)
    tables.write_scores(report, folder / "scores.csv")
    if report.outcomes.classes > tables.ALL:
        tables.write_arrays(report, folder / "scores.npz")
    tables.write_confusion(report, folder / "confusion.csv")
    (folder / "confusion.png").write_bytes(confusion)
    (folder / "calibration.png").write_bytes(calibration)
    tables.write_json(report, folder / RECORD)
    text = page.to_html(report, confusion, calibration)
    (folder / PAGE).write_text(text, encoding="utf-8", errors=VISIBLE)

"""docs/benchmarks.md: its tables stand between markers and come from docs/benchmarks.jsonl."""

from collections.abc import Sequence
from pathlib import Path

from ppcls.bench import plots, tables
from ppcls.bench.store import Record, cells_of, line
from ppcls.docs import table
from ppcls.docs.facts import ROOT
from ppcls.errors import UserError
from ppcls.log import read_records

PAGE, RECORDS = ROOT / "docs/benchmarks.md", ROOT / "docs/benchmarks.jsonl"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NOTHING = "Not measured yet: `python deploy/benchmark.py --models all --docs`."


def write(records: Sequence[Record], page: Path = PAGE, kept: Path = RECORDS) -> None:
    """Keep the records beside the page, and write its tables and plots.

    Raises:
        UserError: not one pair of markers in the page, or there is none: it is in a clone alone.
    """
    if not page.is_file():
        raise UserError(f"{page}: not found: --docs needs a clone of the repository")
    cells = cells_of(records)
    chosen = [*(record for record in records if record["kind"] != "cell"), *cells]
    text = filled(page, chosen)
    kept.write_text("".join(map(line, chosen)), encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    plots.write(cells, page.parent)


def stale(page: Path = PAGE, kept: Path = RECORDS) -> bool:
    """Whether the page is not what the records beside it give."""
    return page.read_text(encoding="utf-8") != filled(page, read_records(kept))


def filled(page: Path, records: Sequence[Record]) -> str:
    """The page's text with the tables of the records between its markers."""
    block = tables.to_markdown(records) if records else NOTHING
    return table.filled(page, block, BEGIN, END)

"""Records as JSON lines: a header, then one for each cell and each way of preparing photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppcls.bench.plan import Cell
from ppcls.errors import UserError
from ppcls.inference.engines.table import ENGINES
from ppcls.log import read_records
from ppcls.utils.files import write_text, writing
from ppcls.utils.text import to_json

Record = dict[str, Any]


class Store:
    """The file of a run, which a later run with the same header goes on with."""

    def __init__(self, path: Path, header: Record):
        """Open or start the file; `header` is of dicts: what has to be the same.

        Raises:
            UserError: it holds what was measured otherwise, or cannot be written.
        """
        self.path = path
        self.records = read_records(path) or [{"kind": "header", **header}]
        refuse_other(path, self.records[0], header)
        fix = "--output FOLDER"
        with writing(str(path), fix):
            path.parent.mkdir(parents=True, exist_ok=True)
        # Without a last line that was cut short.
        write_text(path, "".join(map(line, self.records)), fix=fix)

    def write(self, record: Record) -> None:
        self.records.append(record)
        fix = "make room, and the same command goes on"
        with writing(str(self.path), fix), self.path.open("a", encoding="utf-8") as file:
            file.write(line(record))

    def has(self, wanted: Record, figure: str) -> bool:
        """Whether there is a record with these entries and the figure; failed ones have none."""
        return any(figure in r and r.items() >= wanted.items() for r in self.records)


def line(record: Record) -> str:
    return to_json(record) + "\n"


def refuse_other(path: Path, found: Record, wanted: Record) -> None:
    for part, own in wanted.items():
        before = found.get(part, {})
        for key in before | own:
            if before.get(key) != own.get(key):
                raise UserError(
                    f"{path}: {part}: was measured with {key} {before.get(key)}, now it is "
                    f"{own.get(key)}; --output another folder, or delete this file"
                )


def cells_of(records: Sequence[Record]) -> list[Record]:
    """The last record of each cell, whatever a folder held before, by network and engine.

    With its share of the highest peak that was measured for as many threads.
    """
    keys = Cell.__dataclass_fields__.keys() - {"fingerprint"}
    cells = [record for record in records if record["kind"] == "cell"]
    latest = {tuple(cell[key] for key in keys): cell for cell in cells}
    models, engines = list(dict.fromkeys(cell["model"] for cell in cells)), list(ENGINES)

    def place(cell: Record) -> tuple:
        rest = (cell[key] for key in ("precision", "threads", "batch"))
        return models.index(cell["model"]), engines.index(cell["engine"]), *rest

    peaks: dict[int, float] = {}
    for cell in cells:
        peak = cell.get("peak_gflops") or 0.0
        peaks[cell["threads"]] = max(peak, peaks.get(cell["threads"], 0.0))
    return [with_share(cell, peaks[cell["threads"]]) for cell in sorted(latest.values(), key=place)]


def with_share(cell: Record, peak: float) -> Record:
    share = round(cell["gflops"] / peak, 3) if cell.get("gflops") and peak else None
    return {**cell, "share_of_fp32_peak": share}

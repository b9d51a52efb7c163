"""What is measured: networks x engines x precisions x threads x batch sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ppcls.data.preprocess import Preprocess
from ppcls.dev.facts import published
from ppcls.inference.engines.base import PRECISIONS, Settings
from ppcls.inference.engines.table import ENGINES
from ppcls.inference.exported_model import open_exported
from ppcls.inference.inputs import thread_count
from ppcls.models import registry
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text, writing
from ppcls.utils.log import read_records
from ppcls.utils.text import to_json
from ppcls.weights.store import read_registry

ALL = "all"  # the networks with published figures or released weights
INT8 = "int8"  # precision of a folder whose weights are so; engines run it as it is


@dataclass(frozen=True)
class Conditions:
    """What measurements must have in common to stand in one file.

    Attributes:
        device: cpu or gpu.
        rounds: turns of each engine.
        seconds: of timed runs in a turn; always at least one run.
    """

    device: str = "cpu"
    rounds: int = 5
    seconds: float = 0.5


@dataclass(frozen=True)
class Model:
    """A network of the zoo, filled with numbers and exported, or an exported folder."""

    name: str  # of the zoo, or the folder as it was given
    network: str
    preprocess: Preprocess
    folder: Path | None = None
    fingerprint: str = ""  # of the folder's files
    int8: bool = False


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    model: str
    fingerprint: str
    engine: str
    precision: str
    threads: int
    batch: int

    def settings(self, device: str, batch: int) -> Settings:
        precision = "fp32" if self.precision == INT8 else self.precision
        return Settings(self.engine, device, precision, self.threads, batch=batch)


@dataclass(frozen=True)
class Plan:
    """All measurements of a run."""

    models: Sequence[Model]
    engines: Sequence[str]
    precisions: Sequence[str]
    threads: Sequence[int]
    batches: Sequence[int]
    conditions: Conditions

    def cells(self, model: Model) -> list[Cell]:
        precisions = (INT8,) if model.int8 else self.precisions
        every = product(self.engines, precisions, self.threads, self.batches)
        return [
            Cell(model.name, model.fingerprint, engine, precision, threads, batch)
            for engine, precision, threads, batch in every
        ]


def make_plan(
    names: Sequence[str],
    folders: Sequence[Path],
    conditions: Conditions,
    batches: Sequence[int],
    engines: Sequence[str] = (),
    precisions: Sequence[str] = ("fp32",),
    threads: Sequence[int] = (),
) -> Plan:
    """The plan of a command line.

    Args:
        names: of networks; `all`: those with published figures or released weights.
        engines: default: all of the device.
        threads: default: all cores. On a GPU they are not varied.

    Raises:
        UserError: an unknown name, an incomplete folder, or nothing to measure.
    """
    every = [*published(), *read_registry()]
    names = [n for name in names for n in (every if name == ALL else [name])]
    models = [*map(by_name, dict.fromkeys(names)), *map(of_folder, dict.fromkeys(folders))]
    if not models:
        raise UserError("nothing to measure: --models NAME,… (or all), or --model-dir FOLDER …")
    device = conditions.device
    engines = engines or [name for name, entry in ENGINES.items() if device in entry.devices]
    check_known("--engines", engines, ENGINES)
    check_known("--precisions", precisions, PRECISIONS)
    threads = sorted(set(map(thread_count, threads))) or [environment.threads()]
    return Plan(
        models,
        list(dict.fromkeys(engines)),
        list(dict.fromkeys(precisions)),
        threads[:1] if device == "gpu" else threads,
        sorted(set(batches)),
        conditions,
    )


def check_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{option} {name}: unknown; known are {', '.join(known)}")


def by_name(name: str) -> Model:
    """A network of the zoo, with images prepared as for its published figures."""
    return Model(name, name, Preprocess(**registry.spec_of(name).images()))


def of_folder(path: Path) -> Model:
    folder = open_exported(path)
    about = folder.manifest
    int8 = about.precision == INT8
    return Model(str(path), about.model, about.preprocess, path, folder.fingerprint(), int8)


# --------------------------------------------------------------------------
# Records as JSON lines: a header, then one for each cell and each way of preparing images

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
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    engines = list(ENGINES)

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

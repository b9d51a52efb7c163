"""The benchmark from a plan to files: records, tables, plots, and docs/benchmarks.md."""

import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.bench import measure, tables
from ppcls.bench.measure import Job, Now, Result, serve
from ppcls.bench.plan import Cell, Model, Plan, Record, Store, cells_of
from ppcls.inference.inputs import find_images
from ppcls.utils import environment
from ppcls.utils.log import Progress, say
from ppcls.utils.text import plural

RECORDS = "benchmark.jsonl"
CSV = "benchmark.csv"
MARKDOWN = "benchmark.md"
BUSY = 10  # percent of all cores that make a note

Found = dict[str, Any]


def benchmark(
    plan: Plan,
    output: Path,
    image_folder: Path | None = None,
    keep: bool = False,
    docs: bool = False,
    image_seconds: float = measure.SECONDS,
) -> bool:
    """Measure what the records in `output` lack; write JSON lines, CSV, Markdown and plots of all.

    Args:
        photo_folder: images to time reading with; default: a made-up one.
        keep: keep the exported networks, in `output`/exported.
        docs: also write docs/benchmarks.md, of all that the records hold.
        photo_seconds: for which each step of preparing images is timed.

    Returns:
        Whether all engines agree with the networks they run, and any could be measured.

    Raises:
        UserError: `output` cannot be written or was measured on another machine or otherwise.
    """
    header = {
        "machine": measure.describe_machine(plan.conditions.device),
        "versions": measure.versions(),
        "conditions": asdict(plan.conditions),
    }
    store = Store(output / RECORDS, header)
    measure_images(plan, store, output, image_folder, image_seconds)
    todo = [(model, cells) for model in plan.models if (cells := missing(plan, model, store))]
    stream = measure_all(plan, todo, output / "exported", keep)
    progress = Progress(stream, "benchmark", sum(len(cells) for _, cells in todo))
    for model, cell, found in progress:
        progress.note = f"{cell.model} {cell.engine}"
        store.write(cell_record(model, cell, found))
    write(output, store.records)
    if docs:
        tables.write_page(store.records)
        say(f"wrote {tables.PAGE}")
    return report(store.records)


def missing(plan: Plan, model: Model, store: Store) -> list[Cell]:
    return [cell for cell in plan.cells(model) if not store.has(asdict(cell), "median_ms")]


def cell_record(model: Model, cell: Cell, found: Found) -> Record:
    sizes = model.preprocess.sizes()
    return {"kind": "cell", **asdict(cell), "network": model.network, **sizes, **found}


def measure_images(
    plan: Plan, store: Store, output: Path, given: Path | None, seconds: float
) -> None:
    """What each way of preparing images takes, once."""
    found = [Path(p) for p in find_images(given)] if given else [measure.make_image(output)]
    for model in plan.models:
        about = {"kind": "photos", **measure.describe_images(model.preprocess, given)}
        if not store.has(about, "read_ms"):
            times = measure.time_images(model.preprocess, found, seconds)
            store.write(about | {key: round(value, 3) for key, value in times.items()})


def measure_all(
    plan: Plan, todo: list[tuple[Model, list[Cell]]], exported: Path, keep: bool
) -> Iterator[tuple[Model, Cell, Found]]:
    """One network after the other; one that is made here is deleted when it is done."""
    for model, cells in todo:
        counts = {cell.threads for cell in cells} if plan.conditions.device == "cpu" else ()
        peaks = {threads: measure.peak(threads) for threads in counts}
        folder = model.folder or exported / model.name
        job = Job(model, tuple(cells), plan.conditions, folder, peaks, measure.busy())
        try:
            for cell, found in measured(job):
                yield model, cell, found
        finally:
            if not model.folder and not keep:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # others are kept there
                    exported.rmdir()


# --------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Ended:
    code: int | None  # negative: the signal that ended the process


def measured(job: Job) -> Iterator[Result]:
    """Every cell with what was found; where the process dies, others go on without its cells."""
    left = list(job.cells)
    while left:
        at: tuple[Cell, ...] = ()
        for message in in_child(replace(job, cells=tuple(left))):
            if isinstance(message, Now):
                at = message.cells
            elif isinstance(message, Ended):
                why = " (for lack of memory?)" if message.code == -9 else ""
                for cell in left and ([cell for cell in left if cell in at] or list(left)):
                    left.remove(cell)
                    yield cell, {"failed": f"its process ended with code {message.code}{why}"}
            else:
                left.remove(message[0])
                yield message


def in_child(job: Job) -> Iterator[Now | Result | Ended]:
    """The messages of `measure.serve` in a process of its own, which an engine may take down and
    whose memory comes back.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(job, sender), daemon=True)
    with environment.without_working_folder():
        process.start()
    sender.close()
    try:
        while True:
            try:
                yield receiver.recv()
            except EOFError:
                break
        process.join()
        yield Ended(process.exitcode)
    finally:
        process.kill()
        process.join()
        receiver.close()


# --------------------------------------------------------------------------- results


def write(output: Path, records: list[Record]) -> None:
    cells = cells_of(records)
    texts = {CSV: tables.to_csv(cells), MARKDOWN: tables.to_markdown(records, details=True) + "\n"}
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    names = [RECORDS, *texts, *(path.name for path in tables.write_plots(cells, output))]
    say(f"wrote {', '.join(names)} in {output}")


def report(records: list[Record]) -> bool:
    """Print what was found; whether there is anything and nothing disagrees."""
    cells = cells_of(records)
    say(*tables.to_terminal(records))
    busy = np.mean([cell["others_percent"] for cell in cells if "median_ms" in cell] or [0])
    if busy > BUSY:
        say(f"note: other programs used {busy:.0f} % of the cores; alone, it would be faster")
    failed = sum("failed" in cell for cell in cells)
    if failed:
        say(f"{failed} of {plural(len(cells), 'measurement')} could not be made: see above")
    wrong = tables.disagreeing(cells)
    if wrong:
        say(f"{tables.FAILED}: {', '.join(wrong)}")
    return not wrong and failed < len(cells)

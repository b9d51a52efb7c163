"""What a benchmark found, as tables (Markdown, CSV), as plots, and as docs/benchmarks.md."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ppcls.bench.plan import Record, cells_of, line
from ppcls.dev import model_tables
from ppcls.dev.facts import ROOT, published
from ppcls.dev.model_plots import DPI, picture, spots
from ppcls.dev.model_tables import markdown_table, milliseconds
from ppcls.report.fonts import drawable, families, fonts_for
from ppcls.utils import text
from ppcls.utils.errors import UserError
from ppcls.utils.text import columns, in_markdown, plural, visible
from ppcls.weights.store import read_registry

COLUMNS = (
    *("model", "network", "crop", "resize", "engine", "precision", "threads", "batch"),
    *("median_ms", "p90_ms", "p99_ms", "runs", "images_per_second", "resident_mib"),
    *("others_percent", "gflops", "peak_gflops", "share_of_fp32_peak"),
    *("relative_error", "agrees", "interleaved", "failed"),
)
DETAILS = COLUMNS[4:18]
PUBLISHED = ("V100 fp32", "T4 fp32", "GPU not stated fp32")  # latencies that stand beside ours
IMAGES = ("resize", "crop", "interpolation", "read_ms", "normalize_ms", "postprocess_ms", "photos")
FAILED = "FAILED"
SCREEN = 100  # columns that the terminal's tables stay within
SIDE_BY_SIDE = 3  # batch sizes of one table
LONGEST_NAME = 26  # characters of a network's name there


def to_csv(cells: Iterable[Record]) -> str:
    return text.to_csv([COLUMNS, *([c.get(name, "") for name in COLUMNS] for c in cells)])


def to_markdown(records: Sequence[Record], details: bool = False) -> str:
    """All tables, a section each; `details`: also with all figures of each cell."""
    cells = cells_of(records)
    compared = [cell for cell in cells if cell.get("relative_error") is not None]
    done = [cell for cell in cells if "median_ms" in cell]
    lines = [f"Measured on: {machine_line(records[0])}"]
    for threads in unique(cell["threads"] for cell in done):
        own = [cell for cell in done if cell["threads"] == threads]
        for batch in sorted({cell["batch"] for cell in own}):
            head = f"## Latency of {plural(batch, 'image')}, {plural(threads, 'thread')}, ms"
            lines += ["", head, "", *latencies([c for c in own if c["batch"] == batch])]
    if compared:
        lines += ["", "## Agreement with the dynamic network", "", *agreement(compared)]
    lines += ["", "## Images, ms each, one thread", "", *images(records)]
    if details:
        rows = [[in_markdown(str(cell[key])) for key in ("model", *DETAILS)] for cell in done]
        lines += ["", "## Details", "", *markdown_table(("network", *DETAILS), rows)]
    if len(done) < len(cells):
        lines += ["", "## Not measured", "", *map(in_item, not_measured(cells))]
    return "\n".join(lines)


def to_terminal(records: Sequence[Record]) -> list[str]:
    """What the screen says, within SCREEN columns: a row for each way a network ran."""
    cells = cells_of(records)
    done = [cell for cell in cells if "median_ms" in cell]
    lines = textwrap.wrap(f"Measured on: {machine_line(records[0])}", SCREEN)
    for threads in unique(cell["threads"] for cell in done):
        own = [cell for cell in done if cell["threads"] == threads]
        sizes = unique(sorted(cell["batch"] for cell in own))
        lines += ["", f"Median latency of a batch in ms, {plural(threads, 'thread')}"]
        for first in range(0, len(sizes), SIDE_BY_SIDE):
            lines += ["", *by_engine(own, sizes[first : first + SIDE_BY_SIDE])]
    lines += ["", "One image in ms, one thread", "", *images_on_screen(records)]
    if len(done) < len(cells):
        lines += ["", "Not measured", ""]
        for line in not_measured(cells):
            lines += textwrap.wrap(line, SCREEN, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def by_engine(cells: Sequence[Record], sizes: Sequence[int]) -> list[str]:
    """A row for each network and engine, the fastest of a network first; milliseconds by batch."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    errors: dict[tuple[str, ...], str] = {}
    for cell in cells:
        way = (cell["model"], str(cell["crop"]), cell["engine"], cell["precision"])
        found.setdefault(way, {})[cell["batch"]] = cell["median_ms"]
        if cell.get("relative_error") is not None:
            error = f"{cell['relative_error']:.1e}" + ("" if cell["agrees"] else f" {FAILED}")
            errors[way] = max(errors.get(way, ""), error, key=worst)
    names = unique(way[0] for way in found)
    ways = sorted(found, key=lambda way: (names.index(way[0]), *times_of(found[way], sizes)))
    shown = [(shortened(way[0], LONGEST_NAME), *way[1:]) for way in ways]
    heads = ["network", "px", "engine", "format", *(f"batch {n}" for n in sizes), "error"]
    rows = [
        [*names, *(milliseconds(found[way].get(n)) for n in sizes), errors.get(way, "")]
        for names, way in zip(shown, ways, strict=True)
    ]
    return columns([heads, *rows], left=(0, 2, 3))


def times_of(times: Mapping[int, float], sizes: Sequence[int]) -> tuple[float, ...]:
    return tuple(times.get(size, math.inf) for size in sizes)


def worst(text: str) -> tuple[bool, float]:
    """A printed relative error by how bad it is."""
    number = text.partition(" ")[0]
    return FAILED in text, float(number) if number else -1.0


def shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def images_on_screen(records: Iterable[Record]) -> list[str]:
    heads = ("resize", "crop", "interpolation", "read", "normalise", "postprocess", "photos")
    rows = [[str(r[key]) for key in IMAGES] for r in records if r["kind"] == "photos"]
    return columns([heads, *rows], left=(2, 6))


def machine_line(header: Record) -> str:
    machine = header["machine"]
    about = header["conditions"]
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    cores = plural(machine["cores"], "core")
    return (
        f"{machine['processor']}, {cores}, {machine['memory_gib']} GiB{gpu}; "
        f"{versions}; {plural(about['rounds'], 'round')} of up to {about['seconds']} s."
    )


def unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def latencies(cells: Sequence[Record]) -> list[str]:
    """Network, crop and resize size, and a batch's milliseconds: measured, and published."""
    columns = unique((c["engine"], c["precision"]) for c in cells)
    columns.sort(key=lambda column: column[1] != "fp32")
    times = {(c["model"], c["engine"], c["precision"]): c["median_ms"] for c in cells}
    sizes = {c["model"]: (str(c["crop"]), str(c["resize"])) for c in cells}
    batch = str(cells[0]["batch"])
    known = {name: own["latency"] for name, own in published_networks().items() if name in sizes}
    beside = [
        kind for kind in PUBLISHED if any(batch in own.get(kind, {}) for own in known.values())
    ]
    header = ["network", "crop", "resize"]
    header += [f"{engine} {precision}" for engine, precision in columns]
    header += [f"*{kind}*" for kind in beside]
    rows = (
        [in_markdown(name), *size]
        + [milliseconds(times.get((name, *column))) for column in columns]
        + [milliseconds(known.get(name, {}).get(kind, {}).get(batch)) for kind in beside]
        for name, size in sizes.items()
    )
    return markdown_table(header, rows)


def published_networks() -> dict[str, dict]:
    """{} where this is no clone of the repository."""
    return published() if (ROOT / "docs/published.json").is_file() else {}


def images(records: Iterable[Record]) -> list[str]:
    header = ("resize", "crop", "interpolation", "decode, resize, crop", "normalise")
    header += ("postprocess", "photos")
    return markdown_table(
        header, ([str(r[k]) for k in IMAGES] for r in records if r["kind"] == "photos")
    )


def agreement(compared: Sequence[Record]) -> list[str]:
    """Relative errors of logits, the largest over numbers of threads, by engine and precision."""
    columns = unique((c["engine"], c["precision"]) for c in compared)
    rows = []
    for name in unique(c["model"] for c in compared):
        row = [in_markdown(name)]
        for way in columns:
            own = [c for c in compared if (c["model"], c["engine"], c["precision"]) == (name, *way)]
            worst = max((c["relative_error"] for c in own), default=None)
            text = "" if worst is None else f"{worst:.1e}"
            row.append(text if all(c["agrees"] for c in own) else f"{text} {FAILED}")
        rows.append(row)
    return markdown_table(("network", *map(" ".join, columns)), rows)


def disagreeing(cells: Iterable[Record]) -> list[str]:
    return unique(f"{c['model']} with {c['engine']}" for c in cells if c.get("agrees") is False)


def in_item(line: str) -> str:
    return f"- {in_markdown(line.removeprefix('- '))}"


def not_measured(cells: Iterable[Record]) -> list[str]:
    """A line for each reason."""
    sizes: dict[tuple, list[str]] = {}
    for cell in cells:
        if "failed" in cell:
            key = tuple(cell[key] for key in ("model", "engine", "precision", "failed"))
            sizes.setdefault(key, []).append(str(cell["batch"]))
    return [
        f"- {model}, {engine} {precision}, batch {', '.join(unique(own))}: {reason}"
        for (model, engine, precision, reason), own in sizes.items()
    ]


# --------------------------------------------------------------------------
# The two pictures: latency by network and engine, and published accuracy against latency

LATENCY = "benchmark_latency.png"
ACCURACY = "benchmark_accuracy.png"
COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore
MARKERS = "osD^vPX*<>"
# inches
WIDTH = 12
PANEL = 7
ROW = 0.22
MARGIN = 2.0
ACROSS = 3  # panels beside each other
FEW_DECADES = (2, 0.4)  # of an axis: its minor ticks have numbers, too


def write_plots(cells: Sequence[Record], folder: Path) -> list[Path]:
    """Draw as PNG files what there is to draw."""
    measured = [cell for cell in cells if "median_ms" in cell]
    figures = {LATENCY: latency(measured), ACCURACY: accuracy(measured)}
    paths = []
    for name, figure in figures.items():
        if figure:
            paths.append(folder / name)
            figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def latency(cells: Sequence[Record]) -> Figure | None:
    """A panel for each batch size: a row for each network, a point for each way it ran."""
    if not cells:
        return None
    batches = sorted({cell["batch"] for cell in cells})
    ways = unique(map(way_of, cells))
    names = unique(cell["model"] for cell in cells)
    rows = -(-len(batches) // ACROSS)
    columns = -(-len(batches) // rows)
    size = (WIDTH if columns == 1 else PANEL * columns, rows * (MARGIN + ROW * len(names)))
    figure = Figure(size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, batch in zip(every, batches, strict=False):
        own = [cell for cell in cells if cell["batch"] == batch]
        draw_latency(axes, own, names, ways)
        axes.set_title(f"batch of {batch}", fontsize=10)
    for axes in every[len(batches) :]:
        axes.set_visible(False)
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def draw_latency(
    axes: Axes, cells: Sequence[Record], names: Sequence[str], ways: Sequence[str]
) -> None:
    for index, way in enumerate(ways):
        own = [cell for cell in cells if way_of(cell) == way]
        if own:
            axes.scatter(
                [cell["median_ms"] for cell in own],
                [names.index(cell["model"]) for cell in own],
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                label=way,
                s=24,
            )
    paths = fonts_for("".join(map(visible, names)))
    style: dict[str, Any] = {"fontsize": 8, "fontfamily": families(paths), "parse_math": False}
    axes.set_yticks(range(len(names)), [drawable(name, paths) for name in names], **style)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=FEW_DECADES))
    axes.set_xlabel("median latency of a batch, ms")
    axes.grid(True, which="both", alpha=0.2)


def way_of(cell: Record) -> str:
    return f"{cell['engine']}, {cell['precision']}, {plural(cell['threads'], 'thread')}"


def accuracy(cells: Sequence[Record]) -> Figure | None:
    """Networks with published weights, each with its fastest engine in fp32, in the smallest and in
    the largest batch.
    """
    chosen = [c for c in cells if c["model"] in read_registry() and c["precision"] == "fp32"]
    panels = []
    sizes = sorted({cell["batch"] for cell in chosen})
    for batch in dict.fromkeys([*sizes[:1], *sizes[-1:]]):
        best: dict[str, float] = {}
        for cell in chosen:
            if cell["batch"] == batch:
                name = cell["model"]
                best[name] = min(cell["median_ms"], best.get(name, cell["median_ms"]))
        points = [(spot, ms) for name, ms in best.items() for spot in spots(name)]
        title = f"Published accuracy against measured latency, fastest engine, batch of {batch}"
        panels.append((title, "median latency, ms", points))
    return picture(panels, (14, 8 * len(panels))) if panels else None


# --------------------------------------------------------------------------
# docs/benchmarks.md: its tables stand between markers and come from docs/benchmarks.jsonl

PAGE = ROOT / "docs/benchmarks.md"
RECORDS = ROOT / "docs/benchmarks.jsonl"
BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
NOTHING = "Not measured yet: `python deploy/benchmark.py --models all --docs`."


def write_page(records: Sequence[Record], page: Path = PAGE, kept: Path = RECORDS) -> None:
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
    write_plots(cells, page.parent)


def filled(page: Path, records: Sequence[Record]) -> str:
    """The page's text with the tables of the records between its markers."""
    block = to_markdown(records) if records else NOTHING
    return model_tables.filled(page, block, BEGIN, END)

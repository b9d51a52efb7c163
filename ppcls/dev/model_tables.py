"""The tables of docs/models.md, written between its markers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ppcls.dev.facts import ROOT, Facts, facts, published
from ppcls.utils.errors import UserError

BEGIN = "<!-- models:begin -->"
END = "<!-- models:end -->"
FLOPS_PER_MAC = 2  # as the documents count
CLOSE = 0.01  # relative; printed figures are rounded, and tools count a little differently
ONCE_AT_MOST = 1.11  # printed FLOPs for a multiply-add, where it counts as one operation

WELL_KNOWN = (
    "ResNet18",
    "ResNet50",
    "ResNet50_vd",
    "ResNet50_vd_ssld",
    "ResNet101_vd",
    "ResNeXt50_32x4d",
    "SE_ResNet50_vd",
    "Res2Net50_26w_4s",
    "ResNeSt50",
    "RegNetX_4GF",
    "PPLCNet_x1_0",
    "PPLCNet_x2_5",
    "MobileNetV3_small_x1_0",
    "MobileNetV3_large_x1_0",
    "EfficientNetB0",
    "EfficientNetB4",
    "ResNeXt101_32x48d_wsl",
)

GROUPED = "g"
ONCE = "m"
NOTES = {
    ONCE: (
        "the printed FLOPs count a multiply-add as one operation, and more than convolutions and "
        "linear layers: they are up to 11 % above the multiply-adds"
    ),
    GROUPED: (
        "grouped convolutions were divided by their number of groups twice, so the printed figures "
        "are too low; divided once more, ours agree with them to 3 %"
    ),
    "r": "the printed rows of Res2Net50_vd_26w_4s and Res2Net50_14w_8s are swapped",
    "n": "the printed GFLOPs are close to those of its neighbour ResNet34, 7.36",
    "b": "the printed GFLOPs are those of EfficientNetB0",
    "s": (
        "for weights under this name, PaddleClas later printed a top-1 accuracy of 83.0 %; "
        "the figures here belong to the registered file"
    ),
}
NOTED = {
    "Res2Net50_vd_26w_4s": "r",
    "Res2Net50_14w_8s": "r",
    "ResNet34_vd": "n",
    "EfficientNetB0_small": "b",
    "ResNet50_vd_ssld": "s",
}

DEVICES = ("V100 fp32", "T4 fp32", "T4 fp16")
NOT_STATED = ("GPU not stated fp32", "GPU not stated fp16")
SMALL_DEVICES = ("Xeon Gold 6148 fp32", *(f"Snapdragon 855 fp32 {n}t" for n in (1, 2, 4)))


def differs(own: Facts) -> bool:
    """Whether a printed figure is not the counted one, a multiply-add being two operations."""
    pairs = (own.gflops, FLOPS_PER_MAC * own.macs / 1e9), (own.params_printed, own.params / 1e6)
    return any(abs(printed / counted - 1) > CLOSE for printed, counted in pairs)


def note(own: Facts) -> str:
    """Keys of the `NOTES` that say why printed figures differ."""
    if own.name in NOTED:
        return NOTED[own.name]
    if 1 <= own.gflops / (own.macs / 1e9) < ONCE_AT_MOST:
        return ONCE
    return GROUPED if differs(own) and own.grouped else ""


# --------------------------------------------------------------------------- cells


def percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}".removesuffix("0")


def milliseconds(latency: float | None) -> str:
    return "" if latency is None else f"{latency:.2f}"


def millions(count: float) -> str:
    return f"{count / 1e6:.2f}"


def billions(count: float) -> str:
    """With three digits below 0.1, where two would say little."""
    return f"{count / 1e9:.{2 if count >= 1e8 else 3}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown; all columns but the first are aligned to the right."""
    line = "|---|" + "---:|" * (len(header) - 1)
    return [f"| {' | '.join(header)} |", line, *(f"| {' | '.join(row)} |" for row in rows)]


# --------------------------------------------------------------------------- the blocks


def short_block() -> str:
    """The networks most asked for, with the figures to choose one by."""
    header = ("network", "top-1, %", "parameters, M", "multiply-adds, G")
    chosen = map(facts, WELL_KNOWN)
    rows = ((o.name, percent(o.top1), millions(o.params), billions(o.macs)) for o in chosen)
    return "\n".join(markdown_table(header, rows))


def full_block() -> str:
    """The tables of docs/models.md: a row for each network of `docs/published.json`."""
    every = [facts(name) for name in published()]
    lines = ["Those most asked for:", "", short_block(), "", "All of them:", ""]
    lines += figures_table(every)
    lines += ["", *(f"- **{key}**: {text}." for key, text in NOTES.items())]
    lines += ["", "## Published latency, V100 and T4", ""]
    lines += latency_table(every, DEVICES)
    lines += ["", "## Published latency, GPU not stated", ""]
    lines += latency_table(every, NOT_STATED)
    lines += ["", "## Published latency, CPU and phone", ""]
    lines += ["The Xeon ran 10 threads with oneDNN; the Snapdragon 1, 2 or 4 (t).", ""]
    lines += latency_table(every, SMALL_DEVICES)
    return "\n".join(lines)


def figures_table(every: Iterable[Facts]) -> list[str]:
    header = (
        "network",
        "top-1, %",
        "top-5, %",
        "reference top-1",
        "top-5",
        "GFLOPs, printed",
        "multiply-adds, G, counted",
        "parameters, M, printed",
        "counted",
        "note",
        "image, px",
        "recipe",
        "weights",
    )
    return markdown_table(header, map(figures_row, every))


def figures_row(own: Facts) -> tuple[str, ...]:
    first, *others = own.weights
    tags = (first, *(f"{tag} ({percent(own.weights[tag])} %)" for tag in others))
    return (
        own.name,
        percent(own.top1),
        percent(own.top5),
        *map(percent, own.reference),
        billions(own.gflops * 1e9),
        billions(own.macs),
        f"{own.params_printed:.2f}",
        millions(own.params),
        note(own),
        str(own.resolution),
        f"[recipe](../configs/{own.name}.yaml)",
        ", ".join(tags),
    )


def latency_table(every: Sequence[Facts], kinds: Sequence[str]) -> list[str]:
    """Milliseconds for a batch, a column for each precision and batch size that is published."""
    sizes = {kind: {n for own in every for n in own.latency.get(kind, ())} for kind in kinds}
    columns = [(kind, n) for kind in kinds for n in sorted(sizes[kind], key=int)]
    header = ["network", *(f"{kind.removeprefix('GPU not stated ')}, {n}" for kind, n in columns)]
    rows = [
        (own.name, *(milliseconds(own.latency.get(kind, {}).get(n)) for kind, n in columns))
        for own in every
        if any(kind in own.latency for kind in kinds)
    ]
    return markdown_table(header, rows)


# --------------------------------------------------------------------------- the files


def pages() -> dict[Path, str]:
    """The files that hold tables → what stands in them between the markers."""
    return {ROOT / "docs/models.md": full_block()}


def filled(path: Path, block: str, begin: str = BEGIN, end: str = END) -> str:
    """The file's text with `block` between its markers.

    Raises:
        UserError: not one pair of markers.
    """
    text = path.read_text(encoding="utf-8")
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise UserError(f"{path}: should have one line {begin} and, below it, one line {end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"


def write_tables(check: bool = False) -> list[Path]:
    """Write the tables; with `check`, only tell which files are stale. Returns the stale ones."""
    texts = {path: filled(path, block) for path, block in pages().items()}
    stale = [path for path in texts if path.read_text(encoding="utf-8") != texts[path]]
    for path in () if check else stale:
        path.write_text(texts[path], encoding="utf-8")
    return stale

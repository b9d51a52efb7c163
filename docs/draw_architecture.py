"""Draws docs/architecture.svg: the layers of the import contract in pyproject.toml.

`python docs/draw_architecture.py` writes it anew; what a package is for is written here.
"""

import ast
import re
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
DRAWING = DOCS / "architecture.svg"
CONTRACTS = DOCS.parent / "pyproject.toml"

PURPOSES = {
    "cli": "the command line: from a command's name to its file, from an error to one line",
    "commands": "a file for each command: its options, and the call that does it",
    "library": "whole runs from Python: ppcls.train, evaluate, export, load",
    "bench": "how fast networks are, by engine",
    "calibrate": "how sure an exported model may be",
    "check": "faults in data; images drawn as the model sees them",
    "compare": "whether one network is better than another, and what differs",
    "cluster": "predictions by the workers of a Ray cluster",
    "dev": "for maintainers: proofs of networks, pages of docs/",
    "drift": "whether photos are still like those of the calibration",
    "explain": "where a checkpoint's model saw a class",
    "export": "a trained model as a folder that predicts",
    "migrate": "PaddleClas's configs made into recipes",
    "prediction": "Predictor, which opens checkpoints, too",
    "select": "images without labels, chosen for a student",
    "serve": "exported models over HTTP: the page, batches, workers that are replaced",
    "similar": "images that look alike to a model",
    "start": "what is trained: a recipe chosen for images, fitted into a time, fold by fold",
    "train": "reads a recipe, builds the parts, runs the loop, evaluates, saves; teachers; "
    "several processes that train together",
    "recipe": "all that a run may be told, on one page, put together from the nodes below",
    "api": "create_model and list_models",
    "inference": "exported models, engines, predictions, INT8",
    "report": "what an evaluation found, as files and as a page",
    "tasks": "what a step learns from, what an evaluation counts",
    "data": "datasets, shards, decoding, transforms, sampler, loader",
    "losses": "against targets; student against teacher",
    "metrics": "scores, and meters that count them",
    "paired": "two classifiers on the same images: tests, intervals",
    "models": "networks by name, and the layers they share",
    "optim": "optimizers, learning rates, averages, what is frozen",
    "thresholds": "above which a class is named, chosen by an aim",
    "weights": "weight files, downloads, other projects' names",
    "config": "YAML and -o KEY=VALUE made into typed values; every mistake with file:line",
    "kernels": "what trains fast on a CPU: oneDNN's convolutions, compiled loops",
    "utils": "files written whole, the log, errors, signals, words of messages",
}
COLOURS = ("#e3ecf9", "#e3ecf9", "#e6f3ea", "#fdeedd", "#fdeedd", "#f1e8f7", "#eef1f4", "#e9ecef")
COLOURS += ("#e9ecef",)

WIDTH = 960  # pixels, as all sizes here
LEFT = 40  # where the boxes begin: the arrow stands beside them
RIGHT = 12
TOP = 14
BETWEEN = 12  # layers, and boxes that may not import one another
INSIDE = 10  # between a box's border and its words
NAME = 22  # height of a box's heading
LINE = 15  # height of a line of words
LETTER = 6.7  # width of a letter in the widest of the fonts, size 12
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def read_contracts(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """The layers from the top, each as it is written, and what each package must not import."""
    _, *contracts = text.split("[[tool.importlinter.contracts]]")
    layers: list[str] = []
    forbidden: dict[str, list[str]] = {}
    for contract in contracts:
        lists = {
            key: ast.literal_eval(value)
            for key, value in re.findall(r"^(\w+) = (\[.*?\])$", contract, re.DOTALL | re.MULTILINE)
        }
        layers = lists.get("layers", layers)
        for package in lists.get("source_modules", ()):
            forbidden.setdefault(package, []).extend(lists["forbidden_modules"])
    return layers, forbidden


def note(forbidden: list[str]) -> str:
    """A word on what a package must not import."""
    if "paddle" in forbidden:
        return "imports no Paddle"
    return "imports no recipe, no network" if "ppcls.train" in forbidden else ""


def drawing() -> str:
    """The whole SVG document."""
    layers, forbidden = read_contracts(CONTRACTS.read_text(encoding="utf-8"))
    parts = []
    top = TOP
    for number, layer in enumerate(layers):
        apart = "|" in layer
        names = [name.strip().removeprefix("ppcls.") for name in re.split(r"[|:]", layer)]
        gap = BETWEEN if apart else 0
        width = (WIDTH - LEFT - RIGHT - gap * (len(names) - 1)) / len(names)
        letters = int((width - 2 * INSIDE) / LETTER)
        boxes = [
            (
                name,
                textwrap.wrap(PURPOSES[name], letters),
                textwrap.wrap(note(forbidden.get(f"ppcls.{name}", [])), letters),
            )
            for name in names
        ]
        height = NAME + 10 + LINE * max(len(words) + len(more) for _, words, more in boxes)
        for place, (name, words, more) in enumerate(boxes):
            left = LEFT + place * (width + gap)
            parts += box(left, top, width, height, COLOURS[number], name, words, more)
        parts.append(
            f'<text x="{LEFT - 10}" y="{top + height / 2 + 4:.0f}" text-anchor="end" '
            f'fill="#6b7280">{number + 1}</text>'
        )
        top += height + BETWEEN
    used = {re.split(r"\W", name)[0] for layer in layers for name in layer.split("ppcls.")[1:]}
    assert used == set(PURPOSES), f"said of, but in no layer: {set(PURPOSES) - used}"
    end = top - BETWEEN
    parts += [
        f'<path d="M 12 {TOP + 4} V {end - 8}" stroke="#6b7280" stroke-width="1.5"/>',
        f'<path d="M 7 {end - 12} L 12 {end - 2} L 17 {end - 12} z" fill="#6b7280"/>',
        f'<text x="{LEFT}" y="{end + 22}" fill="#374151">A package imports what stands below it, '
        "never what stands above. Boxes that touch may import one another, boxes apart may not."
        "</text>",
    ]
    height = end + 34
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="{FONT}" font-size="12">'
    )
    background = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, background, *parts, "</svg>", ""])


def box(
    left: float,
    top: float,
    width: float,
    height: float,
    colour: str,
    name: str,
    words: list[str],
    more: list[str],
) -> list[str]:
    """A package: its name, what it is for, and, in italics, what it must not import."""
    x = f"{left + INSIDE:.1f}"
    lines = [
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="{colour}" '
        'stroke="#9aa5b1"/>',
        f'<text x="{x}" y="{top + NAME - 4}" font-size="14" font-weight="bold" fill="#111827">'
        f"{name}</text>",
    ]
    styles = ['fill="#374151"'] * len(words) + ['fill="#6b7280" font-style="italic"'] * len(more)
    for number, (line, style) in enumerate(zip([*words, *more], styles, strict=True)):
        y = top + NAME + 13 + number * LINE
        lines.append(f'<text x="{x}" y="{y}" {style}>{escape(line)}</text>')
    return lines


def main() -> int:
    DRAWING.write_text(drawing(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Proof that networks load other projects' weights and compute what those projects compute."""

import gc
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.dev import golden
from ppcls.dev.golden import Figures
from ppcls.inference import exported_model
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.metrics import relative_error
from ppcls.models import complexity, registry
from ppcls.models.fuse import save_program
from ppcls.models.spec import Spec
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import plural
from ppcls.weights import dialects, load
from ppcls.weights.load import fill, image

PROJECTS = tuple(dialect for dialect in dialects.DIALECTS if dialect != dialects.NATIVE)
SIDE = 128  # of the image, in pixels, where no figures tell it
LIMITS = {"paddleclas": 1e-5, "timm": 1e-4}  # relative errors of logits
EXPORT_LIMIT = 1e-5  # relative error of an exported network's logits
HELD = 4  # times its parameters, in bytes, that are held at once while a network is verified
BYTES = 4  # of a float32

NONE = "-"
DIFFERS = "differs"
LOADS = "loads"
FAILED = "FAILED"
COLUMNS = ("network", "parameters", "multiply-adds", *PROJECTS, "exported", "seconds")
WIDTHS = (26, 12, 15, *(max(len(project), 10) for project in PROJECTS), 10, 8)


@dataclass
class Row:
    """What was found of a network."""

    name: str
    params: int
    macs: int = 0
    seconds: float = 0.0
    cells: dict[str, str] = field(default_factory=dict)  # of projects and "exported"
    errors: dict[str, float] = field(default_factory=dict)  # relative, by the same keys
    notes: list[str] = field(default_factory=list)
    failed: bool = False
    skipped: bool = False

    def fail(self, column: str, reason: str) -> None:
        self.cells[column], self.failed = FAILED, True
        self.notes.append(f"{column}: {reason}")

    def compare(self, column: str, error: float, limit: float) -> None:
        self.cells.setdefault(column, f"{error:.1e}")
        self.errors[column] = error
        if not error <= limit:  # also when it is not a number
            self.fail(column, f"relative error {error:.1e}, at most {limit:.0e} is allowed")

    def lines(self) -> Iterator[str]:
        cells = (self.cells.get(column, NONE) for column in (*PROJECTS, "exported"))
        counts = f"{self.params / 1e6:.2f} M", f"{self.macs / 1e9:.2f} G" if self.macs else NONE
        yield aligned((self.name, *counts, *cells, f"{self.seconds:.1f}"))
        yield from (f"    {note}" for note in self.notes)


def aligned(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def verify(names: Iterable[str], given: Figures) -> bool:
    """Print a row for each network and a line that sums up; returns whether nothing failed.

    A network is filled with `weights.fill` under each project's names, loaded as a checkpoint of
    the project is, run on the CPU and held against `given`; its tensors go back to the project's
    names and return the same; and its export is held against itself. A cell is the logits' relative
    error, "loads" where no figures are given, or "differs" where the project builds it otherwise.
    """
    device = paddle.device.get_device()
    paddle.device.set_device("cpu")
    try:
        say(aligned(COLUMNS))
        rows = []
        for name in names:
            rows.append(verify_one(name, given))
            for line in rows[-1].lines():
                say(line)
            gc.collect()  # networks have cycles; the next one may need the memory
    finally:
        paddle.device.set_device(device)
    say(summary(rows))
    return not any(row.failed for row in rows)


def summary(rows: Sequence[Row]) -> str:
    failed = sum(row.failed for row in rows)
    skipped = sum(row.skipped for row in rows)
    words = [
        f"{plural(len(rows), 'network')}: {len(rows) - failed - skipped} passed, {failed} failed"
    ]
    words += [f"{skipped} skipped for lack of memory"] if skipped else []
    for column in (*PROJECTS, "exported"):
        errors = [row.errors[column] for row in rows if column in row.errors]
        words += [f"{column}: {len(errors)} within {max(errors):.1e}"] if errors else []
    return "; ".join(words)


def verify_one(name: str, given: Figures) -> Row:
    start = time.perf_counter()
    counted = complexity.count_by_name(name)
    row = Row(name, counted.params)
    needed = HELD * BYTES * counted.params
    free = environment.free_memory()
    if needed > free:
        row.skipped = True
        row.notes.append(f"skipped: takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        return row
    for project in PROJECTS:
        net = load_filled(row, project, given)
        if net is None:
            continue
        expected = golden.of(name, given.logits.get(project, {}))
        logits = run(net, expected["size"] if expected else SIDE)
        if expected:
            row.compare(project, error(logits, expected), LIMITS[project])
        else:
            row.cells.setdefault(project, LOADS)
        if not row.macs:  # the first project's: its network is the one of the zoo
            check_counts(row, net, counted)
            check_export(row, net, expected["size"] if expected else SIDE, logits)
    row.seconds = time.perf_counter() - start
    return row


# --------------------------------------------------------------------------- loading


def load_filled(row: Row, project: str, given: Figures) -> nn.Layer | None:
    """The network with filled weights in the project's dialect; None, and why, when it has none."""
    spec = registry.spec_of(row.name)
    family = registry.family_of(spec)
    if family is None or project not in family.projects:
        return None  # it has none of the family, which needs no word
    names = golden.of(row.name, given.tensors.get(project, {}))
    if names is None:
        try:
            names = own_names(spec, project)
        except UserError as error:
            row.cells[project] = DIFFERS
            row.notes.append(f"{project}: {error}")
            return None
    tensors = {name: fill(name, shape) for name, shape in names}
    try:
        spec = load.structure(spec, tensors, project)
        net = registry.network(spec)
        load.put(net, tensors, project, new_head=False)
    except UserError as error:
        refuse(row, project, error, names, given)
        return None
    otherwise = dialects.otherwise(spec)
    if otherwise:
        row.notes.append(f"{project}: built {dialects.as_built(spec, otherwise)}")
    check_round_trip(row, project, tensors, net)
    net.eval()
    return net


def own_names(spec: Spec, project: str) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes as the project would give them; a UserError where it has no such network."""
    built = dialects.built(project, spec)
    with paddle.LazyGuard():  # allocates nothing
        state = registry.network(built).state_dict()
    native = {name: tuple(value.shape) for name, value in state.items()}
    return [(name, place.shape) for name, place in dialects.places(project, built, native).items()]


def refuse(row: Row, project: str, error: UserError, names: Sequence, given: Figures) -> None:
    """A refusal is right only where the project's network of the name has other tensors."""
    reason = str(error).removeprefix(f"{project}: not weights of this network: ")
    if golden.of(row.name, given.logits.get(project, {})) or same_sizes(row.name, names):
        row.fail(project, reason)
    else:
        row.cells[project] = DIFFERS
        row.notes.append(f"{project}: {reason}")


def same_sizes(name: str, names: Sequence[tuple[str, Sequence[int]]]) -> bool:
    """Whether a project's tensors have, in pairs, as many numbers as PaddleClas's."""
    own = own_names(registry.spec_of(name), dialects.NATIVE)
    given = (shape for name, shape in names if not name.endswith(dialects.COUNTER))
    return sorted(math.prod(shape) for shape in given) == sorted(math.prod(s) for _, s in own)


def check_round_trip(row: Row, project: str, tensors: dialects.Tensors, net: nn.Layer) -> None:
    """Loaded tensors → the project's names → ours: every one must be what it was."""
    native = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    weights = dialects.to_native(tensors, net.spec, native)
    there = dialects.from_native(weights, net.spec, project)
    again = dialects.to_native(there, net.spec, native)
    changed = [name for name in weights if not np.array_equal(weights[name], again[name])]
    if changed:
        row.fail(project, f"not the same there and back: {dialects.some(changed)}")


# --------------------------------------------------------------------------- running


def run(net: nn.Layer, side: int) -> np.ndarray:
    with paddle.no_grad():
        return net(paddle.to_tensor(image(side)))[0].numpy()


def error(logits: np.ndarray, expected: dict[str, Any]) -> float:
    """The larger of those of the first logits, as a vector, and of the norm of all."""
    first = np.array(expected["logits"])
    of_first = relative_error(logits[: len(first)], first)
    return max(of_first, abs(float(np.linalg.norm(logits)) / expected["norm"] - 1))


def check_counts(row: Row, net: nn.Layer, counted: complexity.Complexity) -> None:
    """What the tables count, on networks of two blocks a stage, against hooks on this one."""
    side = registry.resolution(row.name)
    own = complexity.count(net, (3, side, side))
    row.params = own.params
    row.macs = own.macs
    if own != counted:
        row.failed = True
        row.notes.append(f"counted on its layers: {own}; in the tables: {counted}")


def check_export(row: Row, net: nn.Layer, side: int, logits: np.ndarray) -> None:
    """The network as an inference model gives the logits it gave."""
    with tempfile.TemporaryDirectory() as folder:
        save_program(net, Path(folder) / exported_model.NAME, [None, 3, side, side], "float32")
        opened = open_exported(Path(folder), {"crop": side, "resize": side})
        exported = open_engine(opened, Settings("onednn")).run(image(side))[0]
    row.compare("exported", relative_error(exported, logits), EXPORT_LIMIT)

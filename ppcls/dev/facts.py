"""What the pages show of each published network: published and counted figures, kept apart.

`docs/published.json` has what the source documents print and the registry of weights lacks: GFLOPs,
millions of parameters, the reference's top-1 and top-5, and latencies in milliseconds by device and
precision, then by batch size.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ppcls.models import complexity, registry
from ppcls.utils.errors import UserError
from ppcls.weights.store import read_registry

ROOT = Path(__file__).parents[2]

# What pages group networks by.
GROUPS = tuple(dict.fromkeys(group for family in registry.FAMILIES for group in family.groups))


@dataclass(frozen=True)
class Facts:
    """A published network. Accuracies are 0 to 1, None where none is published."""

    name: str
    weights: dict[str, float]  # tag → published top-1; the first is the network's own
    top5: float
    reference: tuple[float | None, float | None]  # top-1 and top-5 of the work it follows
    gflops: float  # as printed
    params_printed: float  # millions
    params: int  # counted
    macs: int  # counted, for one image of `resolution` pixels a side
    resolution: int
    latency: dict[str, dict[str, float | None]]  # "T4 fp16" → batch size → ms; None: printed "-"

    @property
    def top1(self) -> float:
        return next(iter(self.weights.values()))

    @property
    def group(self) -> str:
        return group_of(self.name)

    @property
    def grouped(self) -> bool:
        """Whether its spatial convolutions are grouped."""
        return registry.spec_of(self.name).grouped


def group_of(name: str) -> str:
    """The first group whose pattern a name matches, which may be one with a tag of weights."""
    pairs = (pair for family in registry.FAMILIES for pair in family.groups.items())
    return next(group for group, pattern in pairs if re.match(pattern, name))


@functools.cache
def published() -> dict[str, dict]:
    path = ROOT / "docs/published.json"
    if not path.is_file():
        raise UserError(f"{path}: not found: pages are generated in a clone of the repository")
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def facts(name: str) -> Facts:
    """What is published of a network, and what is counted on it now.

    Raises:
        UserError: nothing is published under this name.
    """
    if name not in published():
        raise UserError(f"{name}: nothing is published of it; docs/published.json has the names")
    printed = published()[name]
    tags = read_registry()[name]
    counted = complexity.count_by_name(name)
    return Facts(
        name,
        weights={tag: own["top1"] for tag, own in tags.items()},
        top5=next(iter(tags.values()))["top5"],
        reference=tuple(printed.get("reference", (None, None))),
        gflops=printed["gflops"],
        params_printed=printed["params"],
        params=counted.params,
        macs=counted.macs,
        resolution=registry.resolution(name),
        latency=printed["latency"],
    )

"""Figures that other projects' own networks gave, to hold ours against."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ppcls.models import registry
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file
from ppcls.utils.text import from_json

GOLDEN = Path(__file__).parents[2] / "tests/golden"  # in a clone
GOLDEN_FILES = {"paddleclas": "logits.json", "timm": "timm_logits.json"}


@dataclass(frozen=True)
class Figures:
    """By dialect, then by network.

    Attributes:
        logits: `size` of the image in pixels, the first `logits`, the `norm` of all 1000.
        tensors: [name, shape] of each tensor, in the project's own order.
    """

    logits: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    tensors: dict[str, dict[str, list[tuple[str, list[int]]]]] = field(default_factory=dict)


def read(folder: Path | None = None) -> Figures:
    """The figures that tests use, where they are, and those of `folder`.

    Args:
        folder: with `<dialect>_logits.json` and `<dialect>_keys.json`, any of them.

    Raises:
        UserError: `folder` has none of them, or one is no JSON.
    """
    golden = {dialect: load(GOLDEN / name) or {} for dialect, name in GOLDEN_FILES.items()}
    if folder is None:
        return Figures(golden)
    logits = {dialect: load(folder / f"{dialect}_logits.json") for dialect in GOLDEN_FILES}
    tensors = {dialect: load(folder / f"{dialect}_keys.json") for dialect in GOLDEN_FILES}
    if not any((*logits.values(), *tensors.values())):
        raise UserError(f"{folder}: has none of {', '.join(f'{d}_logits.json' for d in logits)}")
    return Figures(
        {dialect: golden[dialect] | (found or {}) for dialect, found in logits.items()},
        {dialect: found or {} for dialect, found in tensors.items()},
    )


def load(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        found = from_json(read_file(path))
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: should be a JSON object, by the networks' names")
    return found


def of(name: str, entries: Mapping[str, Any]) -> Any | None:
    """The entry of the network, or of one that is built alike under another name; else None."""
    if name in entries:
        return entries[name]
    spec = replace(registry.spec_of(name), resolution=0)
    known = ((other, registry.SPECS[other]) for other in entries if other in registry.SPECS)
    alike = (other for other, own in known if replace(own, resolution=0) == spec)
    return entries.get(next(alike, ""))

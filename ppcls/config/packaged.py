"""The recipes that come with ppcls, found by name: `EfficientNetLite0`, `quick_start/digits`.

In a checkout they are the folder `configs/`; a wheel carries that folder as `ppcls/configs/`.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded
from ppcls.utils.text import at_most, did_you_mean, visible

PACKAGE = Path(__file__).resolve().parents[1]
ENDINGS = (".yaml", ".yml")
PLACE = "configs/"  # what a recipe's name begins with in a checkout
BASES = "_base_"  # the folder of what recipes are made from, which are none themselves
EVERY_KEY = "default.yaml"  # a page to look things up in
# Of a folder with several recipes, the one to begin with.
MAIN = {"finetune": "EfficientNetLite0", "quick_start": "digits", "modern": "ResNet50_vd_a2"}


@cache
def folder() -> Path:
    """Where the recipes lie."""
    own = PACKAGE / "configs"
    return own if own.is_dir() else PACKAGE.parent / "configs"


@cache
def names() -> tuple[str, ...]:
    """Of all recipes, without an ending: those of the top first, then those of folders."""
    found = [path.relative_to(folder()) for path in folder().rglob("*.yaml")]
    found = [path for path in found if BASES not in path.parts and path.name != EVERY_KEY]
    found.sort(key=lambda path: (len(path.parts), str(path)))
    return tuple(path.with_suffix("").as_posix() for path in found)


def find_recipe(text: str) -> str:
    """The file that `-c` names: a file as it stands, else a recipe that comes with ppcls.

    Such a one is named by its place below `configs`, without an ending, by its last part alone, or
    by its folder; capitals do not matter. With an ending it is `configs/…`: any other such name is
    of a file of the user's own, in whose place nothing else is taken.

    Raises:
        UserError: a bare name that is neither, or a folder with several recipes of one rank.
    """
    path = expanded(text)
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    own = path.lower().endswith(ENDINGS) and not text.replace(os.path.sep, "/").startswith(PLACE)
    if own or path != text or text.startswith((".", os.path.sep)):
        return path  # which, as reading will say, is not there
    wanted = named(text)
    places = {name.lower(): name for name in names()}
    if wanted in places:
        return file(places[wanted])
    inside = [name for name in names() if name.lower().startswith(f"{wanted}/")]
    if wanted and inside:
        return file(main_of(wanted, inside))
    alike = [name for name in names() if name.lower().rpartition("/")[2] == wanted]
    if len(alike) == 1:
        return file(alike[0])
    if alike:
        raise UserError(f"{visible(text)}: several recipes are called so: {at_most(alike)}")
    if os.path.sep in path:
        return path
    short = {name.rpartition("/")[2]: name for name in reversed(names())}
    hint = did_you_mean(text, [*short, *names(), *{n.partition("/")[0] for n in names()}])
    raise UserError(
        f"{visible(text)}: neither a file nor the name of a recipe that comes with ppcls{hint}; "
        f"they lie in {folder()}"
    )


def named(text: str) -> str:
    """What is left of a name without `configs/` and an ending, in small letters."""
    name = text.replace(os.path.sep, "/").strip().lower().removeprefix(PLACE).rstrip("/")
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def main_of(wanted: str, inside: Sequence[str]) -> str:
    """The recipe that a folder's name stands for."""
    first = MAIN.get(wanted)
    if first:
        return f"{wanted}/{first}"
    if len(inside) == 1:
        return inside[0]
    raise UserError(f"{wanted}: a folder of several recipes: name one of {at_most(inside)}")


def file(name: str) -> str:
    return str(folder() / f"{name}.yaml")

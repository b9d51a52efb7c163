"""Every network by its name. Names and specs are looked up without importing Paddle."""

import fnmatch
import importlib
import pkgutil
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator

from ppcls.config.node import PathText
from ppcls.config.suggest import squeezed
from ppcls.models import families
from ppcls.models.spec import Family, Spec
from ppcls.utils.errors import UserError
from ppcls.utils.text import nearest

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import nn


def find_families() -> list[Family]:
    """`FAMILY` of each file of `ppcls/models/families`, the oldest paper first."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    modules = [importlib.import_module(f"{families.__name__}.{name}") for name in names]
    return sorted((module.FAMILY for module in modules), key=lambda family: family.paper)


FAMILIES = find_families()
KINDS: dict[type[Spec], Family] = {
    type(spec): family for family in FAMILIES for spec in family.specs.values()
}

SPECS: dict[str, Spec] = {name: spec for own in FAMILIES for name, spec in own.specs.items()}
assert len(SPECS) == sum(len(family.specs) for family in FAMILIES), "a name in two families"


def family_of(spec: Spec) -> Family | None:
    """The family of a spec; None of a network of one's own."""
    return KINDS.get(type(spec))


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "*_vd" in any case; numbers sort as numbers."""
    names = [name for name in SPECS if fnmatch.fnmatchcase(name.lower(), pattern.lower())]
    return sorted(names, key=parts)


def parts(name: str) -> list[str | float]:
    """Text and numbers in turns, text first: "ResNet50_vd" is ["resnet", 50, "_vd"].

    Two numbers at the end are one with a decimal point: "PPLCNet_x0_25" ends in 0.25.
    """
    split = re.split(r"(\d+_\d+$|\d+)", name.lower())
    return [float(n.replace("_", ".")) if i % 2 else n for i, n in enumerate(split)]


def spec_of(name: str) -> Spec:
    """The network's spec.

    Raises:
        UserError: no network has this name; the nearest ones are given.
    """
    if name in SPECS:
        return SPECS[name]
    raise UserError(f"unknown model {name!r}; {hint(name)}")


# Families that look like one of ours and are none.
OTHERS = (
    r"(?:tf)?efficientnetv2|efficientnet(e[lmsd]|x)|regnet(y|z|v)|wideresnet|wrn|resnetv2|resnet\d+v2$|"
    r"(res)?mlp|resnext26|cspresne|seresnext26|skresne|ecaresne|botnet|inceptionresnet|resnetrs|"
    r"densenet|mnasnet|nasnet|mobilenet(?!v3)|convnext|ghostnet|shufflenet|squeezenet"
)


# near names that are looked at, and how near they are
MANY = 12
SURE = 0.75


def farness(word: str, name: str) -> tuple[bool, bool, int]:
    """Another family is farther than another depth."""
    families = []
    depths = []
    for text in (word, name):
        found = re.fullmatch(r"(res2net|\D*)(\d*).*", text)
        assert found
        families.append(found[1])
        depths.append(int(found[2] or 0))
    far = abs(depths[0] - depths[1])
    return families[0] != families[1], not name.startswith(word), far


def hint(name: str) -> str:
    """What a name that is none may mean here."""
    known = {squeezed(own): own for own in SPECS}
    word = squeezed(re.sub(r"(\d)[._](\d)(?=gf)", r"\g<1>\g<2>00m", name.lower()).partition(".")[0])
    word = word.replace("mgf", "mf")
    if word in known:
        return f"did you mean {known[word]!r}?"
    *first, last = (title for family in FAMILIES for title in family.titles)
    here = f"{', '.join(first)} and {last}"
    none_here = f"its family is not here (yet); here are {here}: `ppcls models` lists them"
    if re.match(OTHERS, word):
        return none_here
    for pattern, ours in (pair for family in FAMILIES for pair in family.elsewhere):
        found = re.fullmatch(pattern, word)
        if found and (own := found.expand(ours)) in known:
            return f"did you mean {known[own]!r}?"
    near = sorted(nearest(word, known, MANY, SURE), key=partial(farness, word))
    if near:
        return f"did you mean {', '.join(repr(known[text]) for text in near[:3])}?"
    return none_here


def resolution(name: str) -> int:
    """Side in pixels of the square images the network's published figures were counted at."""
    return spec_of(name).resolution


def check_numbers(name: str, num_classes: int, in_channels: int) -> None:
    """UserError where a network cannot be built of them; no classes: one that gives features."""
    if num_classes < 0 or in_channels < 1:
        raise UserError(f"{name}: {num_classes=} and {in_channels=} must be at least 1")


def network(spec: Spec, num_classes: int = 1000, in_channels: int = 3) -> "nn.Layer":
    """The network a spec describes, with fresh weights of Paddle's generator (`paddle.seed`).

    `dataclasses.replace` makes a spec of one's own. It maps float32 images
    [N, in_channels, H, W] to float32 logits [N, num_classes].
    """
    return spec.build(num_classes, in_channels)


# --------------------------------------------------------------------------
# What a recipe names: networks and weights


def known_model(name: str) -> str:
    spec_of(name)  # raises with the near names
    return name


ModelName = Annotated[str, AfterValidator(known_model)]
# YAML's true is written as the word that `ppcls.weights.store` knows.
Weights = Annotated[PathText, BeforeValidator(lambda value: "true" if value is True else value)]

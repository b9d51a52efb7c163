"""Every network by its name. Names and specs are looked up without importing Paddle."""

import fnmatch
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator

from ppcls.config.node import PathText
from ppcls.config.suggest import squeezed
from ppcls.models import efficientnet_specs, residual_specs
from ppcls.models.efficientnet_specs import EfficientNetSpec
from ppcls.models.residual_specs import ResidualSpec
from ppcls.utils.errors import UserError
from ppcls.utils.text import nearest

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import nn


Spec = ResidualSpec | EfficientNetSpec

SPECS: dict[str, Spec] = {**residual_specs.SPECS, **efficientnet_specs.SPECS}

FAMILIES = "ResNet, SE_ResNet, ResNeXt, Res2Net, ResNeSt, RegNetX and EfficientNet"


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "*_vd" in any case; numbers sort as numbers."""
    names = [name for name in SPECS if fnmatch.fnmatchcase(name.lower(), pattern.lower())]
    return sorted(names, key=lambda name: [int(n) if n.isdigit() else n for n in split(name)])


def split(name: str) -> list[str]:
    """Text and numbers in turns, text first: "ResNet50_vd" is ["resnet", "50", "_vd"]."""
    return re.split(r"(\d+)", name.lower())


def spec_of(name: str) -> Spec:
    """The network's spec.

    Raises:
        UserError: no network has this name; the nearest ones are given.
    """
    if name in SPECS:
        return SPECS[name]
    raise UserError(f"unknown model {name!r}; {hint(name)}")


# Names of timm, torchvision, Keras and others, squeezed, and what they are here.
ELSEWHERE = (
    (r"(?:tf)?(efficientnet(?:b\d|lite\d))(?:ns|ap|aa|in1k|noisystudent)*", r"\1"),
    (r"resnet(\d+)(?:d|vd|d\w*in1k)", r"resnet\1vd"),
    (r"resnet(\d+)c", r"resnet\1vc"),
    (r"resnet(\d+)(?:s|b)?(?:v1|v15|a1in1k|tvin1k|in1k|imagenet)", r"resnet\1"),
    (r"(?:legacy)?seresnet(\d+)(?:d|vd)?", r"seresnet\1vd"),
    (r"(?:legacy)?seresnext(\d+32x4d)", r"seresnext\1"),
    (r"(?:legacy)?senet154", "senet154vd"),
    (r"resnext(\d+)d?(32x4d|64x4d)d", r"resnext\1vd\2"),
    (r"resnext(\d+)(32x4d|64x4d)\w*", r"resnext\1\2"),
    (r"(?:ig)?resnext10132x(\d+)d(?:wsl|fbwsl\w*)?", r"resnext10132x\1dwsl"),
    (r"resnest(\d+)[de]\w*", r"resnest\1"),
    (r"res2net(\d+)(\d\dw\ds)\w*", r"res2net\1\2"),
    (r"res2net(\d+)d", r"res2net\1vd26w4s"),
    (r"regnetx00(\d)", r"regnetx\g<1>00mf"),  # timm counts in tenths of a billion
    (r"regnetx0(16|32|64)", r"regnetx\g<1>00mf"),
    (r"regnetx0?(\d+)0", r"regnetx\1gf"),
)
# Families that look like one of ours and are none.
OTHERS = (
    r"(?:tf)?efficientnetv2|efficientnet(e[lmsd]|x)|regnet(y|z|v)|wideresnet|wrn|resnetv2|resnet\d+v2$|"
    r"(res)?mlp|resnext26|cspresne|seresnext26|skresne|ecaresne|botnet|inceptionresnet|resnetrs|"
    r"densenet|mnasnet|nasnet|mobilenet|convnext|ghostnet|shufflenet|squeezenet"
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
    none_here = f"its family is not here (yet); here are {FAMILIES}: `ppcls models` lists them"
    if re.match(OTHERS, word):
        return none_here
    for pattern, ours in ELSEWHERE:
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
    if num_classes < 1 or in_channels < 1:
        raise UserError(f"{name}: {num_classes=} and {in_channels=} must be at least 1")


def network(spec: Spec, num_classes: int = 1000, in_channels: int = 3) -> "nn.Layer":
    """The network a spec describes, with fresh weights of Paddle's generator (`paddle.seed`).

    `dataclasses.replace` makes a spec of one's own. It maps float32 images
    [N, in_channels, H, W] to float32 logits [N, num_classes].
    """
    if isinstance(spec, EfficientNetSpec):
        from ppcls.models.efficientnet import EfficientNet

        return EfficientNet(spec, num_classes, in_channels)
    from ppcls.models.residual import ResidualNet

    return ResidualNet(spec, num_classes, in_channels)


# --------------------------------------------------------------------------
# What a recipe names: networks and weights


def known_model(name: str) -> str:
    spec_of(name)  # raises with the near names
    return name


ModelName = Annotated[str, AfterValidator(known_model)]
# YAML's true is written as the word that `ppcls.weights.store` knows.
Weights = Annotated[PathText, BeforeValidator(lambda value: "true" if value is True else value)]

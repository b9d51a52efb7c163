"""Training ops that draw from a table of elementary changes and of how strong each may be.

What lies outside a turned or moved image is grey (128) or black, as each paper has it; sampling is
bilinear.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.config.node import NotNegative, Positive, Sides, Times, node
from ppcls.data import pixels

GREY = 128
BLACK = 0

Change = Callable[[np.ndarray, float, int], np.ndarray]
Ranges = dict[str, tuple[float, float]]
Drawn = list[tuple[str, float, bool]]  # changes by name, their strength, whether the other way


def change(
    image: np.ndarray, name: str, ranges: Ranges, strength: float, minus: bool, fill: int
) -> np.ndarray:
    """One elementary change; `strength` 0 to 1 runs from the first to the second end of its range,
    `minus` takes the negative where it has two directions.
    """
    weak, strong = ranges[name]
    amount = weak + (strong - weak) * strength
    return CHANGES[name](image, -amount if minus and name in SIGNED else amount, fill)


def changed(image: np.ndarray, drawn: Drawn, ranges: Ranges, fill: int) -> np.ndarray:
    """The image after some changes, one by one."""
    for name, strength, minus in drawn:
        image = change(image, name, ranges, strength, minus, fill)
    return image


@node
class AutoAugment:
    """One of the 25 sub-policies found for ImageNet (arXiv:1805.09501, table 9), each two changes
    with a probability and a magnitude.
    """

    op: Literal["auto_augment"] = "auto_augment"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return changed(image, self.draw(rng), RANGES, GREY)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """The changes of one image."""
        policy = IMAGENET_POLICY[int(rng.random() * len(IMAGENET_POLICY))]
        draws = rng.random((2, 2)).tolist()
        return [
            (name, magnitude / 9, sign < 0.5)
            for (name, prob, magnitude), (chance, sign) in zip(policy, draws, strict=True)
            if chance < prob
        ]


@node
class RandAugment:
    """`num_ops` of fourteen changes, drawn with replacement (arXiv:1909.13719), all of `magnitude`:
    0 weakest, 10 strongest, the same ranges as AutoAugment's. With `magnitude_std` each has its
    own, drawn around `magnitude` from a normal distribution and cut off at 0 and 10.
    """

    op: Literal["rand_augment"] = "rand_augment"
    num_ops: Times = 2  # changes of an image
    magnitude: Annotated[NotNegative, Field(le=10)] = 9.0  # 0 to 10
    magnitude_std: NotNegative = 0.0  # how it varies

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return changed(image, self.draw(rng), RANGES, GREY)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """The changes of one image."""
        choices, signs = rng.random((2, self.num_ops)).tolist()
        noise = self.magnitude_std * rng.standard_normal(self.num_ops)
        magnitudes = np.clip(self.magnitude + noise, 0, 10).tolist()
        return [
            (RAND_CHANGES[int(choice * len(RAND_CHANGES))], magnitude / 10, sign < 0.5)
            for choice, sign, magnitude in zip(choices, signs, magnitudes, strict=True)
        ]


@node
class TrivialAugment:
    """One of fourteen changes with one of 31 strengths, both drawn evenly, in the wide ranges
    (arXiv:2103.10158, "TA (Wide)").
    """

    op: Literal["trivial_augment"] = "trivial_augment"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return changed(image, self.draw(rng), WIDE_RANGES, BLACK)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """The one change of an image."""
        choice, level, sign = rng.random(3).tolist()
        name = WIDE_CHANGES[int(choice * len(WIDE_CHANGES))]
        return [(name, int(level * 31) / 30, sign < 0.5)]


@node
class AugMix:
    """The image mixed with a mixture of `width` chains, each of one to three (or `depth`) changes
    (arXiv:1912.02781). The chains' shares are drawn from Dirichlet(alpha, …), the mixture's from
    Beta(alpha, alpha); a change's strength evenly from 0.1 to `severity` out of 10.
    """

    op: Literal["augmix"] = "augmix"
    severity: Annotated[Positive, Field(ge=0.1, le=10)] = 3.0  # of 10
    width: Times = 3  # chains of changes
    depth: Times | None = None  # changes in each; None: 1 to 3
    alpha: Positive = 1.0  # of the mixing weights

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        shares = rng.dirichlet([self.alpha] * self.width)
        mixture = rng.beta(self.alpha, self.alpha)
        drawn = [self.draw(rng) for _ in range(self.width)]
        chains = [changed(image, changes, AUGMIX_RANGES, BLACK) for changes in drawn]
        return pixels.mix([image, *chains], [1 - mixture, *mixture * shares])

    def draw(self, rng: np.random.Generator) -> Drawn:
        """The changes of one chain."""
        depth = self.depth or int(1 + 3 * rng.random())
        return [
            (
                AUGMIX_CHANGES[int(choice * len(AUGMIX_CHANGES))],
                (0.1 + (self.severity - 0.1) * level) / 10,
                sign < 0.5,
            )
            for choice, level, sign in rng.random((depth, 3)).tolist()
        ]


# --------------------------------------------------------------------------- tables

# An image, an amount and what fills up, to the image. Shifts are shares of the side.
CHANGES: dict[str, Change] = {
    "identity": lambda image, amount, fill: image,
    "autocontrast": lambda image, amount, fill: pixels.autocontrast(image),
    "equalize": lambda image, amount, fill: pixels.equalize(image),
    "invert": lambda image, amount, fill: pixels.invert(image),
    "posterize": lambda image, amount, fill: pixels.posterize(image, round(amount)),
    "posterize_up": lambda image, amount, fill: pixels.posterize(image, math.ceil(amount)),
    "solarize": lambda image, amount, fill: pixels.solarize(image, amount),
    "color": lambda image, amount, fill: pixels.saturation(image, 1 + amount),
    "contrast": lambda image, amount, fill: pixels.contrast(image, 1 + amount),
    "brightness": lambda image, amount, fill: pixels.brightness(image, 1 + amount),
    "sharpness": lambda image, amount, fill: pixels.sharpness(image, 1 + amount),
    "rotate": pixels.rotate,
    "shear_x": lambda image, amount, fill: pixels.shear(image, amount, 0, fill),
    "shear_y": lambda image, amount, fill: pixels.shear(image, 0, amount, fill),
    "shift_x": lambda i, amount, fill: pixels.translate(i, int(amount * i.shape[1]), 0, fill),
    "shift_y": lambda i, amount, fill: pixels.translate(i, 0, int(amount * i.shape[0]), fill),
    "translate_x": lambda image, amount, fill: pixels.translate(image, int(amount), 0, fill),
    "translate_y": lambda image, amount, fill: pixels.translate(image, 0, int(amount), fill),
}
SIGNED = {"color", "contrast", "brightness", "sharpness", "rotate", "shear_x", "shear_y"}
SIGNED |= {"shift_x", "shift_y", "translate_x", "translate_y"}
PLAIN: Ranges = dict.fromkeys(("identity", "autocontrast", "equalize"), (0, 0))

# AutoAugment's (table 6 there): 150 pixels of the 331 its networks saw are a share of the side.
RANGES: Ranges = {
    **PLAIN,
    "invert": (0, 0),
    "posterize": (8, 4),
    "solarize": (256, 0),
    "color": (0, 0.9),
    "contrast": (0, 0.9),
    "brightness": (0, 0.9),
    "sharpness": (0, 0.9),
    "rotate": (0, 30),
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "shift_x": (0, 150 / 331),
    "shift_y": (0, 150 / 331),
}
RAND_CHANGES = tuple(name for name in RANGES if name != "invert")

WIDE_RANGES: Ranges = {
    **PLAIN,
    "posterize": (8, 2),
    "solarize": (256, 0),
    "color": (0, 0.99),
    "contrast": (0, 0.99),
    "brightness": (0, 0.99),
    "sharpness": (0, 0.99),
    "rotate": (0, 135),
    "shear_x": (0, 0.99),
    "shear_y": (0, 0.99),
    "translate_x": (0, 32),
    "translate_y": (0, 32),
}
WIDE_CHANGES = tuple(WIDE_RANGES)

# As the authors' code has them; none of these is among the corruptions of ImageNet-C.
AUGMIX_RANGES: Ranges = {
    "autocontrast": (0, 0),
    "equalize": (0, 0),
    "posterize_up": (4, 0),
    "solarize": (256, 0),
    "rotate": (0, 30),
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "shift_x": (0, 1 / 3),
    "shift_y": (0, 1 / 3),
}
AUGMIX_CHANGES = tuple(AUGMIX_RANGES)

# Change, probability, magnitude from 0 to 9.
IMAGENET_POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

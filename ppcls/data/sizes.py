"""Sides in pixels of the training images, where they are not the same in every batch."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag

from ppcls.config.node import MOST, Side, node

SIZED = 2  # tells the random size of a batch from the other random numbers of its first photo


@node
class Progressive:
    """A side for each stretch of training, by the number of epochs before it."""

    kind: Literal["progressive"] = "progressive"
    sizes: dict[Annotated[int, Field(ge=0, le=MOST)], Side]

    def __post_init__(self):
        if 0 not in self.sizes:
            raise ValueError("sizes start at epoch 0, as in {0: 128, 10: 160}")

    def at(self, epoch: int) -> int:
        return self.sizes[max(start for start in self.sizes if start <= epoch)]


@node
class MultiScale:
    """One of `sizes` for each batch, drawn evenly."""

    kind: Literal["multi_scale"] = "multi_scale"
    sizes: tuple[Side, ...]

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes is empty: name one side or more, as in [160, 192, 224]")


Size = int | Progressive | MultiScale


def form(value: Any) -> str:
    return "a mapping" if isinstance(value, dict | Progressive | MultiScale) else "a number"


Kinds = Annotated[Progressive | MultiScale, Field(discriminator="kind")]
AnySize = Annotated[
    Annotated[Side, Tag("a number")] | Annotated[Kinds, Tag("a mapping")], Discriminator(form)
]


def side(size: Size, seed: int, epoch: int, first: int) -> int:
    """The side of a batch whose first virtual index is `first`."""
    if isinstance(size, int):
        return size
    if isinstance(size, Progressive):
        return size.at(epoch)
    return int(np.random.default_rng([seed, epoch, first, SIZED]).choice(size.sizes))


def sides(size: Size) -> list[int]:
    """All sides there are, the smallest first."""
    if isinstance(size, int):
        return [size]
    return sorted(set(size.sizes.values() if isinstance(size, Progressive) else size.sizes))


def in_words(size: Size) -> str:
    """As in `224` or `128 to 192`."""
    found = sides(size)
    return " to ".join(map(str, dict.fromkeys((found[0], found[-1]))))

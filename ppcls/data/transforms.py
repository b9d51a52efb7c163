"""Transforms of training images, as a recipe lists them, and the sizes they end in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import Parameter, signature
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic.dataclasses import rebuild_dataclass

from ppcls.config.node import (
    LIST,
    MAPPING,
    MOST,
    NUMBER,
    Byte,
    Float,
    Margin,
    NotNegative,
    Pair,
    Positive,
    Share,
    Side,
    Sides,
    Times,
    node,
    square,
    written_as,
)
from ppcls.config.own import OrOwn, Own
from ppcls.data import pixels
from ppcls.data.auto_augment import AugMix, AutoAugment, RandAugment, TrivialAugment
from ppcls.data.pixels import rotate
from ppcls.data.preprocess import (
    Backend,
    Interpolation,
    both,
    center_crop,
    resize,
    resize_short,
    resize_to_cover,
    width_by_height,
)
from ppcls.utils.errors import UserError
from ppcls.utils.opencv import cv2
from ppcls.utils.text import plural, visible

# Boxes tried before `random_box` gives up.
TRIES = 10
SIZED = 2  # tells the random size of a batch from the other random numbers of its first image


@node
class Progressive:
    """A size for each stretch of training, by the number of epochs before it."""

    kind: Literal["progressive"] = "progressive"
    sizes: dict[Annotated[int, Field(ge=0, le=MOST)], Sides]  # epoch: size

    def __post_init__(self):
        if 0 not in self.sizes:
            raise ValueError("sizes start at epoch 0, as in {0: 128, 10: 160}")

    def at(self, epoch: int) -> Sides:
        return self.sizes[max(start for start in self.sizes if start <= epoch)]


@node
class MultiScale:
    """One of `sizes` for each batch, drawn evenly."""

    kind: Literal["multi_scale"] = "multi_scale"
    sizes: tuple[Sides, ...]  # one drawn for each batch

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes is empty: name one size or more, as in [160, 192, 224]")


Size = Sides | Progressive | MultiScale

Kinds = Annotated[Progressive | MultiScale, Field(discriminator="kind")]
AnySize = Annotated[
    Annotated[Side, Tag(NUMBER)]
    | Annotated[Pair, AfterValidator(square), Tag(LIST)]
    | Annotated[Kinds, Tag(MAPPING)],
    Discriminator(written_as),
]


def side(size: Size, seed: int, epoch: int, first: int) -> Sides:
    """The size, a side or height and width, of a batch whose first virtual index is `first`."""
    if isinstance(size, int | tuple):
        return size
    if isinstance(size, Progressive):
        return size.at(epoch)
    drawn = np.random.default_rng([seed, epoch, first, SIZED]).choice(len(size.sizes))
    return size.sizes[drawn]


def sides(size: Size) -> list[Sides]:
    """All sizes there are, those of the fewest pixels first."""
    if isinstance(size, int | tuple):
        return [size]
    found = set(size.sizes.values() if isinstance(size, Progressive) else size.sizes)
    return sorted(found, key=lambda one: (math.prod(both(one)), both(one)))


def in_words(size: Size) -> str:
    """As in `224` or `128 to 192`; two sides as width and height, `96x225`."""
    found = sides(size)
    return " to ".join(dict.fromkeys(map(width_by_height, (found[0], found[-1]))))


# --------------------------------------------------------------------------
# Training ops that cut, resize, frame, mirror and turn an image; a size is a side of a square, or
# height and width


def check_box(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """ValueError for bounds that `random_box` cannot draw within."""
    if not scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale {list(scale)}: give the smaller share first, at most 1")
    if ratio[0] > ratio[1]:
        raise ValueError(f"ratio {list(ratio)}: give the smaller width / height first")


def random_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    """Left, top, width and height in pixels of a box in an image of width x height: its area a
    uniform share within `scale` of the image's, its width / height log-uniform within `ratio`.
    The first that fits of ten, which are drawn in any case; None where none does.
    """
    small, large = (share * width * height for share in scale)
    narrow, wide = (math.log(bound) for bound in ratio)
    for share, form, x, y in rng.random((TRIES, 4)).tolist():
        area = small + share * (large - small)
        stretch = math.exp(narrow + form * (wide - narrow))
        w = round(math.sqrt(area * stretch))
        h = round(math.sqrt(area / stretch))
        if 0 < w <= width and 0 < h <= height:
            return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
    return None


@node
class RandomResizedCrop:
    """A random box stretched to the size (arXiv:1409.4842): its area a uniform share within
    `scale` of the image's, its width / height log-uniform within `ratio`. Of ten boxes the first
    that fits, or else the largest in the middle with an allowed ratio. The interpolation "random"
    is bilinear or bicubic, each half of the time.
    """

    op: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Positive, Positive] = (0.08, 1.0)  # share of the area, from and to
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333)  # of width to height
    interpolation: Literal[Interpolation, "random"] = "bilinear"
    backend: Backend = "cv2"

    def __post_init__(self):
        check_box(self.scale, self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        left, top, wide, high = self.box(image.shape[1], image.shape[0], rng)
        part = image[top : top + high, left : left + wide]
        if self.interpolation == "random":
            interpolation = "bilinear" if rng.random() < 0.5 else "bicubic"
        else:
            interpolation = self.interpolation
        height, width = both(size)
        return resize(part, width, height, interpolation, self.backend)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels of a crop of an image of width x height."""
        if found := random_box(width, height, self.scale, self.ratio, rng):
            return found
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (width - w) // 2, (height - h) // 2, w, h


@node
class HorizontalFlip:
    """Left and right exchanged, with probability `prob`."""

    op: Literal["horizontal_flip"] = "horizontal_flip"
    prob: Share = 0.5

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return cv2.flip(image, 1).reshape(image.shape) if rng.random() < self.prob else image


@node
class VerticalFlip:
    """Top and bottom exchanged, with probability `prob`."""

    op: Literal["vertical_flip"] = "vertical_flip"
    prob: Share = 0.5

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return cv2.flip(image, 0).reshape(image.shape) if rng.random() < self.prob else image


@node
class Resize:
    """The whole image stretched to the size, whatever its shape."""

    op: Literal["resize"] = "resize"
    interpolation: Interpolation = "bilinear"
    backend: Backend = "cv2"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        height, width = both(size)
        return resize(image, width, height, self.interpolation, self.backend)


@node
class ResizeShort:
    """The short side resized to `pixels`, the shape kept; null: so that the image just covers the
    size, which of a square is its side.
    """

    op: Literal["resize_short"] = "resize_short"
    pixels: Side | None = None  # of the short side
    interpolation: Interpolation = "bilinear"
    backend: Backend = "cv2"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        way = (self.interpolation, self.backend)
        if self.pixels:
            return resize_short(image, self.pixels, *way)
        return resize_to_cover(image, *both(size), *way)


@node
class CenterCrop:
    """The middle of the size; UserError for an image smaller than that."""

    op: Literal["center_crop"] = "center_crop"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        height, width = image.shape[:2]
        high, wide = both(size)
        if height < high or width < wide:
            raise UserError(
                f"train.transforms: center_crop cannot cut {wide}x{high} out of an image of "
                f"{width}x{height}; put resize_short before it"
            )
        return center_crop(image, size)


@node
class RandomCrop:
    """A random part of the image of the size, which is first framed with `pad` black pixels on
    each side, and with more where it would still be too small.
    """

    op: Literal["random_crop"] = "random_crop"
    pad: Margin = 0  # pixels on each side, before

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        height, width = image.shape[:2]
        tall, broad = both(size)
        high = max(height + 2 * self.pad, tall)
        wide = max(width + 2 * self.pad, broad)
        above = (high - height) // 2
        before = (wide - width) // 2
        rest = (high - height - above, before, wide - width - before)
        framed = cv2.copyMakeBorder(image, above, *rest, cv2.BORDER_CONSTANT)
        x, y = rng.random(2).tolist()
        left = int(x * (wide - broad + 1))
        top = int(y * (high - tall + 1))
        cropped = framed[top : top + tall, left : left + broad]
        return cropped.reshape(tall, broad, image.shape[2])


BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


def four_sides(value: Any) -> Any:
    """One number stands for all sides."""
    return (value,) * 4 if isinstance(value, int) else value


@node
class Pad:
    """Framed with so many `pixels` on the left, top, right and bottom, or one number for all: of
    the value `fill`, of the "edge" continued, or of the image mirrored with its border pixels
    ("symmetric") or without ("reflect").
    """

    op: Literal["pad"] = "pad"
    pixels: Annotated[tuple[Margin, ...], BeforeValidator(four_sides)]  # on each side
    fill: Byte = 0  # their value
    mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant"

    def __post_init__(self):
        if len(self.pixels) != 4:
            raise ValueError("pixels: give one number, or four: left, top, right, bottom")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        left, top, right, bottom = self.pixels
        border = BORDERS[self.mode]
        fill = (self.fill,) * 4
        framed = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=fill)
        return framed.reshape(*framed.shape[:2], image.shape[2])


@node
class Rotation:
    """Turned about the middle by degrees drawn evenly from `degrees`, counterclockwise where above
    0, bilinear; the size stays, and corners where nothing is left are `fill`.
    """

    op: Literal["rotation"] = "rotation"
    degrees: tuple[Float, Float] = (-15.0, 15.0)  # from and to
    fill: Byte = 0  # value of the corners

    def __post_init__(self):
        if self.degrees[0] > self.degrees[1]:
            raise ValueError(f"degrees {list(self.degrees)}: give the smaller angle first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        low, high = self.degrees
        return rotate(image, low + rng.random() * (high - low), self.fill)


# --------------------------------------------------------------------------
# Training ops that change an image's colours and leave its alpha alone

# The principal components of ImageNet's colours, of values from 0 to 1: AlexNet's paper describes
# the method, these figures are the ones in common use.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
JITTERS = (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue)


@node
class ColorJitter:
    """Brightness, contrast and saturation times an even draw from 1 - x (at least 0) to 1 + x, the
    hue turned by up to `hue` of the circle either way, in random order.
    """

    op: Literal["color_jitter"] = "color_jitter"
    brightness: NotNegative = 0.0  # most change
    contrast: NotNegative = 0.0  # most change
    saturation: NotNegative = 0.0  # most change
    hue: Annotated[NotNegative, Field(le=0.5)] = 0.0  # most change, of a turn

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        order = rng.permutation(4).tolist()
        draws = rng.random(4).tolist()
        for index in order:
            width = widths[index]
            low, high = (-width, width) if index == 3 else (max(0.0, 1 - width), 1 + width)
            if width:
                image = JITTERS[index](image, low + draws[index] * (high - low))
        return image


@node
class Grayscale:
    """All colours the luma, with probability `prob`; the number of channels stays."""

    op: Literal["grayscale"] = "grayscale"
    prob: Share = 0.2

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return pixels.grey(image) if rng.random() < self.prob else image


@node
class GaussianBlur:
    """Blurred with a standard deviation drawn evenly from `sigma`, in pixels (arXiv:2002.05709)."""

    op: Literal["gaussian_blur"] = "gaussian_blur"
    sigma: tuple[Positive, Positive] = (0.1, 2.0)  # from and to, in pixels

    def __post_init__(self):
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma {list(self.sigma)}: give the smaller one first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        low, high = self.sigma
        return pixels.blur(image, low + rng.random() * (high - low))


@node
class Lighting:
    """AlexNet's colour augmentation: each principal component of ImageNet's colours added, times
    its eigenvalue and a normal draw of standard deviation `std`. Grey stays as it is.
    """

    op: Literal["lighting"] = "lighting"
    std: NotNegative = 0.1  # of the shift along each axis of colours

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        draws = self.std * rng.standard_normal(3)
        if image.shape[2] == 1:
            return image
        shift = 255 * EIGENVECTORS @ (EIGENVALUES * draws)
        return pixels.look_up(image, np.clip(np.rint(pixels.LEVELS[:, None] + shift), 0, 255))


# --------------------------------------------------------------------------
# Training ops that hide parts of an image

Mode = Literal["pixel", "constant", "mean"]

# ImageNet's mean colour and what is grey of it; alpha is opaque.
MEANS = {1: (116,), 3: (124, 116, 104), 4: (124, 116, 104, 255)}


def painted(image: np.ndarray, where: np.ndarray, mode: Mode, seed: int) -> np.ndarray:
    """A copy of the image [H, W, C] painted where `where`, uint8 [H, W], is not 0."""
    if mode == "pixel":
        paint = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
    else:
        paint = even(image.shape, mode)
    result = np.array(image, order="C")
    return cv2.copyTo(paint, where, result).reshape(image.shape)


@lru_cache(8)  # images in training are all of one size
def even(shape: tuple[int, int, int], mode: Mode) -> np.ndarray:
    """An image of one colour."""
    return np.full(shape, MEANS[shape[2]] if mode == "mean" else 0, np.uint8)


def seed_of(rng: np.random.Generator) -> int:
    """One draw that seeds as many as an image's size asks for."""
    return int(rng.integers(1 << 62))


@node
class RandomErasing:
    """A box hidden with probability `prob` (arXiv:1708.04896): its area a uniform share within
    `scale` of the image's, its width / height log-uniform within `ratio`, anywhere inside.
    """

    op: Literal["random_erasing"] = "random_erasing"
    prob: Share = 0.5
    scale: tuple[Positive, Positive] = (0.02, 0.4)  # share of the area
    ratio: tuple[Positive, Positive] = (0.3, 3.3333333)  # of the sides
    mode: Mode = "pixel"

    def __post_init__(self):
        check_box(self.scale, self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        chance = rng.random()
        seed = seed_of(rng)
        box = random_box(image.shape[1], image.shape[0], self.scale, self.ratio, rng)
        if chance >= self.prob or box is None:
            return image
        left, top, width, height = box
        where = np.zeros(image.shape[:2], np.uint8)
        where[top : top + height, left : left + width] = 1
        return painted(image, where, self.mode, seed)


@node
class Cutout:
    """Squares of `length` (null: half of the size's shorter side) hidden (arXiv:1708.04552), their
    middles anywhere in the image, so that parts of them may lie outside.
    """

    op: Literal["cutout"] = "cutout"
    holes: Times = 1  # squares
    length: Side | None = None  # of their sides, in pixels
    mode: Mode = "mean"

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        length = self.length or max(min(both(size)) // 2, 1)
        where = np.zeros(image.shape[:2], np.uint8)
        seed = seed_of(rng)
        for x, y in rng.random((self.holes, 2)).tolist():
            left = int(x * image.shape[1]) - length // 2
            top = int(y * image.shape[0]) - length // 2
            where[max(top, 0) : top + length, max(left, 0) : left + length] = 1
        return painted(image, where, self.mode, seed)


@node
class HideAndSeek:
    """The image divided into squares, each hidden with probability `prob` (arXiv:1811.02545); their
    side is one of `sides`, 0 hides nothing.
    """

    op: Literal["hide_and_seek"] = "hide_and_seek"
    sides: tuple[Margin, ...] = (0, 16, 32, 44, 56)  # of the squares, in pixels; one is drawn
    prob: Share = 0.5
    mode: Mode = "mean"

    def __post_init__(self):
        if not self.sides:
            raise ValueError("sides is empty: name one side or more")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        side = self.sides[int(rng.random() * len(self.sides))]
        seed = seed_of(rng)
        if not side:
            return image
        height, width = image.shape[:2]
        squares = np.random.default_rng(seed).random((-(-height // side), -(-width // side)))
        hidden = (squares < self.prob).astype(np.uint8).repeat(side, 0).repeat(side, 1)
        where = np.ascontiguousarray(hidden[:height, :width])
        return painted(image, where, self.mode, seed + 1)


@node
class GridMask:
    """With probability `prob` a grid of squares hidden (arXiv:2001.04086): one in each unit, whose
    side is drawn from `unit`; between them a share `ratio` of the side stays seen. The grid begins
    anywhere and is turned by up to `rotate` degrees.
    """

    op: Literal["grid_mask"] = "grid_mask"
    prob: Share = 0.8
    unit: tuple[Side, Side] = (96, 224)  # pixels of the grid, from and to
    ratio: Share = 0.6  # share of the side that stays seen
    rotate: Annotated[NotNegative, Field(le=360)] = 0.0  # degrees at most
    mode: Mode = "mean"

    def __post_init__(self):
        if self.unit[0] > self.unit[1]:
            raise ValueError(f"unit {list(self.unit)}: give the shorter side first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        chance, side, x, y, turn = rng.random(5).tolist()
        seed = seed_of(rng)
        if chance >= self.prob:
            return image
        unit = self.unit[0] + int(side * (self.unit[1] - self.unit[0] + 1))
        angle = math.radians(turn * self.rotate)
        sine = math.sin(angle)
        cosine = math.cos(angle)
        u = np.arange(image.shape[1])
        v = np.arange(image.shape[0])[:, None]
        across = cosine * u + int(x * unit)
        down = cosine * v + int(y * unit)
        if angle:
            across = across + sine * v
            down = down - sine * u
        seen = round(self.ratio * unit)
        where = ((across % unit >= seen) & (down % unit >= seen)).astype(np.uint8)
        return painted(image, where, self.mode, seed)


# --------------------------------------------------------------------------
# The training ops a recipe may choose from, ops made of others, and how they are run


@node
class RandomApply:
    """All of `ops` in order with probability `prob`, or none."""

    op: Literal["random_apply"] = "random_apply"
    prob: Share = 0.5
    ops: tuple["Transform", ...]  # applied together or not at all

    def __post_init__(self):
        if not self.ops:
            raise ValueError("ops is empty: name one op or more")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        return run(self.ops, image, rng, size) if rng.random() < self.prob else image


@node
class OneOf:
    """One of `ops`, drawn in proportion to `weights` (null: evenly)."""

    op: Literal["one_of"] = "one_of"
    ops: tuple["Transform", ...]  # of which one is applied
    weights: tuple[NotNegative, ...] | None = None  # chances

    def __post_init__(self):
        if not self.ops:
            raise ValueError("ops is empty: name one op or more")
        if self.weights is not None and len(self.weights) != len(self.ops):
            raise ValueError(
                f"{plural(len(self.weights), 'weight')} for {plural(len(self.ops), 'op')}: "
                "give each one"
            )
        if self.weights is not None and not any(self.weights):
            raise ValueError("weights are all 0: raise one of them")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        ends = np.cumsum(self.weights or [1.0] * len(self.ops))
        chosen = int(np.searchsorted(ends, rng.random() * ends[-1], "right"))
        return self.ops[chosen](image, rng, size)


@dataclass(frozen=True)
class OwnTransform(Own):
    """A transform of one's own: called as `transform(image, rng)` or, where it has a third
    parameter, `transform(image, rng, size)`: uint8 [H, W, C] to the same in any size. All chance
    comes from `rng`, a generator of NumPy for this image and epoch; `size` is what the transforms
    are to end in: a side, or height and width, in pixels. The image is not written into.
    """

    tag: ClassVar[str] = "op"
    called: ClassVar[str] = "a transform, called as transform(image, rng)"
    supplied: ClassVar[int] = 2

    @cached_property
    def takes_size(self) -> bool:
        try:
            own = signature(self.require()).parameters.values()
        except (TypeError, ValueError):  # of what is not written in Python
            return False
        places = [one for one in own if one.kind is one.POSITIONAL_OR_KEYWORD]
        return len([one for one in places if one.default is Parameter.empty]) > 2

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: Sides) -> np.ndarray:
        given = (image, rng, size) if self.takes_size else (image, rng)
        found = self.run(*given)
        kept = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim == 3
        if not kept or found.shape[2] != image.shape[2] or not found.size:
            shown = f"{found.dtype} {list(found.shape)}" if hasattr(found, "dtype") else repr(found)
            raise UserError(
                f"{self.name}: gave {visible(shown)}, no image uint8 [H, W, {image.shape[2]}]"
            )
        return found


Transform = Annotated[
    RandomResizedCrop
    | HorizontalFlip
    | VerticalFlip
    | Resize
    | ResizeShort
    | CenterCrop
    | RandomCrop
    | Pad
    | Rotation
    | ColorJitter
    | Grayscale
    | GaussianBlur
    | Lighting
    | AutoAugment
    | RandAugment
    | TrivialAugment
    | AugMix
    | RandomErasing
    | Cutout
    | HideAndSeek
    | GridMask
    | RandomApply
    | OneOf,
    Field(discriminator="op"),
    OrOwn(OwnTransform),
]
rebuild_dataclass(RandomApply)  # type: ignore  # now that Transform is known
rebuild_dataclass(OneOf)  # type: ignore


def run(
    ops: Sequence[Transform], image: np.ndarray, rng: np.random.Generator, size: Sides
) -> np.ndarray:
    """The image after all ops, of whatever size they leave."""
    for op in ops:
        image = op(image, rng, size)
    return image


def apply(
    ops: Sequence[Transform], image: np.ndarray, rng: np.random.Generator, size: Sides
) -> np.ndarray:
    """The image uint8 [H, W, C] after all ops: uint8 of the size, a side or height and width.

    UserError where the ops end in another size; equal image, rng state and size give equal results.
    """
    result = run(ops, image, rng, size)
    high, wide = both(size)
    if result.shape != (high, wide, image.shape[2]) or result.dtype != np.uint8:
        height, width = result.shape[:2]
        raise UserError(
            f"train.transforms must end in an image of {wide}x{high}; "
            f"{ops[-1].op if ops else 'without ops'} gave {width}x{height}; "
            "add random_resized_crop, resize, center_crop or random_crop"
        )
    return result

"""What every image goes through before the network, in evaluation and deployment.

Also read and written as the `transform_ops` of PaddleX and PaddleClas.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ArgsKwargs

from ppcls.config.node import (
    Byte,
    Float,
    Positive,
    SideOrPair,
    Sides,
    node,
    place_of,
)
from ppcls.utils.errors import UserError
from ppcls.utils.opencv import cv2
from ppcls.utils.text import plural, quoted, visible

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Backend = Literal["cv2", "pil"]
Fit = Literal["crop", "squash", "letterbox"]

CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
# To Pillow CMYK is four channels like any other; RGBA's colours it would weight by alpha.
MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# An image a few pixels wide, enlarged beyond this side, would fill the memory.
LONGEST = 1 << 15


def both(sides: int | tuple[int, ...]) -> tuple[int, int]:
    """Height and width."""
    if isinstance(sides, int):
        return sides, sides
    height, width = sides
    return height, width


def width_by_height(sides: int | tuple[int, ...]) -> str:
    """As messages say it: 224, or 96x225 for [225, 96]."""
    return str(sides) if isinstance(sides, int) else f"{sides[1]}x{sides[0]}"


def resize(
    image: np.ndarray, width: int, height: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """uint8 [H, W, 1 | 3 | 4] to [height, width, C] by OpenCV ("cv2") or Pillow ("pil").

    Where it shrinks, Pillow averages over all pixels; OpenCV looks at the nearest few, but for
    "area". PaddleClas's networks were evaluated with OpenCV, EfficientNet's with Pillow.
    """
    if image.shape[:2] == (height, width):
        return image
    if backend == "cv2":
        resized = cv2.resize(image, (width, height), interpolation=CV2[interpolation])
    else:
        shape = (image.shape[1], image.shape[0])
        drawn = Image.frombytes(MODES[image.shape[2]], shape, image.tobytes())
        resized = np.array(drawn.resize((width, height), PIL[interpolation]))
    return resized.reshape(height, width, image.shape[2])


def short_sides(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Width and height after the short side is made `pixels`, rounded as PaddleClas rounds them.

    UserError for an image so narrow that its long side would exceed 32,768 pixels.
    """
    scale = pixels / min(height, width)
    wide, high = scaled(height, width, scale)
    if max(wide, high) > LONGEST:
        raise UserError(
            f"an image of {width}x{height} pixels is too narrow to resize its short side to "
            f"{pixels}; crop it first"
        )
    return wide, high


def scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    """Width and height, rounded to whole pixels."""
    return round(width * scale), round(height * scale)


def resize_short(
    image: np.ndarray, pixels: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """The image with its short side `pixels` long; UserError as `short_sides`."""
    wide, high = short_sides(image.shape[0], image.shape[1], pixels)
    return resize(image, wide, high, interpolation, backend)


def resize_to_cover(
    image: np.ndarray, height: int, width: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """The image, its shape kept, just large enough to cut [height, width] out of it.

    UserError for an image so narrow that its long side would exceed 32,768 pixels.
    """
    scale = max(height / image.shape[0], width / image.shape[1])
    wide, high = scaled(image.shape[0], image.shape[1], scale)
    if max(wide, high) > LONGEST:
        raise UserError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels is too narrow to resize it to "
            f"cover {width}x{height}; crop it first"
        )
    return resize(image, wide, high, interpolation, backend)


def center_crop(image: np.ndarray, size: Sides) -> np.ndarray:
    """The middle of an image at least as large as the size: a view."""
    height, width = both(size)
    top = (image.shape[0] - height) // 2
    left = (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def place_in_letterbox(
    image_height: int, image_width: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Top, left, height and width of an image in the middle of [height, width]."""
    scale = min(height / image_height, width / image_width)
    high = min(max(round(image_height * scale), 1), height)
    wide = min(max(round(image_width * scale), 1), width)
    return (height - high) // 2, (width - wide) // 2, high, wide


def letterbox(
    image: np.ndarray,
    height: int,
    width: int,
    fill: int,
    interpolation: Interpolation,
    backend: Backend,
) -> np.ndarray:
    """All of the image in the middle of [height, width, C], as large as it fits with its shape
    kept, and all channels of the rest `fill`.
    """
    top, left, high, wide = place_in_letterbox(image.shape[0], image.shape[1], height, width)
    result = np.full((height, width, image.shape[2]), fill, np.uint8)
    result[top : top + high, left : left + wide] = resize(image, wide, high, interpolation, backend)
    return result


class Box(NamedTuple):
    """A part of an image, in its pixels, from its upper left corner; it may reach beyond it."""

    top: float
    left: float
    bottom: float
    right: float


# --------------------------------------------------------------------------
# What a recipe and an inference.yml say of it

KEYS = ("fit", "resize", "crop", "fill", "interpolation", "backend", "mean", "std")
STATED = "_stated"  # where a Preprocess keeps which of them were given


@node
class Preprocess:
    """An image brought to the size `crop`, a side or [height, width], in one of three ways, and per
    channel (pixel / 255 - mean) / std.

    `fit` is the way. crop: the short side resized to `resize` pixels, or the image to the [height,
    width] that `resize` is, and the middle cut out. squash: the whole image resized to the size,
    whatever its shape. letterbox: the whole image as large as it fits, its shape kept, in the
    middle of one colour, `fill`. Squash and letterbox have no use for `resize`, nor have the others
    for `fill`.

    What is not `stated` has the values of ImageNet's usual weights, until a recipe's own weights
    say better.
    """

    fit: Fit = "crop"  # what is seen of an image: its middle, all of it squashed, or letterboxed
    resize: SideOrPair = 256  # pixels of the short side, or height and width; for fit: crop alone
    crop: Sides = 224  # pixels a side of what is seen, or height and width
    fill: Byte = 114  # around a letterbox: ImageNet's mean colour, about 0 once it is normalised
    interpolation: Interpolation = "bilinear"  # how pixels are computed in resizing
    backend: Backend = "cv2"  # what resizes: OpenCV, Pillow
    mean: tuple[Float, ...] = (0.485, 0.456, 0.406)  # of pixels of 0 to 1, for each channel
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)  # they are divided by it then

    @model_validator(mode="wrap")
    @classmethod
    def remember(cls, given: Any, handler: ModelWrapValidatorHandler) -> "Preprocess":
        """Keep which keys were given.

        Of a document those that belong together are checked when both are: the other may follow.
        """
        found = handler(given)
        if isinstance(given, Preprocess):
            return found
        called = isinstance(given, ArgsKwargs)
        keys = frozenset((given.kwargs if called else given) or ())
        object.__setattr__(found, STATED, keys)
        found.check(KEYS if called else keys)
        return found

    @property
    def stated(self) -> frozenset[str]:
        """The keys that were given, as against those that have a default."""
        return getattr(self, STATED, frozenset())

    def check(self, keys: Collection[str] = KEYS) -> None:
        """ValueError where values do not fit together, of these keys."""
        if {"resize", "crop"} <= set(keys) and self.fit == "crop" and not self.is_large_enough():
            resize, crop = (
                list(own) if isinstance(own, tuple) else own for own in (self.resize, self.crop)
            )
            raise ValueError(f"resize {resize} is below crop {crop}: raise resize or lower crop")
        fits = len(self.mean) == len(self.std) and len(self.mean) in (1, 3, 4)
        if {"mean", "std"} <= set(keys) and not fits:
            raise ValueError(
                f"mean has {plural(len(self.mean), 'value')} and std {len(self.std)}: give "
                "each one value "
                "per channel, 1 (grey), 3 (RGB) or 4 (RGBA)"
            )

    def is_large_enough(self) -> bool:
        """Whether the crop lies within any image that is resized."""
        if isinstance(self.resize, int):
            return self.resize >= max(self.height, self.width)
        return self.resize[0] >= self.height and self.resize[1] >= self.width

    def sizes(self) -> dict[str, int | str]:
        """How large images are made, for tables: `crop`, and `resize` or the other way they fit."""
        resize = self.resize
        if isinstance(resize, tuple):
            resize = f"{resize[1]}x{resize[0]}"  # where a square, too, is another than a short side
        crop = self.crop if isinstance(self.crop, int) else width_by_height(self.crop)
        return {"resize": resize if self.fit == "crop" else self.fit, "crop": crop}

    @property
    def height(self) -> int:
        """Pixels of an image from top to bottom, after all this."""
        return both(self.crop)[0]

    @property
    def width(self) -> int:
        """Pixels of an image from left to right, after all this."""
        return both(self.crop)[1]

    @property
    def channels(self) -> int:
        """Channels of an image: 1, 3 or 4."""
        return len(self.mean)

    @property
    def scale(self) -> np.ndarray:
        """float32 [C], the factor in: normalised = pixel * scale + offset."""
        return (1 / (255 * np.array(self.std))).astype(np.float32)

    @property
    def offset(self) -> np.ndarray:
        """float32 [C], the summand in: normalised = pixel * scale + offset."""
        return (-np.array(self.mean) / np.array(self.std)).astype(np.float32)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] to uint8 [height, width, C].

        UserError for an image so narrow that no short side of it can be resized to `resize`.
        """
        height, width = both(self.crop)
        way = (self.interpolation, self.backend)
        if self.fit == "letterbox":
            return letterbox(image, height, width, self.fill, *way)
        if self.fit == "squash":
            return np.ascontiguousarray(resize(image, width, height, *way))
        if isinstance(self.resize, int):
            resized = resize_short(image, self.resize, *way)
        else:
            resized = resize(image, self.resize[1], self.resize[0], *way)
        return np.ascontiguousarray(center_crop(resized, self.crop))

    def seen(self, height: int, width: int) -> Box:
        """The part of an image of so many pixels that comes to the network.

        With a letterbox, whose fill comes to it, too, it reaches beyond the image. UserError as of
        `__call__`.
        """
        if self.fit == "squash":
            return Box(0, 0, height, width)
        if self.fit == "letterbox":
            placed = place_in_letterbox(height, width, self.height, self.width)
            top, left, high, wide = -placed[0], -placed[1], *placed[2:]
        else:
            if isinstance(self.resize, int):
                wide, high = short_sides(height, width, self.resize)
            else:
                high, wide = self.resize
            top, left = (high - self.height) // 2, (wide - self.width) // 2
        down, across = height / high, width / wide
        return Box(
            top * down, left * across, (top + self.height) * down, (left + self.width) * across
        )

    def normalize(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to float32 [N, C, H, W]: pixel * scale, rounded, + offset."""
        array = isinstance(images, np.ndarray)  # which may be empty
        height, width, channels = images.shape[1:] if array else images[0].shape
        result = np.empty((len(images), channels, height, width), np.float32)
        # A table's look-up gives the same numbers as the arithmetic, in half the time.
        values = np.arange(256, dtype=np.float32)[:, None] * self.scale
        tables = np.ascontiguousarray((values + self.offset).T)
        for image, planes in zip(images, result, strict=True):
            for part, table, plane in zip(cv2.split(image), tables, planes, strict=True):
                cv2.LUT(part, table, dst=plane)
        return result

    def network_input(self, images: Sequence[np.ndarray] | np.ndarray, kind: str) -> np.ndarray:
        """Preprocessed images, uint8 [H, W, C] each, as a network takes them.

        Args:
            kind: "float32", normalised here, [N, C, H, W]; or "uint8", which the network
                normalises itself, [N, H, W, C].
        """
        if kind == "float32":
            return self.normalize(images)
        return images if isinstance(images, np.ndarray) else np.stack(images)

    def from_network_input(self, image: np.ndarray) -> np.ndarray:
        """The image that `network_input` made this of, uint8 [H, W, C]; of one that it cannot have
        made, the nearest.

        Args:
            image: float32 [C, H, W], or uint8 [H, W, C].
        """
        if image.dtype == np.uint8:
            return image
        planes = zip(image, self.scale.tolist(), self.offset.tolist(), strict=True)
        found = [
            cv2.addWeighted(plane, 1 / scale, plane, 0, -offset / scale, dtype=cv2.CV_8U)
            for plane, scale, offset in planes
        ]
        return cv2.merge(found).reshape(*image.shape[1:], len(image))

    def to_ops(self) -> list[dict[str, Any]]:
        """The `transform_ops` of an inference.yml, with the names PaddleX 3 knows, but for the
        letterbox, which it has not. Two sides are width and height there.
        """
        way = {
            "interpolation": WRITTEN[self.backend][self.interpolation],
            "backend": self.backend,
        }
        size = [self.width, self.height]
        if self.fit == "letterbox":
            shown = [{LETTERBOX: {"size": size, "fill": self.fill, **way}}]
        elif self.fit == "squash":
            shown = [{"ResizeImage": {"size": size, **way}}]
        else:
            resized = (
                {"resize_short": self.resize}
                if isinstance(self.resize, int)
                else {"size": list(self.resize[::-1])}
            )
            crop = self.crop if isinstance(self.crop, int) else size
            shown = [{"ResizeImage": {**resized, **way}}, {"CropImage": {"size": crop}}]
        normalize = {
            "channel_num": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": 1 / 255,
            "order": "",
        }
        return [
            *shown,
            {"NormalizeImage": normalize},
            {"ToCHWImage": None},
        ]

    @classmethod
    def from_ops(cls, ops: list[dict[str, Any]]) -> "Preprocess":
        """Read `transform_ops` as `to_ops`, PaddleX or PaddleClas write them.

        UserError names an op or argument that is unknown or that no Preprocess can represent.
        """
        found = read_ops(ops)
        fields = {**read_fit(found), **read_normalize(found["NormalizeImage"])}
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{part}: " for part in place_of(first["loc"]))
            problem = first["msg"].removeprefix("Value error, ")
            raise UserError(f"transform_ops: {place}{problem}") from None


# PaddleX's names of interpolations, by backend …
WRITTEN = {
    "cv2": {
        "nearest": "NEAREST",
        "bilinear": "LINEAR",
        "bicubic": "BICUBIC",
        "area": "AREA",
        "lanczos": "LANCZOS4",
    },
    "pil": {
        "nearest": "NEAREST",
        "bilinear": "BILINEAR",
        "bicubic": "BICUBIC",
        "area": "BOX",
        "lanczos": "LANCZOS4",
    },
}
# … and what it and PaddleClas read, in any case; nothing given means bilinear (cv2), bicubic (pil).
READ = {name: ours for names in WRITTEN.values() for ours, name in names.items()}
READ |= {"LANCZOS": "lanczos"}

LETTERBOX = "LetterboxImage"  # an op of ours; its size, too, is width and height

# The ops known here, in their order, and what PaddleX and PaddleClas take for what is left out.
KNOWN: dict[str, dict[str, Any]] = {
    "DecodeImage": {
        "to_rgb": True,
        "img_mode": "RGB",
        "channel_first": False,
        "to_np": True,
        "backend": "cv2",
    },
    "ResizeImage": {
        "resize_short": None,
        "size": None,
        "interpolation": None,
        "backend": "cv2",
        "return_numpy": True,
    },
    LETTERBOX: {"size": None, "fill": 114, "interpolation": None, "backend": "cv2"},
    "CropImage": {"size": 224},
    "NormalizeImage": {
        "channel_num": 3,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "scale": 1 / 255,
        "order": "",
    },
    "ToCHWImage": {},
}


def read_ops(ops: Any) -> dict[str, dict[str, Any]]:
    """Arguments by op, left-out ones filled in; UserError unless all are known and in order."""
    names = []
    found = {}
    for entry in ops if isinstance(ops, list) else [ops]:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise UserError(
                f"transform_ops: {visible(repr(entry), 100)} is not an op like "
                "CropImage: {size: 224}"
            )
        ((name, given),) = entry.items()
        if name not in KNOWN:
            raise UserError(
                f"transform_ops: unknown op {quoted(name)}; known are {', '.join(KNOWN)}"
            )
        if not isinstance(given or {}, dict) or set(given or {}) - set(KNOWN[name]):
            raise UserError(
                f"{name}: cannot read {visible(repr(given), 100)}; "
                f"known are {', '.join(KNOWN[name])}"
            )
        names.append(name)
        found[name] = {**KNOWN[name], **(given or {})}
    absent = {"DecodeImage", "ResizeImage" if LETTERBOX in names else LETTERBOX}
    if LETTERBOX in names or not (found.get("ResizeImage") or {"resize_short": 1})["resize_short"]:
        absent.add("CropImage")
    needed = [name for name in KNOWN if name not in absent or name in names]
    if names != needed:
        raise UserError(
            f"transform_ops: {names} cannot be represented, only {needed} in this order"
        )
    decode = found.get("DecodeImage", KNOWN["DecodeImage"])
    if not decode["to_rgb"] or decode["img_mode"] != "RGB" or decode["channel_first"]:
        raise UserError("DecodeImage: only RGB with channels last can be represented")
    return found


def read_fit(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How images are brought to their size, by field of a Preprocess."""
    name = LETTERBOX if LETTERBOX in found else "ResizeImage"
    arguments = found[name]
    fields = read_resampling(name, arguments)
    if name == LETTERBOX:
        crop = read_size(name, arguments["size"])
        return {"fit": "letterbox", "crop": crop, "fill": arguments["fill"], **fields}
    if arguments["resize_short"]:
        resize = arguments["resize_short"]
        if isinstance(resize, list):
            raise UserError(f"{name}: resize_short {visible(repr(resize), 100)} is no number")
    else:
        resize = read_size(name, arguments["size"])
    if "CropImage" not in found:
        return {"fit": "squash", "crop": resize, **fields}
    return {"resize": resize, "crop": read_size("CropImage", found["CropImage"]["size"]), **fields}


def read_resampling(op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Interpolation and backend of an op that resizes."""
    backend = str(arguments["backend"]).lower()
    name = arguments["interpolation"] or ("BICUBIC" if backend == "pil" else "LINEAR")
    if str(name).upper() not in READ:
        raise UserError(f"{op}: unknown interpolation {quoted(name)}; known are {', '.join(READ)}")
    return {"interpolation": READ[str(name).upper()], "backend": backend}


def read_size(op: str, size: Any) -> tuple[Any, Any]:
    """Height and width of a size that is a number, or width and height."""
    if isinstance(size, list) and len(size) == 2:
        return size[1], size[0]
    if isinstance(size, int):
        return size, size
    raise UserError(f"{op}: size {visible(repr(size), 100)} should be a number, or [width, height]")


def read_normalize(arguments: dict[str, Any]) -> dict[str, Any]:
    """NormalizeImage's part: mean and std of pixels scaled to 0..1, whatever its own scale is."""
    mean = arguments["mean"]
    std = arguments["std"]
    scale = arguments["scale"]
    if arguments["order"] not in ("", "hwc"):
        raise UserError(f"NormalizeImage: order {quoted(arguments['order'])} is not '' or 'hwc'")
    for values in (mean, std):
        if not isinstance(values, list) or not all(map(is_small, values)):
            raise UserError("NormalizeImage: mean and std are lists of one number per channel")
    if arguments["channel_num"] != len(mean):
        raise UserError(
            f"NormalizeImage: channel_num {quoted(arguments['channel_num'])} with a mean of "
            f"{plural(len(mean), 'value')} cannot be represented"
        )
    top, _, bottom = str(scale).partition("/")
    try:
        factor = 255 * float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        factor = math.nan
    if not 0 < factor < math.inf:
        raise UserError(
            f"NormalizeImage: scale {quoted(scale)} is not a number above 0, like 1.0/255.0"
        )
    # PaddleClas also writes 1/255 rounded, as 0.00392157.
    if abs(factor - 1) < 1e-6:
        factor = 1.0
    return {"mean": [value / factor for value in mean], "std": [value / factor for value in std]}


def is_small(value: Any) -> bool:
    """Whether a value is a finite number as a mean of pixels may be."""
    return isinstance(value, int | float) and -1e9 < value < 1e9

"""What every image goes through before the network, in evaluation and deployment.

Also read and written as the `transform_ops` of PaddleX and PaddleClas.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ArgsKwargs

from ppcls.config.node import Float, Positive, Side, node
from ppcls.utils.errors import UserError
from ppcls.utils.opencv import cv2
from ppcls.utils.text import plural, quoted, visible

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Backend = Literal["cv2", "pil"]

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
    wide = round(width * scale)
    high = round(height * scale)
    if max(wide, high) > LONGEST:
        raise UserError(
            f"an image of {width}x{height} pixels is too narrow to resize its short side to "
            f"{pixels}; crop it first"
        )
    return wide, high


def resize_short(
    image: np.ndarray, pixels: int, interpolation: Interpolation, backend: Backend
) -> np.ndarray:
    """The image with its short side `pixels` long; UserError as `short_sides`."""
    wide, high = short_sides(image.shape[0], image.shape[1], pixels)
    return resize(image, wide, high, interpolation, backend)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle [size, size, C] of an image at least that large: a view."""
    top = (image.shape[0] - size) // 2
    left = (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


# --------------------------------------------------------------------------
# What a recipe and an inference.yml say of it

KEYS = ("resize", "crop", "interpolation", "backend", "mean", "std")
STATED = "_stated"  # where a Preprocess keeps which of them were given


@node
class Preprocess:
    """The short side resized to `resize` pixels, the middle `crop` x `crop` cut out, and per
    channel (pixel / 255 - mean) / std.

    What is not `stated` has the values of ImageNet's usual weights, until a recipe's own weights
    say better.
    """

    resize: Side = 256  # pixels of the short side
    crop: Side = 224  # pixels of the square cut out of the middle
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
        if {"resize", "crop"} <= set(keys) and self.resize < self.crop:
            raise ValueError(
                f"resize {self.resize} is below crop {self.crop}: raise resize or lower crop"
            )
        fits = len(self.mean) == len(self.std) and len(self.mean) in (1, 3, 4)
        if {"mean", "std"} <= set(keys) and not fits:
            raise ValueError(
                f"mean has {plural(len(self.mean), 'value')} and std {len(self.std)}: give "
                "each one value "
                "per channel, 1 (grey), 3 (RGB) or 4 (RGBA)"
            )

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
        """uint8 [H, W, C] to uint8 [crop, crop, C]; UserError for an image extremely narrow."""
        resized = resize_short(image, self.resize, self.interpolation, self.backend)
        return np.ascontiguousarray(center_crop(resized, self.crop))

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

    def to_ops(self) -> list[dict[str, Any]]:
        """The `transform_ops` of an inference.yml, with the names PaddleX 3 knows."""
        resize = {
            "resize_short": self.resize,
            "interpolation": WRITTEN[self.backend][self.interpolation],
            "backend": self.backend,
        }
        normalize = {
            "channel_num": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": 1 / 255,
            "order": "",
        }
        return [
            {"ResizeImage": resize},
            {"CropImage": {"size": self.crop}},
            {"NormalizeImage": normalize},
            {"ToCHWImage": None},
        ]

    @classmethod
    def from_ops(cls, ops: list[dict[str, Any]]) -> "Preprocess":
        """Read `transform_ops` as `to_ops`, PaddleX or PaddleClas write them.

        UserError names an op or argument that is unknown or that no Preprocess can represent.
        """
        found = read_ops(ops)
        fields = {
            **read_resize(found["ResizeImage"]),
            **read_crop(found["CropImage"]),
            **read_normalize(found["NormalizeImage"]),
        }
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{part}: " for part in first["loc"])
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
    needed = [name for name in KNOWN if name != "DecodeImage" or name in names]
    if names != needed:
        raise UserError(
            f"transform_ops: {names} cannot be represented, only {needed} in this order"
        )
    decode = found.get("DecodeImage", KNOWN["DecodeImage"])
    if not decode["to_rgb"] or decode["img_mode"] != "RGB" or decode["channel_first"]:
        raise UserError("DecodeImage: only RGB with channels last can be represented")
    return found


def read_resize(arguments: dict[str, Any]) -> dict[str, Any]:
    """ResizeImage's part of a Preprocess, by field."""
    if not arguments["resize_short"]:
        raise UserError(
            f"ResizeImage: size {arguments['size']} does not keep an image's shape and cannot be "
            "represented; use resize_short"
        )
    backend = str(arguments["backend"]).lower()
    name = arguments["interpolation"] or ("BICUBIC" if backend == "pil" else "LINEAR")
    if str(name).upper() not in READ:
        raise UserError(
            f"ResizeImage: unknown interpolation {quoted(name)}; known are {', '.join(READ)}"
        )
    interpolation = READ[str(name).upper()]
    resize = arguments["resize_short"]
    return {"resize": resize, "interpolation": interpolation, "backend": backend}


def read_crop(arguments: dict[str, Any]) -> dict[str, Any]:
    """CropImage's part: its side, given as a number or as two equal ones."""
    size = arguments["size"]
    width, height = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if width != height:
        raise UserError(f"CropImage: size {size} is not square and cannot be represented")
    return {"crop": width}


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

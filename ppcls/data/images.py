"""Photo files and arrays as uint8 pixels [H, W, C].

OpenCV decodes ordinary JPEGs, Pillow everything else, with the same result. Both give the colours
as stored: no ICC profile is applied.
"""

import io
import re
import struct
import warnings
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ppcls.data.paths import Member
from ppcls.errors import UserError
from ppcls.utils.text import plural

# Data workers are processes, one a core: threads inside each would only compete with the others,
# and a process forked while OpenCV's thread pool runs can hang. Results do not change.
cv2.setNumThreads(0)
# Pillow warns of damaged metadata, which is common and changes no pixel; damaged pixels raise.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

# Photos are found in folders by these endings, in any case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# Only these decoders see the bytes; Pillow has others that start programs (EPS) or are little used.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# JPEG markers: frame headers OpenCV and Pillow decode alike (baseline, extended, progressive) …
FRAMES, SCAN, END, APP1 = (0xC0, 0xC1, 0xC2), 0xDA, 0xD9, 0xE1
SEGMENT = re.compile(rb"\xff+([\x01-\xfe])")
# … and the first one after a scan's data, in which only restarts and the escaped byte FF occur.
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Pixels that a byte of a JPEG stands for at most: Huffman codes spend a bit on each block of 8x8.
DENSEST = 512
# Pixels up to which OpenCV decodes; Pillow looks after larger photos and its limit.
LARGE = 1 << 26
# Tags of TIFF, which EXIF blocks are written in.
BITS, PHOTOMETRIC, ORIENTATION = 258, 262, 274
# EXIF orientation → cv2.flip's code (0 rows, 1 columns, -1 both), after the exchange of 5 to 8.
FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}

CONVERSIONS = {
    (1, 3): cv2.COLOR_GRAY2RGB,
    (1, 4): cv2.COLOR_GRAY2RGBA,
    (3, 1): cv2.COLOR_RGB2GRAY,
    (3, 4): cv2.COLOR_RGB2RGBA,
    (4, 1): cv2.COLOR_RGBA2GRAY,
    (4, 3): cv2.COLOR_RGBA2RGB,
}


def read(path: str | PathLike, channels: int = 3) -> np.ndarray:
    """The photo at `path` as `decode` gives it; UserError names the path."""
    return decode(read_bytes(path), channels, str(path))


def read_bytes(path: str | PathLike) -> bytes:
    """The bytes of a photo: of a file, or of a `Member` of one; UserError names the path."""
    try:
        return path.read() if isinstance(path, Member) else Path(path).read_bytes()
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a photo in it") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; change its permissions") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def decode(data: bytes, channels: int, name: str) -> np.ndarray:
    """A photo file's bytes as uint8 [H, W, channels], contiguous: 1 grey, 3 RGB, 4 RGBA.

    Turned as its EXIF block says; the first frame of several; of 16 bits the upper 8. Alpha is
    dropped for grey and RGB (hidden pixels keep their stored colour) and 255 where there is none.
    Truncated, damaged, too large and other files raise UserError, naming `name`. Not seen are
    damaged bits inside a JPEG or BMP whose structure is whole: they decode to wrong pixels, for
    JPEG with a line on stderr from libjpeg. Above 89 million pixels Pillow warns, above 179 million
    the photo is refused.
    """
    if not data:
        raise UserError(f"{name}: empty file; replace or remove it")
    pixels = decode_jpeg(data)
    if pixels is None:
        pixels = decode_any(data, name)
    return convert(pixels, channels)


def convert(array: np.ndarray, channels: int) -> np.ndarray:
    """An array of pixels as uint8 [H, W, channels], contiguous; `array` is uint8 [H, W] or
    [H, W, 1 | 3 | 4] in the order RGBA.

    Grey is 0.299 R + 0.587 G + 0.114 B. UserError for another dtype, shape or count of channels.
    """
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise UserError(
            f"an image is a uint8 array [H, W] or [H, W, 1 | 3 | 4] with values 0 to 255, "
            f"not {array.dtype} {list(array.shape)}"
        )
    have = pixels.shape[2]
    if have not in (1, 3, 4) or channels not in (1, 3, 4):
        raise UserError(f"an image has 1, 3 or 4 channels: cannot make {channels} of {have}")
    if have != channels:
        pixels = cv2.cvtColor(pixels, CONVERSIONS[have, channels])
    return np.ascontiguousarray(pixels).reshape(*pixels.shape[:2], channels)


def decode_jpeg(data: bytes) -> np.ndarray | None:
    """An ordinary, complete JPEG by OpenCV: [H, W, 1 | 3]; None for everything else."""
    layout = jpeg_layout(data)
    if layout is None:
        return None
    components, exif = layout
    colour = cv2.IMREAD_GRAYSCALE if components == 1 else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None:
        return None
    return turn(pixels, orientation(exif))


def jpeg_layout(data: bytes) -> tuple[int, bytes] | None:
    """The number of components (1 or 3) and the EXIF block of a JPEG with 8 bits, Huffman coded,
    whole up to its end-of-image marker; None for any other file.

    OpenCV may decode a truncated JPEG without complaint, its rest grey, hence this look. Segments
    are skipped by their lengths, so thumbnails inside them and bytes after the end do not mislead.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    place, components, exif = 2, 0, b""
    while segment := SEGMENT.match(data, place):
        marker, start = segment[1][0], segment.end()
        if marker == END:
            return (components, exif) if components in (1, 3) else None
        place = start + int.from_bytes(data[start : start + 2], "big")
        if marker in FRAMES:
            height = int.from_bytes(data[start + 3 : start + 5], "big")
            width = int.from_bytes(data[start + 5 : start + 7], "big")
            most = min(LARGE, DENSEST * len(data))
            if data[start + 2 : start + 3] != b"\x08" or not 0 < height * width <= most:
                return None
            components = int.from_bytes(data[start + 7 : start + 8], "big")
        elif marker == APP1 and not exif and data.startswith(b"Exif\0\0", start + 2):
            exif = data[start + 2 : place]
        elif marker == SCAN:
            after = AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
    return None


def decode_any(data: bytes, name: str) -> np.ndarray:
    """The first frame of any photo by Pillow: uint8 [H, W, 1 | 3 | 4]."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # libjpeg would fill up what is not there with grey, for seconds where it is much.
        if image.format == "JPEG" and image.width * image.height > DENSEST * len(data):
            raise OSError(
                f"{plural(len(data), 'byte')} cannot hold {image.width}x{image.height} pixels"
            )
        image.load()
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a JPEG, PNG, WebP, BMP, TIFF or GIF, or cut short") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: too large: {error}") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes.
        problem = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: truncated or damaged photo ({problem})") from error
    # A TIFF has no such block: Pillow has turned it already.
    return turn(pixels_of(image, name), orientation(image.info.get("exif", b"")))


def pixels_of(image: Image.Image, name: str) -> np.ndarray:
    """A loaded image of any mode as uint8 [H, W, 1 | 3 | 4]."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return upper_bits(image, name)[..., None]
    if image.mode == "La":  # grey times alpha, from which Pillow goes nowhere else
        image = image.convert("LA")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    if image.has_transparency_data:
        mode = "RGBA"
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def upper_bits(image: Image.Image, name: str) -> np.ndarray:
    """Grey of more than 8 bits as uint8 [H, W]: the upper 8 bits of 16, or of TIFF's 12."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name}: values {values.min():g} to {values.max():g} have no agreed meaning as grey; "
            "save it with 8 or 16 bits"
        )
    tags = getattr(image, "tag_v2", {})
    grey = (values >> (4 if tags.get(BITS) == (12,) else 8)).astype(np.uint8)
    # Pillow leaves 16-bit files alone whose zero is white.
    return 255 - grey if tags.get(PHOTOMETRIC) == 0 else grey


def orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where the block is empty, damaged or does not say.

    Read here because Pillow's reader warns of much that is no matter, and raises at the rest.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _type, _count, value = struct.unpack_from(order + "HHIH", block, place)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels [H, W, C] of a photo stored in EXIF's orientation 1 to 8, upright."""
    turned = cv2.transpose(pixels) if orientation >= 5 else pixels
    if orientation in FLIPS:
        turned = cv2.flip(turned, FLIPS[orientation])
    return turned if turned.ndim == 3 else turned[..., None]

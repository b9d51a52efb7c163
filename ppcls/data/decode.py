"""Image files and arrays as uint8 pixels [H, W, C].

OpenCV decodes ordinary JPEGs, Pillow (with pillow-heif for HEIC) everything else, with the same
result. Both give the colours as stored: no ICC profile is applied.
"""

import io
import os
import re
import struct
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from os import PathLike

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ppcls.data.samples import Address, Drawn, Member
from ppcls.utils.errors import AWAY, LATER, AwayError, UserError
from ppcls.utils.files import existing, read_file
from ppcls.utils.opencv import cv2
from ppcls.utils.text import plural, visible

# Data workers are processes, one a core: threads inside each would only compete with the others,
# and a process forked while OpenCV's thread pool runs can hang. Results do not change.
cv2.setNumThreads(0)
# Pillow warns of damaged metadata, which is common and changes no pixel; damaged pixels raise.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

# Images are found in folders by these endings, in any case; each with the format it stands for.
FORMAT_OF = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".jfi": "JPEG",
    ".jif": "JPEG",
    ".pjpeg": "JPEG",
    ".pjp": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
}
SUFFIXES = tuple(FORMAT_OF)
EXPECTED = "JPEG, PNG, WebP, BMP, TIFF or GIF"  # in messages
# … and by these, where a decoder of theirs is installed: Pillow 11.3 or later, pillow-heif.
AVIF = {".avif": "AVIF"}
HEIF = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF"}
# Endings of other pictures, of which a folder may hold many: what passes them over says so.
# fmt: off
OTHER_SUFFIXES = frozenset((
    ".3fr", ".ai", ".arw", ".bpg", ".cr2", ".cr3", ".crw",
    ".cur", ".dcm", ".dcr", ".dds", ".dib", ".djvu", ".dng", ".dpx",
    ".emf", ".eps", ".erf", ".exr", ".fits", ".hdp", ".hdr", ".icns",
    ".ico", ".iiq", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpm",
    ".jpx", ".jxl", ".jxr", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pam", ".pbm", ".pcx", ".pef", ".pfm",
    ".pgm", ".pict", ".pnm", ".ppm", ".psb", ".psd", ".qoi", ".raf",
    ".ras", ".raw", ".rgb", ".rw2", ".rwl", ".sgi", ".sr2", ".srf",
    ".srw", ".svg", ".svgz", ".tga", ".wdp", ".wmf", ".x3f", ".xbm",
    ".xcf", ".xpm",
))
# fmt: on

# Only these decoders see the bytes; Pillow has others that start programs (EPS) or are little used.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# What an image's bytes begin with, and the ending of a file of that kind.
KINDS = (
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), ".bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), ".tif"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"....ftyp(avi[fs]|m[is]f1(....)+?avi[fs])", re.DOTALL), ".avif"),
    (re.compile(rb"....ftyp(he[iv][cmsx]|m[is]f1)", re.DOTALL), ".heic"),
)
HEAD = 64  # bytes that tell a kind
# JPEG markers: frame headers OpenCV and Pillow decode alike (baseline, extended, progressive) …
FRAMES = (0xC0, 0xC1, 0xC2)
SCAN = 0xDA
END = 0xD9
APP1 = 0xE1
SEGMENT = re.compile(rb"\xff+([\x01-\xfe])")
# … and the first one after a scan's data, in which only restarts and the escaped byte FF occur.
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Pixels that a byte of a JPEG stands for at most: Huffman codes spend a bit on each block of 8x8.
DENSEST = 512
# … and of any image: others pack what is of one colour better, which matters where it is large.
FREE = 1 << 24  # pixels that an image may have whatever its size in bytes
MOST_SCANS = 200  # of a JPEG, each of which goes over all pixels; programs write up to some 20
# Pixels up to which OpenCV decodes; Pillow looks after larger images and its limit.
LARGE = 1 << 26
# Tags of TIFF, which EXIF blocks are written in, and bytes of a value by its type's number.
BLOCKS = (34665, 34853, 40965)  # whose values are the places of further tags
WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
BITS = 258
IMAGEMETRIC = 262
ORIENTATION = 274
SAMPLE_FORMAT = 339
SIGNED = 2
# OpenCV before 4.11 gives the colours in the other order only.
COLOUR = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)
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
    """The image at `path` as `decode` gives it; UserError names the path."""
    if isinstance(path, Drawn):
        return path.pixels(channels)
    return decode(read_bytes(path), channels, str(path))


def read_bytes(path: str | PathLike) -> bytes:
    """The bytes of an image: of a plain file, or of a `Member` of one; UserError names the path."""
    try:
        return path.read() if isinstance(path, Address | Member | Drawn) else read_file(path)
    except UserError:
        raise
    except FileNotFoundError:
        spelt = existing(path)
        if spelt != str(path):
            return read_bytes(spelt)
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name an image in it") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; change its permissions") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        said = f"{visible(str(path))}: cannot be read ({reason})"
        if getattr(error, "errno", None) in AWAY:
            raise AwayError(f"{said}; {LATER}") from error
        raise UserError(said) from error


@cache
def readable() -> frozenset[str]:
    """The endings of all images that can be read here: SUFFIXES, and what is installed besides."""
    return frozenset({*SUFFIXES, *(AVIF if reads_avif() else ()), *(HEIF if reads_heif() else ())})


def reads_avif() -> bool:
    return "avif" in features.modules and bool(features.check("avif"))


def reads_heif() -> bool:
    return find_spec("pillow_heif") is not None


def format_named(path: str) -> str | None:
    """Pillow's name of the format that a file's ending stands for; None where it stands for none.

    A JPEG may be an MPO to Pillow: several JPEGs in one file, as telephones write.
    """
    return (FORMAT_OF | AVIF | HEIF).get(os.path.splitext(path)[1].lower())


def kind_of(head: bytes) -> str:
    """The ending that belongs to a file which begins so, such as `.jpg`; "" if it is no image."""
    return next((ending for start, ending in KINDS if start.match(head)), "")


def open_image(data: bytes, name: str) -> Image.Image:
    """Pillow's image of an image file's bytes, its header read; no other decoder sees them.

    Raises:
        UserError: an image that only a package reads which is not here.
        Exception: what Pillow raises, `UnidentifiedImageError` where it is no image.
    """
    kind = kind_of(data[:HEAD])
    if kind == ".tif" and not tags_fit(data):
        raise UserError(f"{name}: damaged image (its tags hold more than the file); save it again")
    if kind not in (".avif", ".heic"):
        return Image.open(io.BytesIO(data), formats=FORMATS)
    if kind == ".avif" and reads_avif():
        # As with OpenCV: images are read side by side, threads of one would only compete.
        setattr(import_module("PIL.AvifImagePlugin"), "DEFAULT_MAX_THREADS", 1)  # noqa: B010
        return Image.open(io.BytesIO(data), formats=("AVIF",))
    if kind == ".heic" and reads_heif():
        try:
            register_heif()
        except (ImportError, OSError) as error:
            raise UserError(f"{name}: pillow-heif cannot be loaded ({error})") from None
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    words = {
        ".avif": "an AVIF image: install pillow 11.3 or later",
        ".heic": "a HEIC image: pip install pillow-heif",
    }
    raise UserError(f"{name}: {words[kind]}, or convert it to JPEG or PNG")


@cache
def register_heif() -> None:
    """Make pillow-heif one of Pillow's decoders."""
    module = import_module("pillow_heif")
    module.options.DECODE_THREADS = 1
    module.register_heif_opener()


def decode(data: bytes, channels: int, name: str) -> np.ndarray:
    """An image file's bytes as uint8 [H, W, channels], contiguous: 1 grey, 3 RGB, 4 RGBA.

    Turned as its EXIF block says; the first frame of several; of 16 bits the upper 8. Alpha is
    dropped for grey and RGB (hidden pixels keep their stored colour) and 255 where there is none.
    Truncated, damaged, too large and other files raise UserError, naming `name`. Not seen are
    damaged bits inside a JPEG or BMP whose structure is whole: they decode to wrong pixels, for
    JPEG with a line on stderr from libjpeg. Above 89 million pixels Pillow warns, above 179 million
    the image is refused.
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
    colour = cv2.IMREAD_GRAYSCALE if components == 1 else COLOUR
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None:
        return None
    if colour == cv2.IMREAD_COLOR:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return turn(pixels, orientation(exif))


def jpeg_layout(data: bytes) -> tuple[int, bytes] | None:
    """The number of components (1 or 3) and the EXIF block of a JPEG with 8 bits, Huffman coded,
    whole up to its end-of-image marker; None for any other file.

    OpenCV may decode a truncated JPEG without complaint, its rest grey, hence this look. Segments
    are skipped by their lengths, so thumbnails inside them and bytes after the end do not mislead.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    place = 2
    components = 0
    scans = 0
    exif = b""
    while segment := SEGMENT.match(data, place):
        marker = segment[1][0]
        start = segment.end()
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
            scans += 1
            if scans > MOST_SCANS:
                return None
            after = AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
    return None


def too_many_scans(data: bytes) -> bool:
    """Whether a JPEG goes over its pixels again and again: a scan takes 12 bytes."""
    place = 2
    scans = 0
    while scans <= MOST_SCANS and (segment := SEGMENT.match(data, place)):
        start = segment.end()
        place = start + int.from_bytes(data[start : start + 2], "big")
        if segment[1][0] == END:
            return False
        if segment[1][0] == SCAN:
            scans += 1
            after = AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
    return scans > MOST_SCANS


def tags_fit(data: bytes) -> bool:
    """Whether the tags of a TIFF's first picture hold no more than the file has.

    Pillow keeps the bytes of each, and thousands may stand for the same ones.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count, entry = (order + "Q", order + "HHQQ") if big else (order + "H", order + "HHII")
    inside = 8 if big else 4  # bytes of a value that stands in its entry
    left = 2 * len(data)
    waiting = [8 if big else 4]
    seen = set()
    try:
        waiting = list(struct.unpack_from(order + ("Q" if big else "I"), data, waiting[0]))
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            (entries,) = struct.unpack_from(count, data, place)
            place += struct.calcsize(count)
            for _ in range(entries):
                tag, kind, many, value = struct.unpack_from(entry, data, place)
                place += struct.calcsize(entry)
                size = many * WIDTHS[kind] if kind < len(WIDTHS) else 0
                left -= size if size > inside else 0
                if left < 0:
                    return False
                waiting += [value] if tag in BLOCKS else []
    except struct.error:  # cut short, which Pillow says
        pass
    return True


def check_density(image: Image.Image, size: int, name: str) -> None:
    """UserError for a large picture in so few bytes as no image has."""
    pixels = image.width * image.height
    packed = image.format == "BMP" and any(
        "bmp_rle" in str(tile) for tile in getattr(image, "tile", ())
    )
    if pixels > (FREE if packed else max(FREE, DENSEST * size)):
        raise UserError(
            f"{name}: {image.width}x{image.height} pixels in {plural(size, 'byte')}, which no "
            "image has; save a smaller one"
        )


def decode_any(data: bytes, name: str) -> np.ndarray:
    """The first frame of any image by Pillow: uint8 [H, W, 1 | 3 | 4]."""
    try:
        image = open_image(data, name)
        # libjpeg would fill up what is not there with grey, for seconds where it is much.
        if image.format == "JPEG" and image.width * image.height > DENSEST * len(data):
            raise OSError(
                f"{plural(len(data), 'byte')} cannot hold {image.width}x{image.height} pixels"
            )
        check_density(image, len(data), name)
        if data.startswith(b"\xff\xd8") and too_many_scans(data):
            raise UserError(f"{name}: a JPEG of more than {MOST_SCANS} scans; save it again")
        image.load()
    except UserError:
        raise
    except UnidentifiedImageError:
        what = f"not a {EXPECTED}, or cut short"
        if kind_of(data[:HEAD]) == ".tif":
            what = "a TIFF with a kind of values that is not read, or cut short; save it as PNG"
        raise UserError(f"{name}: {what}") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: too large: {error}") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes.
        problem = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: truncated or damaged image ({problem})") from error
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
    if getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT) == (SIGNED,) and pixels.max() > 127:
        raise UserError(f"{name}: values below 0 have no agreed meaning as grey; save it as PNG")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def upper_bits(image: Image.Image, name: str) -> np.ndarray:
    """Grey of more than 8 bits as uint8 [H, W]: the upper 8 bits of 16, or of TIFF's 12.

    Programs also write grey as integers of 32 bits, or of 16 with a sign, because they compute
    with these: up to 255 these are values of 8 bits, else of 16.
    """
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name}: values {values.min():g} to {values.max():g} have no agreed meaning as grey; "
            "save it with 8 or 16 bits"
        )
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS)
    signed = tags.get(SAMPLE_FORMAT) == (SIGNED,)
    unused = 4 if bits == (12,) else 8
    if (bits == (32,) or signed) and values.max() <= 255:
        unused = 0
    grey = (values >> unused).astype(np.uint8)
    # Pillow leaves 16-bit files alone whose zero is white.
    return 255 - grey if tags.get(IMAGEMETRIC) == 0 else grey


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
    """The pixels [H, W, C] of an image stored in EXIF's orientation 1 to 8, upright."""
    turned = cv2.transpose(pixels) if orientation >= 5 else pixels
    if orientation in FLIPS:
        turned = cv2.flip(turned, FLIPS[orientation])
    return turned if turned.ndim == 3 else turned[..., None]

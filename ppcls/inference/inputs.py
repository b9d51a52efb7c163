"""What `Predictor` is given: images of many kinds as arrays, and arguments checked."""

import glob
import operator
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppcls.data import decode
from ppcls.data.class_names import by_number, is_index, is_name
from ppcls.data.datasets import LIST_SUFFIXES, images_in, say_passed_over
from ppcls.data.decode import EXPECTED
from ppcls.data.folders import PassedOver, is_image, with_passed_over
from ppcls.data.lists import listed_paths
from ppcls.data.preprocess import Preprocess
from ppcls.data.samples import Paths
from ppcls.inference import video
from ppcls.utils import environment, web
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import existing, expanded
from ppcls.utils.opencv import cv2
from ppcls.utils.text import did_you_mean, first_of, one_line, plural, visible

ON_ERROR = ("stop", "skip")
ALIKE = {"cuda": "gpu", "half": "fp16", "float16": "fp16", "float32": "fp32", "bfloat16": "bf16"}


def whole_number(name: str, value: Any) -> int:
    """A number from 1 of any integer type."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise UserError(f"{name} ({shown(value)}) should be a whole number from 1")
    return number


def side_or_pair(name: str, value: Any) -> int | tuple[int, ...]:
    """A number of pixels, or a height and a width."""
    listed = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if not listed:
        return whole_number(name, value)
    if len(value) != 2:
        raise UserError(f"{name} ({shown(value)}) should be a number, or height and width")
    return tuple(whole_number(name, side) for side in value)


def thread_count(value: Any) -> int:
    """A number of CPU threads that a machine can start: libraries crash, or wait, with more."""
    number = whole_number("threads", value)
    cores = environment.core_count()
    most = environment.most_at_once()
    if number > most:
        raise UserError(
            f"threads ({number}): more than {plural(cores, 'core')} can serve, {most} at most; "
            f"{cores} are as many as compute at once"
        )
    return number


def share(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:
        raise UserError(f"{name} ({shown(value)}) should be a number from 0 to 1")
    return float(value)


def seconds(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < float(value) < 1e9:
        raise UserError(f"{name} ({shown(value)}) should be a number of seconds above 0")
    return float(value)


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    word = ALIKE.get(value.lower(), value) if isinstance(value, str) else ""
    hint = f"; did you mean {word!r}?" if word in known else did_you_mean(word, known)
    raise UserError(f"{name} ({shown(value)}) is unknown{hint}; known are {', '.join(known)}")


def folder_name(value: Any) -> str | PathLike[str]:
    if not isinstance(value, (str, PathLike)):
        raise UserError(f"folder ({shown(value)}) should be the path of an exported folder")
    return value


def numbered(value: Mapping[Any, Any]) -> list[tuple[int, str]]:
    """Names by their numbers, `{0: "tench"}`, or numbers by their names; UserError for others."""
    pairs = list(value.items())
    if pairs and all(isinstance(name, (int, np.integer)) for _, name in pairs):
        pairs = [(number, name) for name, number in pairs]
    found = [(int(key), name) for key, name in pairs if is_index(str(key)) and is_name(name)]
    if not pairs or len(found) < len(pairs):
        text = f"labels ({shown(value)}) should be names by number, {{0: 'tench', …}}, or a list"
        raise UserError(text)
    return found


def class_names(value: Any) -> str | PathLike[str] | Sequence[str]:
    """A file of names (or `imagenet`), a sequence of them, or names and numbers by each other."""
    if isinstance(value, (str, PathLike)):
        return value
    if isinstance(value, (bytes, Set)) or not isinstance(value, Iterable):
        text = f"labels ({shown(value)}) should be a list of class names, or a file of them"
        raise UserError(text)
    if isinstance(value, Mapping):
        return by_number([("labels", number, name) for number, name in numbered(value)], "labels")
    names = list(value)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise UserError(f"labels: {shown(wrong[0])} should be a class name in quotes")
    return names


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{name} is no argument of Predictor{hint}; known: {', '.join(known)}")


def shown(value: Any) -> str:
    return visible(repr(value), 80)


# --------------------------------------------------------------------------
# What counts as an image: files by name, what files hold, Pillow's images and arrays

ImageInput = str | PathLike[str] | np.ndarray | Image.Image | bytes | bytearray | memoryview

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
PATTERN = re.compile(r"[*?]|\[[^\]]+\]")
WEB = re.compile(r"https?://", re.IGNORECASE)
EVERY = 1.0  # seconds between a video's frames
# fmt: off
VIDEOS = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".webm", ".wmv",
))
# fmt: on
ONE = (str, PathLike, np.ndarray, Image.Image, bytes, bytearray, memoryview)
loading = threading.Lock()  # one of Pillow's images may be given twice, and reads its file lazily


class Found(list[Any]):
    """Images one by one, as `find` gives them: `find` does not look for them again."""


def find(
    images: ImageInput | Iterable[ImageInput], skip: bool = False, every: float = EVERY
) -> Found:
    """Each image as it is; folders, list files, patterns and videos as the images they hold.

    Args:
        every: seconds between a video's frames.

    Raises:
        UserError: a folder without images, or a pattern that nothing matches; unless `skip`, a list
            that names missing images, or a video that cannot be read.
    """
    return images if isinstance(images, Found) else Found(each(images, skip, every))


def each(
    images: ImageInput | Iterable[ImageInput], skip: bool = False, every: float = EVERY
) -> Iterator[ImageInput]:
    """As `find`, one at a time."""
    for image in [images] if is_one(images) else images:  # type: ignore
        if isinstance(image, (Content, video.Frame)) or not isinstance(image, (str, PathLike)):
            yield image
            continue
        for found in each_image(image, skip):
            if is_video(found) and not WEB.match(found):
                yield from frames_of(found, skip, every)
            else:
                yield found


def has_frames(images: Iterable[ImageInput]) -> bool:
    """Whether frames of videos are among them."""
    return any(time_of(image) is not None for image in images)


def frames_of(path: str, skip: bool, every: float) -> list[str]:
    """The frames of a video by name; with `skip`, of one that cannot be read its name, once."""
    try:
        return list(video.plan(path, every))
    except UserError as error:
        if not skip:
            raise
        return [Content(path, DataError(*error.lines))]


class Content(str):
    """An image's name together with what it holds: an image file's bytes, pixels, or what is wrong.

    Attributes:
        time: seconds from the beginning of the video that it is a frame of.
    """

    content: bytes | np.ndarray | DataError
    time: float | None

    def __new__(
        cls, name: str, content: bytes | np.ndarray | DataError, time: float | None = None
    ) -> "Content":
        made = super().__new__(cls, name)
        made.content = content
        made.time = time
        return made


def with_frames(images: Iterable[ImageInput]) -> Iterator[ImageInput]:
    """The images as they are, but for a video's frames, which come with their pixels."""
    reader: video.Reader | None = None
    for image in images:
        if not isinstance(image, video.Frame):
            yield image
            continue
        if reader is None or reader.path != image.path or reader.passed > image.time:
            reader = video.Reader(image.path)
        try:
            yield Content(str(image), reader.at(image), image.time)
        except UserError as error:
            yield Content(str(image), DataError(*error.lines), image.time)


def find_images(path: str | PathLike, lost: bool = False) -> list[str]:
    """The images meant by an image, a folder (all in it) or a list file, whose labels are let go.

    A pattern such as `photos/**/*.jpg` stands for the images and videos that match it.

    With `lost`, a list's images that are missing, too, each by the likeliest of its names. Raises
    UserError for a folder without images and for lines of a list that name no image.
    """
    return list(each_image(path, lost))


def each_image(path: str | PathLike, lost: bool = False) -> Iterator[str]:
    """As `find_images`, one at a time: a folder's are not held."""
    if WEB.match(os.fspath(path)):
        yield os.fspath(path)
        return
    path = existing(expanded(path))
    if is_pattern(path):
        yield from matching(path, lost)
    elif os.path.isdir(path):
        passed = PassedOver()
        images = images_in(path, passed)
        first = next(images, None)
        if first is None:
            raise with_passed_over(f"{path}: no images in this folder ({EXPECTED})", passed)
        yield first
        yield from images
        say_passed_over(path, passed)
    elif Path(path).suffix.lower() not in LIST_SUFFIXES[1:] or not os.path.exists(path):
        yield path
    else:
        yield from in_list(path, lost)


def in_list(path: str, lost: bool) -> list[str]:
    """The images that a list file names, as `find_images` says."""
    found = []
    mistakes = []
    for line, names in listed_paths(path):
        addresses = [name for name in names if WEB.match(name) and " " not in name]
        if addresses:
            found += addresses[:1]
            continue
        choices = [Paths([name], os.path.join(os.path.dirname(path), ""))[0] for name in names]
        there = [choice for choice in choices if os.path.isfile(existing(choice))]
        likely = [*there, *filter(is_image, choices), *choices] if lost else there
        found += likely[:1]
        if not likely:
            mistakes.append(f"{path}:{line}: {choices[0]} does not exist")
    if mistakes or not found:
        raise UserError(*first_of(mistakes or [f"{path}: lists no images"]))
    return found


def is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEOS


def is_pattern(path: str) -> bool:
    """Whether a path, which is none of a file, has `*`, `?` or `[…]` in it."""
    return PATTERN.search(path) is not None and "\0" not in path and not os.path.lexists(path)


def matching(pattern: str, lost: bool = False) -> list[str]:
    """The images and videos that match, in order; or else those of the folders that do."""
    found = sorted(glob.glob(pattern, recursive=True))
    files = [path for path in found if is_image(path) or is_video(path)]
    files = [path for path in files if not os.path.isdir(path)]
    if not files:
        folders = [path for path in found if os.path.isdir(path)]
        files = [image for path in folders for image in find_images(path, lost)]
    if not files and lost:
        return [pattern]  # a list's missing image may have such a name
    if not files:
        passed = f", {plural(len(found), 'other file')} did" if found else ""
        raise UserError(f"{pattern}: no such file, and no image matches it as a pattern{passed}")
    return files


def is_one(images: Any) -> bool:
    """Whether this is to be one image, maybe a wrong one, and no collection of them."""
    if isinstance(images, np.ndarray):
        return not (images.ndim == 1 and images.dtype.kind in "UO")  # an array of names
    # Rows of tensors, lines of files and keys of mappings are no images.
    others = isinstance(images, Mapping) or hasattr(images, "numpy") or hasattr(images, "read")
    return isinstance(images, ONE) or others or not isinstance(images, Iterable)


def name_of(image: Any, index: int | None) -> str:
    """How messages call an image; `index`: its place among those given, None where it is alone."""
    if isinstance(image, (str, PathLike)):
        return str(image)
    return "the image given" if index is None else f"images[{index}]"


def path_of(image: Any) -> str | None:
    return str(image) if isinstance(image, (str, PathLike)) else None


def time_of(image: Any) -> float | None:
    """Seconds from the beginning of the video that an image is a frame of."""
    return image.time if isinstance(image, (Content, video.Frame)) else None


def open_image(image: ImageInput, preprocess: Preprocess, index: int | None = None) -> np.ndarray:
    """An image as uint8 [height, width, C].

    Raises:
        DataError: it cannot be read, or is none; the message names it.
    """
    return open_with_sides(image, preprocess, index)[0]


def open_with_sides(
    image: ImageInput, preprocess: Preprocess, index: int | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `open_image`, with the height and width of the image itself, upright."""
    name = name_of(image, index)
    try:
        pixels = pixels_of(image, preprocess.channels, name)
        return preprocess(pixels), (pixels.shape[0], pixels.shape[1])
    except (UserError, cv2.error, MemoryError) as error:
        words = str(error) if isinstance(error, UserError) else " ".join(str(error).split())
        reason = words or "not enough memory"
        named = reason.startswith((one_line(name), visible(name))) or not name
        raise DataError(reason if named else f"{name}: {reason}") from None


def pixels_of(image: ImageInput, channels: int, name: str) -> np.ndarray:
    """An image as uint8 [H, W, channels]."""
    if isinstance(image, Content):
        if isinstance(image.content, DataError):
            raise image.content
        return pixels_of(image.content, channels, name)
    if isinstance(image, video.Frame):
        return decode.convert(video.Reader(image.path).at(image), channels)
    if isinstance(image, (str, PathLike)):
        if not os.fspath(image):
            raise UserError("an image's name is empty; give the path of a file")
        if WEB.match(str(image)) and not os.path.exists(image):
            return decode.decode(web.read(str(image)), channels, name)
        if ADDRESS.match(str(image)) and not os.path.exists(image):
            raise UserError(f"{name}: is an address; download it and give the file or its bytes")
        return decode.read(image, channels)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode.decode(bytes(image), channels, name)
    if isinstance(image, np.ndarray) and image.ndim == 4:
        raise UserError(f"{name}: an array {list(image.shape)} is a batch; give list(array)")
    if isinstance(image, Image.Image):
        return decode.convert(of_pillow(image, name), channels)
    if isinstance(image, np.ndarray):
        return decode.convert(image, channels)
    raise UserError(f"{name}: {what_is(image)}")


def of_pillow(image: Image.Image, name: str) -> np.ndarray:
    """A Pillow image as uint8 [H, W, 1 | 3 | 4], upright as its EXIF block says."""
    try:
        with loading:
            image.load()
        if 0 in image.size:
            raise OSError("it has no pixels")
        exif = image.info.get("exif", b"")
        pixels = decode.pixels_of(image, name)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        problem = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: this Pillow image is closed, truncated or damaged ({problem})"
        ) from None
    return decode.turn(pixels, decode.orientation(exif if isinstance(exif, bytes) else b""))


def what_is(value: Any) -> str:
    """What was given that is no image, and what to give."""
    kind = f"{type(value).__module__.split('.')[0]}.{type(value).__qualname__}"
    kind = kind.removeprefix("builtins.")
    if value is None:
        return "None is no image (OpenCV's imread gives it for a file it cannot read)"
    if hasattr(value, "numpy"):
        return f"is a {kind}; give value.numpy(), uint8 [H, W, C] with values 0 to 255"
    if hasattr(value, "read"):
        return f"is a {kind}; give its name or file.read()"
    if isinstance(value, (list, tuple)):
        return f"is a {kind}; give one flat list of images, pixels as a numpy array"
    return f"is a {kind}; an image is a file's name or bytes, a Pillow image or a numpy array"

"""One of several parts of many images, so that several processes or machines share a long job.

The parts follow each other in the images' order: their results, one behind the other, are those of
one run, a video is decoded by few of them, and each reads folders that lie together. A part is held
in memory, and not what the others have; for that the images are counted first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath

from ppcls.data.folders import is_image
from ppcls.inference.inputs import (
    EVERY,
    PATTERN,
    WEB,
    Content,
    Found,
    ImageInput,
    each,
    has_frames,
    time_of,
)
from ppcls.inference.video import Frame
from ppcls.utils.errors import UserError
from ppcls.utils.log import silence
from ppcls.utils.text import plural, visible, whole_number

MOST = 1_000_000  # parts


@dataclass(frozen=True)
class Part:
    """The `number`-th, from 1, of `count` parts."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def bounds(self, total: int) -> tuple[int, int]:
        """Of so many images the first one's place, and the place behind the last.

        No part has more than one image more than another.
        """
        return total * (self.number - 1) // self.count, total * self.number // self.count


def part_of(text: str) -> Part:
    """`3/16` as a part.

    Raises:
        ValueError: it is none; the message says what would be.
    """
    number, count = (whole_number(side) for side in text.partition("/")[::2])
    if not number or not count or number > count or count > MOST:
        raise ValueError(
            f"{visible(text, 40)!r} should be I/N, such as 3/16: part I, from 1, of N, at most "
            f"{MOST:,}"
        )
    return Part(number, count)


@dataclass(frozen=True)
class Share:
    """The images of one process.

    Attributes:
        first: the place of its first image among all.
        total: of all images.
        timed: whether frames of videos are among all images.
    """

    images: Found
    first: int
    total: int
    timed: bool


def share_of(
    images: Iterable[ImageInput],
    part: Part,
    skip: bool = False,
    every: float = EVERY,
) -> Share:
    """The images of a part.

    Args:
        images: as for `find`; they are gone through twice, and are the same again.
        skip, every: as for `find`.

    Raises:
        UserError: as `find` does; the images have become fewer meanwhile; a folder that is called
            as an image is.
    """
    if isinstance(images, Found):
        start, stop = part.bounds(len(images))
        return Share(Found(images[start:stop]), start, len(images), has_frames(images))
    total, timed = counted(images, skip, every)
    start, stop = part.bounds(total)
    with silence():  # what is passed over in folders was said when they were counted
        found = Found(between(images, start, stop, skip, every))
    if len(found) < stop - start:
        raise UserError(
            f"--part {part}: there were {plural(total, 'image')}, and fewer a moment later; parts "
            "need the same images all the time: write a list of them first, and give --list FILE"
        )
    return Share(found, start, total, timed)


def counted(images: Iterable[ImageInput], skip: bool, every: float) -> tuple[int, bool]:
    """How many images there are, and whether frames of videos are among them."""
    total = 0
    timed = False
    for image in images:
        if is_one_by_name(image):
            total += 1
            continue
        for found in each([image], skip, every):
            total += 1
            timed = timed or time_of(found) is not None
    return total, timed


def between(
    images: Iterable[ImageInput], start: int, stop: int, skip: bool, every: float
) -> Iterator[ImageInput]:
    """The images of these places, from 0, as `counted` counts."""
    place = 0
    for image in images:
        if place >= stop:
            return
        if is_one_by_name(image):
            if place >= start:
                yield the_one(image, skip, every)
            place += 1
            continue
        for found in each([image], skip, every):
            if place >= stop:
                return
            if place >= start:
                yield found
            place += 1


def is_one_by_name(image: ImageInput) -> bool:
    """Whether it counts as one image without a look at the disk.

    On a file system that a network shares, looking at ten million files takes an hour, and each
    process would do it for the images of all the others.
    """
    if isinstance(image, (Content, Frame)) or not isinstance(image, (str, PathLike)):
        return True
    name = fspath(image)
    return WEB.match(name) is not None or (is_image(name) and not PATTERN.search(name))


def the_one(image: ImageInput, skip: bool, every: float) -> ImageInput:
    """The image that counted as one; UserError where it is a folder."""
    found = list(each([image], skip, every))
    if len(found) != 1:
        raise UserError(
            f"{image}: is a folder, and is called as an image is; with --part, write its name with "
            "a / behind it"
        )
    return found[0]

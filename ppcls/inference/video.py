"""Frames of video files at a rate, by OpenCV.

Which frames a video has is planned from what its header says, so that a long job knows how many
there are and can be gone on with; they are decoded one after the other.
"""

import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppcls.utils.errors import UserError
from ppcls.utils.files import open_plain
from ppcls.utils.opencv import cv2
from ppcls.utils.text import plural

# What a video's bytes begin with. What is none of these, such as a list of further files that
# FFmpeg would open, is not shown to it.
KINDS = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip|pnot)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\1[\xba\xb3]|FLV\1"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS|\x47.{187}\x47|.{4}\x47.{191}\x47",
    re.DOTALL,
)
HEAD = 400  # bytes that tell a kind
LEAST_BYTES = 4  # of a frame: a header that says more frames than fit is not believed
MOST_RATE = 1000  # frames a second that are believed
EARLY = 0.0005  # seconds that a frame may come before its time
TAIL = 3  # frames that a header may count too many


class Frame(str):
    """A frame's name, `clip.mp4#t=1.250`, with the video's path and the seconds from its beginning.

    Attributes:
        end: seconds that the video is said to have.
        step: seconds between two frames of the video.
    """

    path: str
    time: float
    end: float
    step: float

    def __new__(cls, path: str, time: float, end: float, step: float) -> "Frame":
        made = super().__new__(cls, f"{path}#t={time:.3f}")
        made.path = path
        made.time = round(time, 6)
        made.end = end
        made.step = step
        return made


def plan(path: str, every: float) -> Iterator[Frame]:
    """The frames every so many seconds, the first at 0; no oftener than the video has them.

    Raises:
        UserError: the file is missing, damaged, no video, or has no frames.
    """
    capture = opened(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    believed = 0 < rate <= MOST_RATE and 1 <= count <= os.path.getsize(path) / LEAST_BYTES
    count, rate = (int(count), rate) if believed else counted(path, rate)
    if not count:
        raise UserError(f"{path}: no frame of this video can be read; it is damaged or empty")
    step = 1 / rate
    every = max(every, step)
    for index in range(math.floor((count - 1) * step / every + EARLY) + 1):
        yield Frame(path, index * every, count * step, step)


def counted(path: str, rate: float) -> tuple[int, float]:
    """How many frames there are and how many a second, found by going through them."""
    capture = opened(path)
    count = 0
    seconds = 0.0
    while capture.grab():
        count += 1
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    capture.release()
    if count > 1 and 0 < seconds < math.inf:
        return count, min((count - 1) / seconds, MOST_RATE)
    return count, rate if 0 < rate <= MOST_RATE else 1.0


def opened(path: str) -> Any:
    """OpenCV's capture of a video.

    Raises:
        UserError: as `plan`.
    """
    try:
        with open_plain(path) as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from None
    if not head:
        raise UserError(f"{path}: empty file; replace or remove it")
    mistake = f"{path}: cannot be read as a video: it is damaged, cut short or of an unknown kind"
    if not KINDS.match(head):
        raise UserError(mistake)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said here
    try:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    except cv2.error:
        raise UserError(mistake) from None
    if not capture.isOpened():
        raise UserError(mistake)
    return capture


class Reader:
    """Gives a video's frames in the order of their times.

    Attributes:
        passed: the time that was asked for last.
    """

    def __init__(self, path: str):
        self.path = path
        self.passed = -math.inf
        self.capture: Any = None
        self.count = 0  # frames that were grabbed
        self.now = -math.inf  # seconds of the last one
        self.pixels: np.ndarray | None = None  # of the last one, where they were asked for

    def at(self, frame: Frame) -> np.ndarray:
        """The frame shown at a time, or the next one: uint8 [H, W, 3], RGB.

        Raises:
            UserError: the video ends before, or cannot be read.
        """
        self.passed = frame.time
        if self.capture is None:
            self.capture = opened(self.path)
        near_end = frame.end - (TAIL + 1) * frame.step
        while self.now < frame.time - EARLY:
            if not self.capture.grab():
                if self.pixels is not None and frame.time - self.now <= TAIL * frame.step:
                    return self.pixels
                raise UserError(
                    f"{frame}: the video ends after {plural(self.count, 'frame')}, and its header "
                    f"says {frame.end:.1f} seconds: it is damaged or cut short"
                )
            self.pixels = None
            self.now = self.time_of_grabbed(frame.step)
            if self.now >= near_end:
                self.retrieve()
        if self.pixels is None:
            self.retrieve()
        if self.pixels is None:
            raise UserError(f"{frame}: this frame of the video is damaged")
        return self.pixels

    def time_of_grabbed(self, step: float) -> float:
        """Seconds of the frame that was just grabbed; by its number where the file has no times."""
        seconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self.count += 1
        return seconds if seconds > self.now else (self.count - 1) * step

    def retrieve(self) -> None:
        read, pixels = self.capture.retrieve()
        self.pixels = None
        if read and pixels is not None and pixels.ndim == 3 and pixels.shape[2] == 3:
            self.pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

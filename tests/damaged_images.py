"""Damaged images of every format, and what reading says of them, in a process of its own.

    python tests/damaged_images.py 10000

Image number n is the same in every run. An image that ends the process or takes longer than the
limit is told apart, and the rest goes on in a fresh process.
"""

import argparse
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from ppcls.data import decode
from ppcls.utils.errors import UserError

SECONDS = 60.0  # for one image, on a busy machine; none needs two of the processor's own
# Pillow's mode and options by format; the modes are what each can hold.
ENCODINGS = [
    ("JPEG", "RGB", {"quality": 80}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("WEBP", "RGB", {"quality": 70}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "1", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "F", {}),
    ("GIF", "P", {}),
    ("GIF", "L", {}),
]
MAGIC = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 ", b"BM", b"II*\0")
MAGIC += (b"MM\0*", b"GIF89a", b"%!PS-Adobe", b"PK\3\4", b"<svg>", b"\0\0\0\x0cjP  ")


def photo(rng: np.random.Generator) -> tuple[str, bytes]:
    """A format's name and a whole file of it: smooth colours with some noise."""
    kind, mode, options = ENCODINGS[rng.integers(len(ENCODINGS))]
    height, width = rng.integers(1, 97, 2)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize((width, height))
    noisy = np.asarray(coarse) ^ rng.integers(0, 8, (height, width, 3), np.uint8)
    if mode in ("I;16", "F"):
        image = Image.fromarray(noisy[..., 0].astype(np.uint16 if mode == "I;16" else np.float32))
    else:
        image = Image.fromarray(noisy).convert(mode)
    if kind in ("WEBP", "GIF") and rng.random() < 0.3:
        options = {**options, "save_all": True, "append_images": [image.rotate(90)]}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return kind, file.getvalue()


def truncated(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(1, len(data))]


def bits_flipped(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    reach = len(array) if rng.random() < 0.5 else min(len(array), 64)  # often in the header
    places = rng.integers(0, reach, rng.integers(1, 20))
    array[places] ^= np.uint8(1) << rng.integers(0, 8, len(places), np.uint8)
    return array.tobytes()


def wrong_header(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    magic = MAGIC[rng.integers(len(MAGIC))]
    return magic + data[len(magic) if rng.random() < 0.5 else 0 :]


def empty(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    return b""


def noise(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, 3000)))


def middle_lost(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:start] + data[end:]


def middle_twice(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:end] + data[start:]


def block_zeroed(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:start] + bytes(int(end - start)) + data[end:]


def bomb(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    """The file with another size in its header: a few bytes that claim up to 4 billion pixels."""
    sides = [int(side) for side in rng.choice([0, 1, 4000, 9000, 16383, 32767, 65535], 2)]
    if rng.random() < 0.1:
        return real_bomb(kind, int(rng.choice([5000, 9000, 12000, 14000])))
    place, size, order = {
        "JPEG": (max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5, 2, "big"),
        "PNG": (16, 4, "big"),
        "WEBP": (26, 2, "little"),
        "BMP": (18, 4, "little"),
        "GIF": (6, 2, "little"),
        "TIFF": (0, 0, "little"),
    }[kind]
    if kind == "TIFF":
        return tiff_bomb(data, sides)
    claimed = b"".join(side.to_bytes(size, order) for side in sides)
    changed = bytearray(data)
    changed[place : place + len(claimed)] = claimed
    if kind == "PNG":  # whose header has a checksum
        changed[29:33] = zlib.crc32(bytes(changed[12:29])).to_bytes(4, "big")
    return bytes(changed)


def tiff_bomb(data: bytes, sides: list[int]) -> bytes:
    changed = bytearray(data)
    start = int.from_bytes(data[4:8], "little")
    for entry in range(
        start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12
    ):
        tag = int.from_bytes(changed[entry : entry + 2], "little")
        if tag in (256, 257):
            changed[entry + 2 : entry + 12] = b"\4\0\1\0\0\0" + sides[tag - 256].to_bytes(
                4, "little"
            )
    return bytes(changed)


def real_bomb(kind: str, side: int) -> bytes:
    """A whole file of one colour, small and with `side` x `side` pixels."""
    file = io.BytesIO()
    if kind in ("BMP", "TIFF", "WEBP"):  # which would not be small, or slow to make
        kind = "PNG"
    Image.new("1" if kind in ("PNG", "GIF") else "L", (side, side)).save(file, kind)
    return file.getvalue()


DAMAGES = (truncated, bits_flipped, wrong_header, empty, noise, middle_lost, middle_twice)
DAMAGES += (block_zeroed, bomb)
OFTEN = np.array([4, 6, 2, 0.3, 1, 2, 2, 2, 1])


def damaged(number: int) -> tuple[str, str, bytes]:
    """Image `number`: its format, what was done to it, and its bytes."""
    rng = np.random.default_rng([2024, number])
    kind, data = photo(rng)
    damage = DAMAGES[rng.choice(len(DAMAGES), p=OFTEN / OFTEN.sum())]
    return kind, damage.__name__, damage(kind, data, rng)


def verdict(path: Path, data: bytes, channels: int) -> str:
    """ "pixels" or "refused" as it should be, else what is wrong."""
    path.write_bytes(data)
    try:
        pixels = decode.read(path, channels)
    except UserError as error:
        text = str(error)
        named = text.startswith(f"{path}: ") and len(text.splitlines()) == 1
        return "refused" if named else f"wrong words: {text}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == channels
    whole = fits and pixels.size > 0 and pixels.flags.c_contiguous
    return "pixels" if whole else f"wrong pixels: {pixels.dtype} {pixels.shape}"


def work(jobs: Connection) -> None:
    """Read each image that comes; sends back its verdict, CPU seconds and the peak memory in MB."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libjpeg's remarks
    with tempfile.TemporaryDirectory() as folder:
        while True:
            suffix, data, channels = jobs.recv()
            path = Path(folder) / f"image.{suffix}"
            start = time.process_time()
            said = verdict(path, data, channels)
            seconds = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            jobs.send((said, seconds, peak))


@dataclass
class Tally:
    """What was said of the images; each extreme with the image's number, format and damage."""

    verdicts: Counter = field(default_factory=Counter)
    by_damage: Counter = field(default_factory=Counter)
    wrong: dict[tuple, str] = field(default_factory=dict)
    slowest: tuple = (0.0,)
    peak: tuple = (0.0,)

    def add(self, photo: tuple, said: str, seconds: float, megabytes: float) -> None:
        short = said.split(":")[0]
        self.verdicts[short] += 1
        self.by_damage[(*photo[1:], short)] += 1
        if short not in ("pixels", "refused"):
            self.wrong[photo] = said
        self.slowest = max(self.slowest, (seconds, *photo))
        self.peak = max(self.peak, (megabytes, *photo), key=lambda peak: peak[0])


@contextmanager
def reader() -> Iterator[Connection]:
    """A fresh process that reads images; ended at the end, whatever it does."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.kill()
        process.join()


Started = Callable[[], AbstractContextManager[Connection]]


def read_all(first: int, last: int, limit: float = SECONDS, started: Started = reader) -> Tally:
    """Read images `first` to `last` - 1; a process that ends or hangs is replaced.

    `started`: what starts one.
    """
    tally = Tally()
    while first < last:
        with started() as jobs:
            jobs.send(("jpeg", b"", 3))  # it has started when it has refused this
            jobs.recv()
            for number in range(first, last):
                first = number + 1
                kind, damage, data = damaged(number)
                photo = (number, kind, damage)
                try:
                    jobs.send((kind.lower(), data, (1, 3, 4)[number % 3]))
                    if not jobs.poll(limit):
                        tally.add(photo, "hangs", limit, 0)
                        break
                    tally.add(photo, *jobs.recv())
                except (EOFError, OSError):
                    tally.add(photo, "ends the process", 0, 0)
                    break
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=10000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    tally = read_all(options.first, options.first + options.count)
    print(f"{options.count} images in {time.perf_counter() - start:.0f} s: {dict(tally.verdicts)}")
    for key, count in sorted(tally.by_damage.items()):
        print(f"  {' '.join(key):45} {count}")
    print(f"slowest: {tally.slowest[0]:.3f} s of CPU time: {tally.slowest[1:]}")
    print(f"peak memory: {tally.peak[0]:.0f} MB: {tally.peak[1:]}")
    for photo, said in tally.wrong.items():
        print(f"wrong: {photo}: {said}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

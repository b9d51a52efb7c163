"""Images of few bytes that stand for much: refused before memory or time is spent on them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ppcls.data import decode
from ppcls.utils.errors import UserError


def save(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def refusal(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        decode.read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 400
    return line


def tiff(width: int, height: int, *more: tuple[int, int, int, int], tail=b"", order="<") -> bytes:
    """A TIFF whose tags are (tag, type, count, value); its one strip is 64 bytes of CCITT G4."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 1), (259, 3, 1, 4)]
    entries += [(262, 3, 1, 0), (273, 4, 1, 0), (278, 4, 1, height), (279, 4, 1, 64), *more]
    start = 8 + 2 + 12 * len(entries) + 4
    head = b"II*\0" if order == "<" else b"MM\0*"
    found = head + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in sorted(entries):
        short = kind == 3 and order == ">"
        form = order + ("HHIHxx" if short else "HHII")
        found += struct.pack(form, tag, kind, count, start if tag == 273 else value)
    return found + bytes(4 + 64) + tail


pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def test_a_tiff_of_135_million_pixels_in_some_bytes(tmp_path):
    data = tiff(32, 4_234_264)
    assert "32x4234264 pixels in 174 bytes, which no image has" in refusal(tmp_path / "a.tif", data)


ENCODINGS = [
    ("PNG", "1", {}),
    ("GIF", "L", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "1", {"compression": "group4"}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), ENCODINGS)
def test_a_large_picture_of_one_colour_is_no_photo(tmp_path, kind, mode, options):
    """What is large and real has many more bytes; what is small may be of one colour."""
    side = 6000
    data = save(Image.new(mode, (side, side)), kind, **options)
    found = f"{side}x{side} pixels in {len(data):,} bytes, which no image has"
    assert side * side > decode.DENSEST * len(data)
    assert found in refusal(tmp_path / "a", data)
    small = save(Image.new(mode, (2000, 2000)), kind, **options)
    assert decode.decode(small, 1, "a").shape == (2000, 2000, 1)


def test_a_large_photo_with_detail_is_read():
    noisy = np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8)
    image = Image.fromarray(noisy).resize((5000, 5000), Image.Resampling.BICUBIC)
    assert decode.decode(save(image, "JPEG"), 1, "a").shape == (5000, 5000, 1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_that_all_stand_for_the_whole_file(tmp_path, order):
    count = 5000
    tags = [(1000 + i, 7, 12 * count, 8) for i in range(count)]
    data = tiff(8, 8, *tags, order=order)
    assert "its tags hold more than the file" in refusal(tmp_path / "a.tif", data)


def test_tags_of_exif_that_all_stand_for_the_whole_file(tmp_path):
    count = 5000
    block = struct.pack("<H", count)
    block += b"".join(struct.pack("<HHII", 1000 + i, 7, 12 * count, 8) for i in range(count))
    empty = tiff(8, 8, (34665, 4, 1, 0))
    data = tiff(8, 8, (34665, 4, 1, len(empty)), tail=block + bytes(4))
    assert "its tags hold more than the file" in refusal(tmp_path / "a.tif", data)


def test_tiffs_with_real_tags_are_read():
    exif = Image.Exif()
    exif[0x010E] = "a description " * 1000
    exif.get_ifd(0x8769)[0x9286] = b"a comment" * 1000
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for options in ({}, {"big_tiff": True}, {"compression": "tiff_lzw"}):
        data = save(image, "TIFF", exif=exif, **options)
        np.testing.assert_array_equal(decode.decode(data, 3, "a"), np.asarray(image))


def test_a_jpeg_that_goes_over_its_pixels_again_and_again(tmp_path):
    whole = save(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    assert decode.decode(whole, 3, "a").shape == (2000, 2000, 3)
    start = whole.rfind(b"\xff\xda")
    scan = whole[start : start + 2 + int.from_bytes(whole[start + 2 : start + 4], "big")] + b"\0"
    for end in (b"\xff\xd9", b""):
        data = whole[:-2] + scan * 3000 + end
        assert "a JPEG of more than 200 scans" in refusal(tmp_path / "a.jpg", data)


def bmp_rle(side: int, runs: bytes) -> bytes:
    start = 54 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start)
    size = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return head + size + bytes(1024) + runs


def test_run_lengths_of_a_bmp_are_bounded(tmp_path):
    """Pillow fills them up in Python: ten seconds for a hundred million pixels."""
    data = bmp_rle(10_000, b"\1\1\0\0" * 100_000 + b"\0\1")
    assert "which no image has" in refusal(tmp_path / "a.bmp", data)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_packed_texts_and_profiles_of_a_png(tmp_path):
    whole = save(Image.new("L", (8, 8)), "PNG")
    zeros = zlib.compress(bytes(1_000_000), 9)
    texts = b"".join(chunk(b"zTXt", b"a%d\0\0" % i + zeros) for i in range(100))
    assert "text chunks" in refusal(tmp_path / "a.png", whole[:33] + texts + whole[33:])
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26), 9))
    assert "too large" in refusal(tmp_path / "a.png", whole[:33] + profile + whole[33:])

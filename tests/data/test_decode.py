"""Reading images: every mode and depth against its own numbers, every broken file refused."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from ppcls.data import decode
from ppcls.utils.errors import UserError

# The module ignores these warnings itself, which pytest undoes.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.TiffImagePlugin")

since_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="before Pillow 13 such files are refused"
)


def colours(height=24, width=40, channels=3, seed=0) -> np.ndarray:
    """Smooth random colours uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, channels), np.uint8)
    return cv2.resize(coarse, (width, height)).reshape(height, width, channels)


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """The image as a file of one of Pillow's formats."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block that says a name and an orientation, in either byte order."""
    block = Image.Exif()
    block.endian = order
    block[271], block[274] = "maker", orientation
    return block.tobytes()


def opencv(array: np.ndarray, suffix: str) -> bytes:
    """The array, in OpenCV's order of channels, as a file written by OpenCV."""
    return cv2.imencode(suffix, array)[1].tobytes()


def tiff(bits: int, zero_is_white: bool, width: int, height: int, data: bytes) -> bytes:
    """An uncompressed little-endian grey TIFF."""
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 1 - zero_is_white}
    values |= {273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    folder = struct.pack("<H", len(values)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + folder


def rgb(data: bytes) -> np.ndarray:
    return decode.decode(data, 3, "photo")


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two uint8 arrays of one shape."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
LOSSLESS += [("WEBP", {"lossless": True}), ("PNG", {"interlace": True})]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_rgb_of_every_format(kind, options):
    image = colours()
    result = rgb(encode(image, kind, **options))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_grey_of_every_format(kind, options):
    grey = colours(channels=1)
    data = encode(grey[..., 0], kind, **options)
    np.testing.assert_array_equal(decode.decode(data, 1, ""), grey)
    np.testing.assert_array_equal(decode.decode(data, 3, ""), grey.repeat(3, 2))
    np.testing.assert_array_equal(decode.decode(data, 4, "")[..., 3], 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_dropped_and_hidden_colours_stay(kind):
    image = colours(channels=4)
    image[:8, :, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(image, kind, **options)
    np.testing.assert_array_equal(rgb(data), image[..., :3])
    np.testing.assert_array_equal(decode.decode(data, 4, ""), image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha(kind):
    image = colours(channels=2)
    data = encode(image, kind)
    np.testing.assert_array_equal(rgb(data), image[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(decode.decode(data, 1, ""), image[..., :1])
    np.testing.assert_array_equal(decode.decode(data, 4, "")[..., 3], image[..., 1])


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 16))])
def test_palette(transparency):
    table, indices = colours(4, 4).reshape(16, 3), colours(channels=1)[..., 0] % 16
    image = Image.fromarray(indices).convert("P")
    image.putpalette(table.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    data = encode(image, "PNG", **options)
    alpha = np.full(16, 255)
    if transparency == 3:
        alpha[3] = 0
    elif transparency:
        alpha = np.arange(0, 256, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(rgb(data), table[indices])
        np.testing.assert_array_equal(decode.decode(data, 4, "")[..., 3], alpha[indices])


def test_one_colour_named_transparent():
    image = colours()
    data = encode(image, "PNG", transparency=tuple(int(v) for v in image[0, 0]))
    np.testing.assert_array_equal(rgb(data), image)
    alpha = np.where((image == image[0, 0]).all(2), 0, 255)
    np.testing.assert_array_equal(decode.decode(data, 4, "")[..., 3], alpha)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit(kind):
    bits = np.random.default_rng(0).random((9, 13)) < 0.5
    data = encode(Image.fromarray(bits), kind)
    np.testing.assert_array_equal(decode.decode(data, 1, "")[..., 0], 255 * bits)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_the_upper_eight(suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 13, channels)).astype(np.uint16)
    deep[0, :4, 0] = [0, 255, 256, 65535]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    data = opencv(np.ascontiguousarray(deep[..., order]), suffix)
    np.testing.assert_array_equal(decode.decode(data, channels, ""), deep // 256)


def test_sixteen_bit_grey_of_other_layouts():
    deep = np.random.default_rng(0).integers(0, 65536, (6, 10)).astype(np.uint16)
    big_endian = Image.frombytes("I;16B", (10, 6), deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(rgb(encode(big_endian, "TIFF"))[..., 0], deep // 256)
    white = tiff(16, True, 10, 6, deep.tobytes())
    np.testing.assert_array_equal(rgb(white)[..., 0], (65535 - deep) // 256)


def test_twelve_bit_tiff_keeps_the_upper_eight():
    pairs = np.random.default_rng(0).integers(0, 4096, (6, 5, 2))
    first, second = pairs[..., 0], pairs[..., 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = tiff(12, False, 10, 6, packed.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(rgb(data)[..., 0], pairs.reshape(6, 10) // 16)


def test_integers_of_32_bits_up_to_65535():
    values = np.arange(0, 65536, 997, np.int32).reshape(6, 11)
    np.testing.assert_array_equal(rgb(encode(values, "TIFF"))[..., 0], values // 256)


def grey_tiff(values: np.ndarray, sample_format: int, photometric: int = 1) -> bytes:
    """A TIFF with one strip, written byte by byte: no library's idea of what an array means."""
    height, width = values.shape
    data, entries = values.astype(values.dtype.newbyteorder("<")).tobytes(), []
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: photometric, 273: 8}
    tags |= {277: 1, 278: height, 279: len(data), 339: sample_format}
    for tag, value in tags.items():
        entries.append(struct.pack("<HHII", tag, 4, 1, value))
    start = 8 + len(data)
    body = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + data + body


@pytest.mark.parametrize(("dtype", "sample_format"), [(np.int32, 2), (np.uint32, 1), (np.int16, 2)])
def test_eight_bits_in_wider_integers(dtype, sample_format):
    """Programs compute with such integers and save them as they are: 200 is light, not black."""
    values = np.arange(0, 256, 4, dtype).reshape(8, 8)
    np.testing.assert_array_equal(rgb(grey_tiff(values, sample_format))[..., 0], values)
    wider = values * 100  # of 16 bits, of which the upper 8 are seen
    np.testing.assert_array_equal(rgb(grey_tiff(wider, sample_format))[..., 0], wider // 256)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_dark_photo_of_16_bits_stays_dark(kind):
    """Its depth is stated, so small values are no values of 8 bits."""
    values = np.arange(0, 256, 4, np.uint16).reshape(8, 8)
    data = encode(values, kind) if kind == "PNG" else grey_tiff(values, 1)
    np.testing.assert_array_equal(rgb(data)[..., 0], 0)


@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), 3),
        (np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8), 3),
        (np.full((8, 8), -5, np.int16), 2),
        (np.full((8, 8), -5, np.int8), 2),
        (np.full((8, 8), 70_000, np.uint32), 1),
    ],
)
def test_numbers_without_an_agreed_meaning_are_refused(values, sample_format):
    refused(grey_tiff(values, sample_format), "no agreed meaning")


def test_a_tiff_with_values_that_pillow_does_not_read_is_not_called_something_else():
    grey = grey_tiff(np.zeros((8, 8), np.int32), 2, photometric=0)
    refused(grey, "a TIFF with a kind of values that is not read")


@pytest.mark.parametrize(
    "values",
    [np.full((2, 2), 65536, np.int32), np.full((2, 2), -1, np.int32), np.ones((2, 2), np.float32)],
)
def test_values_without_an_agreed_range_are_refused(values):
    refused(encode(values, "TIFF"), "no agreed meaning")


def patches() -> np.ndarray:
    """Even patches of strong colours, 16 pixels wide, for lossy formats."""
    tones = [[0, 0, 0], [255, 255, 255], [200, 30, 40], [20, 180, 60], [10, 40, 220], [90, 90, 90]]
    return np.array(tones, np.uint8)[None].repeat(16, 0).repeat(16, 1)


def test_cmyk_jpeg():
    image = patches()
    data = encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=98)
    assert decode.jpeg_layout(data) is None
    assert difference(rgb(data), image) <= 4


def test_ycck_jpeg():
    # What a decoder of YCCK makes CMYK of is stored: cyan, magenta, yellow as YCbCr, then black;
    # Pillow stores CMYK inverted and says so in the Adobe segment, whose last byte is then YCCK's.
    image = patches()
    ink = np.asarray(Image.fromarray(255 - image).convert("YCbCr"))
    stored = np.dstack([ink, np.full(ink.shape[:2], 255, np.uint8)])
    photo = Image.frombytes("CMYK", (96, 16), (255 - stored).tobytes())
    data = bytearray(encode(photo, "JPEG", quality=98))
    segment = data.index(b"Adobe")
    assert data[segment + 11] == 0
    data[segment + 11] = 2
    assert difference(rgb(bytes(data)), image) <= 5


def test_jpeg_inside_tiff():
    data = encode(patches(), "TIFF", compression="jpeg", quality=98)
    assert difference(rgb(data), patches()) <= 4


@since_pillow_13
def test_ycbcr_tiff():
    data = encode(Image.fromarray(patches()).convert("YCbCr"), "TIFF")
    assert difference(rgb(data), patches()) <= 2


def test_lab_tiff():
    white_and_black = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 0, 0, 0]))
    wanted = np.array([[[255] * 3, [0] * 3]], np.uint8)
    assert difference(rgb(encode(white_and_black, "TIFF")), wanted) <= 2


@since_pillow_13
def test_tiff_of_grey_times_alpha():
    grey = np.array([[[100, 255], [100, 200], [0, 0]]], np.uint8)
    data = encode(grey, "TIFF")
    kind = struct.pack("<HHI", 338, 3, 1)
    data = data.replace(kind + b"\2", kind + b"\1")
    wanted = np.array([[[100], [round(100 * 255 / 200)], [0]]], np.uint8)
    assert difference(decode.decode(data, 1, ""), wanted) <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "MPO"])
def test_first_of_several_frames(kind):
    frames = [Image.fromarray(np.full((16, 16, 3), tone, np.uint8)) for tone in (40, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert difference(rgb(data), np.full((16, 16, 3), 40, np.uint8)) <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 75},
        {"quality": 95, "subsampling": 0},
        {"quality": 60, "subsampling": 1, "optimize": True},
        {"quality": 85, "progressive": True},
        {"quality": 85, "restart_marker_blocks": 3},
        {"quality": 100, "keep_rgb": True},
    ],
)
def test_opencv_and_pillow_agree_on_jpegs(options, channels):
    image = colours(97, 131) // 2 + np.random.default_rng(0).integers(
        0, 128, (97, 131, 3), np.uint8
    )
    photo = Image.fromarray(image).convert({1: "L", 3: "RGB"}[channels])
    data = encode(photo, "JPEG", **options)
    by_opencv, by_pillow = decode.decode_jpeg(data), decode.decode_any(data, "")
    assert by_opencv is not None
    assert by_opencv.shape == (97, 131, channels)
    assert difference(by_opencv, by_pillow) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_as_exif_says(kind, orientation, order):
    options = {"exif": exif(orientation, order)}
    if kind == "WEBP":
        options["lossless"] = True
    data = encode(colours(16, 40), kind, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape[0] == (40 if orientation >= 5 else 16)
    result = rgb(data)
    assert result.flags.c_contiguous
    assert difference(result, upright) <= (1 if kind == "JPEG" else 0)
    if kind == "JPEG":
        assert decode.decode_jpeg(data) is not None
        np.testing.assert_array_equal(decode.decode_any(data, ""), result)


def test_grey_and_deep_photos_are_turned_too():
    deep = np.random.default_rng(0).integers(0, 65536, (6, 10)).astype(np.uint16)
    turned = np.rot90(deep // 256, -1)
    for kind in ("PNG", "TIFF"):
        data = encode(deep, kind, exif=exif(6))
        np.testing.assert_array_equal(decode.decode(data, 1, "")[..., 0], turned)
    data = encode(colours(16, 40, 1)[..., 0], "JPEG", exif=exif(6))
    assert decode.decode(data, 1, "").shape == (40, 16, 1)


def test_exif_is_found_before_and_after_other_blocks():
    data = encode(colours(16, 40), "JPEG", exif=exif(6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    end = data.index(b"\xff\xdb")
    for place in (2, end):
        both = data[:place] + segment + data[place:]
        assert decode.decode_jpeg(both).shape == (40, 16, 3)
    # A long block goes on in a segment that begins like the first.
    first = data.index(b"\xff\xe1")
    rest = b"\xff\xe1\0\x0cExif\0\0more"
    assert decode.decode_jpeg(data[:end] + rest + data[end:]).shape == (40, 16, 3)
    assert decode.decode_jpeg(data[:first] + data[end:]).shape == (16, 40, 3)


def test_unusual_jpegs_are_left_to_pillow():
    data = encode(colours(), "JPEG")
    frame = data.index(b"\xff\xc0")
    assert decode.jpeg_layout(data) is not None
    for place, value in [
        (1, 0xC9),
        (4, 12),
        (5, 0xFF),
        (9, 2),
    ]:  # coding, depth, height, components
        unusual = bytearray(data)
        unusual[frame + place] = value
        if place == 5:
            unusual[frame + 7] = 0xFF
        assert decode.jpeg_layout(bytes(unusual)) is None


TURN = struct.pack("<HHII", 274, 3, 1, 6)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0JUNKJUNKJUNK",
        exif(6)[: exif(6).index(TURN) + 6],
        b"Exif\0\0II*\0" + struct.pack("<I", 1 << 31),
        exif(6).replace(TURN, struct.pack("<HHII", 274, 3, 1, 9)),
    ],
)
def test_damaged_exif_turns_nothing(block):
    data = encode(colours(16, 40), "JPEG", exif=block)
    assert decode.decode_jpeg(data).shape == (16, 40, 3)
    assert decode.decode_any(data, "").shape == (16, 40, 3)


def test_damaged_exif_says_nothing():
    cmyk = Image.fromarray(colours()).convert("CMYK")
    data = encode(cmyk, "JPEG", exif=exif(6)[: exif(6).index(TURN) + 6])
    script = (
        "import sys; from ppcls.data import images as i; i.decode(sys.stdin.buffer.read(), 3, '')"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert done.stdout + done.stderr == b""


def test_markers_inside_segments_and_after_the_end_do_not_mislead():
    thumbnail = encode(colours(8, 8), "JPEG")
    plain = encode(colours(64, 64), "JPEG")
    data = encode(colours(64, 64), "JPEG", exif=exif(1) + thumbnail, comment=b"\xff\xd9\xff\xda")
    assert data.count(thumbnail) == 1
    np.testing.assert_array_equal(rgb(data), rgb(plain))
    np.testing.assert_array_equal(rgb(plain + b"\xff\xd8 trailing \xff\xda" * 50), rgb(plain))
    for cut in range(data.index(thumbnail) + len(thumbnail), len(data), 7):
        refused(data[:cut])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_cut_anywhere_is_refused(options, capfd):
    data = encode(colours(20, 30), "JPEG", quality=60, **options)
    assert rgb(data).shape == (20, 30, 3)
    for cut in range(1, len(data)):
        refused(data[:cut])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_cut_anywhere_are_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    data = encode(noise, kind)
    # A PNG's last 16 bytes are a checksum and say that it ends.
    for cut in range(1, len(data) - 16, 5):
        refused(data[:cut])


def test_a_png_with_a_wrong_checksum_is_refused():
    data = bytearray(encode(colours(), "PNG"))
    data[len(data) // 2] ^= 1
    refused(bytes(data), "truncated or damaged")


def test_random_damage_gives_pixels_or_one_error():
    rng = np.random.default_rng(0)
    whole = [encode(colours(), kind) for kind in ("PNG", "WEBP", "BMP", "TIFF", "GIF")]
    whole += [encode(Image.fromarray(colours()).convert("CMYK"), "JPEG"), encode(colours(), "JPEG")]
    refusals = 0
    for data in whole:
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, min(len(data), 600), 2):
                damaged[place] = rng.integers(256)
            try:
                assert rgb(bytes(damaged)).dtype == np.uint8
            except UserError as error:
                assert_one_line(error)
                refusals += 1
    assert refusals > 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_more_pixels_than_pillow_allows_are_refused(kind):
    data = bytearray(encode(colours(), kind))
    if kind == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    else:
        data[16:24] = struct.pack(">II", 60000, 60000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    refused(bytes(data), "too large")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"some text, no image", "not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a JPEG"),
        (bytes(1000), "not a JPEG"),
    ],
)
def test_not_a_photo(data, words):
    refused(data, words)


def refused(data: bytes, words: str = "photo"):
    with pytest.raises(UserError, match=words) as caught:
        decode.decode(data, 3, "folder/photo.jpg")
    assert_one_line(caught.value)


def assert_one_line(error: UserError):
    text = str(error)
    assert "\n" not in text
    assert "photo" in text.split(": ")[0]


def test_read(tmp_path):
    path = tmp_path / "Ein Bild ü.png"
    path.write_bytes(encode(colours(), "PNG"))
    np.testing.assert_array_equal(decode.read(path), colours())
    np.testing.assert_array_equal(decode.read(str(path), 4)[..., :3], colours())
    assert decode.read(path, 1).shape == (24, 40, 1)


def test_every_suffix_is_read(tmp_path):
    for suffix in decode.SUFFIXES:
        path = tmp_path / f"photo{suffix.upper()}"
        Image.fromarray(colours()).save(path, decode.FORMAT_OF[suffix])
        assert decode.read(path).shape == (24, 40, 3)


def refused_path(path: Path | str, words: str, shown: str = ""):
    with pytest.raises(UserError) as caught:
        decode.read(path)
    text = str(caught.value)
    assert text.startswith(f"{shown or path}: ")
    assert words in text
    assert "\n" not in text


def test_paths_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.jpg").touch()
    refused_path(tmp_path / "missing.jpg", "no such file")
    refused_path(tmp_path, "is a folder")
    refused_path(tmp_path / "empty.jpg", "empty file")
    refused_path(tmp_path / "empty.jpg" / "photo.jpg", "cannot be read")
    refused_path("n" * 300 + ".jpg", "File name too long", f"{'n' * 199}…")
    refused_path("a\0b.jpg", "cannot be read", "a\\x00b.jpg")


def test_convert():
    image = colours(channels=4)
    weighted = image[..., :3] @ np.array([0.299, 0.587, 0.114])
    for have in (3, 4):
        grey = decode.convert(image[..., :have], 1)
        assert np.abs(grey[..., 0] - weighted).max() <= 1
        assert grey.flags.c_contiguous
        np.testing.assert_array_equal(decode.convert(image[..., :have], 3), image[..., :3])
    np.testing.assert_array_equal(decode.convert(image, 4), image)
    np.testing.assert_array_equal(decode.convert(image[..., :3], 4)[..., 3], 255)
    for grey in (image[..., 0], image[..., :1]):
        for channels in (1, 3):
            wanted = image[..., :1].repeat(channels, 2)
            np.testing.assert_array_equal(decode.convert(grey, channels), wanted)
    mirrored = decode.convert(image[:, ::-1, :3], 3)
    assert mirrored.flags.c_contiguous
    np.testing.assert_array_equal(mirrored, image[:, ::-1, :3])


@pytest.mark.parametrize(
    ("array", "channels"),
    [
        (np.zeros((4, 4, 3), np.float32), 3),
        (np.zeros((4, 4, 3), np.uint16), 3),
        (np.zeros((4, 4), bool), 1),
        (np.zeros((4, 4, 2), np.uint8), 3),
        (np.zeros((3, 4, 5), np.uint8), 3),
        (np.zeros((1, 4, 4, 3), np.uint8), 3),
        (np.zeros((0, 4, 3), np.uint8), 3),
        (np.zeros(4, np.uint8), 3),
        (np.zeros((4, 4, 3), np.uint8), 2),
    ],
)
def test_convert_refuses(array, channels):
    with pytest.raises(UserError, match="an image"):
        decode.convert(array, channels)


def test_opencv_keeps_to_one_thread():
    assert cv2.getNumThreads() == 1


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("options", [{}, {"progressive": True, "optimize": True}])
def test_a_jpeg_too_short_for_its_size_is_refused_at_once(options):
    """libjpeg fills with grey what is missing: for seconds, where a header claims a huge image."""
    data = bytearray(encode(colours(), "JPEG", **options))
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[frame + 5 : frame + 9] = struct.pack(">HH", 5000, 20000)
    with pytest.raises(UserError, match=r"image: .*bytes cannot hold 20000x5000 pixels"):
        rgb(bytes(data))


def test_the_emptiest_jpeg_is_long_enough_for_its_size():
    """An image of one colour, saved as small as a JPEG can be."""
    image = Image.new("L", (4096, 4096))
    data = encode(image, "JPEG", progressive=True, optimize=True, quality=1)
    assert 4096 * 4096 / len(data) > 0.4 * decode.DENSEST
    assert rgb(data).shape == (4096, 4096, 3)

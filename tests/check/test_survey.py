"""The perceptual hash against its formula, and an image changed against the image and others."""

import io
import itertools
import os

import cv2
import numpy as np
import pytest
from photos import scene
from PIL import Image

from ppcls.check.findings import NEAR
from ppcls.check.survey import Demands, Odd, digest, examine, perceptual_hash

SIDE = 32


def hash_of(pixels: np.ndarray) -> np.ndarray:
    return perceptual_hash(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0]


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return sum(bin(int(word)).count("1") for word in one ^ other)


def saved_again(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return np.array(Image.open(file))


def test_bits_are_the_signs_of_the_lowest_frequencies():
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    words, blank = perceptual_hash(grey)
    assert not blank
    x = np.pi * (2 * np.arange(SIDE) + 1) / (2 * SIDE)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    order = [(total, row) for total in range(1, 3) for row in range(total + 1)]  # the first five
    for bit, (total, row) in zip(bits, order, strict=False):
        wave = np.outer(np.cos(x * row), np.cos(x * (total - row)))
        assert bit == (float((grey * wave).sum()) > 0)


CHANGES = {
    "saved at quality 50": saved_again,
    "half the size": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5),
    "darker": lambda pixels: (pixels * 0.7).astype(np.uint8),
    "brighter": lambda pixels: np.clip(pixels * 1.2, 0, 255).astype(np.uint8),
    "grey": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, -1),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_a_changed_photo_is_near_itself_and_no_other(changed):
    photos = [scene(seed) for seed in range(20)]
    hashes = [hash_of(photo) for photo in photos]
    for i, photo in enumerate(photos):
        own = hash_of(changed(photo))
        assert distance(own, hashes[i]) <= NEAR
        assert min(distance(own, other) for other in hashes[:i] + hashes[i + 1 :]) > 2 * NEAR


def test_near_is_what_imagehash_calls_near():
    """Its perceptual hash of as many bits, of the same 32 x 32 pixels, tells alike."""
    imagehash = pytest.importorskip("imagehash")
    scenes = [scene(seed) for seed in range(12)]
    changes = [
        *CHANGES.values(),
        lambda pixels: pixels[:, ::-1].copy(),
        lambda pixels: pixels[9:-9],
    ]
    images = scenes + [change(pixels) for change in changes for pixels in scenes]
    ours = [hash_of(pixels) for pixels in images]
    options = {"hash_size": 16, "highfreq_factor": SIDE // 16}
    theirs = [imagehash.phash(Image.fromarray(pixels), **options) for pixels in images]
    pairs = list(itertools.combinations(range(len(images)), 2))
    near = [(i, j) for i, j in pairs if distance(ours[i], ours[j]) <= NEAR]
    assert near == [(i, j) for i, j in pairs if theirs[i] - theirs[j] <= NEAR]
    assert 5 * len(scenes) <= len(near) < len(pairs) // 10


def test_what_shows_nothing_is_said():
    assert perceptual_hash(np.full((9, 9, 1), 77, np.uint8))[1]


def test_digests_tell_shapes_apart():
    array = np.zeros((2, 6, 3), np.uint8)
    assert digest(array.data, array.shape) != digest(array.data, (6, 2, 3))
    assert digest(b"") != 0


def odd(folder, image: Image.Image, name: str, crop: int = 0, **options) -> Odd:
    image.save(folder / name, **options)
    records, broken = examine([str(folder / name)], Demands(crop=crop))
    assert not broken
    return Odd(int(records["odd"][0]))


def test_oddities(tmp_path):
    rgb = Image.fromarray(scene(0))
    assert odd(tmp_path, rgb, "a.png") == Odd(0)
    assert odd(tmp_path, rgb, "a.png", crop=121) == Odd.SMALL
    assert odd(tmp_path, rgb.convert("RGBA"), "a.png") == Odd.ALPHA
    assert odd(tmp_path, rgb.convert("CMYK"), "a.jpg") == Odd.CMYK
    assert odd(tmp_path, rgb.convert("L"), "a.jpg") == Odd.GREY
    assert odd(tmp_path, rgb, "a.jpg", format="PNG") == Odd.SUFFIX
    assert odd(tmp_path, rgb.crop((0, 0, 160, 39)), "a.png") == Odd.LONG
    assert odd(tmp_path, Image.new("RGB", (9, 9), "red"), "a.bmp") == Odd.BLANK
    deep = Image.fromarray(scene(0)[..., 0].astype(np.uint16) * 256)
    assert odd(tmp_path, deep, "a.png") == Odd.DEEP | Odd.GREY
    frames = {"save_all": True, "append_images": [Image.fromarray(scene(1))]}
    assert odd(tmp_path, rgb, "a.webp", **frames) == Odd.ANIMATED
    exif = Image.Exif()
    exif[274] = 6
    assert odd(tmp_path, rgb, "a.jpg", exif=exif.tobytes()) == Odd.TURNED


def test_damage_that_only_the_decoder_says(tmp_path, capfd):
    """A JPEG with a gap decodes to wrong pixels, with a line on stderr from libjpeg."""
    path = tmp_path / "gap.jpg"
    Image.fromarray(scene(0)).save(path, quality=90)
    data = bytearray(path.read_bytes())
    del data[len(data) // 2 : len(data) * 3 // 4]
    path.write_bytes(data)
    whole = tmp_path / "whole.jpg"
    Image.fromarray(scene(1)).save(whole)
    before = os.fstat(2)
    records, broken = examine([str(path), str(whole)], Demands())
    assert os.fstat(2).st_ino == before.st_ino
    assert capfd.readouterr().err == ""
    assert list(broken) == [0]
    assert broken[0].startswith("decoded with damage (Corrupt JPEG data")
    assert (records["pixels"] != 0).all()

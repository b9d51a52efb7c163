"""Resizing against Pillow, OpenCV and block means; sizes against figures worked out by hand."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data.preprocess import center_crop, resize, resize_short
from ppcls.data.transforms import (
    CenterCrop,
    HorizontalFlip,
    RandomApply,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ResizeShort,
    apply,
)
from ppcls.utils.errors import UserError

PILLOW = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "area": "BOX"}
PILLOW["lanczos"] = "LANCZOS"
OPENCV = {"nearest": "NEAREST", "bilinear": "LINEAR", "bicubic": "CUBIC", "area": "AREA"}
OPENCV["lanczos"] = "LANCZOS4"


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("ours", "theirs"), list(PILLOW.items()))
def test_pil_is_pillows_resize_of_each_channel(ours, theirs, channels):
    image = noise(37, 50, channels)
    result = resize(image, 21, 33, ours, "pil")
    assert result.shape == (33, 21, channels)
    assert result.dtype == np.uint8
    for channel in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        wanted = plane.resize((21, 33), Image.Resampling[theirs])
        np.testing.assert_array_equal(result[..., channel], np.asarray(wanted))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("ours", "theirs"), list(OPENCV.items()))
def test_cv2_is_opencvs_resize_of_each_channel(ours, theirs, channels):
    image = noise(37, 50, channels)
    result = resize(image, 21, 33, ours, "cv2")
    assert result.shape == (33, 21, channels)
    for channel in range(channels):
        wanted = cv2.resize(
            np.ascontiguousarray(image[..., channel]),
            (21, 33),
            interpolation=getattr(cv2, f"INTER_{theirs}"),
        )
        assert np.abs(result[..., channel].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_area_is_the_mean_of_blocks(backend):
    image = noise(12, 18)
    means = image.reshape(4, 3, 6, 3, 3).mean((1, 3))
    # Pillow rounds after each of its two passes.
    assert np.abs(resize(image, 6, 4, "area", backend) - means).max() < 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_backends_agree_when_enlarging(interpolation):
    image = noise(9, 14)
    by_opencv = resize(image, 42, 27, interpolation, "cv2").astype(int)
    assert np.abs(by_opencv - resize(image, 42, 27, interpolation, "pil")).max() <= 1


def test_only_pillow_averages_when_shrinking():
    image = noise(64, 64)
    spread = {backend: resize(image, 8, 8, "bilinear", backend).std() for backend in ("cv2", "pil")}
    assert spread["pil"] < spread["cv2"] / 2


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_views_are_resized_like_copies(backend):
    image = noise(40, 60)
    view = image[3:30, 50:5:-1]
    wanted = resize(view.copy(), 16, 16, "bilinear", backend)
    np.testing.assert_array_equal(resize(view, 16, 16, "bilinear", backend), wanted)


@pytest.mark.parametrize(
    ("height", "width", "pixels", "wanted"),
    [
        (375, 500, 256, (256, 341)),  # 341.33
        (500, 333, 256, (384, 256)),  # 384.38
        (480, 640, 255, (255, 340)),
        (100, 101, 256, (256, 259)),  # 258.56
        (4, 9, 2, (2, 4)),  # 4.5 rounds to even
        (4, 11, 2, (2, 6)),  # 5.5 rounds to even
        (1, 1, 7, (7, 7)),
    ],
)
def test_resize_short_sizes(height, width, pixels, wanted):
    assert resize_short(noise(height, width), pixels, "bilinear", "cv2").shape[:2] == wanted


def test_an_extremely_narrow_image_is_refused():
    assert resize_short(noise(2, 256), 256, "area", "cv2").shape == (256, 32768, 3)
    with pytest.raises(UserError, match=r"257x2 pixels is too narrow .* to 256"):
        resize_short(noise(2, 257), 256, "area", "cv2")


def test_center_crop():
    rows, columns = np.indices((8, 11)).astype(np.uint8)
    image = np.stack([rows, columns], -1)
    cropped = center_crop(image, 5)
    np.testing.assert_array_equal(cropped[:, 0, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(cropped[0, :, 1], [3, 4, 5, 6, 7])


OBLONG = [
    RandomResizedCrop(),
    Resize(),
    CenterCrop(),
    RandomCrop(),
    RandomCrop(pad=40),
    RandomApply(prob=1.0, ops=(Resize(),)),
]


@pytest.mark.parametrize("op", OBLONG, ids=lambda op: op.op)
@pytest.mark.parametrize("size", [(40, 20), (20, 40), (30, 30)])
def test_ops_end_in_height_and_width(op, size):
    image = noise(48, 64)
    result = apply((op,), image, np.random.default_rng(0), size)
    assert result.shape == (*size, 3)
    if size == (30, 30):
        np.testing.assert_array_equal(result, apply((op,), image, np.random.default_rng(0), 30))


def test_resize_short_just_covers_two_sides():
    def shown(height, width, size):
        return ResizeShort()(noise(height, width), np.random.default_rng(0), size).shape[:2]

    assert shown(48, 64, (24, 24)) == shown(48, 64, 24) == (24, 32)
    assert shown(48, 64, (48, 8)) == (48, 64)
    assert shown(48, 64, (8, 128)) == (96, 128)
    with pytest.raises(UserError, match=r"9000x2 pixels is too narrow .* cover 10x40"):
        shown(2, 9000, (40, 10))


def test_an_image_below_two_sides_is_not_cut():
    with pytest.raises(UserError, match="cannot cut 20x50 out of an image of 64x48"):
        CenterCrop()(noise(48, 64), np.random.default_rng(0), (50, 20))
    with pytest.raises(
        UserError, match="must end in an image of 20x50; horizontal_flip gave 64x48"
    ):
        apply((HorizontalFlip(),), noise(48, 64), np.random.default_rng(0), (50, 20))

"""Changes of pixels' values and places, held against Pillow and against plain formulas."""

import colorsys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ppcls.data import pixels

FACTORS = [0.0, 0.1, 0.5, 0.9, 1.0, 1.3, 1.9, 3.0]


def photo(height: int, width: int, channels: int = 3, low: int = 0, high: int = 255) -> np.ndarray:
    """Soft shapes with a little noise, levels within low to high: like an image, not even noise."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + c)) * np.cos(y / (5 + 2 * c)) + x / width for c in range(channels)]
    values = np.stack(waves, -1) + rng.normal(0, 0.2, (height, width, channels))
    values = (values - values.min()) / (values.max() - values.min())
    return (low + values * (high - low)).round().astype(np.uint8)


PHOTOS = {
    "photo": photo(64, 48),
    "dull": photo(40, 50, low=90, high=140),
    "even": np.full((8, 9, 3), 77, np.uint8),
    "two levels": np.array([[[0, 5, 255], [0, 9, 254]]] * 3, np.uint8),
    "small": photo(2, 3),
    "pixel": photo(2, 2)[:1, :1],
}
GREYS = {name: image[..., :1] for name, image in PHOTOS.items()}


def pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def array(image: Image.Image) -> np.ndarray:
    return np.array(image).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("images", [PHOTOS, GREYS], ids=["RGB", "grey"])
@pytest.mark.parametrize("name", PHOTOS)
def test_values_are_pillows(images, name):
    image = images[name]
    own = pillow(image)
    for ours, theirs in [
        (pixels.invert(image), ImageOps.invert(own)),
        (pixels.autocontrast(image), ImageOps.autocontrast(own)),
        (pixels.equalize(image), ImageOps.equalize(own)),
        *((pixels.posterize(image, bits), ImageOps.posterize(own, bits)) for bits in range(1, 9)),
        *((pixels.solarize(image, t), ImageOps.solarize(own, t)) for t in (0, 1, 77, 130.5, 256)),
        *((pixels.brightness(image, f), ImageEnhance.Brightness(own).enhance(f)) for f in FACTORS),
        *((pixels.contrast(image, f), ImageEnhance.Contrast(own).enhance(f)) for f in FACTORS),
    ]:
        np.testing.assert_array_equal(ours, array(theirs))


@pytest.mark.parametrize("images", [PHOTOS, GREYS], ids=["RGB", "grey"])
@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("factor", FACTORS[:-1])
def test_saturation_and_sharpness_are_pillows_within_a_level(images, name, factor):
    image = images[name]
    for ours, theirs in [
        (pixels.saturation(image, factor), ImageEnhance.Color(pillow(image)).enhance(factor)),
        (pixels.sharpness(image, factor), ImageEnhance.Sharpness(pillow(image)).enhance(factor)),
    ]:
        distance = np.abs(ours.astype(int) - array(theirs))
        assert distance.max() <= 1
        assert (distance > 0).mean() <= 0.01


def test_posterize_to_nothing_is_black():
    assert not pixels.posterize(PHOTOS["photo"], 0).any()


def test_grey_is_pillows_luma():
    image = PHOTOS["photo"]
    distance = np.abs(pixels.grey(image).astype(int) - array(pillow(image).convert("L")))
    assert distance.max() <= 1
    assert pixels.grey(image).shape == image.shape


@pytest.mark.parametrize("shift", [0.0, 0.1, -0.25, 0.5, -0.5])
def test_hue_is_turned_as_colorsys_turns_it(shift):
    image = PHOTOS["photo"][::4, ::4]
    wanted = []
    for red, green, blue in image.reshape(-1, 3) / 255:
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        wanted.append(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
    wanted = 255 * np.array(wanted).reshape(image.shape)
    assert np.abs(pixels.hue(image, shift) - wanted).max() <= 0.51


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_a_gaussian(sigma):
    image = PHOTOS["photo"]
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    framed = np.pad(image, [(radius, radius), (radius, radius), (0, 0)], "reflect").astype(float)
    for axis in (0, 1):
        framed = np.apply_along_axis(np.convolve, axis, framed, kernel, "valid")
    assert np.abs(pixels.blur(image, sigma) - framed).max() <= 1


CHANGES = [
    (pixels.invert,),
    (pixels.posterize, 3),
    (pixels.solarize, 99),
    (pixels.brightness, 1.4),
    (pixels.contrast, 0.4),
    (pixels.autocontrast,),
    (pixels.equalize,),
    (pixels.saturation, 0.3),
    (pixels.sharpness, 1.7),
    (pixels.hue, 0.2),
    (pixels.grey,),
    (pixels.blur, 1.1),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0].__name__)
def test_alpha_is_left_alone_and_colours_do_not_look_at_it(change):
    image = photo(20, 30, 4, 60, 200)
    given = image.copy()
    result = change[0](image, *change[1:])
    np.testing.assert_array_equal(result[..., 3], image[..., 3])
    np.testing.assert_array_equal(result[..., :3], change[0](image[..., :3].copy(), *change[1:]))
    np.testing.assert_array_equal(image, given)
    assert (result[..., :3] != image[..., :3]).any()


@pytest.mark.parametrize("change", [(pixels.saturation, 0.3), (pixels.hue, 0.2), (pixels.grey,)])
def test_grey_has_no_colour_to_change(change):
    image = GREYS["photo"]
    np.testing.assert_array_equal(change[0](image, *change[1:]), image)


# --------------------------------------------------------------------------- places


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, -7), (-48, 2), (500, 0), (1, -500)])
def test_translations_are_pillows(channels, right, down):
    image = PHOTOS["photo"][..., :channels]
    own = pillow(image)
    fill = (9,) * channels if channels == 3 else 9
    data = (1, 0, -right, 0, 1, -down)
    wanted = own.transform(own.size, Image.Transform.AFFINE, data, fillcolor=fill)
    np.testing.assert_array_equal(pixels.translate(image, right, down, 9), array(wanted))


def same_within_a_level(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Pillow cuts off where OpenCV rounds; a pixel may lie on the very border of the image."""
    limit = 1 if cv2.__version__ >= "5" else 2  # OpenCV 4 interpolates in steps of 1/32 pixel
    distance = np.abs(ours.astype(int) - theirs)
    assert (distance <= limit).mean() >= 0.9995


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("amount", [-0.99, -0.3, 0.0, 0.17, 0.6])
def test_shears_are_pillows(channels, amount):
    image = PHOTOS["photo"][..., :channels]
    own = pillow(image)
    fill = (128,) * channels if channels == 3 else 128
    for ours, data in [
        (pixels.shear(image, amount, 0, 128), (1, amount, 0, 0, 1, 0)),
        (pixels.shear(image, 0, amount, 128), (1, 0, 0, amount, 1, 0)),
    ]:
        method, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        theirs = array(own.transform(own.size, method, data, bilinear, fillcolor=fill))
        same_within_a_level(ours, theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degrees", [-135, -30, -3.3, 0, 17, 45, 90, 180])
@pytest.mark.parametrize("shape", [(64, 48), (45, 45)])
def test_rotations_are_pillows(channels, degrees, shape):
    image = photo(*shape)[..., :channels]
    fill = (7,) * channels if channels == 3 else 7
    theirs = pillow(image).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    same_within_a_level(pixels.rotate(image, degrees, 7), array(theirs))


def test_a_warp_of_four_channels_moves_alpha_too():
    image = photo(30, 30, 4, 60, 200)
    turned = pixels.rotate(image, 90, 0)
    np.testing.assert_array_equal(turned, np.rot90(image))

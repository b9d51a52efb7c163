"""Colour ops: their draws, their order, and numbers of Paddle, Pillow and the published table."""

import ppcls  # isort: skip  # sets Paddle's threads
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from pydantic import TypeAdapter, ValidationError

from ppcls.data import pixels
from ppcls.data.transforms import ColorJitter, GaussianBlur, Grayscale, Lighting, Transform

assert ppcls


def noise(height=40, width=50, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Fixed:
    """A generator whose draws are given: the order of a ColorJitter and where in its ranges."""

    def __init__(self, order, draws):
        self.order, self.draws = np.array(order), np.array(draws, float)

    def permutation(self, count):
        assert count == len(self.order)
        return self.order

    def random(self, count=None):
        return self.draws if count else self.draws[0]

    def standard_normal(self, count):
        return self.draws[:count]


@pytest.mark.parametrize(
    ("field", "enhancer", "draw", "factor"),
    [
        ("brightness", ImageEnhance.Brightness, 0.0, 0.6),
        ("brightness", ImageEnhance.Brightness, 0.75, 1.2),
        ("contrast", ImageEnhance.Contrast, 0.25, 0.8),
        ("saturation", ImageEnhance.Color, 0.999, 1.3992),
    ],
)
def test_color_jitter_draws_its_factors_evenly_around_one(field, enhancer, draw, factor):
    image = noise()
    result = ColorJitter(**{field: 0.4})(image, Fixed([3, 1, 0, 2], [draw] * 4), 9)
    wanted = np.asarray(enhancer(Image.fromarray(image)).enhance(factor))
    assert np.abs(result.astype(int) - wanted).max() <= 1


def test_color_jitter_goes_no_lower_than_black_and_turns_hues_both_ways():
    image = noise()
    assert not ColorJitter(brightness=2.0)(image, Fixed([0, 1, 2, 3], [0] * 4), 9).any()
    doubled = ColorJitter(brightness=2.0)(image, Fixed([0, 1, 2, 3], [2 / 3] * 4), 9)
    np.testing.assert_array_equal(doubled, np.minimum(2 * image.astype(int), 255))
    for draw, shift in ((0.0, -0.25), (0.5, 0.0), (0.75, 0.125)):
        result = ColorJitter(hue=0.25)(image, Fixed([0, 1, 2, 3], [draw] * 4), 9)
        np.testing.assert_array_equal(result, pixels.hue(image, shift))


def test_color_jitter_runs_in_the_order_drawn():
    image, op = noise(), ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
    amounts = [1.4, 1.4, 1.4, 0.08]
    names = (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue)
    seen = set()
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        wanted = image
        for index in order:
            wanted = names[index](wanted, amounts[index])
        result = op(image, Fixed(order, [0.9] * 4), 9)
        assert np.abs(result.astype(int) - wanted).max() <= 1
        seen.add(result.tobytes())
    assert len(seen) == 3
    orders = {tuple(rng(seed).permutation(4)) for seed in range(300)}
    assert len(orders) == 24


def test_color_jitter_agrees_with_paddles():
    functional = pytest.importorskip("paddle.vision.transforms.functional")
    image = noise()
    own = Image.fromarray(image)
    for ours, theirs in [
        (pixels.brightness(image, 1.3), functional.adjust_brightness(own, 1.3)),
        (pixels.contrast(image, 0.6), functional.adjust_contrast(own, 0.6)),
    ]:
        np.testing.assert_array_equal(ours, np.asarray(theirs))
    turned = np.asarray(functional.adjust_hue(own, 0.2)).astype(int)
    # Paddle goes through HSV of 8 bits: a level of hue is up to 6 of a colour.
    assert np.abs(pixels.hue(image, 51 / 256) - turned).mean() < 1.5
    assert np.abs(pixels.hue(image, 51 / 256) - turned).max() <= 12


def test_color_jitter_of_nothing_changes_nothing():
    image = noise()
    assert ColorJitter()(image, rng(), 9) is image


def test_grayscale():
    image, stream = noise(), rng()
    wanted = np.asarray(Image.fromarray(image).convert("L").convert("RGB")).astype(int)
    assert np.abs(Grayscale(prob=1.0)(image, rng(), 9) - wanted).max() <= 1
    grey = [Grayscale(prob=0.3)(image, stream, 9) is not image for _ in range(2000)]
    assert abs(np.mean(grey) - 0.3) < 0.035


def test_gaussian_blur_draws_its_sigma_evenly():
    image = noise()
    for draw, sigma in ((0.0, 0.5), (0.5, 1.25), (0.999, 1.9985)):
        result = GaussianBlur(sigma=(0.5, 2.0))(image, Fixed([0], [draw]), 9)
        assert np.abs(result.astype(int) - pixels.blur(image, sigma)).max() <= 1


def test_lighting_is_the_published_formula():
    image, draws = noise(), [0.7, -1.9, 1.1]
    # As in the common recipes: eigenvectors in columns, of RGB from 0 to 1.
    values = [0.2175, 0.0188, 0.0045]
    red = [-0.5675, 0.7192, 0.4009]
    green = [-0.5808, -0.0045, -0.8140]
    blue = [-0.5836, -0.6948, 0.4203]
    wanted = image.astype(float)
    for channel, row in enumerate((red, green, blue)):
        shift = sum(row[i] * values[i] * 0.3 * draws[i] for i in range(3))
        wanted[..., channel] += 255 * shift
    result = Lighting(std=0.3)(image, Fixed([0], draws), 9)
    assert np.abs(result - np.clip(wanted, 0, 255)).max() <= 0.5001
    # The eigenvectors of a covariance are orthonormal.
    basis = np.array([red, green, blue])
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=2e-3)


def test_lighting_shifts_each_photo_by_another_colour():
    grey, stream = np.full((2, 2, 3), 128, np.uint8), rng()
    shifts = np.array([Lighting()(grey, stream, 9)[0, 0].astype(float) for _ in range(2000)]) - 128
    expected = 255 * 0.1 * np.sqrt((0.5675 * 0.2175) ** 2 + (0.7192 * 0.0188) ** 2)
    assert abs(shifts[:, 0].std() - expected) < 0.15
    assert abs(shifts.mean()) < 0.2


@pytest.mark.parametrize(
    "op", [ColorJitter(saturation=0.9, hue=0.5), Grayscale(prob=1.0), Lighting(std=1.0)]
)
def test_what_is_grey_has_no_colour_to_change(op):
    image = noise(channels=1)
    np.testing.assert_array_equal(op(image, rng(3), 9), image)


@pytest.mark.parametrize(
    "op",
    [
        ColorJitter(brightness=0.9, contrast=0.5, saturation=0.9, hue=0.5),
        Grayscale(prob=1.0),
        Lighting(std=1.0),
        GaussianBlur(),
    ],
)
def test_alpha_is_left_alone(op):
    image = noise(channels=4)
    result = op(image, rng(3), 9)
    np.testing.assert_array_equal(result[..., 3], image[..., 3])
    np.testing.assert_array_equal(result[..., :3], op(image[..., :3].copy(), rng(3), 9))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "color_jitter", "brightness": -0.1}, "greater than or equal to 0"),
        ({"op": "color_jitter", "hue": 0.6}, "less than or equal to 0.5"),
        ({"op": "grayscale", "prob": 2}, "less than or equal to 1"),
        ({"op": "gaussian_blur", "sigma": (2.0, 1.0)}, "smaller one first"),
        ({"op": "gaussian_blur", "sigma": (0.0, 1.0)}, "greater than 0"),
        ({"op": "lighting", "alphastd": 0.1}, "[Uu]nexpected keyword"),
    ],
)
def test_mistakes_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Transform).validate_python(given)

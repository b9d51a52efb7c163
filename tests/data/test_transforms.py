"""Training ops: geometry on images that show where a pixel came from, chances over many draws."""

import pickle

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ppcls.data.transforms import (
    CenterCrop,
    HorizontalFlip,
    Pad,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ResizeShort,
    Rotation,
    Transform,
    VerticalFlip,
    apply,
)
from ppcls.utils.errors import UserError

OPS = [
    RandomResizedCrop(),
    RandomResizedCrop(backend="pil", interpolation="random"),
    HorizontalFlip(),
    VerticalFlip(),
    Resize(),
    ResizeShort(),
    ResizeShort(pixels=40),
    CenterCrop(),
    RandomCrop(),
    RandomCrop(pad=4),
    Rotation(),
]


def noise(height=50, width=70, channels=3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def places(height: int, width: int) -> np.ndarray:
    """An image whose pixels are (row + 1, column + 1, 0)."""
    rows, columns = np.indices((height, width)).astype(np.uint8) + 1
    return np.stack([rows, columns, 0 * rows], -1)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_op_is_a_function_of_image_rng_and_size(op, channels):
    image = noise(channels=channels)
    given = image.copy()
    first, second = op(image, rng(), 32), op(np.asfortranarray(image), rng(), 32)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, given)
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == channels


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_every_op_draws_equally_often_whatever_the_image(op):
    after = set()
    for height, width in [(50, 70), (300, 40), (40, 300), (33, 33)]:
        stream = rng()
        op(noise(height, width), stream, 32)
        after.add(stream.random())
    assert len(after) == 1


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_every_op_is_a_node_that_is_read_back_by_its_name(op):
    adapter = TypeAdapter(Transform)
    assert adapter.validate_python(adapter.dump_python(op)) == op
    assert adapter.validate_python({"op": op.op}) == type(op)()
    assert pickle.loads(pickle.dumps(op)) == op


def boxes(op: RandomResizedCrop, width: int, height: int, count=4000) -> np.ndarray:
    """Left, top, width, height of many draws, int [count, 4]."""
    stream = rng(1)
    return np.array([op.box(width, height, stream) for _ in range(count)])


def test_random_resized_crop_draws_areas_and_ratios_evenly():
    left, top, w, h = boxes(RandomResizedCrop(scale=(0.1, 0.3)), 1000, 1000).T
    share, ratio = w * h / 1e6, np.log(w / h)
    # Every box fits, so a fifth of the draws must fall into each fifth of the ranges.
    for values, low, high in ((share, 0.1, 0.3), (ratio, np.log(0.75), np.log(4 / 3))):
        counts, _ = np.histogram(values, 5, (low - 2e-3, high + 2e-3))
        assert counts.sum() == len(values)
        np.testing.assert_allclose(counts / len(values), 0.2, atol=0.025)
    for start, side in ((left, w), (top, h)):
        assert start.min() >= 0
        assert (start + side).max() <= 1000
        counts, _ = np.histogram(start / (1000 - side), 5, (0, 1))
        np.testing.assert_allclose(counts / len(start), 0.2, atol=0.025)


def test_random_resized_crop_against_its_definition():
    # Drawn independently: tries are rejected until a box fits, as in the common implementation.
    stream, wanted = rng(2), []
    while len(wanted) < 4000:
        area = 500 * 375 * stream.uniform(0.08, 1)
        ratio = np.exp(stream.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if w <= 500 and h <= 375:
            wanted.append((w, h))
    _, _, w, h = boxes(RandomResizedCrop(), 500, 375).T
    ours, theirs = np.array([w, h]).T, np.array(wanted)
    for measure in (lambda sides: sides.prod(1), lambda sides: sides[:, 0] / sides[:, 1]):
        tenths = np.linspace(0.1, 0.9, 9)
        ours_at, theirs_at = (
            np.quantile(measure(ours), tenths),
            np.quantile(measure(theirs), tenths),
        )
        np.testing.assert_allclose(ours_at, theirs_at, rtol=0.06)


def test_random_resized_crop_reaches_every_place():
    op = RandomResizedCrop(scale=(0.25, 0.25), ratio=(1.0, 1.0))
    found, counts = np.unique(boxes(op, 4, 4), axis=0, return_counts=True)
    assert found.tolist() == [[left, top, 2, 2] for left in range(3) for top in range(3)]
    np.testing.assert_allclose(counts / counts.sum(), 1 / 9, atol=0.02)


@pytest.mark.parametrize(
    ("width", "height", "wanted"),
    [
        (1000, 10, (493, 0, 13, 10)),  # no box fits: 10 high, 4 / 3 as wide
        (10, 1000, (0, 493, 10, 13)),  # 10 wide, 4 / 3 as high
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_random_resized_crop_falls_back_to_the_middle(width, height, wanted):
    op = RandomResizedCrop(scale=(0.9, 1.0))
    assert {tuple(box) for box in boxes(op, width, height, 50)} == {wanted}


def test_random_resized_crop_cuts_and_stretches_its_box():
    image = noise()
    for backend in ("cv2", "pil"):
        op = RandomResizedCrop(interpolation="nearest", backend=backend)
        left, top, width, height = op.box(70, 50, rng(3))
        part = Image.fromarray(image[top : top + height, left : left + width])
        result = op(image, rng(3), 2 * max(width, height))
        assert result.shape == (2 * max(width, height),) * 2 + (3,)
        if backend == "pil":
            wanted = part.resize(result.shape[:2], Image.Resampling.NEAREST)
            np.testing.assert_array_equal(result, np.asarray(wanted))
        assert {tuple(pixel) for pixel in result.reshape(-1, 3)} == {
            tuple(pixel) for pixel in np.asarray(part).reshape(-1, 3)
        }


@pytest.mark.parametrize(("op", "axis"), [(HorizontalFlip, 1), (VerticalFlip, 0)])
def test_flips(op, axis):
    image = noise()
    np.testing.assert_array_equal(op(prob=1.0)(image, rng(), 9), np.flip(image, axis))
    np.testing.assert_array_equal(op(prob=0.0)(image, rng(), 9), image)
    stream = rng()
    flipped = [op(prob=0.3)(image, stream, 9) is not image for _ in range(3000)]
    assert abs(np.mean(flipped) - 0.3) < 0.03


def test_resize_and_resize_short():
    image = noise()
    wanted = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)
    result = Resize(interpolation="bicubic", backend="pil")(image, rng(), 32)
    np.testing.assert_array_equal(result, np.asarray(wanted))
    assert ResizeShort()(image, rng(), 32).shape == (32, 45, 3)
    assert ResizeShort(pixels=40)(image, rng(), 32).shape == (40, 56, 3)


def test_center_crop():
    image = places(9, 12)
    np.testing.assert_array_equal(CenterCrop()(image, rng(), 4), image[2:6, 4:8])
    with pytest.raises(UserError, match="center_crop cannot cut 10x10 out of an image of 12x9"):
        CenterCrop()(image, rng(), 10)


def test_random_crop_reaches_every_place():
    image, stream = places(6, 7), rng()
    seen = [RandomCrop()(image, stream, 4) for _ in range(2000)]
    starts = np.array([crop[0, 0, :2] for crop in seen]) - 1
    for crop, (top, left) in zip(seen, starts, strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 4])
    _, counts = np.unique(starts, axis=0, return_counts=True)
    assert len(counts) == 3 * 4
    np.testing.assert_allclose(counts / 2000, 1 / 12, atol=0.03)


def test_random_crop_pads_with_black():
    image, stream = places(6, 6), rng()
    framed = np.pad(image, [(2, 2), (2, 2), (0, 0)])
    wanted = {framed[y : y + 6, x : x + 6].tobytes() for y in range(5) for x in range(5)}
    assert {RandomCrop(pad=2)(image, stream, 6).tobytes() for _ in range(500)} == wanted


def test_random_crop_pads_what_is_too_small():
    image = places(3, 9)
    result = RandomCrop()(image, rng(), 6)
    np.testing.assert_array_equal(result[[0, 4, 5]], 0)
    np.testing.assert_array_equal(result[1:4, :, 0], np.arange(1, 4)[:, None].repeat(6, 1))
    assert RandomCrop(pad=1)(places(2, 2), rng(), 9).shape == (9, 9, 3)


def test_random_interpolation_is_bilinear_or_bicubic():
    image, found = noise(), []
    op = RandomResizedCrop(interpolation="random")
    for seed in range(400):
        kinds = (RandomResizedCrop(interpolation=kind) for kind in ("bilinear", "bicubic"))
        choices = [kind(image, rng(seed), 24) for kind in kinds]
        result = op(image, rng(seed), 24)
        found.append([np.array_equal(result, choice) for choice in choices].index(True))
    assert abs(np.mean(found) - 0.5) < 0.08


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad_is_numpys(channels, mode):
    image = noise(channels=channels)
    for pixels, sides in ((3, (3, 3, 3, 3)), ((1, 2, 30, 4), (1, 2, 30, 4)), (0, (0, 0, 0, 0))):
        left, top, right, bottom = sides
        fill = {"constant_values": 9} if mode == "constant" else {}
        wanted = np.pad(image, [(top, bottom), (left, right), (0, 0)], mode, **fill)
        result = Pad(pixels=pixels, fill=9, mode=mode)(image, rng(), 32)
        np.testing.assert_array_equal(result, wanted)


def test_rotation_draws_its_angle_evenly():
    image, stream = places(41, 41), rng()
    angles = []
    for _ in range(400):
        turned = Rotation(degrees=(-10.0, 30.0), fill=200)(image, stream, 32)
        assert turned.shape == image.shape
        # In the middle a step to the right goes so many rows down (negative: up).
        rise = (turned[20, 35, 0].astype(float) - turned[20, 5, 0]) / 30
        angles.append(np.degrees(np.arcsin(np.clip(rise, -1, 1))))
    assert -12 < min(angles) < -8
    assert 27 < max(angles) < 32
    assert abs(np.mean(angles) - 10) < 2
    assert abs(np.std(angles) - 40 / np.sqrt(12)) < 1
    corner = Rotation(degrees=(30.0, 30.0), fill=200)(image, rng(), 32)[0, 0]
    np.testing.assert_array_equal(corner, 200)
    turned = Rotation(degrees=(90.0, 90.0))(image, rng(), 32)
    np.testing.assert_array_equal(turned, np.rot90(image))


def test_apply_runs_the_ops_in_order():
    ops = (RandomResizedCrop(), HorizontalFlip(), VerticalFlip(prob=1.0))
    image, stream = noise(), rng(5)
    wanted = image
    for op in ops:
        wanted = op(wanted, stream, 24)
    np.testing.assert_array_equal(apply(ops, image, rng(5), 24), wanted)
    assert apply(ops, image, rng(6), 24).tobytes() != wanted.tobytes()


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ([ResizeShort(), HorizontalFlip()], "image of 32x32; horizontal_flip gave 45x32; add"),
        ([ResizeShort(pixels=30)], "resize_short gave 42x30"),
        ([], "without ops gave 70x50"),
    ],
)
def test_apply_names_ops_that_end_in_another_size(ops, words):
    with pytest.raises(UserError, match=words):
        apply(ops, noise(), rng(), 32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "random_resized_crop", "scale": (0.5, 0.1)}, "scale .* smaller share first"),
        ({"op": "random_resized_crop", "scale": (0.5, 1.1)}, "at most 1"),
        ({"op": "random_resized_crop", "scale": (0.0, 1.0)}, "greater than 0"),
        ({"op": "random_resized_crop", "ratio": (2.0, 1.0)}, "ratio .* smaller"),
        ({"op": "random_resized_crop", "size": 224}, "[Uu]nexpected keyword"),
        ({"op": "horizontal_flip", "prob": 1.5}, "less than or equal to 1"),
        ({"op": "resize_short", "pixels": 0}, "greater than 0"),
        ({"op": "random_crop", "pad": -1}, "greater than or equal to 0"),
        ({"op": "center_crop", "interpolation": "area"}, "[Uu]nexpected keyword"),
        ({"op": "pad", "pixels": -1}, "greater than or equal to 0"),
        ({"op": "pad", "pixels": (1, 2)}, "one number, or four: left, top, right, bottom"),
        ({"op": "pad", "pixels": 1, "fill": 256}, "less than or equal to 255"),
        ({"op": "rotation", "degrees": (5, -5)}, "degrees .* smaller angle first"),
        ({"op": "flip"}, "'horizontal_flip', 'vertical_flip'"),
    ],
)
def test_mistakes_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Transform).validate_python(given)

"""Ops that hide: where, how much, how often and what is painted there."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from ppcls.data.transforms import Cutout, GridMask, HideAndSeek, RandomErasing, Transform

MEAN = np.array([124, 116, 104])  # of ImageNet: 255 * (0.485, 0.456, 0.406), rounded


def white(height=60, width=80, channels=3) -> np.ndarray:
    return np.full((height, width, channels), 255, np.uint8)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def hidden(op, image, stream, size=40) -> np.ndarray:
    """Where the op (of mode "constant") hides: bool [H, W]."""
    result = op(image, stream, size)
    black = (result == 0).all(-1)
    assert ((result == image).all(-1) | black).all()
    return black


def box_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, width, height of what is hidden, which must be a full box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
    assert mask[top : top + height, left : left + width].all()
    assert mask.sum() == width * height
    return left, top, width, height


def test_random_erasing_draws_areas_and_ratios_as_told():
    op, stream, image = RandomErasing(prob=1.0, scale=(0.1, 0.3), mode="constant"), rng(), white()
    boxes = np.array([box_of(hidden(op, image, stream)) for _ in range(3000)])
    left, top, width, height = boxes.T
    share, ratio = width * height / (60 * 80), np.log(width / height)
    assert (0.09, 0.31) < (share.min(), share.max()) < (0.11, 0.32)
    assert abs(share.mean() - 0.2) < 0.015  # a little less: flat boxes of the largest do not fit
    assert np.log(0.27) < ratio.min() < np.log(0.35)
    assert abs(ratio.max() - np.log(80 / 26)) < 0.35
    free = (80 - width, 60 - height)
    for start, rest in zip((left, top), free, strict=True):
        assert start.min() >= 0
        assert (start <= rest).all()
        assert abs((start / np.maximum(rest, 1)).mean() - 0.5) < 0.03


def test_random_erasing_hides_with_its_probability_and_not_what_cannot_be():
    op, stream, image = RandomErasing(prob=0.3), rng(), white()
    assert abs(np.mean([op(image, stream, 9) is not image for _ in range(3000)]) - 0.3) < 0.03
    tall = white(500, 1)
    assert RandomErasing(prob=1.0, scale=(0.4, 0.4))(tall, rng(), 9) is tall


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_painted(channels):
    image = white(200, 200, channels)
    where = hidden(RandomErasing(prob=1.0, mode="constant"), image, rng(5))
    assert where.any()
    for mode in ("mean", "pixel"):
        result = RandomErasing(prob=1.0, mode=mode)(image, rng(5), 9)
        np.testing.assert_array_equal(result[~where], 255)
        if mode == "mean":
            colour = {1: [116], 3: MEAN, 4: [*MEAN, 255]}[channels]
            np.testing.assert_array_equal(result[where], np.tile(colour, (where.sum(), 1)))
        else:
            values = result[where].astype(float)
            assert abs(values.mean() - 127.5) < 5
            assert abs(values.std() - 255 / np.sqrt(12)) < 3
            pairs = np.corrcoef(values.reshape(-1)[:-1], values.reshape(-1)[1:])
            assert abs(pairs[0, 1]) < 0.1


def test_mean_is_imagenets():
    np.testing.assert_array_equal(MEAN, np.round(255 * np.array([0.485, 0.456, 0.406])))


def test_cutout_reaches_over_the_border_as_published():
    op, stream, image = Cutout(length=6, mode="constant"), rng(), white(10, 14)
    seen = np.zeros((10, 14))
    for _ in range(4000):
        left, top, width, height = box_of(hidden(op, image, stream))
        # The published code: from the middle minus half to the middle plus half, clipped.
        assert width == 6 or left == 0 or left + width == 14
        assert height == 6 or top == 0 or top + height == 10
        seen[top : top + height, left : left + width] += 1
    wanted = np.zeros((10, 14))
    for y in range(10):
        for x in range(14):
            wanted[max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] += 1 / 140
    np.testing.assert_allclose(seen / 4000, wanted, atol=0.035)


def test_cutout_makes_several_holes_of_half_the_size():
    image, stream = white(90, 90), rng()
    assert box_of(hidden(Cutout(mode="constant"), white(900, 900), rng(1), 64))[2:] == (32, 32)
    areas = [
        hidden(Cutout(holes=3, length=8, mode="constant"), image, stream).sum() for _ in range(99)
    ]
    assert 2 * 64 < max(areas) == 3 * 64


def test_hide_and_seek_hides_squares():
    image, stream = white(70, 100), rng()
    op = HideAndSeek(sides=(16,), prob=0.25, mode="constant")
    total = np.zeros((5, 7))
    for _ in range(800):
        mask = hidden(op, image, stream)
        corners = mask[::16, ::16]
        np.testing.assert_array_equal(mask, corners.repeat(16, 0).repeat(16, 1)[:70, :100])
        total += corners
    np.testing.assert_allclose(total / 800, 0.25, atol=0.06)


def test_hide_and_seek_draws_its_side_evenly():
    image, stream = white(224, 224), rng()
    op = HideAndSeek(prob=1.0, mode="constant")
    assert op.sides == (0, 16, 32, 44, 56)
    kept = [op(image, stream, 224) is image for _ in range(1000)]
    assert abs(np.mean(kept) - 0.2) < 0.04
    op = HideAndSeek(sides=(1, 200), mode="constant")
    coarse = [len(np.unique(hidden(op, white(20, 20), stream))) == 1 for _ in range(400)]
    assert abs(np.mean(coarse) - 0.5) < 0.08


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
def test_grid_mask_hides_the_square_of_what_its_ratio_leaves(ratio):
    op = GridMask(prob=1.0, unit=(10, 10), ratio=ratio, mode="constant")
    image, stream, starts = white(60, 80), rng(), set()
    for _ in range(300):
        mask = hidden(op, image, stream)
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        assert mask.mean() == pytest.approx((1 - ratio) ** 2)
        for line in (rows, columns):
            np.testing.assert_array_equal(line[10:], line[:-10])
            assert line[:10].sum() == round(10 * (1 - ratio))
        starts.add((rows[:10].tobytes(), columns[:10].tobytes()))
    assert len(starts) == (1 if ratio in (0, 1) else 100) or len(starts) > 85


def test_grid_mask_draws_its_unit_and_turns():
    image, stream = white(41, 120), rng()
    op = GridMask(prob=0.4, unit=(20, 40), ratio=0.5, mode="constant")
    units = []
    for _ in range(1500):
        mask = hidden(op, image, stream)
        if not mask.any():
            continue
        edges = np.flatnonzero(np.diff(mask.any(0).astype(int)) == 1)
        units.append(edges[1] - edges[0])
    assert abs(len(units) / 1500 - 0.4) < 0.04
    assert set(units) == set(range(20, 41))
    assert abs(np.mean(units) - 30) < 1
    turned = hidden(
        GridMask(prob=1.0, unit=(20, 40), rotate=90.0, mode="constant"), white(300, 300), rng(3)
    )
    assert turned.any(0).all()
    assert abs(turned.mean() - 0.16) < 0.03


def test_modes_by_default():
    assert RandomErasing().mode == "pixel"
    assert {op().mode for op in (Cutout, HideAndSeek, GridMask)} == {"mean"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "random_erasing", "scale": (0.4, 0.1)}, "smaller share first"),
        ({"op": "random_erasing", "ratio": (3.0, 1.0)}, "smaller width / height first"),
        ({"op": "random_erasing", "mode": "rand"}, "'pixel', 'constant' or 'mean'"),
        ({"op": "cutout", "holes": 0}, "greater than 0"),
        ({"op": "cutout", "length": 0}, "greater than 0"),
        ({"op": "hide_and_seek", "sides": ()}, "sides is empty"),
        ({"op": "hide_and_seek", "sides": (-1,)}, "greater than or equal to 0"),
        ({"op": "grid_mask", "unit": (9, 3)}, "shorter side first"),
        ({"op": "grid_mask", "ratio": 1.2}, "less than or equal to 1"),
        ({"op": "grid_mask", "rotate": 400}, "less than or equal to 360"),
    ],
)
def test_mistakes_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Transform).validate_python(given)

"""What an export keeps of the images it was calibrated on."""

from types import SimpleNamespace

import numpy as np
import pytest

from ppcls.drift.permutation import compare
from ppcls.drift.sketch import BYTES, make_sketch, sketch_in
from ppcls.inference.looks import LOOKS
from ppcls.utils.errors import UserError


def answers(seed, count, classes=10, width=64):
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (count, width)).astype(np.float32) * np.linspace(3, 0.1, width)
    logits = features @ np.random.default_rng(99).normal(0, 0.3, (width, classes))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    looks = random.normal(60, 20, (count, len(LOOKS))).astype("f4")
    return (powers / powers.sum(axis=1, keepdims=True)).astype("f4"), features.astype("f4"), looks


def size(found):
    return sum(array.nbytes for array in found.arrays().values())


@pytest.mark.parametrize(
    ("classes", "width"),
    [
        (1000, 1280),
        (1000, None),
        pytest.param(5, 2048, marks=pytest.mark.slow),
        pytest.param(2, 4096, marks=pytest.mark.slow),
    ],
)
def test_it_takes_some_fifty_kilobytes(classes, width):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(classes, 0.1), 1500).astype(np.float32)
    features = random.random((1500, width or 1), np.float32)
    looks = np.zeros((1500, len(LOOKS)), np.float32)
    found = make_sketch(probabilities, None if width is None else features, looks)
    assert size(found) <= BYTES + 200  # for offsets and factors
    assert len(found.rows) >= 750
    assert len(found.axes) >= 6


def test_few_images_are_all_in_it_or_in_its_axes():
    found = make_sketch(*answers(0, 90))
    assert len(found.rows) == 60
    assert len(make_sketch(*answers(0, 3000)).rows) == 1000


def test_it_is_the_same_each_time():
    first, second = (make_sketch(*answers(0, 300)).arrays() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("features", [True, False])
def test_places_are_deviations_of_others(features):
    """Which they are not of images that the axes were fitted to, where these are few."""
    probabilities, pooled, looks = answers(0, 200, width=300)
    found = make_sketch(probabilities, pooled if features else None, looks)
    others = answers(1, 400, width=300)
    rows = found.rows_of(others[0], others[1] if features else None, others[2])
    spread = [one.places.std(axis=0) for one in (found.rows, rows)]
    varies = spread[1] > 0  # the logarithms have one direction less than classes
    assert varies.sum() >= 9
    assert np.abs(spread[0][varies] / spread[1][varies] - 1).max() < 0.35
    assert compare(found.rows, rows, 0.01).p > 0.01
    np.testing.assert_array_equal(rows.classes, others[0].argmax(axis=1))
    np.testing.assert_array_equal(rows.scores, others[0].max(axis=1))


def test_images_without_any_difference():
    probabilities = np.tile(np.float32([[0.9, 0.1]]), (30, 1))
    rest = np.ones((30, 4), np.float32), np.ones((30, len(LOOKS)), np.float32)
    found = make_sketch(probabilities, *rest)
    assert not found.rows.places.any()
    other = found.rows_of(probabilities, *rest)
    assert compare(found.rows, other, 0.01).p == 1


def calibrated(found, **changed):
    values = found.arrays() | changed
    return SimpleNamespace(sketch=found.of, values=values, made_from=SimpleNamespace(classes=10))


def test_it_comes_back_from_its_arrays(tmp_path):
    made = make_sketch(*answers(0, 200))
    found = sketch_in(calibrated(made), tmp_path)
    assert found.of == "features"
    given = answers(5, 40)
    for name in ("places", "scores", "classes", "looks"):
        np.testing.assert_array_equal(getattr(found.rows, name), getattr(made.rows, name))
        np.testing.assert_array_equal(
            getattr(found.rows_of(*given), name), getattr(made.rows_of(*given), name)
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"sketch_scores": None},
        {"sketch_scores": np.zeros(3, np.float32)},
        {"sketch_axes": np.zeros(4, np.int8)},
        {"sketch_offsets": np.zeros(3, np.float32)},
        {"sketch_classes": np.full(133, 77, np.uint16)},
        {"sketch_looks": np.zeros((133, 2), np.float16)},
        {"sketch_looks": np.full((133, 5), np.nan, np.float16)},
        {"sketch_looks": np.zeros((133, 5), "S3")},
    ],
)
def test_what_does_not_fit_together_is_one_line(changed, tmp_path):
    with pytest.raises(UserError, match="has no whole sketch of its images; copy the folder again"):
        sketch_in(calibrated(make_sketch(*answers(0, 200)), **changed), tmp_path)


def test_a_sketch_of_an_older_ppcls_is_none(tmp_path):
    """Which had no looks."""
    older = calibrated(make_sketch(*answers(0, 200)))
    del older.values["sketch_looks"]
    assert sketch_in(older, tmp_path) is None

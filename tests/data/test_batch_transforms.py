"""Mixed batches: pixels and targets against what the papers' formulas give."""

from dataclasses import dataclass

import numpy as np
import pytest

from ppcls.data import batch_transforms
from ppcls.data.batch_transforms import CutMix, FMix, Mixup, apply, check, one_hot

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 20, 30, 3), np.uint8)
TARGETS = one_hot(np.array([0, 1, 2, 3, 0, 1]), 4)


class Fixed:
    """A generator that gives what a test says, in order, and remembers the questions."""

    def __init__(self, beta, random=None):
        self.lam, self.uniform, self.asked = beta, random, []

    def beta(self, a, b):
        self.asked.append((a, b))
        return self.lam

    def random(self, count=None):
        return np.array(self.uniform)

    def permutation(self, count):
        return np.roll(np.arange(count), 1)

    def standard_normal(self, shape):
        return np.random.default_rng(3).standard_normal(shape)


def test_mixup_is_the_weighted_mean():
    given = Fixed(0.3)
    images, targets = Mixup(alpha=0.2)(IMAGES, TARGETS, given)
    assert given.asked == [(0.2, 0.2)]
    exact = 0.3 * IMAGES.astype(float) + 0.7 * IMAGES[[5, 0, 1, 2, 3, 4]]
    assert images.dtype == np.uint8
    assert np.abs(images - exact).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(targets[1], [0.7, 0.3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(targets[0], [0.3, 0.7, 0, 0], atol=1e-6)  # of 0 and 1


def test_cutmix_pastes_a_box_of_its_area():
    # sqrt(1 - 0.75) = half of each side: 10 x 15 around the middle
    images, targets = CutMix()(IMAGES, TARGETS, Fixed(0.75, (0.5, 0.5)))
    other = IMAGES[[5, 0, 1, 2, 3, 4]]
    np.testing.assert_array_equal(images[:, 5:15, 7:22], other[:, 5:15, 7:22])
    outside = np.ones((20, 30), bool)
    outside[5:15, 7:22] = False
    np.testing.assert_array_equal(images[:, outside], IMAGES[:, outside])
    np.testing.assert_allclose(targets[1], [0.25, 0.75, 0, 0], atol=1e-6)


def test_cutmix_counts_what_is_left_of_a_box_at_the_edge():
    _, targets = CutMix()(IMAGES, TARGETS, Fixed(0.75, (0.0, 0.0)))  # 5 x 7 pixels of it
    np.testing.assert_allclose(targets[1], [35 / 600, 565 / 600, 0, 0], atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.8, 1.0])
def test_fmix_masks_a_share(lam):
    images, targets = FMix()(IMAGES, TARGETS, Fixed(lam))
    own = (images == IMAGES).all(axis=(0, 3))
    other = (images == IMAGES[[5, 0, 1, 2, 3, 4]]).all(axis=(0, 3))
    assert (own | other).all()
    assert own.sum() == round(lam * 600)
    np.testing.assert_allclose(targets[2], [0, 1 - lam, lam, 0], atol=1e-6)


def test_fmix_masks_are_of_low_frequency():
    mask = FMix().mask(64, 64, 0.5, np.random.default_rng(1))
    edges = (mask[1:] != mask[:-1]).mean() + (mask[:, 1:] != mask[:, :-1]).mean()
    assert edges < 0.2  # of noise without frequencies it would be 1
    assert mask.mean() == 0.5


@pytest.mark.parametrize("op", [Mixup(), CutMix(), FMix()])
def test_inputs_stay_targets_sum_to_one_and_seeds_decide(op):
    images, targets = IMAGES.copy(), TARGETS.copy()
    first = op(images, targets, np.random.default_rng(5))
    second = op(images, targets, np.random.default_rng(5))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first[1].sum(axis=1), 1, atol=1e-6)
    assert first[1].dtype == np.float32


@dataclass(frozen=True)
class Named:
    """In place of an op: what it gives is its name."""

    name: str
    prob: float

    def __call__(self, images, targets, rng):
        return self.name, targets


def test_one_op_at_most_by_probability():
    ops = (Named("mixup", 0.5), Named("cutmix", 0.25))
    counts = {"mixup": 0, "cutmix": 0, "none": 0}
    rng = np.random.default_rng(0)
    for _ in range(4000):
        found = apply(ops, "none", None, rng)[0]
        counts[found] += 1
    assert abs(counts["mixup"] - 2000) < 130
    assert abs(counts["cutmix"] - 1000) < 110


def test_probabilities_sum_to_one_at_most():
    check((Mixup(prob=0.5), CutMix(prob=0.5)))
    with pytest.raises(ValueError, match="probabilities sum to 2"):
        check((Mixup(), CutMix()))


def test_one_hot():
    np.testing.assert_array_equal(
        batch_transforms.one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]]
    )

"""What an epoch shows: orders, shares of classes, showings, against counts worked out apart."""

from collections import Counter

import numpy as np
import pytest

from ppcls.data.sampler import Balanced, Shuffle, Weighted, earlier, epoch_images, quotas
from ppcls.data.samples import Dataset, Paths
from ppcls.utils.errors import UserError

NAMES = ("ant", "bee", "cat")


def samples(*counts, names=NAMES):
    """Images in a mixed order, so many of each class."""
    labels = np.random.default_rng(9).permutation(np.repeat(np.arange(len(counts)), counts))
    return Dataset(Paths([f"{i}.png" for i in range(len(labels))]), labels, names, "photos")


def shown(sampler, data, epoch=0, seed=5, repeats=1, classes=3):
    return epoch_images(sampler, data, classes, repeats, seed, epoch)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 7)])
def test_shuffle_is_the_order_it_always_was(seed, epoch):
    found = shown(Shuffle(), samples(5, 4, 3), epoch, seed)
    expected = np.random.default_rng([seed, epoch]).permutation(12)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_balanced_shows_classes_equally_and_photos_evenly():
    data = samples(12, 6, 3)
    for epoch in range(4):
        photos = shown(Balanced(), data, epoch) % 21
        assert np.bincount(data.labels[photos]).tolist() == [7, 7, 7]
        times = np.bincount(photos, minlength=21)
        for label, allowed in enumerate(({0, 1}, {1, 2}, {2, 3})):  # 7/12, 7/6 and 7/3 showings
            assert set(times[data.labels == label].tolist()) == allowed


def test_the_square_root():
    data = samples(16, 4, 1)  # roots 4, 2, 1 of 21 images: 12, 6, 3
    photos = shown(Balanced(power=0.5), data) % 21
    assert np.bincount(data.labels[photos]).tolist() == [12, 6, 3]
    natural = shown(Balanced(power=0.0), data)
    assert sorted(natural.tolist()) == list(range(21))


def test_weights_are_of_photos():
    data = samples(8, 4, 12)  # 8 * 1, 4 * 4 and 0: of 24 images 8, 16, 0
    photos = shown(Weighted(weights=(1, 4, 0)), data) % 24
    assert np.bincount(data.labels[photos], minlength=3).tolist() == [8, 16, 0]
    absent = samples(8, 4)
    photos = shown(Weighted(weights=(1, 1, 5)), absent) % 12
    assert sorted(photos.tolist()) == list(range(12))


def test_quotas_are_whole_and_right_on_average():
    shares = np.array([0.1, 3.0, 0.45, 0.45, 1.0])
    expected = shares * 7 / 5
    rng = np.random.default_rng(0)
    drawn = np.array([quotas(shares, 7, rng) for _ in range(4000)])
    assert (drawn.sum(axis=1) == 7).all()
    assert (drawn >= np.floor(expected)).all()
    assert (drawn <= np.ceil(expected)).all()
    part = expected % 1
    error = np.sqrt(part * (1 - part) / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) < 4 * error).all()
    together = np.corrcoef(drawn[:, 2], drawn[:, 3])[0, 1]
    assert abs(together) < 0.9  # neighbours are not tied to each other


def test_an_epoch_is_a_function_of_seed_and_epoch():
    data = samples(9, 3, 2)
    for sampler in (Balanced(power=0.3), Weighted(weights=(1, 2, 2.5))):
        first = shown(sampler, data, 1)
        np.testing.assert_array_equal(first, shown(sampler, data, 1))
        assert (first % 14).tolist() != (shown(sampler, data, 2) % 14).tolist()
        assert (first % 14).tolist() != (shown(sampler, data, 1, seed=6) % 14).tolist()
        assert len(first) == 14


def test_repeated_showings_stand_together_and_are_told_apart():
    data = samples(5, 4, 3)
    order = np.random.default_rng([5, 2]).permutation(12)[:4]
    found = shown(Shuffle(), data, 2, repeats=3)
    np.testing.assert_array_equal(found, [i + 12 * copy for i in order for copy in range(3)])
    uneven = shown(Shuffle(), samples(5, 4, 2), 2, repeats=3)  # the fourth image only twice
    assert len(uneven) == 11
    assert sorted(Counter((uneven % 11).tolist()).values()) == [2, 3, 3, 3]
    assert len(np.unique(uneven)) == 11


def test_a_sampler_and_repeats_together():
    data = samples(18, 2, 4)
    found = shown(Balanced(), data, repeats=2)
    assert len(np.unique(found)) == 24
    photos, copies = found % 24, found // 24
    assert (photos[::2] == photos[1::2]).all()
    assert np.bincount(data.labels[photos]).tolist() == [8, 8, 8]
    for photo in np.unique(photos):  # of the class of two images each is drawn twice
        assert copies[photos == photo].tolist() == list(range((photos == photo).sum()))
    assert copies.max() == 3


def test_earlier_counts_by_hand():
    assert earlier(np.array([5, 7, 5, 5, 7, 1])).tolist() == [0, 0, 1, 2, 1, 0]
    values = np.random.default_rng(0).integers(0, 9, 200)
    plain = [list(values[:i]).count(v) for i, v in enumerate(values)]
    assert earlier(values).tolist() == plain


def test_what_does_not_fit_the_data():
    with pytest.raises(UserError, match=r"train.sampler: balanced .* photos has no images of bee:"):
        shown(Balanced(), samples(3, 0, 2))
    with pytest.raises(UserError, match=r"train.sampler.weights: 2 weights for 3 classes"):
        shown(Weighted(weights=(1, 2)), samples(3, 1, 2))
    with pytest.raises(UserError, match=r"train.sampler.weights: 0 for every class"):
        shown(Weighted(weights=(0, 1, 0)), samples(3, 0, 2))


@pytest.mark.parametrize("sampler", [Balanced(), Weighted(weights=(1, 1, 1))])
def test_photos_of_several_classes_are_only_shuffled(sampler):
    many = Dataset(Paths(["0.png", "1.png"]), np.ones((2, 3), np.float32), NAMES, "photos")
    with pytest.raises(UserError, match=r"^train.sampler: \w+ needs one label for each image"):
        shown(sampler, many)
    assert sorted(shown(Shuffle(), many).tolist()) == [0, 1]

"""Splits that keep groups whole, and folds: by images' paths, and by drawn sets."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.data.datasets import folds_of, open_samples, split
from ppcls.data.groups import GroupBy, inner_paths, matches, with_groups
from ppcls.data.samples import Dataset, Groups, Paths
from ppcls.data.splits import deal_groups
from ppcls.utils.errors import UserError

MANY = settings(max_examples=25, deadline=None)


def dataset(labels, groups=None, seed=0):
    """Images of these labels and groups, listed in an order of chance."""
    order = np.random.default_rng(seed).permutation(len(labels))
    paths = Paths([f"{i:05}.jpg" for i in order])
    names = None if groups is None else Groups.of([f"g{groups[i]}" for i in order])
    return Dataset(paths, np.array(labels)[order], (), "list", groups=names)


@st.composite
def patients(draw, most_classes=5):
    """The class of each image and the group, of 2 to 40 groups with 1 to 12 images of a class."""
    classes = draw(st.integers(2, most_classes))
    count = draw(st.integers(2, 40))
    labels = []
    groups = []
    for group in range(count):
        for _ in range(draw(st.integers(1, 2))):
            label = draw(st.integers(0, classes - 1))
            images = draw(st.integers(1, 12))
            labels += [label] * images
            groups += [group] * images
    return labels, groups


@MANY
@given(patients(), st.sampled_from([0.1, 0.2, 0.34, 0.5]), st.integers(0, 9))
def test_no_group_is_on_both_sides(drawn, share, seed):
    samples = dataset(*drawn)
    train, held = split(samples, share, seed)
    assert len(train) + len(held) == len(samples)
    assert not set(train.groups.numbers) & set(held.groups.numbers)
    assert set(train.paths).isdisjoint(held.paths)


@MANY
@given(patients(), st.integers(0, 9), st.sampled_from([0.2, 0.5]), st.integers(1, 5))
def test_neither_listing_nor_numbers_of_classes_matter(drawn, seed, share, other):
    held = set(split(dataset(*drawn), share, seed)[1].paths)
    assert set(split(dataset(*drawn, seed=other), share, seed)[1].paths) == held
    labels, groups = drawn
    turned = [max(labels) - label for label in labels]
    assert set(split(dataset(turned, groups), share, seed)[1].paths) == held


@MANY
@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=6),
       st.integers(0, 9), st.sampled_from([0.1, 0.2, 0.5]))  # fmt: skip
def test_every_class_with_two_groups_is_on_both_sides(sizes, seed, share):
    """Groups of one class each: those of each class have these sizes."""
    labels = []
    groups = []
    for label, own in enumerate(sizes):
        for group, size in enumerate(own):
            labels += [label] * size
            groups += [f"{label}-{group}"] * size
    train, held = split(dataset(labels, groups), share, seed)
    assert (train.counts(len(sizes)) > 0).all()
    assert (held.counts(len(sizes)) > 0).all()
    # No class is further from its share than by the smallest and the largest of its groups.
    for label, own in enumerate(sizes):
        found = held.counts(len(sizes))[label]
        assert found <= share * sum(own) + max(own)
        assert found >= share * sum(own) - max(own)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.34])
def test_many_small_groups_come_near_the_share_of_every_class(share):
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    labels = np.array([rng.choice(4, p=[0.6, 0.25, 0.1, 0.05]) for _ in groups])
    train, held = split(dataset(labels.tolist(), groups.tolist()), share, 0)
    parts = held.counts(4) / (train.counts(4) + held.counts(4))
    assert np.abs(parts - share).max() < 0.02
    assert len(held) / len(labels) == pytest.approx(share, abs=0.005)


def test_the_seed_draws_the_groups():
    groups = np.repeat(np.arange(40), 3).tolist()
    labels = (np.array(groups) % 2).tolist()
    found = {tuple(sorted(split(dataset(labels, groups), 0.2, s)[1].paths)) for s in range(8)}
    assert len(found) == 8


def test_a_class_of_one_group_is_learnt():
    samples = dataset([0] * 8 + [1] * 8 + [2] * 3, [*range(16), 99, 99, 99])
    for seed in range(5):
        train, held = split(samples, 0.5, seed)
        assert train.counts(3)[2] == 3
        assert held.counts(3).tolist() in ([4, 4, 0], [4, 5, 0], [5, 4, 0])


def test_of_two_groups_the_one_that_lacks_a_class_is_kept():
    samples = dataset([0, 0, 0, 1, 1, 2, 0, 1], [1, 1, 1, 1, 1, 1, 2, 2])
    for share in (0.05, 0.2, 0.5):
        assert set(split(samples, share, 0)[1].groups.numbers) == {1}


def test_of_several_labels_each_counts():
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.uint8)
    samples = dataset(labels, np.repeat(np.arange(100), 4).tolist())
    train, held = split(samples, 0.25, 0)
    both = train.counts(6) + held.counts(6)
    assert (held.counts(6) > 0).all()
    assert np.abs(held.counts(6) / both - 0.25).max() < 0.1
    assert not set(train.groups.numbers) & set(held.groups.numbers)


def test_labeled_images_are_whole_groups_with_every_class():
    samples = dataset([0, 0, 1, 1] * 10, np.repeat(np.arange(20), 2).tolist())
    rest, chosen = split(samples, 0.1, 0, whole=True)
    assert chosen.counts(2).tolist() == [2, 2]
    assert len(rest) == 36


@MANY
@given(st.lists(st.integers(0, 3), min_size=5, max_size=80), st.integers(2, 5), st.integers(0, 5))
def test_folds_share_out_every_class(labels, folds, seed):
    samples = dataset(labels)
    found = folds_of(samples, folds, seed)
    assert max(Counter(found.tolist()).values()) - len(labels) // folds <= 1
    for label in set(labels):
        counts = np.bincount(found[samples.labels == label], minlength=folds)
        assert counts.max() - counts.min() <= 1
    again = dataset(labels, seed=3)
    assert dict(zip(again.paths, folds_of(again, folds, seed), strict=True)) == dict(
        zip(samples.paths, found, strict=True)
    )


@MANY
@given(patients(), st.integers(2, 5), st.integers(0, 5))
def test_folds_divide_no_group(drawn, folds, seed):
    samples = dataset(*drawn)
    found = folds_of(samples, folds, seed)
    of_groups = {}
    for group, fold in zip(samples.groups.numbers, found, strict=True):
        assert of_groups.setdefault(group, fold) == fold
    if len(of_groups) >= 4 * folds:
        assert len(set(found.tolist())) == folds


def test_an_image_listed_twice_is_in_one_fold():
    samples = Dataset(Paths(["a", "b", "a", "c", "d"]), np.array([0, 0, 1, 1, 0]), (), "list")
    found = folds_of(samples, 2, 0)
    assert found[0] == found[2]


def test_parts_by_share():
    groups = Groups.of([f"{i:02}" for i in range(30)])
    parts = deal_groups(groups, np.zeros(30, np.int64), (0.5, 0.3, 0.2), (1, 1, 1), 0)
    assert np.bincount(parts).tolist() == [15, 9, 6]


# --------------------------------------------------------------------------- patterns


def test_a_pattern_sees_paths_below_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p1_a", "p1_b", "p22_a"):
        for label in ("ant", "bee"):
            path = tmp_path / "p7" / label / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for place in ("p7", str(tmp_path / "p7")):
        samples = open_samples(place)
        assert next(inner_paths(samples)) == "ant/p1_a.jpg"
        assert with_groups(samples, r"p(\d+)").groups.names == ("1", "22")
    assert with_groups(samples, r"p\d+").groups.names == ("p1", "p22")
    assert with_groups(samples, r"^(\w)\w+/p(\d+)").groups.names == ("a/1", "a/22", "b/1", "b/22")
    assert with_groups(samples, "^[^/]+").groups.names == ("ant", "bee")
    with pytest.raises(UserError, match=r"in 4 of 6 paths: \S+p1_a.jpg, .* and 1 more"):
        with_groups(samples, r"p\d\d")


def test_a_list_is_matched_as_it_is_written(tmp_path):
    (tmp_path / "list.txt").write_text("x/p1/a.jpg 0\n/abs/p2/b.jpg 1\n")
    samples = open_samples(tmp_path / "list.txt", root="/elsewhere/p9")
    assert list(inner_paths(samples)) == ["x/p1/a.jpg", "/abs/p2/b.jpg"]
    assert with_groups(samples, r"p\d").groups.names == ("p1", "p2")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "no regular expression"), ("a" * 501, "a pattern of 501 characters")],
)
def test_what_is_no_pattern(pattern, words):
    with pytest.raises(ValueError, match=words):
        GroupBy(path=pattern)


@pytest.mark.parametrize("given", [{}, {"column": "a", "path": "b"}, {"column": ""}])
def test_a_group_is_named_in_one_way(given):
    with pytest.raises(ValueError, match="takes one of column"):
        GroupBy(**given)


def test_a_very_long_path_is_refused():
    with pytest.raises(UserError, match="a path of 5,000 characters"):
        matches("a", ["b" * 5000])


@pytest.mark.slow
def test_a_pattern_without_end_ends():
    with pytest.raises(UserError, match="has not done with 1 path in 10 seconds"):
        matches("(a+)+$", ["a" * 60 + "b"])

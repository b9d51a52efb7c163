"""Images without labels: opened, refused, and shown at their share."""

import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ppcls.data.batch_transforms import one_hot
from ppcls.data.loader import EvalPipeline, load_batch
from ppcls.data.preprocess import Preprocess
from ppcls.data.sampler import Balanced, Shuffle, mixed_steps
from ppcls.data.samples import Dataset, Paths
from ppcls.data.unlabeled import JoinedDataset, Unlabeled, open_unlabeled
from ppcls.utils.errors import UserError


def joined(labels, without):
    names = Paths([f"{i}.png" for i in range(len(labels))])
    known = Dataset(names, np.array(labels), ("ant", "bee"), "known")
    others = Paths([f"u{i}.png" for i in range(without)])
    return JoinedDataset(known, Dataset(others, np.full(without, -1), (), "others"))


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "deep/b.png", "deep/c d.png"):
        path = tmp_path / "more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (50, 100, 150)).save(path)
    return tmp_path


def test_a_folder_and_a_list_give_the_same_photos(photos):
    folder = open_unlabeled(photos / "more")
    (photos / "list.txt").write_text("more/a.png \r\n\tmore/deep/b.png\n more/deep/c d.png\n")
    listed = open_unlabeled(photos / "list.txt")
    assert list(folder.paths) == list(listed.paths)
    assert folder.digest() == listed.digest()
    assert listed.labels.tolist() == [-1, -1, -1]
    assert listed.where(2).endswith("list.txt:3 (" + str(photos / "more/deep/c d.png") + ")")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("more/a.png\nmore/deep/b.png 3\n", "list.txt:2 .* has the label '3'"),
        ("more/a.png\tant\n", "list.txt:1 .* has the label 'ant'"),
        ("more/a.png\nmore/none.png\n", "list.txt:2 .*none.png. does not exist; relative"),
        ("more/a.png\n\nmore/deep/b.png\n", "list.txt:2: blank line"),
        ("more/a.png\nmore\n", "list.txt:2 .* is a folder"),
        ("", "has no images"),
    ],
)
def test_lists_that_are_none(photos, text, words):
    (photos / "list.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        open_unlabeled(photos / "list.txt")


def test_neither_a_folder_nor_a_list(photos):
    with pytest.raises(UserError, match=r"nothing does not exist .*select_unlabeled\.py writes"):
        open_unlabeled(photos / "nothing")
    with pytest.raises(UserError, match="neither a folder nor a list"):
        open_unlabeled(photos / "more/a.png")


@pytest.mark.parametrize(("share", "size", "split"), [(0.75, 8, (2, 6)), (0.5, 3, (1, 2))])
def test_a_share_of_a_step(share, size, split):
    assert Unlabeled(images="x", share=share).split(size) == split


def test_shares_that_leave_out_a_kind():
    for share in (0, 1):
        with pytest.raises(ValueError, match="would leave out one kind"):
            Unlabeled(images="x", share=share)
    with pytest.raises(UserError, match=r"0\.01 of a step of 8 images is none"):
        Unlabeled(images="x", share=0.01).split(8)
    with pytest.raises(UserError, match=r"0\.99 of a step of 8 images is all"):
        Unlabeled(images="x", share=0.99).split(8)


def test_every_step_has_both_kinds_and_every_photo_its_turn():
    data = joined([0, 1] * 5, 30)
    steps = mixed_steps(Shuffle(), data, 2, (2, 6), seed=3, epoch=1)
    assert len(steps) == 5  # 40 images by 8
    shown = np.concatenate(steps)
    assert len(set(shown.tolist())) == len(shown)  # each showing has random numbers of its own
    for step in steps:
        assert (step % 40 < 10).sum() == 2
    times = Counter((shown % 40).tolist())
    assert all(times[i] == 1 for i in range(10))
    assert len(times) == 40
    again = mixed_steps(Shuffle(), data, 2, (2, 6), seed=3, epoch=1)
    assert [s.tolist() for s in steps] == [s.tolist() for s in again]
    other = mixed_steps(Shuffle(), data, 2, (2, 6), seed=3, epoch=2)
    assert [s.tolist() for s in steps] != [s.tolist() for s in other]


def test_few_labels_come_again_and_as_the_sampler_says():
    data = joined([0, 0, 0, 1], 60)
    steps = mixed_steps(Balanced(), data, 2, (4, 4), seed=0, epoch=0)
    shown = np.concatenate(steps)
    known = shown[shown % 64 < 4]
    assert len(known) == 32
    assert len(set(known.tolist())) == 32
    assert Counter(data.labels[known % 64].tolist()) == {0: 16, 1: 16}


def test_a_batch_knows_which_photos_have_labels(photos):
    more = open_unlabeled(photos / "more")
    labeled = Dataset(Paths([str(photos / "more/a.png")]), np.array([1]), ("ant", "bee"), "known")
    both = pickle.loads(pickle.dumps(JoinedDataset(labeled, more)))
    assert len(both) == 4
    batch = load_batch((both, EvalPipeline(Preprocess(resize=8, crop=8))), np.array([3, 0, 1]), 0)
    assert batch.labels.tolist() == [-1, 1, -1]
    assert batch.known.tolist() == [1]
    assert both.where(0).endswith("a.png")
    assert both.where(3) == more.where(2)
    assert [both.label_of(index) for index in (0, 3)] == ["bee", "no label"]
    assert one_hot(batch.labels, 2).tolist() == [[0, 0], [0, 1], [0, 0]]

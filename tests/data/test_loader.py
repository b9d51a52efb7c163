"""Batches do not depend on the number of workers nor on where an epoch is entered."""

from dataclasses import replace

import numpy as np
import pytest

from ppcls.data import decode
from ppcls.data.batch_transforms import CutMix, Mixup
from ppcls.data.datasets import open_samples
from ppcls.data.loader import EvalPipeline, Loader, TrainPipeline, eval_order
from ppcls.data.preprocess import Preprocess
from ppcls.data.sampler import train_order
from ppcls.data.transforms import HorizontalFlip, MultiScale, Progressive, RandomResizedCrop, apply
from ppcls.utils.errors import DataError, UserError

MIXED = (Mixup(prob=0.5), CutMix(prob=0.5))
OPS = (RandomResizedCrop(), HorizontalFlip())
TRAIN = TrainPipeline(OPS, size=24, channels=3, seed=3, batch_ops=MIXED, classes=2)
EVAL = EvalPipeline(Preprocess(resize=28, crop=24))


@pytest.fixture
def reader(workdir):
    samples = open_samples("photos/train")
    readers = []

    def reader(workers):
        readers.append(Loader({"train": (samples, TRAIN), "eval": (samples, EVAL)}, workers))
        return readers[-1]

    yield reader
    for opened in readers:
        opened.close()


def shuffled(seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(12)


def read(reader, name, order, epoch=0):
    batches = list(reader.batches(name, order, epoch))
    return [(b.images.tobytes(), b.targets.tolist(), b.indices.tolist()) for b in batches]


def test_workers_change_nothing(reader):
    alone, two = reader(0), reader(2)
    for epoch in (0, 1):
        order = train_order(shuffled(3, epoch), 5, drop_last=False)
        assert read(alone, "train", order, epoch) == read(two, "train", order, epoch)
    assert read(alone, "eval", eval_order(12, 5)) == read(two, "eval", eval_order(12, 5))


def test_an_epoch_entered_late_goes_on_the_same(reader):
    order = train_order(shuffled(3, 1), 4, drop_last=True)
    assert read(reader(0), "train", order, 1)[1:] == read(reader(0), "train", order[1:], 1)


def test_batches_are_uint8_photos_with_their_labels(reader):
    (batch,) = reader(0).batches("eval", [np.array([11, 0, 6])])
    assert batch.images.shape == (3, 24, 24, 3)
    assert batch.images.dtype == np.uint8
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.labels.dtype == np.int64


def test_epochs_and_photos_are_augmented_differently(reader):
    order = [np.array([0, 1])]
    first, second = (read(reader(0), "train", order, epoch)[0][0] for epoch in (0, 1))
    assert first != second
    assert read(reader(0), "eval", order, 0) == read(reader(0), "eval", order, 1)


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [5, 5]), (False, [5, 5, 2])])
def test_an_epoch_has_every_photo_once(drop_last, sizes):
    order = train_order(shuffled(0, 0), 5, drop_last)
    assert [len(batch) for batch in order] == sizes
    seen = np.concatenate(order)
    assert len(set(seen.tolist())) == len(seen)
    assert drop_last or sorted(seen.tolist()) == list(range(12))
    assert np.concatenate(train_order(shuffled(0, 1), 5, drop_last)).tolist() != seen.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_photo_is_named_once(reader, workdir, workers):
    (workdir / "photos/train/bee/0.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"^photos/train/bee/0.png: (?!images)") as caught:
        read(reader(workers), "eval", eval_order(12, 4))
    assert isinstance(caught.value, UserError)


def test_a_killed_worker_is_an_error_not_a_hang(reader):
    opened = reader(1)
    batches = opened.batches("eval", eval_order(12, 1))
    next(batches)
    for process in opened.started().processes:
        process.kill()
    with pytest.raises(UserError, match="a data worker was ended from outside"):
        list(batches)


def test_training_batches_are_mixed_and_others_are_not(reader):
    order = [np.arange(8)]
    (mixed,), (plain,) = (list(reader(0).batches(name, order)) for name in ("train", "eval"))
    assert plain.shares is None
    assert plain.targets is plain.labels
    assert mixed.shares.shape == (8, 2)
    np.testing.assert_allclose(mixed.shares.sum(axis=1), 1, atol=1e-6)
    again = next(iter(reader(0).batches("train", order, epoch=1)))
    assert (again.shares != mixed.shares).any()


def test_showings_of_a_photo_are_augmented_differently(reader):
    """Showing 0 as ever; the batch names real images whatever the showing."""
    opened = reader(0)
    opened.parts["train"] = (opened.parts["train"][0], replace(TRAIN, batch_ops=()))
    (one,) = opened.batches("train", [np.array([4])], 2)
    (batch,) = opened.batches("train", [np.array([4, 4 + 12, 4 + 24, 7])], 2)
    assert batch.indices.tolist() == [4, 4, 4, 7]
    assert batch.labels.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(batch.images[0], one.images[0])
    seen = {image.tobytes() for image in batch.images[:3]}
    assert len(seen) == 3
    samples, view = opened.parts["train"]
    rng = np.random.default_rng([3, 2, 4 + 24])  # the third showing's own numbers
    photo = decode.read(samples.paths[4], 3)
    np.testing.assert_array_equal(batch.images[2], apply(view.ops, photo, rng, 24))


def test_workers_change_nothing_for_showings_and_sizes(reader):
    alone, two = reader(0), reader(2)
    for opened in (alone, two):
        view = replace(TRAIN, size=MultiScale(sizes=(16, 24, 32)))
        opened.parts["train"] = (opened.parts["train"][0], view)
    order = [np.array([v, v + 12, 2]) for v in range(8)]
    assert read(alone, "train", order, 1) == read(two, "train", order, 1)
    sides = {batch.images.shape[1:3] for batch in alone.batches("train", order, 1)}
    assert sides == {(16, 16), (24, 24), (32, 32)}


def test_an_epoch_has_its_size(reader):
    opened = reader(0)
    view = replace(TRAIN, size=Progressive(sizes={0: 16, 2: 20}))
    opened.parts["train"] = (opened.parts["train"][0], view)
    for epoch, size in enumerate((16, 16, 20, 20)):
        (batch,) = opened.batches("train", [np.array([0, 13, 1])], epoch)
        assert batch.images.shape == (3, size, size, 3)
        assert batch.shares.shape == (3, 2)

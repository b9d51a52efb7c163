"""Batches do not depend on the number of workers nor on where an epoch is entered."""

import numpy as np
import pytest

from ppcls.data.batch_ops import CutMix, Mixup
from ppcls.data.datasets import open_samples
from ppcls.data.loader import EvalView, Reader, TrainView, eval_order, train_order
from ppcls.data.preprocess import Preprocess
from ppcls.data.transforms import HorizontalFlip, RandomResizedCrop
from ppcls.errors import DataError, UserError

MIXED = (Mixup(prob=0.5), CutMix(prob=0.5))
OPS = (RandomResizedCrop(), HorizontalFlip())
TRAIN = TrainView(OPS, size=24, channels=3, seed=3, batch_ops=MIXED, classes=2)
EVAL = EvalView(Preprocess(resize=28, crop=24))


@pytest.fixture
def reader(workdir):
    samples = open_samples("photos/train")
    readers = []

    def reader(workers):
        readers.append(Reader({"train": (samples, TRAIN), "eval": (samples, EVAL)}, workers))
        return readers[-1]

    yield reader
    for opened in readers:
        opened.close()


def read(reader, name, order, epoch=0):
    batches = list(reader.batches(name, order, epoch))
    return [(b.images.tobytes(), b.targets.tolist(), b.indices.tolist()) for b in batches]


def test_workers_change_nothing(reader):
    alone, two = reader(0), reader(2)
    for epoch in (0, 1):
        order = train_order(12, 5, drop_last=False, seed=3, epoch=epoch)
        assert read(alone, "train", order, epoch) == read(two, "train", order, epoch)
    assert read(alone, "eval", eval_order(12, 5)) == read(two, "eval", eval_order(12, 5))


def test_an_epoch_entered_late_goes_on_the_same(reader):
    order = train_order(12, 4, drop_last=True, seed=3, epoch=1)
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
    order = train_order(12, 5, drop_last, seed=0, epoch=0)
    assert [len(batch) for batch in order] == sizes
    seen = np.concatenate(order)
    assert len(set(seen.tolist())) == len(seen)
    assert drop_last or sorted(seen.tolist()) == list(range(12))
    assert np.concatenate(train_order(12, 5, drop_last, 0, 1)).tolist() != seen.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_photo_is_named_once(reader, workdir, workers):
    (workdir / "photos/train/bee/0.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"^photos/train/bee/0.png: (?!photos)") as caught:
        read(reader(workers), "eval", eval_order(12, 4))
    assert isinstance(caught.value, UserError)


def test_a_killed_worker_is_an_error_not_a_hang(reader):
    opened = reader(1)
    batches = opened.batches("eval", eval_order(12, 1))
    next(batches)
    for process in opened.started()._processes.values():
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

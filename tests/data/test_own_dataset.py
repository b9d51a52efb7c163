"""Datasets of one's own: what they may give, and that all that reads images reads theirs."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

import ppcls
from ppcls.data import decode
from ppcls.data.datasets import split
from ppcls.data.loader import EvalPipeline, Loader
from ppcls.data.own_dataset import OwnDataset
from ppcls.data.preprocess import Preprocess
from ppcls.utils.errors import DataError

MODULE = '''
import numpy as np


class Squares:
    """Grey squares, each as bright as its number."""

    class_names = ("even", "odd")

    def __init__(self, count: int = 12, broken: int = -1):
        self.count = count
        self.broken = broken

    def __len__(self):
        return self.count

    def read(self, index):
        if index == self.broken:
            raise RuntimeError("the lens cap is on")
        return np.full((9, 7, 3), index, np.uint8), index % 2


class Named(Squares):
    targets = ["even", "odd"] * 6

    def path(self, index):
        return f"square {index}"

    def digest(self):
        return "squares"


class Locked(Squares):
    def __init__(self):
        super().__init__()
        self.lock = open(__file__)
'''


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "squares_own.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ppcls.use("squares_own")
    import squares_own

    return squares_own


class Given:
    """Samples from a list."""

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def read(self, index):
        return self.samples[index]


def opened(part, multilabel=False):
    return OwnDataset.holding(part).open("data.train", multilabel)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.stack([GREY, GREY + 20, GREY + 40], axis=-1)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_an_image_may_be_pixels_pillows_bytes_or_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png(COLOUR))
    forms = [COLOUR, Image.fromarray(COLOUR), png(COLOUR), tmp_path / "a.png"]
    samples = opened(Given(*((form, 0) for form in forms), (GREY, 0)))
    for path in list(samples.paths)[:4]:
        assert (decode.read(path, 3) == COLOUR).all()
        assert (decode.decode(decode.read_bytes(path), 3, "again") == COLOUR).all()
    assert (decode.read(samples.paths[4], 3) == GREY[..., None]).all()


@pytest.mark.parametrize("target", [1, np.int64(1), np.array(1), "b"])
def test_a_target_is_a_label_or_a_name(target):
    part = Given((GREY, 0), (GREY, target))
    part.class_names = ["a", "b", "c"]
    samples = opened(part)
    assert samples.labels.tolist() == [0, 1]
    assert samples.names == ("a", "b", "c")


def test_without_names_there_are_as_many_classes_as_the_labels_tell():
    assert opened(Given((GREY, 0), (GREY, 4))).classes == 5


def test_several_labels_are_0_and_1():
    samples = opened(Given((GREY, [0, 1, 1]), (GREY, np.zeros(3, bool))), multilabel=True)
    assert samples.labels.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert samples.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("samples", "multilabel", "words"),
    [
        ([], False, "Given is empty"),
        ([(GREY, 1.5)], False, r"Given\[0\]: target 1.5 is not a label from 0"),
        ([(GREY, -1)], False, "target -1 is not"),
        ([(GREY, True)], False, "target True is not"),
        ([(GREY, "cat")], False, "target 'cat' is not"),
        ([(GREY, [0, 1])], False, "is not a label from 0"),
        ([(GREY, 1)], True, "give 0 and 1 for each class"),
        ([(GREY, [0, 2])], True, "give 0 and 1 for each class"),
        ([(GREY, [0, 1]), (GREY, [1])], True, r"Given\[1\].* as many classes"),
        ([GREY], False, r"read\(0\) gave a ndarray: give an image and its target"),
    ],
)
def test_what_is_no_target_is_one_line(samples, multilabel, words):
    with pytest.raises(ppcls.UserError, match=words) as error:
        opened(Given(*samples), multilabel)
    assert len(error.value.lines) == 1


@pytest.mark.parametrize(
    "image", [None, 3.5, np.zeros((2, 2), np.float32), b"no image", "gone.png"]
)
def test_what_is_no_image_is_said_with_its_place(image):
    samples = opened(Given((GREY, 0), (image, 1)))
    loader = Loader({"eval": (samples, EvalPipeline(Preprocess(resize=8, crop=8)))}, 0)
    with pytest.raises(DataError, match=r"Given\[1\]"):
        list(loader.evaluation(2))


def test_targets_told_beforehand_save_reading(module):
    assert opened(module.Named()).labels.tolist() == [0, 1] * 6
    broken = module.Named(broken=3)
    assert opened(broken).labels.tolist() == [0, 1] * 6
    with pytest.raises(ppcls.UserError, match=r"Squares.*\[3\]: RuntimeError: the lens cap is on"):
        opened(module.Squares(broken=3))
    broken.targets = [0]
    with pytest.raises(ppcls.UserError, match="12 samples and 1 target"):
        opened(broken)


def test_a_digest_changes_with_what_is_shown(module):
    first = opened(module.Named()).digest()
    assert opened(module.Named()).digest() == first
    assert opened(module.Squares()).digest() != first
    samples = opened(module.Named())
    assert samples.subset([0, 2]).digest() != samples.subset([0, 4]).digest()
    assert opened(module.Squares()).digest() == opened(module.Squares()).digest()


def test_it_is_divided_as_any_other(module):
    rest, held = split(opened(module.Squares(40)), 0.25, seed=0)
    assert np.bincount(held.labels).tolist() == [5, 5]
    assert not {*rest.paths} & {*held.paths}
    pixels = [int(decode.read(path)[0, 0, 0]) for path in held.paths]
    assert [value % 2 for value in pixels] == held.labels.tolist()


def test_it_is_read_by_workers_alike(module):
    samples = opened(module.Squares())
    view = EvalPipeline(Preprocess(resize=8, crop=8))
    found = []
    for workers in (0, 1):
        loader = Loader({"eval": (samples, view)}, workers)
        found.append([batch.images for batch in loader.evaluation(5)])
        loader.close()
    assert all((one == other).all() for one, other in zip(*found, strict=True))


def test_what_workers_cannot_have_is_said(module, capsys):
    view = EvalPipeline(Preprocess(resize=8, crop=8))
    loader = Loader({"eval": (opened(module.Locked()), view)}, 1)
    with pytest.raises(ppcls.UserError, match=r"cannot be sent to data workers .*data\.workers=0"):
        list(loader.evaluation(5))
    module.Squares.__module__ = "__main__"
    try:
        assert Loader({"eval": (opened(module.Squares()), view)}, 1).workers == 0
    finally:
        module.Squares.__module__ = "squares_own"
    assert "Squares is written in a notebook or script" in capsys.readouterr().out


def test_an_image_can_be_sent_to_another_process(module):
    path = opened(module.Named()).subset([3, 5]).paths[1]
    again = pickle.loads(pickle.dumps(path))
    assert again == path == "square 5"
    assert (again.pixels(3) == 5).all()

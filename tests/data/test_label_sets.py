"""Lists of images with several labels: every accepted form, and every mistake with its line."""

import numpy as np
import pytest

from ppcls.data import datasets
from ppcls.data.batch_transforms import Mixup
from ppcls.data.datasets import split
from ppcls.data.loader import Batch, TrainPipeline
from ppcls.data.samples import Dataset
from ppcls.utils.errors import UserError


@pytest.fixture
def put(tmp_path):
    def write(text, name="list.txt"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def opened(path, labels=None):
    return datasets.open_samples(path, labels=labels, multilabel=True)


def mistakes(path, labels=None):
    with pytest.raises(UserError) as caught:
        opened(path, labels)
    return str(caught.value).replace(path, "LIST").splitlines()


def test_a_tab_or_a_space_divides_path_and_labels(put, tmp_path):
    samples = opened(put("my cat.jpg\t0,1,0\nb.jpg 1,1,0\nc.jpg\t0, 0, 0\n"))
    assert [path.removeprefix(f"{tmp_path}/") for path in samples.paths] == [
        "my cat.jpg", "b.jpg", "c.jpg",
    ]  # fmt: skip
    assert samples.labels.tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert samples.labels.dtype == np.uint8
    assert samples.names == ()
    assert samples.classes == 3
    assert samples.counts(3).tolist() == [1, 2, 0]
    assert [samples.label_of(i) for i in range(3)] == ["1", "0, 1", "nothing"]


def test_names_come_from_the_label_file(put):
    names = put("cat\ndog\n", "labels.txt")
    samples = opened(put("a.jpg\t1,1\nb.jpg\t0,1\n"), names)
    assert samples.names == ("cat", "dog")
    assert samples.label_of(0) == "cat, dog"
    assert datasets.summary(samples)[1:] == ["  cat        1", "  dog        2"]


def test_every_mistake_has_its_line(put):
    path = put("a.jpg\t0,1\nb.jpg\t0,2\nc.jpg\t1\nd.jpg 0,1\n\ne.jpg cat\n")
    expected = "expected 2 labels of 0 or 1 like 0,1 (one per class), found"
    assert mistakes(path) == [
        f"LIST:2: {expected} '0,2'",
        f"LIST:3: {expected} '1'",
        "LIST:5: expected 'path label', found a blank line",
        f"LIST:6: {expected} 'cat'",
    ]
    names = put("a\nb\nc\n", "labels.txt")
    assert mistakes(put("a.jpg\t0,1\n", "two.txt"), names) == [
        "LIST:1: expected 3 labels of 0 or 1 like 0,1,0 (one per class), found '0,1'"
    ]
    assert mistakes(put("", "none.txt")) == ["LIST: lists no images"]


def test_a_csv_file_has_a_column_for_each_class(put):
    path = put("cat,Path,dog\n1,a.jpg,0\n0,b.jpg,1\n", "list.csv")
    samples = opened(path)
    assert samples.names == ("cat", "dog")
    assert samples.labels.tolist() == [[1, 0], [0, 1]]
    assert samples.lines.tolist() == [2, 3]
    names = put("dog\ncat\n", "labels.txt")
    again = opened(path, names)
    assert again.names == ("dog", "cat")
    assert again.labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cat,dog\n1,0\n",
            "LIST:1: name one path column (path, file, filename, image, image_path); "
            "the header 'cat,dog' has none",
        ),
        (
            "path,cat,cat\na,1,0\n",
            "LIST:1: every column but the path's names a class; cat stands twice",
        ),
        ("path\na\n", "LIST:1: every column but the path's names a class; a class has no name"),
        ("path,cat\na.jpg,1\n,1\n", "LIST:3: no path: ',1'"),
        (
            "path,cat\na.jpg,yes\n",
            "LIST:2: expected 1 label of 0 or 1 like 0 (one per class), found 'yes'",
        ),
        ("path,cat\na.jpg\n", "LIST:2: expected 2 fields, found 1: 'a.jpg'"),
    ],
)
def test_mistakes_in_a_csv_file(put, text, message):
    assert mistakes(put(text, "list.csv")) == [message]


def test_columns_that_are_not_the_label_files_classes(put):
    names = put("cat\ndog\n", "labels.txt")
    assert mistakes(put("path,cat,dgo\na,1,0\n", "list.csv"), names) == [
        "LIST:1: its columns are not the classes of the label file; "
        "unknown: 'dgo'; did you mean 'dog'?"
    ]
    assert mistakes(put("path,cat\na,1\n", "list.csv"), names) == [
        "LIST:1: its columns are not the classes of the label file; without a column: 'dog'"
    ]


def test_what_does_not_fit_the_task_says_which_task_does(put, tmp_path):
    with pytest.raises(UserError, match=r"has several classes: -o task\.kind=multilabel"):
        datasets.open_samples(put("a.jpg\t0,1\n"))
    with pytest.raises(UserError, match="a folder for each class gives an image one label"):
        opened(str(tmp_path))


def test_another_number_of_labels_than_classes_is_refused(put):
    samples = opened(put("a.jpg\t0,1\n"))
    datasets.check(samples, 2, "data.train")
    with pytest.raises(UserError, match=r"2 labels an image but model\.num_classes is 3; set -o"):
        datasets.check(samples, 3, "data.train")
    with pytest.raises(UserError, match="no image in it has any label"):
        datasets.check(opened(put("a.jpg\t0,0\n")), 2, "data.train")


def test_held_out_photos_have_every_class():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < (0.5, 0.2, 0.05, 0.02)).astype(np.uint8)
    labels[:2, 3] = 1  # the rarest has two at least
    paths = datasets.Paths([f"{i}.jpg" for i in range(200)])
    samples = Dataset(paths, labels, (), "made")
    train, held = split(samples, 0.25, 0)
    assert len(train) + len(held) == 200
    assert 45 <= len(held) <= 55
    assert (held.counts(4) >= 1).all()
    assert (train.counts(4) >= 1).all()
    assert set(split(samples.subset(rng.permutation(200)), 0.25, 0)[1].paths) == set(held.paths)


def test_photos_with_several_labels_are_mixed_as_they_are():
    labels = np.array([[1, 1, 0], [0, 1, 0]], np.uint8)
    images = np.array([100, 200], np.uint8).reshape(2, 1, 1, 1)
    view = TrainPipeline((), 1, 1, 0, (Mixup(alpha=1.0),), 3)
    mixed = view.mix(Batch(images, labels, np.arange(2)), 0, 0)
    share = float(mixed.shares[0, 0])  # of the first image in the first
    assert mixed.shares[:, 1].tolist() == [1, 1]
    assert mixed.images[0, 0, 0, 0] == pytest.approx(200 - 100 * share, abs=0.51)
    assert mixed.labels is labels

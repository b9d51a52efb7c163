"""Folders of classes, and what is done with opened samples: check, split, summary, numbers."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ppcls.data import datasets
from ppcls.data.datasets import split
from ppcls.data.samples import Dataset, Paths
from ppcls.utils.errors import UserError


@pytest.fixture
def tree(tmp_path):
    """Make empty files below `tmp_path/name` and return that folder as text."""

    def make(*files, name="photos"):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / name)

    return make


def message(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def listed(sizes, names=(), source="list.txt"):
    """Samples with `sizes[label]` images of each class, in a mixed order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(0).permutation(labels)
    paths = Paths([f"photos/{i:05}.jpg" for i in range(len(labels))])
    return Dataset(paths, labels, names, source, np.arange(len(labels)) + 1)


def test_paths_are_a_sequence_of_text():
    texts = ["a b.jpg", "", "ö/日本.png", "bad\udcff.jpg", "a b.jpg"]
    paths = pickle.loads(pickle.dumps(Paths(texts)))
    assert list(paths) == texts
    assert (len(paths), paths[-1], paths[np.int64(2)]) == (5, texts[4], texts[2])
    assert list(Paths([])) == []
    with pytest.raises(IndexError):
        paths[5]


def test_pickle_is_little_more_than_the_text():
    samples = listed([5000, 5000])
    size = sum(len(path) for path in samples.paths)
    copy = pickle.dumps(samples)
    assert len(copy) < size + len(samples) * 40 + 2000
    assert pickle.loads(copy).where(77) == samples.where(77)


def test_folder_per_class(tree):
    path = tree("dog/2.JPG", "dog/deep/er/1.png", "cat/b.jpeg", "cat/a c.webp", "Bird/x.TiFF")
    tree("10/z.bmp", "dog/notes.txt", "dog/.hidden.jpg", ".git/x.jpg", "cat/.x/y.jpg", "README.md")
    samples = datasets.open_samples(path)
    assert samples.names == ("10", "Bird", "cat", "dog")
    assert [p.removeprefix(path + "/") for p in samples.paths] == [
        "10/z.bmp",
        "Bird/x.TiFF",
        "cat/a c.webp",
        "cat/b.jpeg",
        "dog/2.JPG",
        "dog/deep/er/1.png",
    ]
    assert samples.labels.tolist() == [0, 1, 2, 2, 3, 3]
    assert samples.labels.dtype == np.int64
    assert samples.source == path
    assert samples.where(2) == f"{path}/cat/a c.webp"


def test_symbolic_links_are_followed(tree, tmp_path):
    path = tree("cat/1.jpg", "dog/1.jpg")
    store = Path(tree("a.jpg", "b.jpg", name="store"))
    (tmp_path / "photos/cow").symlink_to(store)
    (tmp_path / "photos/dog/more").symlink_to(store)
    (tmp_path / "photos/cat/2.jpg").symlink_to(store / "a.jpg")
    assert datasets.open_samples(path).counts(3).tolist() == [2, 2, 3]


def test_links_in_a_circle_are_an_error(tree, tmp_path):
    path = tree("cat/1.jpg", "cat/deep/2.jpg")
    (tmp_path / "photos/cat/deep/back").symlink_to(tmp_path / "photos/cat")
    assert message(datasets.open_samples, path) == (
        f"{path}/cat/deep/back: a symbolic link to a folder above itself; remove it"
    )


def test_what_is_not_a_folder_per_class(tree):
    path = tree("1.jpg", "2.jpg", name="flat")
    assert message(datasets.open_samples, path) == (
        f"{path}: expected one sub-folder per class, but 2 images lie directly in it"
    )
    os.mkdir(path + "/../empty")
    assert message(datasets.open_samples, path + "/../empty").endswith("class, but there is none")
    path = tree("cat/1.jpg", "3.jpg", "4.jpg", name="stray")
    assert message(datasets.open_samples, path) == (
        f"{path}: images lie beside the class folders, move them into a class folder or away: "
        "3.jpg, 4.jpg"
    )
    path = tree("cat/1.jpg", "dog/a.txt", "cow/.a.jpg", name="hollow")
    assert message(datasets.open_samples, path) == (
        f"{path}: no images (JPEG, PNG, WebP, BMP, TIFF or GIF) in: cow, dog; "
        f"passed over 1 hidden image (such as {path}/cow/.a.jpg)"
    )
    path = tree("train/cat/1.jpg", "val/cat/1.jpg", name="whole")
    assert message(datasets.open_samples, path) == (
        f"{path}: train, val: parts of a data set, not classes; open one part, such as {path}/val"
    )


def test_folder_with_label_file(tree, tmp_path):
    path = tree("cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    names = tmp_path / "names.txt"
    names.write_text("dog\ncow\ncat\n")
    samples = datasets.open_samples(path, labels=names)
    assert samples.names == ("dog", "cow", "cat")
    assert samples.counts(3).tolist() == [2, 0, 1]
    assert samples.labels.tolist() == [2, 0, 0]
    names.write_text("dogs\ncow\n")
    assert message(datasets.open_samples, path, None, names) == (
        f"{path}: folders that are not in the label file: 'cat', 'dog'; did you mean 'dogs'?"
    )


def test_subset_keeps_lines_names_and_order():
    samples = listed([3, 3], ("cat", "dog"))
    part = samples.subset(np.array([4, 1]))
    assert (len(part), part.names) == (2, ("cat", "dog"))
    assert part.where(0) == "list.txt:5 (photos/00004.jpg)"
    assert part.labels.tolist() == samples.labels[[4, 1]].tolist()
    assert len(samples.subset([])) == 0


def test_missing_photos(tree, tmp_path):
    path = tree("cat/1.jpg", "cat/3.jpg", "elsewhere.jpg")
    os.symlink("../elsewhere.jpg", path + "/cat/good link.jpg")
    os.symlink("nowhere.jpg", path + "/cat/broken link.jpg")
    os.mkdir(path + "/cat/folder.jpg")
    names = ["1.jpg", "2.jpg", "3.jpg", "good link.jpg", "broken link.jpg", "folder.jpg"]
    text = "".join(f"photos/cat/{name} 0\n" for name in names) + "photos/cow/1.jpg 0\n"
    (tmp_path / "list.txt").write_text(text)
    samples = datasets.open_samples(tmp_path / "list.txt")
    wanted = [2, 5, 6, 7]
    found = [samples.where(line - 1) for line in wanted]
    found[2] += " is a folder"
    assert datasets.missing(samples) == found
    assert datasets.missing(samples, limit=1) == [f"{tmp_path}/list.txt:2 ({path}/cat/2.jpg)"]


def test_check_labels_against_num_classes():
    labels = np.array([0, 2, 1, 3])
    samples = Dataset(["a.jpg", "b c.jpg", "c.jpg", "d.jpg"], labels, (), "list.txt", labels + 10)
    datasets.check(samples, 4, "train")
    datasets.check(samples, 5, "train")
    assert message(datasets.check, samples, 3, "eval") == (
        "eval: list.txt:13 (d.jpg): label 3 but model.num_classes is 3; set -o model.num_classes=4"
    )
    assert message(datasets.check, samples, 2, "eval") == (
        "eval: list.txt:12 (b c.jpg): label 2 (and 1 more like it) "
        "but model.num_classes is 2; set -o model.num_classes=4"
    )


def test_check_names_against_num_classes(tree):
    samples = datasets.open_samples(tree("cat/1.jpg", "dog/1.jpg"))
    datasets.check(samples, 2, "train")
    assert message(datasets.check, samples, 1000, "train") == (
        f"train: {samples.source} has 2 classes but model.num_classes is 1000; "
        "set -o model.num_classes=2"
    )
    outside = listed([1, 1, 1], names=("cat", "dog"))
    assert message(datasets.check, outside, 2, "train").endswith("num_classes is 2; mend the list")


def test_split_is_stratified_and_complete():
    sizes = [1, 2, 3, 10, 101, 0, 1000]
    samples = listed(sizes)
    train, held = split(samples, 0.2, seed=3)
    assert held.counts(7).tolist() == [0, 1, 1, 2, 20, 0, 200]
    assert (train.counts(7) + held.counts(7)).tolist() == sizes
    assert sorted([*train.paths, *held.paths]) == sorted(samples.paths)
    assert split(samples, 0.99, 0)[0].counts(7).tolist() == [1, 1, 1, 1, 1, 0, 10]
    every = split(samples, 0.9999, 0, whole=True)[1]
    assert every.counts(7).tolist() == samples.counts(7).tolist()
    assert split(samples, 0.01, 0, whole=True)[1].counts(7).tolist() == [1, 1, 1, 1, 1, 0, 10]
    assert all(held.where(i) == samples.where(int(held.lines[i]) - 1) for i in range(len(held)))


def test_split_depends_on_files_and_seed_only():
    samples = listed([50, 80])
    held = set(split(samples, 0.3, 1)[1].paths)
    order = np.random.default_rng(1).permutation(len(samples))
    assert set(split(samples.subset(order), 0.3, 1)[1].paths) == held
    assert set(split(samples, 0.3, 2)[1].paths) != held
    moved = Dataset(Paths(["/else/" + p for p in samples.paths]), samples.labels, (), "x")
    assert {p.removeprefix("/else/") for p in split(moved, 0.3, 1)[1].paths} == held


def test_split_of_a_fixed_list_never_changes():
    samples = Dataset(Paths([f"{i}.jpg" for i in range(10)]), np.zeros(10, np.int64), (), "x")
    assert list(split(samples, 0.3, 0)[1].paths) == ["2.jpg", "4.jpg", "6.jpg"]


def test_split_keeps_a_photo_that_is_listed_twice_on_one_side():
    once = listed([40])
    twice = once.subset([*range(40), *range(40)])
    train, held = split(twice, 0.5, 0)
    assert not set(train.paths) & set(held.paths)
    assert (len(train), len(held)) == (40, 40)


@pytest.mark.parametrize("share", [0, 1, -0.1, 20, float("nan")])
def test_split_share_lies_between_0_and_1(share):
    assert message(split, listed([4]), share, 0).endswith(f"0 and 1, not {share}")


def test_summary():
    assert datasets.summary(listed([1200, 3], ("cat", "golden retriever"))) == [
        "list.txt: 1,203 images, 2 classes",
        "  cat                 1,200",
        "  golden retriever        3",
    ]
    assert datasets.summary(listed([7, 0, 5, *[6] * 17, 4, 0, 9])) == [
        "list.txt: 127 images, 23 classes",
        "  smallest class: 20 (4)",
        "  median: 6",
        "  largest class: 22 (9)",
        "  2 without images: 1, 21",
    ]


def test_samples_numbered_as_others_number_their_classes(capsys):
    own = ("cat", "cow", "dog")

    def numbered(sizes, names, own=own, classes=3):
        found = datasets.numbered_as(listed(sizes, names, "eval"), own, classes, "train")
        return found.counts(classes).tolist(), found.names, capsys.readouterr().out

    assert numbered([1, 2, 3], own) == ([1, 2, 3], own, "")
    assert numbered([1, 2, 3], ("dog", "cow", "cat")) == ([3, 2, 1], own, "")
    said = "note: eval has no images of 'cow', classes of train\n"
    assert numbered([1, 2], ("dog", "cat")) == ([2, 0, 1], own, said)
    assert numbered([1, 2, 3], ()) == (
        [1, 2, 3], own, "note: eval: label 0 is taken for 'cat' of train\n",
    )  # fmt: skip
    counts, names, said = numbered([1, 2, 3], ("katze", "kuh", "hund"))
    assert (counts, names) == ([1, 2, 3], own)
    assert said == (
        "note: eval: 'hund' is taken for 'dog' of train and so on, in order: no name is in both\n"
    )
    fix = "; make the classes the same, or open both with one label file that names them all"
    for names, text in [
        (("cat", "emu"), "eval lacks 'cow', 'dog' and has besides 'emu', compared with train"),
        (("cat", "cow", "dog", "emu"), "eval has besides 'emu', compared with train"),
    ]:
        eval_samples = listed([2] * len(names), names, "eval")
        assert message(datasets.numbered_as, eval_samples, own, 3, "train") == text + fix
    assert message(datasets.numbered_as, listed([2, 2], ("a", "b"), "eval"), own, 3, "train") == (
        "eval: its classes, 'a', 'b', are not those of train, 'cat', 'cow', 'dog'"
    )


def test_classes_that_are_numbers_are_numbered_by_value(capsys):
    """On either side: as folders, names in the order of text, or a list's labels."""
    as_text = ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9")
    sizes = list(range(1, 12))
    by_text = [1, 2, 11, 3, 4, 5, 6, 7, 8, 9, 10]

    def numbered(sizes, names, own):
        found = datasets.numbered_as(listed(sizes, names, "eval"), own, 11, "train")
        return found.counts(11).tolist()

    assert numbered(sizes, (), as_text) == by_text
    assert numbered(by_text, as_text, ()) == sizes
    assert numbered(sizes, tuple(map(str, range(11))), as_text) == by_text
    assert numbered(sizes, tuple(f"{i:03}" for i in range(11)), as_text) == by_text
    assert capsys.readouterr().out.count("\n") == 1  # of the folders held against numbers alone
    words = tuple("abcdefghijk")
    assert numbered(by_text, as_text, words) == sizes
    assert "'9' is taken for 'j' of train and so on, by number" in capsys.readouterr().out
    assert numbered(sizes, words, as_text) == by_text
    assert numbered([5, 6], ("3", "10"), ()) == [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 6]
    assert "label 11 is not among the classes of train" in message(
        datasets.numbered_as, listed([0] * 11 + [1]), as_text, 11, "train"
    )

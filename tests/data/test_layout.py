"""What lies at a path is found without a word on it."""

import cv2
import numpy as np
import pytest
from photos import write_photo

from ppcls.data.datasets import open_samples
from ppcls.data.layout import Layout, find_layout, look_at
from ppcls.utils.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def furnish(folder, *places):
    for seed, place in enumerate(places):
        write_photo(folder / place / "1.png", seed, (8, 8, 3))


def test_a_folder_for_each_class(here):
    furnish(here, "photos/ants", "photos/bees")
    assert find_layout("photos/") == Layout("photos", "photos")


def test_parts_of_a_data_set(here):
    furnish(here, "photos/Train/ants", "photos/Train/bees", "photos/val/ants", "photos/val/bees")
    assert find_layout("photos") == Layout("photos", "photos/Train", "photos/val")
    assert find_layout("photos/Train").name == "photos"


def test_a_folder_around_the_classes_is_entered(here):
    furnish(here, "flowers/flower_photos/roses", "flowers/flower_photos/tulips")
    assert find_layout("flowers") == Layout("flowers", "flowers/flower_photos")


def test_the_working_folder_has_a_name(here):
    furnish(here, "ants", "bees")
    assert find_layout(".").name == here.name


def test_lists_in_a_folder_with_the_names_of_classes(here):
    furnish(here, "set/jpg")
    for part in ("train", "val"):
        (here / f"set/{part}_list.txt").write_text("jpg/1.png 0\njpg/1.png 1\n")
    (here / "set/label_list.txt").write_text("ant\nbee\n")
    found = find_layout("set")
    assert (found.train, found.evaluation) == ("set/train_list.txt", "set/val_list.txt")
    assert (found.name, found.class_names) == ("set", "set/label_list.txt")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "path,cat,dog\n1.png,0,1\n", (True, False)),
        ("a.csv", "path,label\n1.png,cat\n", (False, True)),
        ("a.csv", "path,label\n1.png,3\n", (False, False)),
        ("a.txt", "1.png\t0,1,0\n", (True, False)),
        ("a.txt", "1.png cat\n", (False, True)),
        ("a.txt", "1.png 0\n", (False, False)),
    ],
)
def test_labels_of_lists(here, name, text, expected):
    (here / name).write_text(text)
    found = find_layout(name)
    assert (found.multilabel, found.number_labels) == expected


def test_the_list_beside_it_is_scored_on(here):
    for name in ("train.csv", "val.csv", "other.csv"):
        (here / name).write_text("path,label\n1.png,cat\n")
    assert find_layout("train.csv").evaluation == "val.csv"
    assert find_layout("other.csv").evaluation is None


def test_shards_in_a_folder(here):
    (here / "shards").mkdir()
    for name in ("train-00.tar", "train-01.tar", "val-00.tar"):
        (here / "shards" / name).touch()
    found = find_layout("shards")
    assert (found.train, found.evaluation) == ("shards/train-{00..01}.tar", "shards/val-00.tar")
    (here / "shards/train-03.tar").touch()
    with pytest.raises(UserError, match="have gaps"):
        find_layout("shards")


def test_nothing_there(here):
    with pytest.raises(UserError, match="gone: there is no such folder, list or tar file"):
        find_layout("gone")


@pytest.mark.parametrize("grey", [True, False])
def test_a_look_at_images(here, grey):
    for seed, place in enumerate(("a", "b")):
        path = here / "set" / place / "1.png"
        write_photo(path, seed, (28, 40, 3))
        if grey:
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    (here / "set/a/2.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # is passed over
    found = look_at(open_samples("set"))
    assert (found.side, found.grey) == (28, grey)
    pixels = np.stack([cv2.imread(str(here / f"set/{c}/1.png")) for c in "ab"]) / 255
    assert found.mean == pytest.approx(pixels.mean(), abs=1e-4)
    assert found.std == pytest.approx(pixels.std(), abs=1e-4)

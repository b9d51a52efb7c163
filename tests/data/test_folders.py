"""The images below a folder, in the order of their paths."""

import os
from pathlib import Path

import pytest

from ppcls.data.folders import PassedOver, walk
from ppcls.utils.errors import UserError

NAMES = ("a.jpg", "a/z.png", "a/b/1.JPG", "a b.webp", "B.tiff", "ü/ä.bmp", '".png', "a/line\n.png")
OTHERS = ("note.txt", ".hidden.jpg", ".hidden/1.jpg", "a/.b.jpg", "c/readme", "jpg")


def write(folder, names):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_photos_are_sorted_by_name_folder_by_folder(tmp_path, block):
    write(tmp_path, [*NAMES, *OTHERS])
    assert list(walk(str(tmp_path), PassedOver(), block)) == sorted(
        NAMES, key=lambda path: path.split("/")
    )


def test_many_files_of_a_folder_lie_in_few_pieces_of_memory(tmp_path):
    names = [f"{number:04d}.jpg" for number in range(1000)]
    write(tmp_path, names[::-1])
    assert list(walk(str(tmp_path), PassedOver(), 100)) == names


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    write(tmp_path, ["there/1.jpg", "photos/2.jpg"])
    os.symlink(tmp_path / "there", tmp_path / "photos/linked")
    os.symlink(tmp_path / "away", tmp_path / "photos/broken")
    os.symlink(tmp_path / "away.jpg", tmp_path / "photos/broken.jpg")
    found = ["2.jpg", "broken.jpg", "linked/1.jpg"]
    assert list(walk(str(tmp_path / "photos"), PassedOver())) == found
    os.symlink(tmp_path / "photos", tmp_path / "there/back")
    with pytest.raises(UserError, match="linked/back: a symbolic link to a folder above itself"):
        list(walk(str(tmp_path / "photos"), PassedOver()))


def test_an_empty_folder_has_none(tmp_path):
    assert list(walk(str(tmp_path), PassedOver())) == []

"""The photos below a folder, in the order of their paths."""

import os
from pathlib import Path

import pytest

from ppcls.errors import UserError
from ppcls.select import walk as module
from ppcls.select.walk import walk

NAMES = ("a.jpg", "a/z.png", "a/b/1.JPG", "a b.webp", "B.tiff", "ü/ä.bmp", '".png', "a/line\n.png")
OTHERS = ("note.txt", ".hidden.jpg", ".hidden/1.jpg", "a/.b.jpg", "c/readme", "jpg")


def write(folder, names):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_photos_are_sorted_by_their_whole_paths(tmp_path, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    write(tmp_path, [*NAMES, *OTHERS])
    assert list(walk(str(tmp_path))) == sorted(NAMES)


def test_many_files_of_a_folder_lie_in_few_pieces_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    names = [f"{number:04d}.jpg" for number in range(1000)]
    write(tmp_path, names[::-1])
    assert list(walk(str(tmp_path))) == names


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    write(tmp_path, ["there/1.jpg", "photos/2.jpg"])
    os.symlink(tmp_path / "there", tmp_path / "photos/linked")
    os.symlink(tmp_path / "away", tmp_path / "photos/broken")
    os.symlink(tmp_path / "away.jpg", tmp_path / "photos/broken.jpg")
    found = ["2.jpg", "broken.jpg", "linked/1.jpg"]
    assert list(walk(str(tmp_path / "photos"))) == found
    os.symlink(tmp_path / "photos", tmp_path / "there/back")
    with pytest.raises(UserError, match="linked/back/: a symbolic link to a folder above itself"):
        list(walk(str(tmp_path / "photos")))


def test_a_folder_that_cannot_be_listed_stands_for_its_photos(tmp_path, monkeypatch):
    write(tmp_path, ["1.jpg", "closed/2.jpg", "open/3.jpg"])
    scandir = os.scandir

    def closed(folder):
        if folder.endswith("closed/"):
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    assert list(walk(str(tmp_path))) == ["1.jpg", "closed/", "open/3.jpg"]


def test_an_empty_folder_has_none(tmp_path):
    assert list(walk(str(tmp_path))) == []

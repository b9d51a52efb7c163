"""Lists of images: what a line may be, and where reading goes on."""

import os
from pathlib import Path

import pytest

from ppcls.data.lists import line_of, unfit
from ppcls.select.scores import open_images
from ppcls.utils.errors import UserError

OUTPUT = Path("out.txt")
ODD = ["b.jpg", 'a/".jpg', "line\nbreak.jpg", "tab\t.jpg", "ü 12.png", os.fsdecode(b"\xff.jpg")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [*ODD, "photos/1.jpg", "photos/2 3"]:
        path = Path("wild", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_is_listed_once_with_odd_names(folder):
    photos = open_images("wild", OUTPUT)
    names = sorted([*ODD, "photos/1.jpg"])
    assert list(photos.paths()) == [f"{folder}/wild/{name}" for name in names]
    assert list(photos.paths(5)) == [f"{folder}/wild/{name}" for name in names[5:]]
    assert photos.count == len(names)
    Path("wild/new.jpg").touch()
    assert open_images("wild/", OUTPUT) == photos
    Path("out.txt.photos").unlink()
    assert open_images("wild", OUTPUT).count == photos.count + 1
    assert open_images("wild", OUTPUT).digest != photos.digest


def test_a_list_has_a_path_a_line(folder):
    lines = f"1.jpg\r\n  2 3\t\n{folder}/wild/b.jpg\n../../wild/away.jpg"
    Path("wild/photos/list.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    photos = open_images("wild/photos/list.txt", OUTPUT)
    here = f"{folder}/wild/photos"
    found = [f"{here}/1.jpg", f"{here}/2 3", f"{folder}/wild/b.jpg", f"{here}/../../wild/away.jpg"]
    assert list(photos.paths()) == found
    assert list(photos.paths(2)) == found[2:]
    assert photos.count == 4
    assert not Path("out.txt.photos").exists()


MISTAKES = {
    "": "list.txt: lists no images",
    "b.jpg\n\nb.jpg": "list.txt:2: blank line",
    "b.jpg\nb.jpg\t3": "list.txt:2: a label stands behind b.jpg",
    "b.jpg\nb.jpg  12\n": "list.txt:2: a label stands behind b.jpg",
    "b\0.jpg": "list.txt:1: not UTF-8",
    "1.jpg\n2.jpg": "wild/1.jpg does not exist, nor do the next; relative paths start beside",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_lines_that_are_no_paths(folder, text):
    Path("wild/list.txt").write_text(text)
    with pytest.raises(UserError) as raised:
        open_images("wild/list.txt", OUTPUT)
    assert MISTAKES[text] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_another_kind_is_left_alone(folder):
    Path("out.txt.photos").write_text("mine\n")
    with pytest.raises(UserError, match=r"out\.txt\.photos: not a file of `ppcls select-unlabel"):
        open_images("wild", OUTPUT)


def test_names_that_no_list_can_hold():
    fit = [not unfit(name) for name in ODD]
    assert fit == [True, True, False, False, True, False]


def test_lines_are_relative_below_the_folder_of_their_list():
    cases = {
        "/a/b/c.jpg": "b/c.jpg",
        "/ab/c.jpg": "/ab/c.jpg",
        "/a/../c.jpg": "/a/../c.jpg",
        "/a/ c.jpg": "./ c.jpg",
    }
    for path, line in cases.items():
        assert line_of(path, "/a") == line
    assert line_of("/b.jpg", "/") == "b.jpg"

"""Pictures of predictions: what is on them, what they are called, and that they replace nothing."""

import numpy as np
import pytest
from photos import scene, write_photo
from PIL import Image

from ppcls.report.labelled import BAR, LINE, NARROWEST, SIDE, labelled, places


def ink(picture, box):
    """How many dark pixels are in a part of a picture."""
    return int((np.asarray(picture.crop(box).convert("L")) < 100).sum())


@pytest.mark.parametrize("shape", [(900, 1200), (30, 40), (225, 96), (300, 9)])
def test_each_class_has_a_line_with_its_score_as_a_bar(shape):
    image = np.full((*shape, 3), 255, np.uint8)
    labels = ["a name " * 30, "故宫", "c"]
    scores = [0.75, 0.2, 0.0]
    picture = labelled(image, labels, scores, "folder/1.jpg", "none")
    assert NARROWEST <= picture.width <= SIDE
    top = picture.height - 4 * LINE
    assert 0 < top <= SIDE
    pixels = np.asarray(picture)
    for index, score in enumerate(scores):
        row = pixels[top + index * LINE + 2]
        bar = int((row == BAR).all(axis=1).sum())
        assert bar == pytest.approx(score * picture.width, abs=2)
        box = (0, top + index * LINE, picture.width, top + (index + 1) * LINE)
        assert ink(picture, box) > 40
        assert ink(picture, (picture.width - 9, *box[1:])) == 0  # nothing runs out of it


def test_no_class_is_said():
    picture = labelled(scene(0, 50, 60), [], [], "1.jpg", "no class above its threshold")
    assert ink(picture, (0, picture.height - 2 * LINE, picture.width, picture.height)) > 100


def test_names_are_those_of_the_images_below_what_they_share(tmp_path):
    root = str(tmp_path)
    assert places([f"{root}/a/1.jpg", f"{root}/b/1.jpg", f"{root}/b/1.png"]) == [
        "a/1.jpg",
        "b/1.jpg",
        "b/1.png.jpg",
    ]
    assert places([f"{root}/1.JPG"]) == ["1.JPG"]
    assert places([f"{root}/x.mp4#t=1.250", "-"])[0].endswith("x.mp4#t=1.250.jpg")
    assert places(["-"]) == ["stdin.jpg"]
    for name in places(["https://a.org/../../b.png?c=/etc/d", "http://a.org", f"{root}/../x.png"]):
        assert not name.startswith("/")
        assert ".." not in name.split("/")
    assert len(set(places([f"{root}/1.jpg", f"{root}/1.JPG", f"{root}/1.jpg"]))) == 3


@pytest.fixture
def predict(exported, run):
    command = ("predict", "--model-dir", "exported/small", "--engine", "onednn")
    return lambda *words: run(*command, *words)


def test_pictures_are_written_and_replace_nothing(predict, workdir):
    write_photo(workdir / "other/2.jpg", 0)
    before = {path: path.read_bytes() for path in (workdir / "photos").rglob("*.*")}
    given = ("photos/eval", "other/2.jpg", "--visualize")
    code, _, err = predict(*given, "drawn")
    assert (code, err) == (0, "")
    drawn = workdir / "drawn"
    names = [str(path.relative_to(drawn)) for path in sorted(drawn.rglob("*.jpg"))]
    assert names[0] == "other/2.jpg"
    assert names[1:4] == [f"photos/eval/ant/{number}.png.jpg" for number in range(3)]
    assert len(names) == 7
    with Image.open(drawn / "other/2.jpg") as picture:
        assert max(picture.size) > NARROWEST
    for folder, words in (
        ("drawn", "exists; --overwrite replaces such pictures"),
        ("photos/eval", "lies in photos/eval, whose images are read"),
        ("photos/eval/new", "lies in photos/eval, whose images are read"),
        ("recipe.yaml", "is a file; name a folder"),
        (".", "other/2.jpg is one of the images"),
    ):
        code, _, err = predict(*given, folder)
        assert code == 2
        assert words in err, err
    assert predict(*given, "drawn", "--overwrite")[0] == 0
    assert before == {path: path.read_bytes() for path in (workdir / "photos").rglob("*.*")}


def test_images_without_an_answer_have_no_picture(predict, workdir):
    (workdir / "photos/eval/ant/1.png").write_bytes(b"x")
    code, _, _ = predict("photos/eval/ant", "--visualize", "drawn", "--on-error", "skip")
    assert code == 0
    assert sorted(path.name for path in (workdir / "drawn").iterdir()) == [
        "0.png.jpg",
        "2.png.jpg",
    ]

"""`predict --part`: parts of many images, whose results are those of one run when joined."""

import csv
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pages
import pytest
from photos import write_photo

from ppcls.export import Form, export
from ppcls.inference.inputs import Found, find
from ppcls.inference.parts import Part, counted, part_of, share_of
from ppcls.inference.video import Frame
from ppcls.utils.errors import UserError

COUNT = 10
# What depends on the time that it took, or on which images run together.
LOOSE = ("milliseconds", "score", "scores")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """`photos/` with 10 images in two folders of which one lies in the other; it is worked in."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        folder = "photos/a" if number < 7 else "photos/a/b"
        write_photo(tmp_path / folder / f"{number}.png", number)
    return Path("photos")


@pytest.fixture(scope="module")
def featured(small, tmp_path_factory):
    """An export that gives features, too."""
    place = tmp_path_factory.mktemp("featured")
    write_photo(place / "a.png", 0)
    return export(small, place / "small", [str(place / "a.png")], Form(("paddle",), features=True))


@pytest.fixture
def predict(featured, run, photos):
    """`code, out, err = predict("--part", "1/4", …)`"""

    def predict(*words, photos="photos"):
        given = photos if isinstance(photos, list) else [photos]
        command = ("predict", "--model-dir", featured, "--engine", "onednn", "--threads", "1")
        return run(*command, *given, *words)

    return predict


def rows(path):
    path = Path(path)
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
    else:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [{key: value for key, value in row.items() if key not in LOOSE} for row in found]


def names(path):
    return list(dict.fromkeys(row["path"] for row in rows(path)))


@pytest.mark.parametrize("total", [0, 1, 3, 4, 10, 1001, 10_000_019])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 1000])
def test_parts_follow_each_other_and_are_alike(total, count):
    bounds = [Part(number, count).bounds(total) for number in range(1, count + 1)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == total
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    sizes = {stop - start for start, stop in bounds}
    assert sizes <= {total // count, total // count + 1}


def test_what_a_part_is():
    assert part_of("3/16") == Part(3, 16)
    assert part_of("1/1") == Part(1, 1)
    assert part_of("1000000/1000000") == Part(1_000_000, 1_000_000)


@pytest.mark.parametrize(
    "text",
    ["0/4", "5/4", "a/b", "1/0", "1/99999999999", "", "/", "1", "1/", "/4", "-1/4", "1/2/3",
     "1.0/2", "²/4", "1 / 4", "1_0/20", "9" * 5000 + "/4", "1/\x1b[31m"],
)  # fmt: skip
def test_a_wrong_part_is_one_line(predict, capsys, text):
    with pytest.raises(SystemExit) as ended:
        predict(f"--part={text}")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "argument --part: " in line
    assert "should be I/N, such as 3/16" in line
    assert len(line) < 250


def test_any_images_are_parted_as_one_list(photos, tmp_path):
    """Folders, patterns, lists, names and videos: the parts are the slices of all."""
    (tmp_path / "list.txt").write_text("photos/a/1.png 0\nphotos/a/2.png 1\n")
    write_clip(tmp_path / "clip.avi")
    given = ["photos/a/3.png", "photos", "list.txt", "photos/**/[5-9].png", "clip.avi", "none.jpg",
             "http://127.0.0.1/a.jpg", "photos/a/b/"]  # fmt: skip
    whole = find(given, every=0.5)
    assert len(whole) == 1 + 10 + 2 + 5 + 3 + 1 + 1 + 3
    for count in (1, 2, 5, 30):
        shares = [share_of(given, Part(k + 1, count), every=0.5) for k in range(count)]
        assert [image for share in shares for image in share.images] == whole
        assert {(share.total, share.timed) for share in shares} == {(len(whole), True)}
        assert [share.first for share in shares] == [
            Part(k + 1, count).bounds(len(whole))[0] for k in range(count)
        ]
        frames = [i for share in shares for i in share.images if isinstance(i, Frame)]
        assert [frame.time for frame in frames] == [0.0, 0.5, 1.0]
        found = [share_of(Found(whole), Part(k + 1, count)) for k in range(count)]
        assert found == shares


def test_other_parts_images_are_not_looked_at(photos, monkeypatch):
    """On a file system of a network that would take longer than predicting."""
    given = [f"photos/a/{number}.png" for number in range(COUNT)] + ["gone.jpg"] * 1000
    looked = []
    stat = __import__("os").stat

    def count(path, *words, **options):
        looked.append(path)
        return stat(path, *words, **options)

    monkeypatch.setattr("os.stat", count)
    share = share_of(given, Part(1, 101))
    assert share.images == given[:10]
    assert "gone.jpg" not in looked
    assert counted(given, False, 1.0) == (1010, False)


def test_a_folder_that_is_called_as_an_image_is(photos, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "old.png")
    assert len(find("old.png")) == COUNT
    with pytest.raises(UserError, match=r"old\.png: is a folder.*with a / behind it"):
        share_of(["old.png"], Part(1, 1))
    assert len(share_of(["old.png/"], Part(2, 2)).images) == COUNT / 2


def test_images_that_become_fewer_meanwhile():
    class Fewer:
        turns = 0

        def __iter__(self):
            self.turns += 1
            return iter(["a.jpg", "b.jpg", "c.jpg"][: 4 - self.turns])

    with pytest.raises(UserError, match="--part 2/2: there were 3 images, and fewer a moment"):
        share_of(Fewer(), Part(2, 2))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_joined_parts_are_the_rows_of_one_run(predict, ending):
    """Joined as the page says; one image is broken, three parts of four images are unequal."""
    Path("photos/a/4.png").write_bytes(b"broken")
    assert predict("--save", f"whole.{ending}", "--on-error", "skip")[0] == 0
    for number in range(1, 5):
        code, out, err = predict(
            *("--part", f"{number}/4", "--save", f"part-{number}.{ending}", "--on-error", "skip")
        )
        assert (code, err) == (0, "")
        first, behind = Part(number, 4).bounds(COUNT)
        assert f"part {number}/4: images {first + 1} to {behind} of 10\n" in out
    assert [len(names(f"part-{number}.{ending}")) for number in range(1, 5)] == [2, 3, 2, 3]
    if ending == "json":
        joined = [row for number in range(1, 5) for row in rows(f"part-{number}.json")]
        assert joined == rows("whole.json")
        return
    (line,) = [
        line
        for block in pages.blocks(pages.section(pages.text_of("docs/deploy.md"), "Millions"), "sh")
        for line in block.splitlines()
        if line.endswith(f"> all.{ending}")
    ]
    subprocess.run(["bash", "-c", line], check=True)
    assert rows(f"all.{ending}") == rows("whole." + ending)
    assert names("whole." + ending)[4] == "photos/a/4.png"


def test_more_parts_than_images(predict, photos):
    """Some have none: their files are whole, with nothing in them but a header."""
    given = ["photos/a/0.png", "photos/a/1.png"]
    for number in range(1, 4):
        for save in (f"{number}.csv", f"{number}.jsonl", f"{number}.json"):
            code, _, err = predict("--part", f"{number}/3", "--save", save, photos=given)
            assert (code, err) == (0, "")
    assert (
        "part 1/3: no images, for 2 images are fewer" in predict("--part", "1/3", photos=given)[1]
    )
    assert Path("1.csv").read_text() == "path,rank,class,label,score,milliseconds,error\n"
    assert Path("1.jsonl").read_text() == ""
    assert Path("1.json").read_text() == "[]\n"
    assert [len(rows(f"{number}.jsonl")) for number in range(1, 4)] == [0, 1, 1]
    assert not list(Path().glob("*.incomplete*"))


def test_resume_wants_the_same_part_of_as_many_images(predict, photos):
    broken = Path("photos/a/4.png")
    data = broken.read_bytes()
    broken.write_bytes(b"broken")
    save = ("--save", "x.jsonl", "--batch-size", "1")
    assert predict("--part", "1/2", *save)[0] == 2
    before = Path("x.jsonl.incomplete").read_bytes()
    assert before.count(b"\n") == 4

    def refused(words, *options):
        code, _, err = predict(*options, *save, "--resume")
        assert code == 2
        (line,) = err.splitlines()
        assert f"was made with another part ({words})" in line
        assert Path("x.jsonl.incomplete").read_bytes() == before

    refused("1/2 of 10 images, now 2/2 of 10 images", "--part", "2/2")
    refused("1/2 of 10 images, now 1/1 of 10 images", "--part", "1/1")
    refused("1/2 of 10 images, now all images")
    write_photo(Path("photos/a/b/99.png"), 99)
    refused("1/2 of 10 images, now 1/2 of 11 images", "--part", "1/2")
    Path("photos/a/b/99.png").unlink()
    broken.write_bytes(data)
    code, out, _ = predict("--part", "1/2", *save, "--resume")
    assert code == 0
    assert "going on behind 4 predictions in " in out
    assert names("x.jsonl") == [f"photos/a/{number}.png" for number in range(5)]


def test_a_run_without_parts_is_gone_on_with_as_before(predict, photos):
    """Also one of an older version, whose record says nothing of parts."""
    Path("photos/a/4.png").write_bytes(b"broken")
    save = ("--save", "x.jsonl", "--batch-size", "1")
    assert predict(*save)[0] == 2
    about = Path("x.jsonl.incomplete.run")
    record = json.loads(about.read_text())
    assert record.pop("part") == "all images"
    about.write_text(json.dumps(record) + "\n")
    code, _, err = predict(*save, "--resume", "--part", "1/2")
    assert code == 2
    assert "was made with another part (all images, now 1/2 of 10 images)" in err
    assert predict(*save, "--resume", "--on-error", "skip")[0] == 0
    assert len(rows("x.jsonl")) == COUNT


def test_another_parts_file_is_not_replaced(predict, photos):
    assert predict("--part", "1/2", "--save", "x.csv", "--features", "x.npz")[0] == 0
    before = Path("x.csv").read_bytes(), Path("x.npz").read_bytes()
    for words in (["--save", "x.csv"], ["--save", "x.csv", "--resume"], ["--features", "x.npz"]):
        code, _, err = predict("--part", "2/2", *words)
        assert code == 2
        (line,) = err.splitlines()
        assert f"{words[0]} {words[1]}: exists, and may be another part's" in line
    assert before == (Path("x.csv").read_bytes(), Path("x.npz").read_bytes())
    assert predict("--part", "2/2", "--save", "x.csv", "--overwrite")[0] == 0
    assert len(names("x.csv")) == COUNT / 2


def write_clip(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(15):
        writer.write(np.full((48, 64, 3), 15 * index, np.uint8))
    writer.release()


def test_videos_and_the_column_of_their_times(predict, photos, tmp_path):
    """Every part has the column, or their files could not be joined."""
    write_clip(tmp_path / "clip.avi")
    given = [*(f"photos/a/{number}.png" for number in range(5)), "clip.avi"]
    assert predict("--save", "whole.csv", "--every", "0.3", photos=given)[0] == 0
    assert len(names("whole.csv")) == 5 + 5
    parts = []
    for number in range(1, 4):
        words = ("--part", f"{number}/3", "--save", f"{number}.csv", "--every", "0.3")
        assert predict(*words, photos=given)[0] == 0
        parts += rows(f"{number}.csv")
        assert Path(f"{number}.csv").read_text().splitlines()[0].endswith(",error,time")
    assert parts == rows("whole.csv")


def test_features_of_parts_are_those_of_all(predict, photos):
    assert predict("--features", "whole.npz")[0] == 0
    found = []
    for number in range(1, 4):
        code, _, _ = predict("--part", f"{number}/3", "--features", f"{number}.npz")
        assert code == 0
        found.append(np.load(f"{number}.npz"))
    whole = np.load("whole.npz")
    assert np.concatenate([part["paths"] for part in found]).tolist() == whole["paths"].tolist()
    pooled = np.concatenate([part["features"] for part in found])
    np.testing.assert_allclose(pooled, whole["features"], rtol=1e-5, atol=1e-6)
    assert {str(part["about"]) for part in found} == {str(whole["about"])}


def test_pictures_of_parts_are_called_as_those_of_all(predict, photos):
    """The folders that all images share are no part of the names, those of a part are."""
    given = ["photos/a", "photos/a/0.png"]  # one image twice
    assert predict("--visualize", "whole", photos=given)[0] == 0
    for number in range(1, 5):
        assert predict("--part", f"{number}/4", "--visualize", "parts", photos=given)[0] == 0
    found = [sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
             for root in (Path("whole"), Path("parts"))]  # fmt: skip
    assert found[0] == found[1]
    assert len(found[0]) == COUNT + 1


def test_lists_are_read_as_they_are(predict, photos, tmp_path):
    """With a mark of UTF-8, ends of lines of Windows, blank lines, spaces and without an end."""
    Path("photos/a/0.png").rename("photos/a/ü 0 .png")
    data = "\ufeffphotos/a/ü 0 .png\r\n\r\n \nphotos/a/1.png\nphotos/a/2.png".encode()
    (tmp_path / "all").write_bytes(data)
    for number in range(1, 4):
        words = ("--list", "all", "--part", f"{number}/3", "--save", f"{number}.jsonl")
        assert predict(*words, photos=[])[0] == 0
    found = [name for number in range(1, 4) for name in names(f"{number}.jsonl")]
    assert found == ["photos/a/ü 0 .png", "photos/a/1.png", "photos/a/2.png"]
    (tmp_path / "all").write_text(" \n\n")
    code, _, err = predict("--list", "all", "--part", "1/3", photos=[])
    assert code == 2
    assert "--list all: names no images" in err


@pytest.mark.slow
def test_processes_at_once_do_not_get_in_each_others_way(copy, photos):
    """One folder, as just exported, whose engine nobody has chosen yet."""
    folder = copy()
    command = [sys.executable, "-m", "ppcls", "predict", "--model-dir", folder, "photos"]
    started = [
        subprocess.Popen(
            [*command, "--part", f"{number}/4", "--save", f"part-{number}.csv", "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(1, 5)
    ]  # fmt: skip
    for process in started:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    found = [name for number in range(1, 5) for name in names(f"part-{number}.csv")]
    assert found == find(["photos"])

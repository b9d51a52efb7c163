"""Videos: frames at a rate with their times, whatever is wrong with the file is one line."""

import csv
import json

import cv2
import numpy as np
import pytest

import ppcls
from ppcls.inference.inputs import find, with_frames
from ppcls.utils.errors import UserError

RATE = 10
COUNT = 35


def grey(index):
    """The brightness of a frame, far enough from the next one's to survive compression."""
    return 7 * index


def write_video(path, count=COUNT, code="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), RATE, (64, 48))
    for index in range(count):
        writer.write(np.full((48, 64, 3), grey(index), np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """3.5 seconds that grow brighter."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.avi")


@pytest.fixture(scope="session")
def predictor(exported):
    return ppcls.Predictor(exported, engine="onednn", batch_size=2)


@pytest.fixture
def predict(exported, run):
    return lambda *words: run("predict", "--model-dir", exported, "--engine", "onednn", *words)


def test_frames_have_their_times_and_are_what_the_video_shows(predictor, clip):
    found = predictor.predict(clip, every=0.5)
    assert [frame.time for frame in found] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [frame.path for frame in found] == [f"{clip}#t={k / 2:.3f}" for k in range(7)]
    shown = [np.full((48, 64, 3), grey(5 * k), np.uint8) for k in range(7)]
    for frame, plain in zip(found, predictor.predict(shown), strict=True):
        one = dict(zip(frame.classes, frame.scores, strict=True))
        other = dict(zip(plain.classes, plain.scores, strict=True))
        assert one == pytest.approx(other, abs=0.01)
        assert plain.time is None


def test_each_frame_is_that_of_its_time(clip):
    for every in (0.1, 0.5, 0.7):
        for frame in with_frames(find(clip, every=every)):
            index = round(frame.time * RATE)
            assert frame.content.mean() == pytest.approx(grey(index), abs=3), frame


@pytest.mark.parametrize(("name", "code"), [("a.mp4", "mp4v"), ("a.mkv", "MJPG")])
def test_no_oftener_than_the_video_has_frames(predictor, tmp_path, name, code):
    found = predictor.predict(write_video(tmp_path / name, code=code), every=0.001)
    assert [frame.time for frame in found] == pytest.approx([k / RATE for k in range(COUNT)])


def test_one_frame(predictor, tmp_path):
    (found,) = predictor.predict(write_video(tmp_path / "one.avi", count=1))
    assert found.time == 0


def test_videos_and_photos_together_in_csv_and_json(predict, clip, images, tmp_path):
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), images[0])
    for save in ("x.csv", "x.json"):
        code, out, err = predict(photo, clip, "--fps", 2, "--save", tmp_path / save, "--topk", 1)
        assert (code, err) == (0, "")
        assert f"{clip}#t=1.500: " in out
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time"] for row in rows] == ["", *(f"{k / 2:.3f}" for k in range(7))]
    records = json.loads((tmp_path / "x.json").read_text())
    assert "time" not in records[0]
    assert [record["time"] for record in records[1:]] == [k / 2 for k in range(7)]


def test_a_job_goes_on_inside_a_video(predict, clip, images, tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"broken")
    given = (clip, photo, clip, "--save", tmp_path / "x.csv", "--topk", 1)
    assert predict(*given)[0] == 2
    cv2.imwrite(str(photo), images[0])
    side = tmp_path / "x.csv.incomplete"
    side.write_text("".join(side.read_text().splitlines(True)[:3]))
    code, out, err = predict(*given, "--resume")
    assert (code, err) == (0, "")
    assert "going on behind 1 prediction in" in out
    whole = (tmp_path / "x.csv").read_text()
    assert predict(*given, "--overwrite")[0] == 0

    def kept(text):
        return [row[:5] + row[7:] for row in csv.reader(text.splitlines())]

    assert kept((tmp_path / "x.csv").read_text()) == kept(whole)
    assert len(kept(whole)) == 1 + 4 + 1 + 4


@pytest.fixture
def wrong(clip, tmp_path):
    """What is no whole video, and words of the line that says so."""
    data = clip.read_bytes()
    index = data.rindex(b"idx1")
    return {
        "missing.mp4": (None, "no such file"),
        "empty.mp4": (b"", "empty file"),
        "text.mp4": (b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n", "cannot be read as a video"),
        "head.avi": (data[:100], "cannot be read as a video"),
        "cut.avi": (data[: index // 2], "the video ends after"),
    }


def test_what_is_no_whole_video_is_one_line(predict, wrong, tmp_path):
    for name, (data, words) in wrong.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        code, _, err = predict(path)
        assert code == 2
        (line,) = err.splitlines()
        assert line.startswith(f"error: {path}")
        assert words in line, line


def test_damaged_videos_are_skipped(predict, wrong, clip, tmp_path):
    for name, (data, _) in wrong.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in wrong]
    code, out, err = predict(*paths, clip, "--on-error", "skip", "--save", tmp_path / "x.json")
    assert (code, err) == (0, "")
    records = json.loads((tmp_path / "x.json").read_text())
    failed = [record["path"] for record in records if record["error"]]
    assert failed[:4] == [str(path) for path in paths[:4]]
    assert failed[4].startswith(f"{paths[4]}#t=")
    good = [record["path"] for record in records if not record["error"]]
    assert [path for path in good if path.startswith(str(clip))] == good[-4:]
    assert "skipped: " in out


@pytest.mark.parametrize("rate", [("--every", 0), ("--fps", -1), ("--every", 1, "--fps", 1)])
def test_odd_rates(predict, clip, rate, capsys):
    try:
        code, _, err = predict(clip, *rate)
    except SystemExit as error:
        code, err = error.code, capsys.readouterr().err
    assert code == 2
    assert rate[0] in err


def test_odd_rates_in_python(predictor, clip):
    for every in (0, "1", float("nan"), None):
        with pytest.raises(UserError, match=r"^every \(.*\) should be a number of seconds above 0"):
            predictor.predict(clip, every=every)

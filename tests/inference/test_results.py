"""`predict --save`: whatever ends it, what was predicted is kept, and `--resume` goes on behind."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ppcls.cli import main

FORMS = ("x.csv", "x.json", "x.jsonl")


@pytest.fixture
def photos(tmp_path):
    """A folder of 20 images, none of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(20):
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def predict(exported, photos, run, tmp_path):
    """`code, out, err = predict("x.csv", …)`: of the folder, unless images are given."""

    def predict(save, *options, photos=photos, batch_size=4):
        photos = photos if isinstance(photos, list) else [photos]
        command = ("predict", "--model-dir", exported, "--engine", "onednn", *photos)
        return run(*command, "--batch-size", batch_size, "--save", tmp_path / save, *options)

    return predict


def rows(path):
    """Path, labels and error of each image in a file of any form, finished or not."""
    name = path.name.removesuffix(".incomplete")
    if name.endswith(".csv"):
        with path.open(newline="") as file:
            found = {}
            for row in csv.DictReader(file):
                mine = found.setdefault(row["path"], (row["path"], [], row["error"] or None))
                mine[1].extend([row["label"]] if row["label"] else [])
            return list(found.values())
    text = path.read_text()
    whole = name.endswith(".json") and name == path.name
    parsed = json.loads(text) if whole else [json.loads(line) for line in text.splitlines()]
    return [(row["path"], row["labels"], row["error"]) for row in parsed]


def names(path):
    return [os.path.basename(row[0]) for row in rows(path)]


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("x."))


def break_photo(photos, number):
    path = photos / f"{number:02}.png"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    return path, kept


@pytest.mark.parametrize("save", FORMS)
def test_a_broken_photo_stops_and_what_was_before_is_kept(predict, photos, tmp_path, save):
    assert predict(f"whole_{save}")[0] == 0
    path, data = break_photo(photos, 10)
    code, out, err = predict(save)
    assert code == 2
    (line,) = err.splitlines()
    side = tmp_path / f"{save}.incomplete"
    assert f"error: {path}: truncated or damaged" in line
    assert "--on-error skip goes on without it" in line
    assert f"10 predictions kept in {side}, --resume goes on" in line
    assert out.count(".png: ") == 10
    assert names(side) == [f"{number:02}.png" for number in range(10)]
    assert not (tmp_path / save).exists()

    code, _, err = predict(save)  # by mistake without --resume: nothing is lost
    assert code == 2
    assert "holds the predictions of a run that did not end; --resume goes on" in err
    assert len(names(side)) == 10
    assert predict(save, "--resume")[0] == 2  # it is still broken
    assert len(names(side)) == 10

    path.write_bytes(data)
    code, out, _ = predict(save, "--resume")
    assert code == 0
    assert f"going on behind {10 if save != 'x.csv' else 9} predictions in {side}" in out
    assert left(tmp_path) == [save]
    assert rows(tmp_path / save) == rows(tmp_path / f"whole_{save}")


@pytest.mark.parametrize("save", FORMS)
@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_broken_photos_are_skipped_and_counted(predict, photos, tmp_path, save, batch_size):
    broken = [break_photo(photos, number)[0] for number in (0, 4, 5, 19)]
    code, out, err = predict(save, "--on-error", "skip", batch_size=batch_size)
    assert (code, err) == (0, "")
    found = rows(tmp_path / save)
    assert [row[0] for row in found] == sorted(map(str, photos.iterdir()))
    assert [row[0] for row in found if row[2]] == [str(path) for path in broken]
    assert all(bool(row[1]) != bool(row[2]) for row in found)
    assert all("truncated or damaged" in row[2] for row in found if row[2])
    assert out.count("skipped: ") == 4
    assert f"note: 4 of 20 images could not be predicted; they are in {tmp_path / save}" in out


def test_many_skipped_photos_do_not_flood_the_screen(predict, photos, tmp_path):
    for number in range(1, 20):
        break_photo(photos, number)
    code, out, _ = predict("x.csv", "--on-error", "skip")
    assert code == 0
    assert out.count("skipped: ") == 11
    assert "note: 19 of 20 images could not be predicted" in out


def test_all_photos_skipped_is_a_mistake(predict, photos, tmp_path):
    for number in range(20):
        break_photo(photos, number)
    code, _, err = predict("x.csv", "--on-error", "skip")
    assert code == 2
    assert "none of 20 images could be predicted" in err
    assert len(rows(tmp_path / "x.csv")) == 20


def test_a_list_of_which_photos_are_missing(predict, photos, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("photos/00.png 1\nphotos/gone.png 0\nphotos/02.png 1\nphotos/gone.png\n")
    code, _, err = predict("x.csv", photos=listed)
    assert code == 2
    assert "list.txt:2: " in err
    code, _, _ = predict("x.json", "--on-error", "skip", photos=[listed, tmp_path / "none.jpg"])
    assert code == 0
    found = rows(tmp_path / "x.json")
    gone = f"{photos / 'gone.png'}"
    assert [row[0] for row in found] == [
        str(photos / "00.png"), gone, str(photos / "02.png"), gone, str(tmp_path / "none.jpg"),
    ]  # fmt: skip
    assert [row[2] for row in found] == [
        None, f"{gone}: no such file", None, f"{gone}: no such file",
        f"{tmp_path / 'none.jpg'}: no such file",
    ]  # fmt: skip


def test_todays_columns_come_first(predict, photos, tmp_path):
    break_photo(photos, 1)
    assert predict("x.csv", "--on-error", "skip")[0] == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        header, first, second, third, *_ = csv.reader(file)
    assert header == ["path", "rank", "class", "label", "score", "milliseconds", "error"]
    assert (first[1], second[1]) == ("1", "2")
    assert first[6] == ""
    assert third[1:6] == ["0", "", "", "", "0.00"]
    assert "truncated" in third[6]


@pytest.mark.parametrize("save", FORMS)
def test_a_torn_end_is_cut_off(predict, photos, tmp_path, save):
    """As a power cut leaves it: at every place of the last record, and with zeros behind."""
    assert predict(f"whole_{save}")[0] == 0
    break_photo(photos, 6)
    assert predict(save)[0] == 2
    side, about = (tmp_path / f"{save}.incomplete{end}" for end in ("", ".run"))
    data, origin = side.read_bytes(), about.read_bytes()
    whole = rows(tmp_path / f"whole_{save}")[:6]
    last = data[:-1].rfind(b"\n") + 1
    ends = (last - 9, last, last + 1, len(data) - 20, len(data) - 1)
    for end, behind in [*((end, b"") for end in ends), (last + 9, b"\0" * 99), (last, b'"\xff\n')]:
        side.write_bytes(data[:end] + behind)
        about.write_bytes(origin)
        assert predict(save, "--resume")[0] == 2  # at the image that is still broken
        assert rows(side) == whole


def test_names_with_commas_quotes_and_line_breaks(predict, photos, tmp_path):
    for number, name in enumerate(['a,"b".png', "c\nd.png", '"\n".png']):
        shutil.copy(photos / f"{number:02}.png", photos / name)
    for save in FORMS:
        assert predict(f"whole_{save}")[0] == 0
        path, data = break_photo(photos, 19)
        assert predict(save)[0] == 2
        path.write_bytes(data)
        assert predict(save, "--resume")[0] == 0
        assert rows(tmp_path / save) == rows(tmp_path / f"whole_{save}")


def test_the_same_photo_again_and_again(predict, photos, tmp_path):
    path, data = break_photo(photos, 1)
    given = [photos / "00.png"] * 5 + [path] + [photos / "00.png"] * 2
    for save in FORMS:
        path.write_bytes(b"x")
        assert predict(save, photos=given)[0] == 2
        path.write_bytes(data)
        assert predict(save, "--resume", photos=given)[0] == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        ranks = [row["rank"] for row in csv.DictReader(file)]
    assert ranks == ["1", "2"] * 8
    assert len(rows(tmp_path / "x.json")) == len(rows(tmp_path / "x.jsonl")) == 8


def test_resume_wants_the_same_photos_and_settings(predict, photos, tmp_path):
    path, _ = break_photo(photos, 10)
    assert predict("x.csv")[0] == 2
    before = (tmp_path / "x.csv.incomplete").read_bytes()
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for options, word in [
        (("--topk", "1"), "topk (5, now 1)"),
        (("--labels", tmp_path / "names.txt"), "labels"),
        (("--resize", "40"), "preprocessing"),
    ]:
        code, _, err = predict("x.csv", "--resume", *options)
        assert code == 2
        assert f"was made with another {word}" in err
        assert len(err.splitlines()) == 1
        assert (tmp_path / "x.csv.incomplete").read_bytes() == before
    (photos / "00.png").rename(photos / "99.png")
    code, _, err = predict("x.csv", "--resume")
    assert code == 2
    assert "its image 1 is " in err
    assert "00.png, of those to predict " in err
    assert (tmp_path / "x.csv.incomplete").read_bytes() == before
    (photos / "99.png").rename(photos / "00.png")
    path.unlink()  # a broken one that was not reached may go
    assert predict("x.csv", "--resume")[0] == 0
    assert len(rows(tmp_path / "x.csv")) == 19


def test_what_was_stopped_may_go_on_skipping(predict, photos, tmp_path):
    break_photo(photos, 10)
    assert predict("x.csv")[0] == 2
    code, out, _ = predict("x.csv", "--resume", "--on-error", "skip")
    assert code == 0
    assert "note: 1 of 20 images could not be predicted" in out
    assert [bool(row[2]) for row in rows(tmp_path / "x.csv")] == [n == 10 for n in range(20)]


def test_an_earlier_file_stays_until_the_new_one_is_whole(predict, photos, tmp_path):
    for save in FORMS:
        assert predict(save)[0] == 0
        before = (tmp_path / save).read_bytes()
        path, data = break_photo(photos, 10)
        assert predict(save)[0] == 2
        assert (tmp_path / save).read_bytes() == before
        path.write_bytes(data)
        assert predict(save, "--overwrite")[0] == 0
        assert len(rows(tmp_path / save)) == 20
    assert left(tmp_path) == sorted(FORMS)


def test_a_run_without_a_prediction_leaves_nothing(predict, photos, tmp_path):
    break_photo(photos, 0)
    code, _, err = predict("x.csv")
    assert code == 2
    assert "kept" not in err
    assert left(tmp_path) == []


def test_resume_with_nothing_to_go_on_with_begins(predict, tmp_path):
    """So that one command may be repeated until it is done."""
    assert predict("x.csv", "--resume")[0] == 0
    assert len(rows(tmp_path / "x.csv")) == 20


@pytest.mark.parametrize(
    ("save", "words"),
    [
        ("x.txt", "should end in .csv, .json, .jsonl"),
        ("gone/x.csv", "does the folder exist?"),
        ("photos.csv", "is there and is no file"),
        ("n" * 300 + ".csv", "cannot be written"),
    ],
)
def test_where_nothing_can_be_saved(predict, tmp_path, save, words):
    (tmp_path / "photos.csv").mkdir()
    code, out, err = predict(save)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert ".png: " not in out


def test_options_without_a_file(exported, photos, run):
    for option in ("--resume", "--overwrite"):
        code, _, err = run("predict", "--model-dir", exported, photos, option)
        assert code == 2
        assert "--save FILE" in err


WATCH = """
import os, sys, signal, threading, time
from pathlib import Path
from ppcls.cli import main

side, wanted, number, *command = sys.argv[1:]

def watch():
    while not (Path(side).is_file() and Path(side).read_bytes().count(b"\\n") > int(wanted)):
        time.sleep(0.001)
    os.kill(os.getpid(), int(number))

threading.Thread(target=watch, daemon=True).start()
sys.exit(main(command))
"""


@pytest.fixture
def process(exported, photos, tmp_path):
    """Run `predict` on many images in a process that sends itself a signal on its way."""
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted(photos.iterdir())) * 400)

    def process(save, number, *options):
        side = tmp_path / f"{save}.incomplete"
        command = ["predict", "--model-dir", exported, "--engine", "onnxruntime", listed, "--save"]
        return subprocess.run(
            [sys.executable, "-c", WATCH, side, "30", str(int(number)), *command, tmp_path / save]
            + list(options),
            capture_output=True,
            check=False,
        )

    return process


@pytest.mark.parametrize(
    ("save", "number"),
    [
        ("x.csv", signal.SIGKILL),
        ("x.jsonl", signal.SIGTERM),
        pytest.param("x.json", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("x.csv", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("x.json", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_signal_keeps_what_was_predicted(process, tmp_path, exported, save, number):
    done = process(save, number)
    side = tmp_path / f"{save}.incomplete"
    assert side.is_file()
    assert not (tmp_path / save).exists()
    text = side.read_text()
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130
        assert f"kept in {side}; the same command with --resume goes on" in done.stdout.decode()
        assert "Traceback" not in done.stderr.decode()
        assert text.endswith("\n")
    listed = tmp_path / "list.txt"
    lines = listed.read_text().splitlines()
    kept = text.count("\n")
    listed.write_text("".join(f"{line}\n" for line in lines[: kept + 20]))
    command = ("predict", "--model-dir", exported, "--engine", "onednn", listed, "--save")
    assert main([str(part) for part in (*command, tmp_path / save, "--resume")]) == 0
    assert left(tmp_path) == [save]
    if save != "x.csv":
        assert [row[0] for row in rows(tmp_path / save)] == lines[: kept + 20]
    else:
        with (tmp_path / save).open(newline="") as file:
            found = [row["path"] for row in csv.DictReader(file)]
        assert found == [line for line in lines[: kept + 20] for _ in range(2)]


def test_a_full_disk_keeps_whole_records(predict, photos, tmp_path):
    """A limit of the size of files does as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for save in ("x.csv", "x.jsonl"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            code, _, err = predict(save)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert code == 2
            (line,) = err.splitlines()
            assert "cannot be written" in line
            assert "--resume goes on" in line
            side = tmp_path / f"{save}.incomplete"
            assert len(rows(side)) > 5
            assert side.read_bytes().endswith(b"\n")
            assert predict(save, "--resume")[0] == 0
            assert len(rows(tmp_path / save)) == 20
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_two_processes_do_not_write_one_file(predict, photos, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    break_photo(photos, 10)
    assert predict("x.csv")[0] == 2
    with (tmp_path / "x.csv.incomplete").open("r+b") as file:
        before = file.read()
        fcntl.flock(file, fcntl.LOCK_EX)
        for option in ("--resume", "--overwrite"):
            code, _, err = predict("x.csv", option)
            assert code == 2
            assert "another process is writing it" in err
            assert (tmp_path / "x.csv.incomplete").read_bytes() == before


def test_a_reader_that_leaves_does_not_end_what_is_saved(exported, photos, tmp_path):
    """`predict … --save x.csv | head -1`"""
    command = [sys.executable, "-m", "ppcls", "predict", "--model-dir", exported, "--engine"]
    process = subprocess.Popen(
        [*command, "onnxruntime", photos, "--batch-size", "1", "--save", tmp_path / "x.csv"],
        stdout=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.wait() == 0
    assert len(rows(tmp_path / "x.csv")) == 20

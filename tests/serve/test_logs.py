"""What a service writes holds up no answer: lines in order, and dropped where nobody reads."""

import json
import os
import threading

import pytest
from made_engine import image

from ppcls.serve import logs
from ppcls.serve.logs import AccessLog, Samples, Writer
from ppcls.utils.errors import UserError


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_writer_keeps_the_order():
    done = []
    writer = Writer()
    for number in range(100):
        writer.do(lambda number=number: done.append(number))
    assert writer.close()
    assert done == list(range(100))


def test_a_writer_that_cannot_keep_up_drops_and_counts():
    gate = threading.Event()
    begun = threading.Event()
    done = []
    writer = Writer(2)
    writer.do(lambda: (begun.set(), gate.wait()))
    begun.wait()
    for number in range(5):
        writer.do(lambda number=number: done.append(number))
    assert writer.dropped == 3
    gate.set()
    assert writer.close()
    assert done == [0, 1]


def test_a_writer_outlives_what_cannot_be_written():
    def fail():
        raise OSError("no space left on device")

    done = []
    writer = Writer()
    writer.do(fail)
    writer.do(lambda: done.append(1))
    assert writer.close()
    assert (done, writer.dropped) == ([1], 1)


def test_what_is_said_comes_out(capsys):
    logs.say("one: Ameise 蚂蚁", "two")
    assert logs.finish_saying()
    assert capsys.readouterr().out == "one: Ameise 蚂蚁\ntwo\n"
    logs.say("three")  # by another thread, for the one before has ended
    assert logs.finish_saying()
    assert capsys.readouterr().out == "three\n"


def test_an_access_log_is_json_and_goes_on_in_a_new_file(tmp_path):
    path = tmp_path / "access.jsonl"
    log = AccessLog(str(path))
    log.write({"path": "/a\nb", "client": None})
    log.writer.do(lambda: path.rename(tmp_path / "old.jsonl"))
    log.reopen()
    log.write({"path": "/c"})
    assert log.close()
    (old,), (new,) = lines(tmp_path / "old.jsonl"), lines(path)
    assert (old["path"], new["path"]) == ("/a\nb", "/c")
    assert old["time"].endswith("Z")


def test_a_log_that_cannot_be_reopened_goes_on_where_it_was(tmp_path):
    path = tmp_path / "logs" / "access.jsonl"
    path.parent.mkdir()
    log = AccessLog(str(path))
    log.writer.do(lambda: path.parent.rename(tmp_path / "away"))
    log.reopen()
    log.write({"path": "/c"})
    assert log.close()
    assert lines(tmp_path / "away" / "access.jsonl")[0]["path"] == "/c"


@pytest.mark.parametrize("make", [AccessLog, lambda place: Samples(place, 1.0, 10)])
def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path, make):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "below")


def answer(count, **more):
    found = {"classes": [0], "labels": ["蚂蚁"], "scores": [1.0]}
    about = {"model": "m", "version": "1", "digest": "d", "request_id": "r"}
    return about | {"predictions": [found | more] * count}


def test_samples_are_images_by_their_contents_and_a_line_each(tmp_path):
    samples = Samples(tmp_path, 1.0, 10)
    first, second = image(1, 2, 3), image(4, 5, 6, kind="JPEG")
    samples.take([first, second], answer(2))
    samples.take([first], answer(1))
    samples.take([second], answer(1, error="broken"))
    assert samples.close()
    kept = {path.suffix: path for path in tmp_path.iterdir()}
    assert set(kept) == {".png", ".jpg", ".jsonl"}
    assert kept[".png"].read_bytes() == first
    assert kept[".jpg"].read_bytes() == second
    found = lines(tmp_path / logs.RECORDS)
    assert [one["image"] for one in found] == [kept[kind].name for kind in (".png", ".jpg", ".png")]
    assert found[0]["labels"] == ["蚂蚁"]
    assert found[0]["digest"] == "d"


def test_no_more_samples_than_may_be_kept_in_all(tmp_path, capsys):
    for _ in range(2):
        samples = Samples(tmp_path, 1.0, 3)
        for number in range(5):
            samples.take([image(number, 0, 0)], answer(1))
        assert samples.close()
    logs.finish_saying()
    assert capsys.readouterr().out.count("no more follow") == 1
    assert len(lines(tmp_path / logs.RECORDS)) == 3


def test_about_the_share_that_was_asked_for(tmp_path):
    samples = Samples(tmp_path, 0.1, 10_000)
    samples.random.seed(0)
    samples.writer.waiting.maxsize = 0
    data = image(1, 2, 3)
    for _ in range(1000):
        samples.take([data], answer(1))
    assert samples.close()
    assert 70 < len(lines(tmp_path / logs.RECORDS)) < 130
    assert len(os.listdir(tmp_path)) == 2

"""The file of scores: whose they are, and where it goes on."""

from pathlib import Path

import numpy as np
import pytest

from ppcls.select.scores import RECORD, Scores
from ppcls.utils.errors import UserError

HEADER = {"teachers": [{"name": "x"}], "classes": 3}
BROKEN = (2, 5, 6)


def records(count):
    rng = np.random.default_rng(0)
    made = np.zeros(count, RECORD)
    made["pixels"] = rng.integers(1, 2**63, count)
    made["label"] = rng.integers(0, 3, count)
    for place in BROKEN:
        made[place] = 0
    return made


def fill(scores, until):
    made = records(10)
    for place in range(scores.done, until):
        reasons = [(f"{place}.jpg", "bad\nfile")] if place in BROKEN else []
        scores.add(made[place : place + 1], reasons)
    scores.close()


def content(output):
    return [Path(f"{output}.{kind}").read_bytes() for kind in ("scores", "skipped")]


@pytest.fixture
def whole(tmp_path):
    """What an uninterrupted run of ten images leaves."""
    fill(Scores(tmp_path / "whole.txt", HEADER, 10, 3), 10)
    return content(tmp_path / "whole.txt")


def test_what_is_in_the_files(tmp_path, whole):
    scores = Scores(tmp_path / "whole.txt", HEADER, 10, 3)
    assert scores.done == 10
    (place, block), *none = scores.blocks()
    assert (place, none) == (0, [])
    assert (block == records(10)).all()
    assert whole[1] == b"2.jpg\tbad file\n5.jpg\tbad file\n6.jpg\tbad file\n"
    scores.close()
    assert content(tmp_path / "whole.txt") == whole


@pytest.mark.parametrize("until", range(10))
@pytest.mark.parametrize(("scores_lost", "lines_lost"), [(0, 0), (1, 0), (50, 0), (0, 1), (0, 20)])
def test_files_that_were_cut_go_on(tmp_path, whole, until, scores_lost, lines_lost):
    """Also where the disk has kept less of one file than of the other."""
    output = tmp_path / "out.txt"
    fill(Scores(output, HEADER, 10, 3), until)
    for kind, lost in (("scores", scores_lost), ("skipped", lines_lost)):
        path = Path(f"{output}.{kind}")
        size = path.stat().st_size if path.exists() else 0
        first = len(whole[0].partition(b"\n")[0]) + 1 if kind == "scores" else 0
        if size > first:
            path.write_bytes(path.read_bytes()[: max(first, size - lost)])
    scores = Scores(output, HEADER, 10, 3)
    assert scores.done % 3 == 0
    assert scores.done <= until
    if not (scores_lost or lines_lost):
        assert scores.done == until - until % 3
    fill(scores, 10)
    assert content(output) == whole


def test_a_tail_of_zeros_is_written_anew(tmp_path, whole):
    """As some file systems leave a file when the power fails."""
    output = tmp_path / "out.txt"
    fill(Scores(output, HEADER, 10, 1), 4)
    with Path(f"{output}.scores").open("ab") as file:
        file.write(bytes(3 * RECORD.itemsize))
    scores = Scores(output, HEADER, 10, 1)
    assert scores.done == 4
    fill(scores, 10)
    assert content(output) == whole


def test_a_finished_file_stays_without_its_second(tmp_path, whole):
    (tmp_path / "whole.txt.skipped").unlink()
    scores = Scores(tmp_path / "whole.txt", HEADER, 10, 3)
    assert scores.done == 10
    scores.close()
    assert not (tmp_path / "whole.txt.skipped").exists()


def test_other_scores_are_refused(tmp_path, whole):
    other = {**HEADER, "classes": 4}
    with pytest.raises(UserError, match=r"\(classes: 3 -> 4\): give another --output"):
        Scores(tmp_path / "whole.txt", other, 10, 3)
    for text in (b"", b"\xff\n", b"[]\n", b'{"format": "x"}\n'):
        (tmp_path / "whole.txt.scores").write_bytes(text)
        with pytest.raises(UserError, match="not a file of `ppcls select-unlabeled`"):
            Scores(tmp_path / "whole.txt", HEADER, 10, 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_a_full_disk_is_one_line_and_goes_on(tmp_path, whole):
    output = tmp_path / "out.txt"
    scores = Scores(output, HEADER, 10, 1)
    words = r"/dev/full: cannot be written \(No space left on device\); the same command goes on"
    with scores.file, open("/dev/full", "wb") as scores.file:
        with pytest.raises(UserError, match=words):
            scores.add(records(10)[:1], [])
        scores.close()
    fill(Scores(output, HEADER, 10, 1), 10)
    assert content(output) == whole


def test_blocks_follow_each_other(tmp_path, whole):
    scores = Scores(tmp_path / "whole.txt", HEADER, 10, 3)
    blocks = list(scores.blocks(4))
    scores.close()
    assert [place for place, _ in blocks] == [0, 4, 8]
    assert (np.concatenate([block for _, block in blocks]) == records(10)).all()

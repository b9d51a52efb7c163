"""The choice against one that sorts all images in plain Python."""

import tracemalloc

import numpy as np
import pytest

from ppcls.select.choose import choose
from ppcls.select.scores import RECORD, Scores

CLASSES = 5


def made(count, seed=0, classes=CLASSES):
    """Records with ties, copies and images that could not be read."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, RECORD)
    rows["pixels"] = rng.integers(0, max(2, count // 2), count)  # 0: left out
    rows["label"] = rng.integers(0, classes, len(rows))[rows["pixels"] % count]
    rows["confidence"] = rng.integers(0, 21, count) / 20
    rows["hash"] = rng.integers(0, 2**64, (count, 4), np.uint64)
    rows[rows["pixels"] == 0] = 0
    return rows


def written(path, rows):
    scores = Scores(path / "out.txt", {}, len(rows), 1)
    scores.add(rows, [("x", "y")] * int((rows["pixels"] == 0).sum()))
    scores.file.close()
    return scores


def plain(rows, per_class, least, away):
    """Images taken one by one, the surest first, while their class has room."""
    taken, have, pixels = [], [0] * 99, set()
    order = sorted(range(len(rows)), key=lambda i: (-float(rows["confidence"][i]), i))
    for i in order:
        row = rows[i]
        if row["pixels"] == 0 or row["confidence"] < least or away[i]:
            continue
        if have[row["label"]] < per_class and int(row["pixels"]) not in pixels:
            taken.append(i)
            pixels.add(int(row["pixels"]))
            have[row["label"]] += 1
    return sorted(taken)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("waiting", [1, 50, 1 << 20])
@pytest.mark.parametrize("per_class", [1, 3, 1000])
def test_as_plain_sorting_does(tmp_path, block, waiting, per_class):
    for seed in range(3):
        rows = made(300, seed)
        away = np.random.default_rng(seed).random(300) < 0.1
        marks = {row.tobytes() for row in rows["hash"][away & (rows["pixels"] != 0)]}
        near = np.array([row.tobytes() in marks for row in rows["hash"]])
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = choose(
            written(folder, rows),
            CLASSES,
            per_class,
            0.3,
            lambda rows, marks=marks: np.array([row.tobytes() in marks for row in rows["hash"]]),
            block,
            waiting,
        )
        expected = plain(rows, per_class, np.float32(0.3), near)
        assert found.rows["place"].tolist() == expected
        for name in ("pixels", "label", "confidence"):
            assert (found.rows[name] == rows[name][expected]).all()
        read = rows["pixels"] != 0
        below = read & ~near & (rows["confidence"] < np.float32(0.3))
        assert (found.images, found.left_out) == (300, (~read).sum())
        assert (found.near, found.below) == (near.sum(), below.sum())
        chosen = set(rows["pixels"][expected].tolist())
        copies = sum(pixels in chosen for pixels in rows["pixels"].tolist()) - len(expected)
        assert found.copies == copies
        assert found.counts(CLASSES).sum() == len(expected)


def test_a_copy_in_another_class_is_taken_once(tmp_path):
    rows = made(3)
    rows["pixels"], rows["label"], rows["confidence"] = 7, [0, 1, 1], [0.5, 0.75, 0.75]
    found = choose(written(tmp_path, rows), CLASSES, 9, 0, None)
    assert found.rows["place"].tolist() == [1]
    assert found.copies == 2


def test_nothing_to_choose_from(tmp_path):
    rows = made(2)
    rows["pixels"] = 0
    found = choose(written(tmp_path, rows), CLASSES, 9, 0, None)
    assert (len(found.rows), found.left_out, found.copies) == (0, 2, 0)


def test_two_million_photos_in_little_memory(tmp_path):
    count, classes, per_class = 2_000_000, 100, 200
    rng = np.random.default_rng(0)
    rows = np.zeros(count, RECORD)
    rows["pixels"] = rng.integers(1, 2**63, count)
    rows["label"] = rng.integers(0, classes, count)
    rows["confidence"] = rng.random(count, np.float32)
    scores = written(tmp_path, rows)
    order = np.lexsort((np.arange(count), -rows["confidence"], rows["label"]))
    starts = np.searchsorted(rows["label"][order], np.arange(classes))
    expected = np.sort((starts[:, None] + np.arange(per_class)).ravel())
    expected = np.sort(order[expected])
    size = rows.nbytes
    del rows
    tracemalloc.start()
    found = choose(scores, classes, per_class, 0.0, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.rows["place"] == expected).all()
    assert size == 96_000_000
    assert peak < 25_000_000  # blocks and candidates: as much for any number of images

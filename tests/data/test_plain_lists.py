"""The fast reader of lists gives what the careful one gives, or leaves the list to it."""

import numpy as np
import pytest

from ppcls.data import datasets
from ppcls.data.lists import read_list, read_plain
from ppcls.data.samples import BLOCK, Dataset, Paths
from ppcls.utils.errors import UserError

NAMES = ("cat", "golden retriever")
LINES = ("b.jpg 0\n", "c d.jpg 1\n", "e.jpg\t0\r\n", "e f.jpg\t1\n", "x.jpg cat\n")
PIECES = ("a.jpg", "d/ö b.jpg", " ", "\t", "12", "7", "cat", "golden retriever", "\n", "\x0c", "-1")


@pytest.fixture
def put(tmp_path):
    def put(content):
        path = tmp_path / "list.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


@pytest.mark.parametrize("size", [1, 16, 1 << 23])
@pytest.mark.parametrize("names", [(), NAMES])
def test_random_lists_are_read_alike(put, names, size):
    rng = np.random.default_rng(size + len(names))
    plainly = 0
    for _ in range(200):
        text = "".join(rng.choice(LINES * 6 + PIECES, rng.integers(1, 6)))
        path = put(text)
        found = read_plain(path, names, "", size=size)
        try:
            photos, labels, lines, _ = read_list(path, names)
        except UserError:
            assert found is None, repr(text)
            continue
        if found:
            plainly += 1
            assert list(found[0]) == photos, repr(text)
            assert found[1].tolist() == labels.tolist()
            assert found[2].tolist() == lines.tolist()
            assert [column.dtype for column in found[1:3]] == [np.int64, np.int64]
    assert plainly > 20


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg 0\nb.jpg 1\n",
        "a.jpg 0",
        "\ufeffa b.jpg\t0\r\nc d.jpg\t1\r\n",
        "ä ö.jpg 3\n/b.jpg 4\n",
    ],
)
def test_usual_lists_are_read_fast(put, content):
    path = put(content)
    paths, labels, lines, _ = read_plain(path, (), "x/")
    photos, expected, numbers, _ = read_list(path)
    assert list(paths) == [p if p.startswith("/") else f"x/{p}" for p in photos]
    assert (labels.tolist(), lines.tolist()) == (expected.tolist(), numbers.tolist())


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a.jpg\n", b"a.jpg 0\n\nb.jpg 1\n", b"a.jpg  0\n", b" a.jpg 0\n", b"a.jpg 0 \n",
     b"a.jpg x\n", b"a.jpg\t0\nb.jpg 1\n", b"\xff.jpg 0\n", b"a\0.jpg 0\n", b"a.jpg 1.0\n"],
)  # fmt: skip
def test_odd_lists_are_left_to_the_careful_reader(put, content):
    assert read_plain(put(content), (), "") is None


def old_digest(paths, labels):
    """As the first version computed it, on which resumed runs rely."""
    import os
    import zlib

    names = "\0".join(os.path.basename(path) for path in paths)
    return f"{zlib.crc32(labels.tobytes(), zlib.crc32(names.encode(errors='replace'))):08x}"


@pytest.mark.parametrize("times", [1, BLOCK // 7 + 1])
def test_blocks_change_nothing(times):
    texts = ["a/b/1.jpg", "2.jpg", "/x/ö.jpg", "a/bad\udcff.jpg", "a/b/1.jpg", "", "a//c.jpg"]
    texts *= times
    labels = np.arange(len(texts))
    samples = Dataset(Paths(texts, "root/"), labels, (), "x")
    whole = [text if text.startswith("/") else f"root/{text}" for text in texts]
    assert list(samples.paths) == [samples.paths[i] for i in range(len(texts))] == whole
    assert samples.digest() == old_digest(whole, labels)
    order = np.array([len(texts) - 1, 0, 0, 3])
    assert list(samples.subset(order).paths) == [whole[i] for i in order]
    none = Dataset(Paths([]), labels[:0], (), "x")
    assert none.digest() == old_digest([], labels[:0])
    assert (list(none.paths), datasets.missing(none)) == ([], [])

"""Tar shards: the same images as the folder they came from, and every mistake with its place."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from shard_contents import contents, message

from ppcls.cli import main
from ppcls.data import shards
from ppcls.data.datasets import open_samples
from ppcls.data.loader import EvalPipeline, Loader, eval_order
from ppcls.data.make_shards import make_shards as write
from ppcls.data.preprocess import Preprocess
from ppcls.data.samples import Member
from ppcls.utils.errors import DataError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tar(tmp_path):
    """Write a tar of (name, bytes) members, maybe cut to a length; returns its path."""

    def tar(*members, cut=None, name="train-000003.tar"):
        path = tmp_path / name
        with tarfile.open(path, "w") as file:
            for key, content in members:
                member = tarfile.TarInfo(key)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        os.truncate(path, cut if cut is not None else path.stat().st_size)
        return str(path)

    return tar


def test_shards_hold_what_the_folder_held(workdir, capsys):
    assert main(["make-shards", "photos/train", "shards", "--shard-size", "20KB"]) == 0
    out = capsys.readouterr().out
    pattern = out.partition("data.train=")[2].strip()
    count = len(list((workdir / "shards").glob("*.tar")))
    assert count > 2
    assert pattern == f"shards/train-{{000000..{count - 1:06}}}.tar"
    assert f"{count} shards of 12 images" in out
    folder, opened = open_samples("photos/train"), open_samples(pattern)
    assert contents(opened) == contents(folder)
    assert opened.names == ("ant", "bee")
    assert opened.labels.tolist() != sorted(opened.labels.tolist())  # shuffled
    assert opened.where(0) == "shards/train-000000.tar:000000.png"
    assert opened.counts(2).tolist() == [6, 6]
    assert list(opened.paths)[7] == opened.paths[7] == opened.paths[-5]
    part = opened.subset([7, 0])
    assert contents(part) == contents(opened.subset([0, 7]))
    assert part.paths[0] == opened.paths[7]
    assert part.digest() != opened.digest() == open_samples(pattern).digest()


def test_workers_read_the_same_pixels(workdir):
    write("photos/train", workdir / "shards", 20_000)
    samples = open_samples(f"shards/train-{{000000..{len(os.listdir('shards')) - 3:06}}}.tar")
    folder = open_samples("photos/train")
    view = EvalPipeline(Preprocess(resize=36, crop=32))
    found = []
    for opened, workers in ((folder, 0), (samples, 0), (samples, 1)):
        reader = Loader({"eval": (opened, view)}, workers)
        try:
            batches = list(reader.batches("eval", eval_order(12, 5)))
        finally:
            reader.close()
        pairs = [
            (b.images[i].tobytes(), int(b.labels[i])) for b in batches for i in range(len(b.labels))
        ]
        found.append(pairs)
    assert found[1] == found[2]
    assert sorted(found[0]) == sorted(found[1])


def test_samples_are_small_to_pickle(tar):
    pairs = [(f"{i:06}.{end}", b"5") for i in range(2000) for end in ("jpg", "cls")]
    samples = open_samples(tar(*pairs))
    copy = pickle.dumps(samples)
    assert len(copy) < 2000 * 55 + 2000
    again = pickle.loads(copy)
    assert again.where(1999) == samples.where(1999)
    member = pickle.loads(pickle.dumps(again.paths[3]))
    assert isinstance(member, Member)
    assert member.read() == b"5"


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a/t-{8..10}.tar", ["a/t-8.tar", "a/t-9.tar", "a/t-10.tar"]),
        ("t-{008..010}.tar", ["t-008.tar", "t-009.tar", "t-010.tar"]),
        ("https://x/t-{0..1}.tar", ["https://x/t-0.tar", "https://x/t-1.tar"]),
        ("one.tar", ["one.tar"]),
    ],
)
def test_ranges(pattern, files):
    assert shards.expand(pattern) == files


@pytest.mark.parametrize("pattern", ["t-{3..1}.tar", "t-{0..a}.tar", "{0..1}/{0..1}.tar", "{.tar"])
def test_what_is_no_range(pattern):
    assert message(open_samples, pattern) == (
        f"{pattern}: a range of shards is written like train-{{000..127}}.tar"
    )


def test_shards_that_do_not_exist(tar, tmp_path):
    path = tar(("0.jpg", b"x"), ("0.cls", b"0"))
    pattern = path.replace("000003", "{000002..000004}")
    assert message(open_samples, pattern) == (
        f"{pattern}: shards that do not exist: "
        f"{tmp_path}/train-000002.tar, {tmp_path}/train-000004.tar"
    )


def test_an_index_is_kept_until_the_tar_changes(tar, home):
    path = tar(("a/0.jpg", b"xyz"), ("a/0.json", b"{}"), ("a/0.cls", b" 7\n"), ("README", b"hi"))
    first = open_samples(path)
    assert (first.labels.tolist(), first.where(0)) == ([7], f"{path}:a/0.jpg")
    about, data = os.stat(path), Path(path).read_bytes()
    assert data.count(b" 7\n") == 1
    with open(path, "r+b") as file:  # another label, which only one who looks again would find
        file.seek(data.index(b" 7\n"))
        file.write(b" 9\n")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    again = open_samples(path)
    assert (again.labels.tolist(), again.paths[0].read()) == ([7], b"xyz")
    tar(("b.jpg", b"longer"), ("b.cls", b"8"))
    assert open_samples(path).paths[0].read() == b"longer"
    (kept,) = (home / "shards/index").iterdir()
    for torn in (kept.read_bytes()[:100], bytes(kept.stat().st_size), b""):  # as by a power cut
        kept.write_bytes(torn)
        assert open_samples(path).labels.tolist() == [8]
        assert kept.read_bytes() != torn


@pytest.mark.parametrize(
    ("members", "texts"),
    [
        ([("1.jpg", b"x")], ["1.jpg: no label .cls or .txt beside it"]),
        ([("1.cls", b"0")], ["1.cls: no image beside it"]),
        (
            [("1.jpg", b"x"), ("1.PNG", b"x"), ("1.cls", b"0"), ("1.cls", b"1")],
            ["1.PNG: 1.jpg has the same key '1'", "1.cls: stands in it twice"],
        ),
        ([("1.jpg", b"x"), ("1.cls", b"\xff")], ["1.cls: not UTF-8 text"]),
        ([("1.jpg", b"x"), ("1.cls", b" ")], ["1.cls: empty"]),
        (
            [("1.jpg", b"x"), ("1.cls", b"cat"), ("2.jpg", b"x"), ("2.cls", b"-1")],
            [
                f"{i}.cls: label '{own}' is not an integer ≥ 0; class names need a label file, "
                "one name a line"
                for i, own in ((1, "cat"), (2, "-1"))
            ],
        ),
    ],
)
def test_what_is_wrong_in_a_tar_is_named(tar, members, texts):
    path = tar(*members)
    assert message(open_samples, path).splitlines() == [f"{path}:{text}" for text in texts]


def test_a_tar_without_photos(tar):
    path = tar(("1.txt", b"x"))
    assert message(open_samples, path) == f"{path}: no images in it"


@pytest.mark.parametrize("cut", [0, 100, 700, 1024, 2048])
def test_a_tar_cut_anywhere(tar, cut):
    """In a header, in a member, between members, before its end."""
    path = tar(("1.jpg", b"x" * 300), ("1.cls", b"0"), cut=cut)
    text = message(open_samples, path)
    assert text.startswith(f"{path}: not an uncompressed tar, damaged or cut short (")


def test_bytes_that_are_no_header(tar):
    path = tar(("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"0"))
    with open(path, "r+b") as file:
        file.seek(2048)
        file.write(b"garbage" * 20)
    assert "(no header and no end at byte 2,048)" in message(open_samples, path)


def test_a_compressed_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    assert "a.tar: not an uncompressed tar" in message(open_samples, tmp_path / "a.tar")


def test_a_link_is_no_photo(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    assert "a.tar:1.jpg: a link or no plain file" in message(open_samples, tmp_path / "a.tar")


def test_a_broken_photo_is_named_and_so_is_a_changed_shard(tar):
    path = tar(("1.jpg", b"\xff\xd8broken"), ("1.cls", b"0"))
    samples = open_samples(path)
    reader = Loader({"eval": (samples, EvalPipeline(Preprocess(resize=36, crop=32)))}, 0)
    with pytest.raises(DataError, match=f"^{path}:1.jpg: (?!{path})"):
        list(reader.batches("eval", eval_order(1, 1)))
    os.truncate(path, 515)
    with pytest.raises(DataError, match=f"^{path}:1.jpg: {path} has changed or was cut short"):
        list(reader.batches("eval", eval_order(1, 1)))
    os.unlink(path)
    with pytest.raises(DataError, match=f"^{path}:1.jpg: no such file"):
        list(reader.batches("eval", eval_order(1, 1)))


def test_labels_may_be_names(tar, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    samples = open_samples(
        tar(("1.jpg", b"x"), ("1.cls", b"dog"), ("2.jpg", b"x"), ("2.cls", b"0"))
    )
    assert (samples.labels.tolist(), samples.names) == ([1, 0], ("cat", "dog"))
    (tmp_path / "other.txt").write_text("cow\nrat\n")
    text = message(open_samples, samples.source, labels=tmp_path / "other.txt")
    assert text.endswith("train-000003.tar:1.cls: label 'dog' is not a class name")

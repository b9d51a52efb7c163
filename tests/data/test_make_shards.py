"""Writing shards, from every kind of data set, and what other programs make of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from shard_contents import contents, message

from ppcls.cli import main
from ppcls.data import decode, make_shards
from ppcls.data.datasets import open_samples
from ppcls.data.make_shards import make_shards as write


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))


def test_label_sets(tmp_path, workdir):
    lines = [f"photos/train/ant/{i}.png\t{i % 2},1,0\n" for i in range(6)]
    (workdir / "list.txt").write_text("".join(lines))
    assert main(["make-shards", "list.txt", "sets", "--multilabel", "--name", "all"]) == 0
    opened = open_samples("sets/all-000000.tar", multilabel=True)
    listed = open_samples("list.txt", multilabel=True)
    assert contents(opened) == contents(listed)
    assert opened.labels.dtype == np.uint8
    text = message(open_samples, "sets/all-000000.tar")
    assert text.startswith("sets/all-000000.tar:000000.txt: label '")
    assert "-o task.kind=multilabel learns such lists" in text
    (workdir / "names.txt").write_text("a\nb\n")
    text = message(open_samples, "sets/all-000000.tar", labels="names.txt", multilabel=True)
    assert "000000.txt: expected 2 labels of 0 or 1 like 0,1 (one per class), found" in text


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_writing_goes_on_to_the_same_files(workdir):
    whole = write("photos/train", workdir / "whole", 20_000, seed=3)
    samples = open_samples("photos/train")
    eighth = Path(samples.paths[np.random.default_rng(3).permutation(len(samples))[7]])
    photo = eighth.read_bytes()
    eighth.write_bytes(b"not one yet")
    assert f"{eighth}: not a " in message(write, "photos/train", workdir / "cut", 20_000, seed=3)
    eighth.write_bytes(photo)
    shard = workdir / "cut/train-000000.tar"
    before = shard.stat().st_mtime_ns
    assert 1 < len(files(workdir / "cut")) < len(files(workdir / "whole"))
    assert write("photos/train", workdir / "cut", 20_000, seed=3) != whole  # another folder's name
    assert files(workdir / "cut") == files(workdir / "whole")
    assert shard.stat().st_mtime_ns == before
    shard.unlink()
    write("photos/train", workdir / "cut", 20_000, seed=3)
    assert files(workdir / "cut") == files(workdir / "whole")
    write("photos/train", workdir / "other", 20_000, seed=4)
    assert files(workdir / "other") != files(workdir / "whole")


def test_other_shards_are_left_alone(workdir):
    target = workdir / "shards"
    write("photos/train", target, 20_000)
    text = message(write, "photos/train", target, 20_000, seed=1)
    assert text.startswith(f"{target}/train.shards.json: of other shards (seed 0, not 1)")
    assert "photos 12, not 6" in message(write, "photos/eval", target, 20_000)
    write("photos/eval", target, 20_000, name="val")
    (target / "train.shards.json").unlink()
    assert f"{target}: holds other shards, train-000000.tar" in message(
        write, "photos/train", target, 20_000
    )
    os.rename("photos/eval/ant", "photos/eval/wasp")
    assert "labels.txt: has other classes than the source" in message(
        write, "photos/eval", target, 20_000, name="more"
    )


def test_what_cannot_be_written(workdir):
    (workdir / "photos/train/ant/0.png").write_bytes(b"%PDF-1.7")
    text = message(write, "photos/train", workdir / "shards", 20_000)
    assert text == "photos/train/ant/0.png: not a JPEG, PNG, WebP, BMP, TIFF or GIF"
    (workdir / "list.txt").write_text("photos/none.png 0\n")
    assert "list.txt:1 (photos/none.png)" in message(write, "list.txt", workdir / "x", 20_000)
    assert "--name a/b" in message(write, "photos/eval", workdir / "x", 20_000, "a/b")
    assert "recipe.yaml/x: cannot be written" in message(
        write, "photos/eval", workdir / "recipe.yaml/x", 20_000
    )


# --------------------------------------------------------------------------- other programs


def test_webdataset_reads_what_we_write_and_we_what_it_writes(workdir):
    webdataset = pytest.importorskip("webdataset")
    write("photos/train", workdir / "shards", 10**9)
    ours = open_samples("shards/train-000000.tar")
    dataset = webdataset.WebDataset("shards/train-000000.tar", shardshuffle=False)
    theirs = [(sample["png"], int(sample["cls"])) for sample in dataset]
    own = zip(ours.paths, ours.labels, strict=True)
    assert theirs == [(path.read(), int(label)) for path, label in own]

    with webdataset.ShardWriter("theirs-%06d.tar", maxcount=5, verbose=0) as writer:
        for number, (data, label) in enumerate(theirs):
            writer.write({"__key__": f"n/{number:04}", "png": data, "cls": label, "json": {"a": 1}})
    found = open_samples("theirs-{000000..000002}.tar")
    assert [
        (path.read(), int(n)) for path, n in zip(found.paths, found.labels, strict=True)
    ] == theirs


def parquet_file(path, photos, labels, names=("ant", "bee"), rows=3):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {"image": [{"bytes": data, "path": None} for data in photos], "label": labels}
    )
    about = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    parquet.write_table(table, path, row_group_size=rows)


def test_parquet_files_become_shards(workdir):
    folder = open_samples("photos/train")
    data = [decode.read_bytes(path) for path in folder.paths]
    for number, part in enumerate((slice(0, 5), slice(5, 12))):
        parquet_file(f"train-{number}.parquet", data[part], folder.labels[part].tolist())
    assert main(["make-shards", "train-*.parquet", "one"]) == 0
    opened = open_samples("one/train-000000.tar")
    assert contents(opened) == contents(folder)
    assert opened.labels.tolist() != sorted(opened.labels.tolist())
    text = message(open_samples, "train-*.parquet")
    assert "train-*.parquet: make shards of it first: tools/make_shards.py" in text

    tables = make_shards.open_parquet("train-*.parquet")
    order = tables.shuffled(np.random.default_rng(0), 5000)  # of few groups: each is read once
    assert sorted(order.tolist()) == list(range(12))
    reads = []
    for file in tables.files:
        real = file.read_row_group
        file.read_row_group = lambda *a, real=real: reads.append(a) or real(*a)
    assert [tables.read(int(i)) for i in order] == [data[i] for i in order]
    assert len(reads) == 5
    assert len(set(tables.windows.tolist())) > 1


def test_mistakes_in_parquet_files(workdir):
    pytest.importorskip("pyarrow")
    target = workdir / "shards"
    assert message(write, "x-*.parquet", target, 10**6) == "x-*.parquet: no such files"
    (workdir / "a.parquet").write_bytes(b"PAR1nothing")
    assert "a.parquet: not a parquet file, or damaged" in message(write, "a.parquet", target, 10**6)
    parquet_file("b.parquet", [b"x", b"x"], [1, None])
    assert "b.parquet:1: a row without a label" in message(write, "b.parquet", target, 10**6)
    parquet_file("c.parquet", [b"x"], ["cat"])
    assert "labels are integers, found string" in message(write, "c.parquet", target, 10**6)
    parquet_file("d.parquet", [b"x"], [0])
    assert "d.parquet:0: not a JPEG, PNG" in message(write, "d.parquet", target, 10**6)
    parquet_file("e.parquet", [None], [0])
    assert "e.parquet:0: a row without an image's" in message(write, "e.parquet", target, 10**6)

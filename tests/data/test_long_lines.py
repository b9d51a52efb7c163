"""Lists, label files and tars of others: what is quoted of them is short, counts are bounded."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from ppcls.cli import main
from ppcls.data.class_names import read_class_names
from ppcls.data.datasets import open_samples
from ppcls.data.shards import open_shards
from ppcls.utils.errors import UserError

LONG = "x" * 5_000_000


def words_of(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    found = str(caught.value).split("\n")
    assert len(found) <= 11
    assert all(len(line) < 1000 for line in found)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", LONG, "expected 'path label', found 'xxx"),
        ("a.txt", f"a.jpg\t{LONG}\n", "is not an integer"),
        ("a.txt", f"a.jpg\t{'9' * 5_000_000}\n", "is not an integer"),
        ("a.txt", f"a.jpg\t{'0,1,' * 1_000_000}0\n", "has several classes"),
        ("a.csv", f"path,label\n{'a,' * 1_000_000}\n", "expected 2 fields, found 1000001"),
        ("a.csv", f"{'a,' * 1_000_000}b\n", "name one path column"),
        ("a.csv", f"path,label\n{LONG},1\n", "not CSV"),
        ("a.csv", "path,label\n" + f"{'y' * 100_000},\n" * 20, "no path or no label"),
    ],
)
def test_lines_of_lists(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    assert words in words_of(lambda: open_samples(str(tmp_path / name)))


def test_a_label_of_a_name_file(tmp_path):
    (tmp_path / "a.txt").write_text(f"a.jpg\t{LONG}\n")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    words = words_of(lambda: open_samples(tmp_path / "a.txt", labels=tmp_path / "names.txt"))
    assert "is not a class name" in words


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}\n{LONG}\n",
        f"0 {LONG}\n{10**17} bee\n",
        f"0 ant\n{10**17} {LONG}\n",
        f"0 ant\n1 bee\n2 cat\n{LONG}\n",
        "[" * 20_000 + "]" * 20_000,
        '{"a": ' * 100_000 + "}" * 100_000,
        "{&a a: [*a], b: " + "[" * 2000 + "}",
        '["' + LONG + '", "' + LONG + '"]',
        "{0: &a [x], 1: &b [" + "*a, " * 50 + "], 2: &c [" + "*b, " * 50 + "], "
        "3: &d [" + "*c, " * 50 + "], 4: &e [" + "*d, " * 50 + "], 5: [" + "*e, " * 50 + "]}",
    ],
)  # fmt: skip
def test_files_of_class_names(tmp_path, text):
    path = tmp_path / "names.txt"
    path.write_text(text)
    try:
        said = "\n".join(read_class_names(path))
    except UserError as error:
        said = str(error)
        assert said.count("\n") <= 10
        assert len(said) < 10_000
    assert len(said) <= 2 * len(text)


def test_a_hundred_thousand_columns(tmp_path):
    classes = ",".join(f"class {i}" for i in range(100_000))
    (tmp_path / "a.csv").write_text(f"path,{classes}\na.jpg{',1' * 100_000}\n")
    (tmp_path / "a.jpg").write_bytes(b"")
    samples = open_samples(str(tmp_path / "a.csv"), multilabel=True)
    assert samples.labels.shape == (1, 100_000)
    assert (samples.labels == 1).all()
    (tmp_path / "a.csv").write_text(f"path,{classes},class 7\na.jpg{',1' * 100_001}\n")
    assert "class 7 stands twice" in words_of(
        lambda: open_samples(str(tmp_path / "a.csv"), multilabel=True)
    )


@pytest.mark.parametrize("label", [999_999_999, 10**17])
@pytest.mark.parametrize("command", ["check-data", "show-data"])
def test_a_label_far_away_counts_no_classes(tmp_path, capsys, label, command):
    """A count for each number up to it would take 8 GB."""
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text(f"a.jpg 0\nb.jpg {label}\n")
    given = [str(tmp_path / "a.txt")]
    if command == "show-data":
        given = ["-c", "configs/ResNet18.yaml", "-o", f"data.train={given[0]}", "data.eval=null"]
        given += ["--output", str(tmp_path / "sheet.png")]
    code = main([command, *given])
    told = capsys.readouterr()
    assert code == (1 if command == "check-data" else 2)
    assert "2 distinct labels between 0 and" in (told.out if code == 1 else told.err)
    assert len(told.err.splitlines()) == code - 1


def test_labels_and_names_of_a_tar(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))

    def tar(label: bytes, name: str = "a") -> str:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for ending, data in (("jpg", b"x"), ("cls", label)):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return str(tmp_path / "a.tar")

    assert "5,000,000 bytes are no label" in words_of(lambda: open_shards(tar(LONG.encode())))
    assert "is not an integer" in words_of(lambda: open_shards(tar(LONG[:1_000_000].encode())))
    assert "empty" in words_of(lambda: open_shards(tar(b"", "y" * 50_000)))

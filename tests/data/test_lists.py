"""List files and label files: every accepted form, and every mistake with its line."""

import time

import numpy as np
import pytest

from ppcls.data import datasets
from ppcls.data.class_names import read_class_names as read_names
from ppcls.utils.errors import UserError


@pytest.fixture
def put(tmp_path):
    """Write a file of the given bytes or text and return its path as text."""

    def write(content, name="list.txt"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def mistakes(path, **options):
    """The lines of the message that opening the list gives, without the file's path."""
    with pytest.raises(UserError) as caught:
        datasets.open_samples(path, **options)
    return str(caught.value).replace(path, "LIST").splitlines()


def relative(samples, tmp_path):
    return [path.removeprefix(f"{tmp_path}/") for path in samples.paths]


def test_spaces_tabs_and_runs_of_them(put, tmp_path):
    path = put("a/my cat 1.jpg 0\nb.jpg\t1\na b\t c.jpg\t\t 2\n  d.jpg   3  \n\te 4.jpg\t4\t\n")
    samples = datasets.open_samples(path)
    assert relative(samples, tmp_path) == [
        "a/my cat 1.jpg",
        "b.jpg",
        "a b\t c.jpg",
        "d.jpg",
        "e 4.jpg",
    ]
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]
    assert samples.labels.dtype == np.int64
    assert samples.names == ()
    assert samples.where(4) == f"{path}:5 ({tmp_path}/e 4.jpg)"


@pytest.mark.parametrize("name", ["list.txt", "list.TSV", "list.lst", "list"])
def test_windows_line_ends_byte_order_mark_and_no_last_line_end(put, tmp_path, name):
    samples = datasets.open_samples(put(b"\xef\xbb\xbfa.jpg 1\r\n\xc3\xa4\x0cb.jpg 0", name))
    assert relative(samples, tmp_path) == ["a.jpg", "ä\x0cb.jpg"]
    assert samples.labels.tolist() == [1, 0]


def test_root_and_absolute_paths(put, tmp_path):
    path = put("a.jpg 0\n/photos/b.jpg 1\n")
    assert list(datasets.open_samples(path).paths) == [f"{tmp_path}/a.jpg", "/photos/b.jpg"]
    assert list(datasets.open_samples(path, root="/x").paths) == ["/x/a.jpg", "/photos/b.jpg"]


def test_list_in_the_working_folder(put, tmp_path, monkeypatch):
    put("a.jpg 0\n")
    monkeypatch.chdir(tmp_path)
    samples = datasets.open_samples("list.txt")
    assert (list(samples.paths), samples.where(0)) == (["a.jpg"], "list.txt:1 (a.jpg)")


def test_all_mistakes_of_a_list_in_the_order_of_lines(put):
    path = put("a.jpg 0\n\nb.jpg\nc d.jpg cat\ne.jpg -1\nf.jpg\t\ng.jpg 1.0\n   \nh.jpg 1\n")
    assert mistakes(path) == [
        "LIST:2: expected 'path label', found a blank line",
        "LIST:3: expected 'path label', found 'b.jpg'",
        "LIST:4: label 'cat' is not an integer ≥ 0; class names need a label file, one name a line",
        "LIST:5: label '-1' is not an integer ≥ 0; class names need a label file, one name a line",
        "LIST:6: expected 'path label', found 'f.jpg\\t'",
        "LIST:7: label '1.0' is not an integer ≥ 0; class names need a label file, one name a line",
        "LIST:8: expected 'path label', found a blank line",
    ]


def test_only_ten_mistakes_are_shown(put):
    lines = mistakes(put("".join(f"{i}.jpg\n{i}.jpg {'x' * i}\n" for i in range(20))))
    assert len(lines) == 11
    assert lines[0].startswith("LIST:1:")
    assert lines[9].startswith("LIST:10:")
    assert lines[-1] == "… and 30 more"


@pytest.mark.parametrize("content", ["", "\ufeff"])
def test_an_empty_list(put, content):
    assert mistakes(put(content)) == ["LIST: lists no images"]
    assert mistakes(put("path,label\n", "list.csv")) == ["LIST: lists no images"]


def test_a_list_in_another_encoding(put):
    path = put("a.jpg 0\nb.jpg 0\nKäse.jpg 1\n".encode("latin-1"))
    assert mistakes(path) == ["LIST:3: not UTF-8 text; save the file as UTF-8"]
    for encoding in ("utf-16", "utf-16-le"):
        assert "LIST:1: not UTF-8" in mistakes(put("a.jpg 0\nb 1\n".encode(encoding)))[0]


def test_a_huge_label_is_not_an_integer_here(put):
    assert "LIST:1: label '99999999999999999999'" in mistakes(put("a.jpg " + "9" * 20))[0]


def test_other_files_are_not_lists(put, tmp_path):
    assert mistakes(put("", "a.jpg")) == ["LIST: a list of images ends in .txt, .tsv, .lst or .csv"]
    assert mistakes(str(tmp_path / "no.txt")) == ["LIST: no such folder or list file"]


def test_labels_by_name_and_by_number(put):
    names = put("cat\ngolden retriever\n", "names.txt")
    path = put("a b.jpg\tgolden retriever\nb.jpg cat\nc.jpg 1\n")
    samples = datasets.open_samples(path, labels=names)
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.names == ("cat", "golden retriever")


def test_a_label_that_is_no_name(put):
    names = put("cat\ngolden retriever\n", "names.txt")
    assert mistakes(put("a.jpg kat\nb.jpg golden retriever\n"), labels=names) == [
        "LIST:1: label 'kat' is not a class name; did you mean 'cat'? "
        "(a name with spaces needs a tab before it)",
        "LIST:2: label 'retriever' is not a class name; did you mean 'golden retriever'? "
        "(a name with spaces needs a tab before it)",
    ]


def test_digits_as_names_are_names(put):
    path, names = put("a.jpg 1\nb.jpg 2\n"), put("1\n2\n", "names.txt")
    assert datasets.open_samples(path, labels=names).labels.tolist() == [0, 1]
    assert mistakes(put("a.jpg 0\n"), labels=names) == ["LIST:1: label '0' is not a class name"]


def test_csv(put, tmp_path):
    text = 'id,Image_Path , LABEL\r\n1,"a, ""b"".jpg",3\r\n2,"two\nlines.jpg",0\r\n3,c d.jpg, 1\r\n'
    samples = datasets.open_samples(put("\ufeff" + text, "list.csv"))
    assert relative(samples, tmp_path) == ['a, "b".jpg', "two\nlines.jpg", "c d.jpg"]
    assert samples.labels.tolist() == [3, 0, 1]
    assert [samples.where(i).split(" ")[0][-6:] for i in range(3)] == [".csv:2", ".csv:3", ".csv:5"]


def test_csv_names_are_sorted_and_numbered_unless_there_is_a_label_file(put):
    path = put("file,category\na.jpg,dog\nb.jpg,big cat\nc.jpg,dog\n", "list.csv")
    samples = datasets.open_samples(path)
    assert (samples.names, samples.labels.tolist()) == (("big cat", "dog"), [1, 0, 1])
    samples = datasets.open_samples(path, labels=put("dog\nbig cat\n", "names.txt"))
    assert (samples.names, samples.labels.tolist()) == (("dog", "big cat"), [0, 1, 0])


def test_mistakes_in_a_csv_file(put):
    rows = "a.jpg,0\nb,c.jpg,1\n\nd.jpg,\n,1\ne.jpg,cat\nf.jpg\ng.jpg,2.0\n"
    assert mistakes(put("path,label\n" + rows, "list.csv")) == [
        "LIST:3: expected 2 fields, found 3: 'b,c.jpg,1'",
        "LIST:4: expected 2 fields, found a blank line",
        "LIST:5: no path or no label: 'd.jpg,'",
        "LIST:6: no path or no label: ',1'",
        "LIST:7: label 'cat' is not an integer ≥ 0; class names need a label file, one name a line",
        "LIST:8: expected 2 fields, found 1: 'f.jpg'",
        "LIST:9: label '2.0' is not an integer ≥ 0; class names need a label file, one name a line",
    ]


def test_an_open_quote_is_reported_where_it_opens(put):
    (line,) = mistakes(put('path,label\na.jpg,0\n"b.jpg,1\nc.jpg,2\n', "l.csv"))
    assert line.startswith("LIST:3: not CSV (")
    assert line.endswith("is a quote left open?")


def test_semicolons_of_spreadsheets_with_decimal_commas(put):
    file = put('path;label\na,b.jpg;0\n"c;d.jpg";1\n', "list.csv")
    paths, labels, _, _ = datasets.read_list(file)
    assert (paths, labels.tolist()) == (["a,b.jpg", "c;d.jpg"], [0, 1])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("a.jpg,0", "name one path column (path, file, filename, image, image_path); "),
        ("path,class,label", "name one label column (label, class, class_id, target, category); "),
        ("path,path,label", "the header 'path,path,label' has several"),
        ("path,name", "the header 'path,name' has none"),
        ("", "the header '' has none"),
    ],
)
def test_a_csv_header_names_one_path_and_one_label_column(put, header, message):
    (line,) = mistakes(put(f"{header}\na.jpg,0\n", "list.csv"))
    assert line.startswith("LIST:1: ")
    assert message in line


def test_names_plain_and_numbered(put):
    assert read_names(put("tench, Tinca tinca\r\n gold fish \r\n")) == (
        "tench, Tinca tinca",
        "gold fish",
    )
    numbered = put("\ufeff0 tench, Tinca tinca\n1\tgoldfish\n2 crane\n3 crane")
    assert read_names(numbered) == ("tench, Tinca tinca", "goldfish", "crane", "crane")
    assert read_names(put("0\n1\n2\n")) == ("0", "1", "2")
    assert read_names(put("1 euro\n2 euro\n")) == ("1 euro", "2 euro")
    assert read_names(put("0 euro\n2 euro\n")) == ("0 euro", "2 euro")


def test_a_name_of_two_classes_cannot_be_a_label(put):
    names = put("0 tench\n1 crane\n2 crane\n", "names.txt")
    assert datasets.open_samples(put("a.jpg 2\n"), labels=names).labels.tolist() == [2]
    assert mistakes(put("a.jpg crane\n"), labels=names) == [
        "LIST:1: label 'crane' is the name of several classes; write the number instead"
    ]


def test_mistakes_in_a_label_file(put, tmp_path):
    path = put("cat\ndog\n\ncat\n")
    with pytest.raises(UserError) as caught:
        read_names(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: blank line where a class name should stand",
        f"{path}:4: 'cat' already stands in line 1",
    ]
    with pytest.raises(UserError, match=r"list\.txt: holds no class names"):
        read_names(put(""))
    with pytest.raises(UserError, match=r"names\.txt: No such file"):
        read_names(tmp_path / "names.txt")


def test_a_long_list_opens_fast(put, capsys):
    lines = (f"train/n0{i % 1000:07}/n01440764_{i}.JPEG {i % 1000}\n" for i in range(200_000))
    path = put("".join(lines))
    start = time.perf_counter()
    samples = datasets.open_samples(path)
    with capsys.disabled():
        print(f"\n200,000 lines opened in {time.perf_counter() - start:.2f} s")
    assert samples.counts(1000).tolist() == [200] * 1000
    assert samples.where(199_999).startswith(f"{path}:200000 (")

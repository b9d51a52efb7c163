"""Files of an exported folder that say what cannot be: one line, which names the file."""

import json
import re
from pathlib import Path

import pytest
import yaml

import ppcls
from ppcls.utils.errors import UserError

FILE = "exported/small/inference.yml"


@pytest.fixture
def refused(exported, workdir, run):
    """What `predict` says, in one line, and the exit code is 2."""

    def refused(*more):
        given = ("--model-dir", "exported/small", "--engine", "onednn", *more)
        code, out, err = run("predict", "photos/eval/ant/0.png", *given)
        assert code == 2, out + err
        assert err.count("\n") == 1, err
        assert err.rstrip("\n").isprintable(), err
        assert len(err) < 2000
        assert "details" not in err
        return err

    return refused


def with_post(kind, key, text, **given):
    """The manifest with a text as it is behind a key of its post-processing."""
    document = yaml.safe_load(Path(FILE).read_text())
    names = {"label_list": ["ant", "bee"]} if kind != "Topk" else {}
    document["PostProcess"] = {kind: {**names, **given, key: "HERE"}}
    Path(FILE).write_text(yaml.safe_dump(document).replace("HERE", text))


NUMBERS = [".inf", "-.inf", ".nan", "1e400", "1" + "0" * 400, "9" * 5000, "-1", "true", "[5]"]
ODD = ["[[[]]]", "²", "\u0665", "{a: 1}", "2024-01-01", "0x", "5.5"]
THRESHOLDS = [*NUMBERS, "[.nan, 0.5]", "[true, 0.5]", "{default: .inf}", "{²: 0.5}"]


@pytest.mark.parametrize("text", NUMBERS + ODD)
def test_numbers_of_classes_to_name(refused, text):
    with_post("Topk", "topk", text)
    assert FILE in refused()


@pytest.mark.parametrize(
    "text", [*NUMBERS[:9], "[.nan, 0.5]", "[true, 0.5]", "{default: .inf}", "{²: 0.5}"]
)
@pytest.mark.parametrize("kind", ["MultiLabelThreshOutput", "ThreshOutput"])
def test_thresholds(refused, text, kind):
    with_post(kind, "threshold", text)
    assert FILE in refused()


@pytest.mark.parametrize("text", ["-1", "2", ".inf", "true", "[0]", "9" * 5000])
def test_the_class_that_wins_by_default(refused, text):
    with_post("ThreshOutput", "default_label_index", text, threshold=0.5)
    assert FILE in refused()


DOCUMENTS = {
    "nested lists": b"a: " + b"[" * 3000 + b"]" * 3000,
    "nested lists without an end": b"[" * 100_000,
    "nested mappings": b"{a: " * 3000,
    "no UTF-8": b"Global: {model_name: \xff}",
    "UTF-16": "Global: {}".encode("utf-16"),
    "a list of itself": b"&a [*a]",
    "a mapping of itself": b"PreProcess: &a {transform_ops: *a}",
    "NUL": b"Global: \0",
    "a number": b"7",
    "a tag": b"!!python/object/apply:os.system [ls]",
    "a date that is none": b"PreProcess: {transform_ops: [{CropImage: {size: 2024-13-45}}]}",
    "numbers too large": b"PreProcess: {transform_ops: [{NormalizeImage: {mean: [1"
    + b"0" * 400
    + b"]}}]}",
    "a key that is a list": b"PreProcess: {transform_ops: [{[a]: 1}]}",
    "lists where words stand": b"PreProcess: {transform_ops: [{DecodeImage: {img_mode: [[]]}}]}",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(refused, name):
    Path(FILE).write_bytes(DOCUMENTS[name])
    assert FILE in refused()
    with pytest.raises(UserError, match=re.escape(FILE)):
        ppcls.Predictor("exported/small")


def test_a_folder_in_its_place(refused):
    Path(FILE).unlink()
    Path(FILE).mkdir()
    refused()


PROGRAMS = {
    "no UTF-8": b"\xff\xfe",
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "empty object": b"{}",
    "NaN": b"NaN",
    "a list": b"[1]",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(refused, name):
    document = yaml.safe_load(Path(FILE).read_text())
    del document["ppcls"]["files"]
    Path(FILE).write_text(yaml.safe_dump(document))
    Path("exported/small/inference.json").write_bytes(PROGRAMS[name])
    refused()


@pytest.mark.parametrize("name", ["[" * 100_000, '["a", ["b"]]', '{"0": ' * 5000, "[1e999, 1]"])
def test_label_files(refused, workdir, name):
    (workdir / "names.json").write_text(name)
    assert "names.json" in refused("--labels", "names.json")


KEPT = ["", "{", "[" * 100_000, "null", '{"KEY": {"engine": [], "threads": 1}}', "\x00", "[1]"]
CHOICE = '{"KEY": {"engine": "onednn", "threads": COUNT}}'
KEPT += [CHOICE.replace("COUNT", count) for count in ("true", "1e999", "-1", "9" * 30)]


@pytest.mark.parametrize(
    "texts", [KEPT[1:2], pytest.param(KEPT, marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_kept_choices_of_an_engine(exported, workdir, run, one_engine, texts):
    """They are measured anew."""
    with one_engine():
        kept_choices(run, texts)


def kept_choices(run, texts):
    given = ("photos/eval/ant/0.png", "--model-dir", "exported/small", "--device", "cpu")
    assert run("predict", *given)[0] == 0
    (kept,) = Path("exported/small/engine_cache").glob("*/engines.json")
    (key,) = json.loads(kept.read_text())
    for text in texts:
        kept.write_text(text.replace("KEY", key))
        code, out, err = run("predict", *given)
        assert code == 0, err
        assert "measuring which engine is fastest" in out
        assert json.loads(kept.read_text()).keys() == {key}
    kept.unlink()
    kept.mkdir()
    code, out, err = run("predict", *given)
    assert code == 0, err
    assert "note: the choice of an engine cannot be kept" in out

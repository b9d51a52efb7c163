"""`inference.yml` of others: work in proportion to its text, one line at the end."""

import pytest

from ppcls.data.preprocess import Preprocess
from ppcls.inference.exported_model import open_exported
from ppcls.inference.manifest import Manifest
from ppcls.utils.errors import UserError

LEVELS = 11
ALIASES = "x0: &b0 [tench]\n" + "".join(
    f"x{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, LEVELS)
)
MERGES = "x0: &b0 {a: 1}\n" + "".join(
    f"x{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}\n" for i in range(1, LEVELS)
)
LAST = f"*b{LEVELS - 1}"
PLAIN = Manifest("ResNet18", Preprocess(), ("tench", "goldfish")).to_yaml()


def refusal(folder, text: str) -> str:
    (folder / "inference.yml").write_text(text, encoding="utf-8")
    (folder / "inference.onnx").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        open_exported(folder)
    line = str(caught.value)
    assert line.startswith(f"{folder / 'inference.yml'}: ")
    assert line.isprintable()
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("bomb", [ALIASES, MERGES])
@pytest.mark.parametrize(
    "place",
    [
        "Global: {model_name: LAST}\nPreProcess: {transform_ops: []}",
        "PreProcess: {transform_ops: LAST}",
        "PreProcess: {transform_ops: [{ResizeImage: {resize_short: LAST}}]}",
        "PreProcess: LAST",
        "PreProcess: {transform_ops: []}\nPostProcess: {Topk: {label_list: LAST}}",
        "PreProcess: {transform_ops: []}\nPostProcess: {Topk: {topk: LAST}}",
        "PreProcess: {transform_ops: []}\nPostProcess: LAST",
        "PreProcess: {transform_ops: []}\nPostProcess: {MultiLabelThreshOutput: {threshold: LAST}}",
        "PreProcess: {transform_ops: []}\nppcls: {network: LAST}",
        "PreProcess: {transform_ops: []}\nppcls: {files: LAST}",
        "LAST : x",
    ],
)
def test_aliases_of_aliases(tmp_path, bomb, place):
    assert "far too much" in refusal(tmp_path, bomb + place.replace("LAST", LAST))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("stand too deep", "PreProcess: " + "[" * 3000),
        ("stand too deep", "PreProcess: " + "[" * 3000 + "]" * 3000),
        ("stand too deep", "PreProcess: " + "{a: " * 3000),
        ("something it is part of", "PreProcess: &a [*a]"),
        ("a number of 5,000 characters", "PreProcess: {transform_ops: " + "1" * 5000 + "}"),
        # YAML 1.1's numbers to the base of 60 take time by the square of their length.
        ("a number of 200,001 characters", "PreProcess: {transform_ops: " + "1:" * 100_000 + "1}"),
        ("should be a name", "Global: {model_name: [a]}\nPreProcess: {transform_ops: []}"),
        ("should be a name", "Global: {model_name: {a: b}}\nPreProcess: {transform_ops: []}"),
        ("does not exist", 'PreProcess: "\\UFFFFFFFF"'),
        *(("none of its kind", f"PreProcess: {tag}") for tag in ("!!int", "!!float x", "!!bool x")),
        ("none of its kind", "PreProcess: !!timestamp x"),
        ("undefined alias", "PreProcess: *" + "x" * 100_000),
        ("unknown op", "PreProcess: {transform_ops: [{" + "x" * 900 + ": {}}]}"),
        ("characters are more than", "PreProcess: '" + "x" * (1 << 24) + "'"),
    ],
)  # fmt: skip
def test_texts_that_are_deep_long_or_odd(tmp_path, words, text):
    assert words in refusal(tmp_path, text)


def test_aliases_that_are_meant_and_twenty_thousand_names_are_read(tmp_path):
    names = "\n".join(f"    - class number {i}" for i in range(20_000))
    text = PLAIN.replace("    - tench\n    - goldfish", "    - &first tench\n" + names)
    assert "&first" in text
    (tmp_path / "inference.yml").write_text(text + "again: [*first, *first]\n")
    (tmp_path / "inference.onnx").write_bytes(b"x")
    assert len(open_exported(tmp_path).manifest.labels) == 20_001
    large = text + "again: [" + "*first, " * 5000 + "]\n"
    (tmp_path / "inference.yml").write_text(large)
    assert open_exported(tmp_path).manifest.labels[0] == "tench"


def test_the_text_of_openvino_is_read_once_through(tmp_path):
    (tmp_path / "inference.yml").write_text(PLAIN)
    (tmp_path / "inference.xml").write_text("<data " * 200_000 + 'offset="1" ' * 100_000)
    (tmp_path / "inference.bin").write_bytes(b"x")
    assert open_exported(tmp_path).openvino
    (tmp_path / "inference.xml").write_text('<data size="2" x="y" offset="3"/>')
    with pytest.raises(UserError, match="cut short, 5 bytes are needed"):
        open_exported(tmp_path)

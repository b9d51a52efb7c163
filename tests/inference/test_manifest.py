"""`inference.yml`: written, read back, and read from others."""

import pytest
import yaml

from ppcls.data.preprocess import Preprocess
from ppcls.inference import manifest
from ppcls.utils.errors import UserError

WRITTEN = manifest.Manifest(
    "ResNet50_vd",
    Preprocess(resize=300, crop=280, interpolation="bicubic", backend="pil"),
    ("cat", "café", "0"),
    topk=2,
    about={"source": "x"},
)


def test_what_is_written_is_read_back(tmp_path):
    (tmp_path / manifest.FILE).write_text(WRITTEN.to_yaml(), encoding="utf-8")
    assert manifest.read(tmp_path) == WRITTEN


def test_without_names_there_is_no_label_list(tmp_path):
    text = manifest.Manifest("ResNet18", Preprocess()).to_yaml()
    assert yaml.safe_load(text)["PostProcess"] == {"Topk": {"topk": 5}}
    (tmp_path / manifest.FILE).write_text(text)
    assert manifest.read(tmp_path).labels == ()


def test_the_form_other_tools_write(tmp_path):
    (tmp_path / manifest.FILE).write_text(
        """
Global: {model_name: ResNet50}
PreProcess:
  transform_ops:
  - ResizeImage: {resize_short: 256}
  - CropImage: {size: 224}
  - NormalizeImage:
      channel_num: 3
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
      scale: 1.0/255.0
      order: ''
  - ToCHWImage:
PostProcess:
  Topk: {topk: 3, label_list: [tench, 7]}
"""
    )
    read = manifest.read(tmp_path)
    assert (read.model, read.topk, read.labels) == ("ResNet50", 3, ("tench", "7"))
    assert read.preprocess == Preprocess()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Global: [", "not the manifest of an exported network"),
        ("Global: {model_name: x}", "no 'PreProcess'"),
        ("just text", "not the manifest of an exported network"),
        (WRITTEN.to_yaml().replace("CropImage", "CropImages"), "PreProcess: .*CropImages"),
    ],
)
def test_what_is_no_manifest(tmp_path, text, words):
    (tmp_path / manifest.FILE).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        manifest.read(tmp_path)
    assert str(tmp_path / manifest.FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = ["no", "yes", "2024-05-01", "2024-13-45", "007", "1.10", "null", "~", "1e3", "0x10", "on"]
NAMES += ["12:30:00", "=", "<<", "1_000", ".5", "café", "a: b", "# c", "- d", "'e'", "[f]", "é\t"]


def test_names_are_the_text_that_stands_there(tmp_path):
    """As a person writes them, without quotes; and written by ppcls and read by others."""
    plain = NAMES[: NAMES.index("café") + 1]
    text = manifest.Manifest("18", Preprocess()).to_yaml()
    listed = "".join(f"    - {name}\n" for name in plain)
    text = text.replace("    topk: 5\n", f"    topk: 5\n    label_list:\n{listed}")
    text = text.replace("model_name: '18'", "model_name: 1.10")
    (tmp_path / manifest.FILE).write_text(text)
    read = manifest.read(tmp_path)
    assert (list(read.labels), read.model) == (plain, "1.10")
    written = manifest.Manifest("on", Preprocess(), tuple(NAMES)).to_yaml()
    (tmp_path / manifest.FILE).write_text(written)
    assert manifest.read(tmp_path).labels == tuple(NAMES)
    assert yaml.safe_load(written)["PostProcess"]["Topk"]["label_list"] == NAMES
    assert yaml.safe_load(written)["Global"]["model_name"] == "on"


def with_after(tmp_path, after):
    text = manifest.Manifest("x", Preprocess()).to_yaml()
    (tmp_path / manifest.FILE).write_text(
        text.replace("  Topk:\n    topk: 5\n", f"  {after}\n").replace("ppcls:", "other:")
    )
    return manifest.read(tmp_path)


def test_other_forms_of_names(tmp_path, capsys):
    found = with_after(tmp_path, "Topk: {topk: 2, label_list: {1: no, 0: off}}")
    assert found.labels == ("off", "no")
    (tmp_path / "map.txt").write_text("1 no\n0 off\n")
    assert with_after(tmp_path, "Topk: {class_id_map_file: map.txt}").labels == ("off", "no")
    assert with_after(tmp_path, "Topk: {class_id_map_file: gone/map.txt}").labels == ()
    assert "gone/map.txt is not there, so classes have no names" in capsys.readouterr().out
    for after in ("label_list: cat", "label_list: [a, [b]]", "label_list: [a, '']"):
        with pytest.raises(UserError, match="label_list should be a list of class names"):
            with_after(tmp_path, f"Topk: {{{after}}}")
    with pytest.raises(UserError, match="no class 1"):
        with_after(tmp_path, "Topk: {label_list: {0: a, 2: b}}")


def test_a_threshold_for_the_second_class(tmp_path):
    found = with_after(tmp_path, "ThreshOutput: {threshold: 0.9, label_0: no, label_1: 007}")
    assert (found.labels, found.threshold, found.default) == (("no", "007"), 0.9, 0)
    (tmp_path / manifest.FILE).write_text(found.to_yaml())
    again = manifest.read(tmp_path)
    assert (again.labels, again.threshold, again.default) == (("no", "007"), 0.9, 0)
    found = with_after(
        tmp_path, "ThreshOutput: {threshold: 0.5, default_label_index: 2, label_list: [a, b, c]}"
    )
    assert (found.labels, found.threshold, found.default) == (("a", "b", "c"), 0.5, 2)

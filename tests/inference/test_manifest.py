"""`inference.yml`: written, read back, and read from others."""

import pytest
import yaml

from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError
from ppcls.inference import manifest

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

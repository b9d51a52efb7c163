"""A network whose output is NaN or infinite is said to be so: never no class, never no JSON."""

import json

import numpy as np
import paddle
import pytest
import small_network
from paddle import nn
from PIL import Image
from quick_export import converting_here

import ppcls
from ppcls.inference.manifest import Manifest
from ppcls.utils.errors import UserError


class Odd(nn.Layer):
    """Logits of images: as they should be where the mean is below 0, else `value` for class 1."""

    def __init__(self, value):
        super().__init__()
        start = nn.initializer.Constant(value)
        self.value = self.create_parameter([1], default_initializer=start)

    def forward(self, images):
        mean = images.mean([1, 2, 3])
        return paddle.stack([mean, paddle.where(mean > 0, self.value, -mean)], 1)


@pytest.fixture
def odd(tmp_path):
    """Make an exported folder of such a network."""

    def odd(value, output="logits", task="classify"):
        place = tmp_path / f"odd{len(list(tmp_path.iterdir()))}"
        spec = paddle.static.InputSpec([None, 3, 32, 32], "float32", "image")
        paddle.jit.save(Odd(value), str(place / "inference"), input_spec=[spec])
        preprocess = small_network.trained().recipe.preprocess
        manifest = Manifest("odd", preprocess, ("a", "b"), output=output, task=task)
        (place / "inference.yml").write_text(manifest.to_yaml())
        return place

    return odd


@pytest.fixture
def photos(tmp_path):
    """A dark one, a bright one, a dark one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, grey in enumerate((10, 240, 20)):
        Image.new("RGB", (40, 40), (grey,) * 3).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("output", "task"), [("logits", "classify"), ("logits", "multilabel"), (None, "classify")]
)
def test_the_photo_and_the_model_are_named(odd, photos, value, output, task):
    place = odd(value, output, task)
    predictor = ppcls.Predictor(place, engine="paddle")
    with pytest.raises(UserError) as caught:
        predictor.predict(photos)
    assert str(caught.value).startswith(f"{photos / '1.png'}: the output of {place} is not finite")
    first, second, third = predictor.predict(photos, on_error="skip")
    assert first.error is third.error is None
    assert first.classes
    assert third.classes
    assert "is not finite" in second.error
    assert second.classes == []
    assert predictor.output == "logits"


def test_a_class_that_cannot_be_is_no_mistake(odd, photos):
    """A logit of -inf, as masks of classes give it."""
    results = ppcls.Predictor(odd(-np.inf), engine="paddle").predict(photos)
    assert results[1].classes == [0, 1]
    assert results[1].scores == [1, 0]


def test_large_logits_of_several_labels(odd, photos):
    results = ppcls.Predictor(odd(-1000, task="multilabel"), engine="paddle").predict(photos)
    assert results[1].classes == [0]


def test_the_command_ends_with_the_line(odd, photos, run, tmp_path):
    place = odd(np.nan)
    command = ("predict", "--model-dir", place, "--engine", "paddle", photos, "--save")
    code, out, err = run(*command, tmp_path / "x.json")
    assert code == 2
    assert "no class above" not in out
    (line,) = err.splitlines()
    assert line.startswith(f"error: {photos / '1.png'}: the output of {place} is not finite")
    assert not (tmp_path / "x.json").exists()
    code, out, _ = run(*command, tmp_path / "y.json", "--on-error", "skip")
    assert code == 0
    assert "note: 1 of 3 images could not be predicted" in out
    text = (tmp_path / "y.json").read_text()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    rows = json.loads(text, parse_constant=refuse)
    assert [bool(row["error"]) for row in rows] == [False, True, False]


def test_where_no_photo_has_an_answer_skipping_does_not_hide_it(odd, photos, run, tmp_path):
    (photos / "0.png").unlink()
    (photos / "2.png").unlink()
    command = ("predict", "--model-dir", odd(np.nan), "--engine", "paddle", photos)
    code, _, err = run(*command, "--on-error", "skip", "--save", tmp_path / "x.csv")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "none of 1 image could be predicted" in err
    assert "is not finite" in err
    assert (tmp_path / "x.csv").exists()


def test_quantize_says_it(odd, photos, run, tmp_path):
    pytest.importorskip("onnxruntime")
    place = odd(np.nan)
    command = ("quantize", "--model-dir", place, "--calibrate", photos, "--output", tmp_path / "q")
    with converting_here():
        code, _, err = run(*command)
    assert code == 2
    assert "is not finite" in err
    assert not (tmp_path / "q").exists()

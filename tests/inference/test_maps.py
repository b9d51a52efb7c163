"""Class activation maps in exports: the network's own in every engine, and refused where untrue."""

from itertools import count

import numpy as np
import paddle
import pytest
import small_network
import yaml
from PIL import Image
from quick_export import export

import ppcls
from ppcls.api import create_model
from ppcls.export import FORMATS, Form
from ppcls.inference.quantize import quantize
from ppcls.models.class_maps import class_maps
from ppcls.utils.errors import UserError

ENGINES = ["paddle", "onednn", "onnxruntime", "openvino"]
SIDES = (2, 16, 16)  # classes, height, width


@pytest.fixture(scope="module")
def mapped(small, tmp_path_factory):
    """Every format, with features and maps."""
    place = tmp_path_factory.mktemp("mapped")
    Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3)).save(place / "a.png")
    form = Form(tuple(FORMATS), features=True, explain=True)
    return export(small, place / "small", [str(place / "a.png")], form)


def expected(small, images):
    """All maps, [N, *SIDES], and the logits, of the network itself."""
    preprocess = small.recipe.preprocess
    inputs = preprocess.normalize(np.stack([preprocess(image) for image in images]))
    with paddle.no_grad():
        features = small.net.features(paddle.to_tensor(inputs))
        return class_maps(small.net, features).numpy(), small.net(paddle.to_tensor(inputs)).numpy()


@pytest.mark.parametrize("engine", ENGINES)
def test_they_are_those_of_the_network_in_every_engine(mapped, small, images, engine):
    wanted, _ = expected(small, images)
    with ppcls.Predictor(mapped, engine=engine, batch_size=2) as predictor:
        assert predictor.manifest.outputs == ("scores", "features", "maps")
        answers = predictor.predict(list(images), explain=True)
        for answer, own in zip(answers, wanted, strict=True):
            assert answer.maps.shape == SIDES
            assert answer.maps.dtype == np.float32
            difference = np.abs(answer.maps - own[answer.classes]).max()
            assert difference <= 1e-4 * np.abs(wanted).max()
        (alone,) = predictor.predict(images[0], 1, explain=True)
        assert alone.maps.shape == (1, *SIDES[1:])
        (plain,) = predictor.predict(images[0])
        assert plain.maps is None
        assert plain.scores == pytest.approx(alone.scores + plain.scores[1:], abs=1e-6)
        assert predictor.features(images[0]).shape == (1, 16)


def test_what_the_folder_says_of_them(mapped):
    found = yaml.safe_load((mapped / "inference.yml").read_text())["ppcls"]
    assert found["network"]["map"] == {"classes": 2, "height": 16, "width": 16}
    assert list(found["network"])[-2:] == ["features", "map"]
    assert found["check"]["maps"]["largest_difference"] < 1e-4
    assert set(found["check"]["maps"]["formats"]) == set(FORMATS)
    with ppcls.Predictor(mapped, engine="onednn", threads=1) as predictor:
        assert "16 features, class activation maps, onednn" in repr(predictor)


def test_their_mean_and_the_bias_are_the_logits_of_pixels_of_any_size(small, images, tmp_path):
    form = Form(("onnx",), "uint8", "logits", dynamic_size=True, explain=True)
    made = export(small, tmp_path / "made", [], form)
    wanted, logits = expected(small, images)
    with ppcls.Predictor(made, engine="onnxruntime") as predictor:
        assert predictor.manifest.outputs == ("scores", "maps")
        given = np.stack([small.recipe.preprocess(image) for image in images])
        found, maps = predictor.engine.run_all(given)
        np.testing.assert_allclose(maps, wanted, atol=1e-4 * np.abs(wanted).max())
        bias = small.net.head.bias.numpy()
        np.testing.assert_allclose(maps.mean((2, 3)) + bias, found, atol=1e-4)
        np.testing.assert_allclose(found, logits, atol=1e-4)
    with ppcls.Predictor(made, engine="onnxruntime", resize=48, crop=(40, 48)) as predictor:
        assert predictor.predict(images[0], explain=True)[0].maps.shape == (2, 20, 24)


def test_a_folder_without_them(exported, images, run, tmp_path):
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    with (
        ppcls.Predictor(exported, engine="onednn") as predictor,
        pytest.raises(UserError, match="gives no maps; export it again with ppcls export --expl"),
    ):
        predictor.predict(images[0], explain=True)
    given = ("--engine", "onednn", tmp_path / "a.png", "--explain", tmp_path / "drawn")
    code, _, err = run("predict", "--model-dir", exported, *given)
    assert code == 2
    assert "gives no maps" in err
    assert not (tmp_path / "drawn").exists()


def test_networks_whose_maps_would_not_be_true(tmp_path):
    paddle.seed(0)
    net = create_model("MobileNetV3_small_x0_35", 2)
    made = small_network.trained(net)
    with pytest.raises(UserError, match="--explain: EfficientNetLite0 has more than a mean"):
        export(made, tmp_path / "x", [], Form(explain=True))
    with pytest.raises(UserError, match=r"has no method features, so its maps cannot .* Grad-CAM"):
        export(
            small_network.trained(paddle.nn.Sequential(net)), tmp_path / "x", [], Form(explain=True)
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_keeps_them(mapped, small, images, tmp_path, engine):
    photos = [str(tmp_path / f"{index}.png") for index in range(len(images))]
    for path, pixels in zip(photos, images, strict=True):
        Image.fromarray(pixels).save(path)
    clock = count().__next__  # each run seems to take long enough
    made = quantize(mapped, tmp_path, engine, tmp_path / "int8", budget=1.0, clock=clock)
    with ppcls.Predictor(made, engine=engine) as predictor:
        answers = predictor.predict(photos, explain=True)
    wanted, _ = expected(small, images)
    for answer, own in zip(answers, wanted, strict=True):
        pair = np.stack([answer.maps.ravel(), own[answer.classes].ravel()])
        assert np.corrcoef(pair)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{classes: 2, height: 7}", "network.map should be classes, height, width"),
        ("{classes: 2, height: 0, width: 7}", "should be numbers from 1"),
        ("{classes: 2, height: x, width: 7}", "map.height should be a whole number"),
        ("[2, 7, 7]", "network.map should be"),
        ("{classes: 2, height: 7, width: 7}", "output 3 is [1, 2, 16, 16], and inference.yml says"),
    ],
)
def test_a_folder_that_says_otherwise(mapped, copy, images, value, words):
    place = copy("inference.yml", "inference.json", "inference.pdiparams", source=mapped)
    text = (place / "inference.yml").read_text()
    start = text.index("    map:")
    end = text.index("\n  ", text.index("width: 16", start))
    (place / "inference.yml").write_text(f"{text[:start]}    map: {value}{text[end:]}")
    with (
        pytest.raises(UserError) as caught,
        ppcls.Predictor(place, engine="onednn") as predictor,
    ):
        predictor.predict(images[0], explain=True)
    assert words in str(caught.value)

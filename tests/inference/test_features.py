"""Pooled features: those of the network itself in every engine, kept in a file, gone on with."""

import json
import shutil
from itertools import count

import numpy as np
import paddle
import pytest
import small_network
from PIL import Image
from quick_export import export

import ppcls
from ppcls.export import FORMATS, Form
from ppcls.inference import features as kept
from ppcls.inference.quantize import quantize
from ppcls.utils.errors import UserError

WIDTH = 16


@pytest.fixture(scope="module")
def featured(small, tmp_path_factory):
    """Every format, with features."""
    place = tmp_path_factory.mktemp("featured")
    Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3)).save(place / "a.png")
    form = Form(tuple(FORMATS), features=True)
    return export(small, place / "small", [str(place / "a.png")], form)


@pytest.fixture
def photos(images, tmp_path):
    """Five files of the pixels of `images`."""
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


def expected(small, images):
    """What the network itself pools of the images, [N, WIDTH]."""
    preprocess = small.recipe.preprocess
    inputs = preprocess.normalize(np.stack([preprocess(image) for image in images]))
    with paddle.no_grad():
        return small.net.pooled(small.net.features(paddle.to_tensor(inputs))).numpy()


@pytest.mark.parametrize("engine", ["paddle", "onednn", "onnxruntime", "openvino"])
def test_they_are_those_of_the_network_in_every_engine(featured, exported, small, images, engine):
    with ppcls.Predictor(featured, engine=engine, batch_size=2) as predictor:
        found = predictor.features(list(images))
        np.testing.assert_allclose(found, expected(small, images), atol=2e-5)
        assert (found.dtype, found.shape) == (np.float32, (len(images), WIDTH))
        answers = predictor.predict(list(images), features=True)
        np.testing.assert_array_equal(np.stack([answer.features for answer in answers]), found)
        assert predictor.predict(images[0])[0].features is None
        assert predictor.features([]).shape == (0, WIDTH)
    with ppcls.Predictor(exported, engine=engine) as plain:
        for one, other in zip(plain.predict(list(images)), answers, strict=True):
            assert one.classes == other.classes
            assert one.scores == pytest.approx(other.scores, abs=1e-6)


def test_logits_of_pixels_of_any_size_with_features(small, images, tmp_path):
    form = Form(("onnx",), "uint8", "logits", dynamic_size=True, features=True)
    made = export(small, tmp_path / "made", [], form)
    with ppcls.Predictor(made, engine="onnxruntime") as predictor:
        np.testing.assert_allclose(
            predictor.features(list(images)), expected(small, images), atol=2e-5
        )


def test_a_folder_without_features(exported, images, photos, run, tmp_path):
    with (
        ppcls.Predictor(exported, engine="onednn") as predictor,
        pytest.raises(UserError, match="gives no features; export it again with ppcls export --fe"),
    ):
        predictor.features(images[0])
    command = ("predict", "--model-dir", exported, "--engine", "onednn", *photos)
    code, _, err = run(*command, "--features", tmp_path / "x.npz")
    assert code == 2
    assert "gives no features" in err
    assert not list(tmp_path.glob("x.npz*"))


def test_a_network_that_does_not_say_what_its_classifier_takes(small, tmp_path):
    net = paddle.nn.Sequential(small.net)
    with pytest.raises(UserError, match="EfficientNetLite0 has no method features; its class"):
        export(small_network.trained(net), tmp_path / "x", [], Form(features=True))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_keeps_them(featured, small, photos, images, tmp_path, engine):
    clock = count().__next__  # each run seems to take long enough
    made = quantize(featured, tmp_path, engine, tmp_path / "int8", budget=1.0, clock=clock)
    with ppcls.Predictor(made, engine=engine) as predictor:
        found = predictor.features(photos)
    wanted = expected(small, images)
    cosines = (found * wanted).sum(1)
    cosines /= np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.99
    if engine == "onnxruntime":  # alone it knows that it is in INT8
        with ppcls.Predictor(made / "inference.onnx", engine=engine) as predictor:
            assert predictor.manifest.precision == "int8"
        alone = tmp_path / "alone.onnx"
        shutil.copy(made / "inference.onnx", alone)
        with ppcls.Predictor(alone, engine=engine) as predictor:
            assert (predictor.manifest.precision, predictor.class_names) == ("int8", ("ant", "bee"))
            np.testing.assert_array_equal(predictor.features(photos), found)


@pytest.fixture
def predict(featured, run):
    return lambda *words: run("predict", "--model-dir", featured, "--engine", "onednn", *words)


def test_they_are_kept_in_order(predict, photos, small, images, tmp_path):
    code, out, err = predict(*photos[::-1], "--features", tmp_path / "x.npz")
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path / 'x.npz'}" in out
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert file["paths"].tolist() == photos[::-1]
        np.testing.assert_allclose(file["features"], expected(small, images)[::-1], atol=2e-5)
        assert file["features"].dtype == np.float32
        assert json.loads(str(file["about"]))["format"] == "ppcls features 1"
    assert [path.name for path in tmp_path.glob("x.npz*")] == ["x.npz"]


@pytest.mark.parametrize("save", ["x.csv", "x.jsonl"])
def test_a_long_job_goes_on_with_them(predict, photos, small, images, tmp_path, save):
    with open(photos[3], "r+b") as file:
        whole = file.read()
        file.truncate(50)
    given = (*photos, "--save", tmp_path / save, "--features", tmp_path / "x.npz")
    code, _, err = predict(*given, "--batch-size", 1)
    assert code == 2
    assert "3 predictions kept" in err
    assert not (tmp_path / "x.npz").exists()
    with open(photos[3], "wb") as file:
        file.write(whole)
    assert predict(*given, "--resume")[0] == 0
    found = kept.read(tmp_path / "x.npz")
    assert found.paths == photos
    np.testing.assert_allclose(found.features, expected(small, images), atol=2e-5)
    assert not list(tmp_path.glob("*.incomplete*"))


def test_images_without_an_answer_have_no_row(predict, photos, tmp_path):
    with open(photos[0], "wb") as file:
        file.write(b"x")
    code, _, _ = predict(*photos, "--features", tmp_path / "x.npz", "--on-error", "skip")
    assert code == 0
    assert kept.read(tmp_path / "x.npz").paths == photos[1:]


def test_a_job_that_fails_leaves_the_earlier_file(predict, photos, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"earlier")
    with open(photos[4], "wb") as file:
        file.write(b"x")
    assert predict(*photos, "--features", tmp_path / "x.npz")[0] == 2
    assert (tmp_path / "x.npz").read_bytes() == b"earlier"
    assert not list(tmp_path.glob("*.incomplete"))


def test_to_go_on_needs_the_features_so_far(predict, photos, tmp_path):
    with open(photos[3], "wb") as file:
        file.write(b"x")
    assert predict(*photos, "--save", tmp_path / "x.csv", "--batch-size", 1)[0] == 2
    given = (*photos, "--save", tmp_path / "x.csv", "--features", tmp_path / "x.npz")
    code, _, err = predict(*given, "--resume")
    assert code == 2
    assert "x.npz.incomplete is not there" in err


def test_files_that_are_others(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "objects.npz", paths=np.array([{}]), features=np.zeros(1), about="{}")
    (tmp_path / "text.npz").write_text("hello")
    for name in ("other", "objects", "text", "none"):
        with pytest.raises(UserError) as caught:
            kept.read(tmp_path / f"{name}.npz")
        assert str(caught.value).startswith(f"{tmp_path / name}.npz: ")


def test_what_a_predictor_says_of_itself(featured, exported, images):
    with ppcls.Predictor(featured, engine="onednn", threads=1) as predictor:
        assert repr(predictor) == (
            f"<ppcls.Predictor '{featured}': EfficientNetLite0, 2 classes (ant, bee), 16 features, "
            "onednn (fp32, 1 thread), images of 32x32>"
        )
        assert predictor.class_names == predictor.labels == ("ant", "bee")
        (answer,) = predictor(images[0], topk=1)
        assert str(answer) == f"{answer.labels[0]} {answer.scores[0]:.4f}"
        failed = predictor(["none.png"], on_error="skip")[0]
        assert str(failed).startswith("error: none.png: no such file")

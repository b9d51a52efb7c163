"""An ONNX file alone: one of ours says what it is wherever it lies, of others the flags say it."""

import shutil

import numpy as np
import onnx
import pytest
import small_network
from onnx import TensorProto, helper
from PIL import Image

import ppcls
from ppcls.inference import onnx_metadata
from ppcls.utils.errors import UserError


def scores(results):
    found = np.zeros((len(results), 2))
    for row, result in zip(found, results, strict=True):
        row[result.classes] = result.scores
    return found


def expected(small, images):
    preprocess = small.recipe.preprocess
    inputs = preprocess.normalize(np.stack([preprocess(image) for image in images]))
    return small_network.probabilities(small.net, inputs)


@pytest.fixture
def moved(exported, tmp_path):
    """A file of ours under another name, where nothing else is."""
    target = tmp_path / "elsewhere/classifier.onnx"
    target.parent.mkdir()
    shutil.copy(exported / "inference.onnx", target)
    return target


@pytest.fixture
def foreign(moved):
    """The same of another project: it says nothing of itself."""
    model = onnx.load(str(moved))
    del model.metadata_props[:]
    onnx.save(model, str(moved))
    return moved


def test_one_of_ours_knows_its_classes_and_preprocessing(moved, small, images):
    onnx.checker.check_model(str(moved), full_check=True)
    for engine in ("onnxruntime", "openvino"):
        with ppcls.Predictor(moved, engine=engine) as predictor:
            assert predictor.class_names == ("ant", "bee")
            found = scores(predictor.predict(list(images)))
            np.testing.assert_allclose(found, expected(small, images), atol=2e-6)
    assert [path.name for path in moved.parent.iterdir()] == [moved.name]


def test_one_in_its_folder_is_that_of_the_folder(exported, small, images):
    with ppcls.Predictor(exported / "inference.onnx", engine="onnxruntime") as predictor:
        assert predictor.class_names == ("ant", "bee")
        np.testing.assert_allclose(
            scores(predictor.predict(list(images))), expected(small, images), atol=2e-6
        )


def test_of_others_the_flags_say_what_is_missing(foreign, small, images, run, tmp_path):
    photo = tmp_path / "a.png"
    Image.fromarray(images[0]).save(photo)
    code, _, err = run("predict", "--model-dir", foreign, photo)
    assert code == 2
    assert err.splitlines() == [
        f"error: {foreign}: says nothing of what it expects; say how images are prepared: "
        "--resize 256 --crop 224, and --mean, --std, --interpolation, --labels if needed"
    ]
    (tmp_path / "names.txt").write_text("ameise\nbiene\n")
    given = ("--resize", 36, "--crop", 32, "--labels", tmp_path / "names.txt")
    code, out, err = run("predict", "--model-dir", foreign, photo, *given, "--engine", "openvino")
    assert (code, err) == (0, "")
    share = expected(small, images[:1])[0, 0]
    assert f"ameise {share:.4f}" in out


def test_a_network_for_one_image_at_a_time(foreign, small, images):
    model = onnx.load(str(foreign))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(foreign))
    for engine in ("onnxruntime", "openvino"):
        with ppcls.Predictor(foreign, engine=engine, resize=36, crop=32) as predictor:
            found = scores(predictor.predict(list(images), batch_size=3))
        np.testing.assert_allclose(found, expected(small, images), atol=2e-6)


def test_a_network_of_two_inputs(tmp_path):
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "abc"]
    add = helper.make_node("Add", ["a", "b"], ["c"])
    graph = helper.make_graph([add], "g", value[:2], value[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "two.onnx"))
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(UserError, match=r"two\.onnx: takes 2 inputs"):
            ppcls.Predictor(tmp_path / "two.onnx", engine=engine, resize=8, crop=8)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x3a" + b"\xff" * 9 + b"\x7f", b"r\3a"])
def test_files_that_are_no_onnx(tmp_path, data):
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    assert onnx_metadata.read(path) is None
    with pytest.raises(UserError, match=r"x\.onnx: "):
        ppcls.Predictor(path, engine="onnxruntime", crop=32, resize=36)


def test_the_text_is_found_behind_others_and_the_last_one_counts(foreign):
    assert onnx_metadata.read(foreign) is None
    for text in ("a: 1", "ä" * 200):
        onnx_metadata.add(foreign, {onnx_metadata.KEY: text})
        assert onnx_metadata.read(foreign) == text
    found = [(entry.key, entry.value) for entry in onnx.load(str(foreign)).metadata_props]
    assert found == [("ppcls", "a: 1"), ("ppcls", "ä" * 200)]


def test_what_a_file_takes_is_read_without_onnx(exported, pixels_in, tmp_path):
    for folder in (exported, pixels_in):
        path = folder / "inference.onnx"
        (given,) = onnx.load(str(path)).graph.input
        sides = tuple(dim.dim_value or None for dim in given.type.tensor_type.shape.dim)
        assert onnx_metadata.inputs(path) == {given.name: sides}
    (square,) = onnx_metadata.inputs(exported / "inference.onnx").values()
    assert (square[1:], sides) == ((3, 32, 32), (None, None, None, 3))
    whole = path.read_bytes()
    for count in range(0, len(whole), 997):  # cut anywhere
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(whole[:count])
        assert onnx_metadata.inputs(cut) in ({}, {given.name: sides})

"""An exported model's answers are held against those that its export recorded."""

from itertools import count

import numpy as np
import onnx
import pytest
import small_network
import yaml
from onnx import numpy_helper
from photos import write_photo

import ppcls
from ppcls.data.preprocess import Preprocess
from ppcls.inference import selfcheck
from ppcls.inference.quantize import quantize
from ppcls.utils.errors import UserError

ENGINES = ("onednn", "onnxruntime", "openvino")


def opened(folder, engine="onnxruntime", **given):
    return ppcls.Predictor(folder, engine=engine, threads=1, **given)


def record_of(folder):
    document = yaml.safe_load((folder / "inference.yml").read_text())
    return document, document["ppcls"]["recorded"]


def write(folder, document):
    (folder / "inference.yml").write_text(yaml.safe_dump(document))


def change_weights(path, factor=1.5):
    """Each weight of the classifier times a factor."""
    model = onnx.load(path)
    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.name == "value"]
    changed = 0
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.shape == (16, 2):
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))
            changed += 1
    assert changed == 1
    onnx.save(model, path)


def test_images_are_the_same_everywhere_and_unlike_each_other():
    found = selfcheck.images(Preprocess(resize=44, crop=(33, 40)))
    assert found.shape == (3, 33, 40, 3)
    assert found.dtype == np.uint8
    assert found[0, 0, 0].tolist() == [243, 230, 218]  # as at exports before
    assert len({image.tobytes() for image in found}) == 3
    assert found.std(axis=(1, 2, 3)).min() > 40
    grey = selfcheck.images(Preprocess(resize=8, crop=8, mean=(0.5,), std=(0.5,)))
    assert grey.shape == (3, 8, 8, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_export_answers_as_it_recorded(exported, pixels_in, engine):
    for folder in (exported, pixels_in):
        found = selfcheck.check(opened(folder, engine))
        assert found["images"] == len(selfcheck.SPOTS)
        assert found["outputs"] == 2
        assert 0 <= found["largest_difference"] < 1e-4


def test_the_record_is_the_trained_networks_own_answers(small, exported):
    """Not those of what was written, which would agree with itself however wrong it is."""
    _, record = record_of(exported)
    preprocess = small.recipe.preprocess
    inputs = preprocess.normalize(selfcheck.images(preprocess))
    wanted = small_network.probabilities(small.net, inputs)
    assert record["side"] == [32, 32]
    for row, probabilities in zip(record["probabilities"], wanted, strict=True):
        assert row == {i: pytest.approx(float(p), abs=1e-6) for i, p in enumerate(probabilities)}
    # Otherwise the same answers come from a network that looks at nothing.
    assert np.ptp(wanted[:, 0]) > 0.02


def test_a_changed_weight_is_refused_in_one_line(copy):
    folder = copy("inference.yml", "inference.onnx")
    change_weights(folder / "inference.onnx")
    document, _ = record_of(folder)
    document["ppcls"]["files"] = {}
    write(folder, document)
    with pytest.raises(UserError, match="answers otherwise than where it was exported") as caught:
        selfcheck.check(opened(folder))
    assert len(caught.value.lines) == 1
    assert str(folder) in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(copy):
    folder = copy("inference.yml", "inference.onnx")
    change_weights(folder / "inference.onnx", float("nan"))
    document, _ = record_of(folder)
    document["ppcls"]["files"] = {}
    write(folder, document)
    with pytest.raises(UserError, match="not finite"):
        selfcheck.check(opened(folder))


@pytest.mark.parametrize(
    "given",
    [{"mean": [0.5] * 3}, {"std": [0.1, 0.2, 0.3]}],
    ids=["mean", "std"],
)
def test_images_that_are_prepared_otherwise_are_not_held_against_the_record(exported, given):
    assert selfcheck.check(opened(exported, **given)) == {"images": 0, "outputs": 2}


def test_another_size_is_not_held_against_the_record(pixels_in):
    found = selfcheck.check(opened(pixels_in, resize=44, crop=40))
    assert found == {"images": 0, "outputs": 2}


@pytest.mark.parametrize(
    "record",
    [
        None,
        "none",
        [],
        {},
        {"side": [32, 32]},
        {"probabilities": [{0: 0.5}]},
        {"side": [32, 32], "probabilities": {"0": 1}},
        {"side": [32, 32], "probabilities": [[0.5, 0.5]]},
        {"side": [32, 32], "probabilities": [{"ant": 0.5}]},
        {"side": [32, 32], "probabilities": [{-1: 0.5}]},
        {"side": [32, 32], "probabilities": [{0: "0.5"}]},
        {"side": 32, "mean": "x", "std": None, "probabilities": [{0: 0.5}]},
    ],
)
def test_a_manifest_of_anybody_is_no_reason_to_fail(copy, record):
    folder = copy("inference.yml", "inference.onnx")
    document, _ = record_of(folder)
    if isinstance(record, dict) and "side" in record and "mean" not in record:
        kept = {key: document["ppcls"]["recorded"][key] for key in ("mean", "std")}
        record = {**kept, **record}
    document["ppcls"]["recorded"] = record
    write(folder, document)
    assert selfcheck.check(opened(folder)) == {"images": 0, "outputs": 2}


def test_a_class_that_the_network_has_not_is_refused(copy):
    folder = copy("inference.yml", "inference.onnx")
    document, record = record_of(folder)
    record["probabilities"][0] = {7: 0.5}
    write(folder, document)
    with pytest.raises(UserError, match="class 7 has nan"):
        selfcheck.check(opened(folder))


def test_int8_records_its_own_answers(exported, tmp_path):
    """Which differ from the float network's, and which it is then held against."""
    for seed in range(4):
        write_photo(tmp_path / "photos" / ("ant", "bee")[seed % 2] / f"{seed}.png", seed)
    place = tmp_path / "made"
    made = quantize(
        exported, tmp_path / "photos", "onnxruntime", place, budget=1, clock=count().__next__
    )
    _, own = record_of(made)
    _, before = record_of(exported)
    assert own["side"] == before["side"]
    assert own["probabilities"] != before["probabilities"]
    found = selfcheck.check(opened(made))
    assert found["images"] == 3
    assert found["largest_difference"] <= 1e-4  # the engine that it was recorded with

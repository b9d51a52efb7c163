"""tools/gpu_check_torch.py, but for what needs PyTorch: the graph that travels is the network's."""

import json

import numpy as np
import onnx
import onnxruntime
import pages
import pytest
from onnx import TensorProto, helper, numpy_helper

check = pages.tool("gpu_check_torch")


def run(model, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_the_graph_travels_without_weights_and_gets_the_same_ones_everywhere(exported, tmp_path):
    source = exported / "inference.onnx"
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    plain = check.plain(source)
    np.testing.assert_allclose(run(plain, images), run(str(source), images), atol=1e-6)
    kinds = {node.op_type for node in plain.graph.node}
    assert not kinds & {"Shape", "Constant", "Reshape"}
    (flat,) = [node for node in plain.graph.node if node.op_type == "Flatten"]
    assert (len(flat.input), [one.i for one in flat.attribute]) == (1, [1])
    graph = tmp_path / "small.graph.onnx"
    taken = check.strip(source, graph)
    assert taken > 300
    assert graph.stat().st_size < source.stat().st_size - 2 * taken
    left = [t for t in onnx.load(str(graph)).graph.initializer if t.data_type == TensorProto.FLOAT]
    weights = [tensor for tensor in left if tensor.doc_string]
    assert sum(int(np.prod(tensor.dims)) for tensor in weights) == taken
    assert not any(tensor.raw_data or tensor.float_data for tensor in weights)
    outputs = [run(check.filled(graph), images) for _ in range(2)]
    np.testing.assert_array_equal(*outputs)
    assert np.ptp(outputs[0], axis=0).min() > 1e-6  # images are told apart
    filled = {t.name: numpy_helper.to_array(t) for t in check.filled(graph).graph.initializer}
    rule = np.random.default_rng(check.zlib.crc32(weights[0].name.encode()))
    shape = tuple(weights[0].dims)
    wanted = rule.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    np.testing.assert_allclose(filled[weights[0].name], wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 2), (1, 2)])
def test_paddings_in_numbers_are_those_that_were_computed(tmp_path, kind, kernel, stride):
    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3, kernel, kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=kind, strides=[stride, stride])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 11, 16])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [node], "one", [given], [made], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = random.standard_normal((2, 3, 11, 16)).astype(np.float32)
    expected = run(model, images)
    check.pad_plainly(model)
    (own,) = model.graph.node
    assert {one.name for one in own.attribute} == {"strides", "pads"}
    np.testing.assert_array_equal(run(model, images), expected)


@pytest.mark.parametrize(("shape", "kind"), [([0, -1], "Flatten"), ([1, -1], "Reshape")])
def test_a_shape_that_is_written_down_is_no_shape_either(tmp_path, shape, kind):
    """onnx2torch keeps it on the GPU and looks at its numbers."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "shape"], ["y"], "flat"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 2, 2])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    written = numpy_helper.from_array(np.array(shape, np.int64), "shape")
    graph = helper.make_graph(nodes, "one", [given], [made], [written])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = np.random.default_rng(0).standard_normal((1, 3, 2, 2)).astype(np.float32)
    expected = run(model, images)
    check.flatten_simply(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Relu", kind]
    assert len(model.graph.initializer) == (kind == "Reshape")
    np.testing.assert_array_equal(run(model, images), expected)


def test_what_is_measured_is_written_at_once(tmp_path):
    about = {"device": "an A100", "versions": "torch 2.11"}
    cells = []
    for batch in (1, 8):
        cells.append({"network": "r50", "precision": "fp16", "way": "graph", "batch": batch})
        cells[-1] |= {"milliseconds": 0.9, "images_per_second": 1111.0, "difference": 1e-3}
        check.write(tmp_path, about, cells)
        kept = json.loads((tmp_path / "gpu_check_torch.json").read_text())
        assert kept == {**about, "cells": cells}
        assert f"| {batch} | 0.9 |" in (tmp_path / "gpu_check_torch.md").read_text()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_table_says_what_it_is_and_what_failed():
    cells = [
        {"network": "r50", "precision": "fp16", "way": "graph", "batch": 1, "milliseconds": 0.9,
         "images_per_second": 1111.0, "difference": 1e-3, "agrees": True},
        {"network": "r50", "precision": "fp32", "way": "eager", "batch": 8, "milliseconds": 2.0,
         "images_per_second": 4000.0, "difference": 0.5, "agrees": False},
        {"network": "r50", "precision": "tf32", "way": "compiled", "batch": 8, "failed": "no time"},
    ]  # fmt: skip
    page = check.to_markdown({"device": "an A100", "versions": "torch 2.11"}, cells)
    assert "neither ppcls's engines nor Paddle" in page.splitlines()[0]
    assert page.splitlines()[-3:] == [
        "| r50 | fp16 | graph | 1 | 0.9 | 1111.0 | 1.0e-03 |",
        "| r50 | fp32 | eager | 8 | 2.0 | 4000.0 | 5.0e-01 FAILED |",
        "| r50 | tf32 | compiled | 8 |  |  | FAILED: no time |",
    ]

"""The Open Inference Protocol, version 2: by its specification, and by Triton's own client."""

import base64
import json
import struct

import numpy as np
import pytest

import ppcls
from ppcls.export import Form

LENGTH = "Inference-Header-Content-Length"
OUTPUTS = ("classes", "scores", "labels", "probabilities")
PATH = "/v2/models/small/infer"


@pytest.fixture(scope="module")
def predictor(exported):
    with ppcls.Predictor(exported, engine="onnxruntime") as predictor:
        yield predictor


def b64(path):
    return base64.b64encode(path.read_bytes()).decode()


def images_in(*paths, **more):
    return {
        "name": "images",
        "datatype": "BYTES",
        "shape": [len(paths)],
        "data": [b64(path) for path in paths],
        **more,
    }


def binary(inputs, data, **more):
    """A body with data behind the JSON, and its headers."""
    head = json.dumps({"inputs": inputs, **more}).encode()
    return {"content": head + data, "headers": {LENGTH: str(len(head))}}


def packed(*texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def outputs_of(answer):
    """Arrays by their names, of JSON or of the binary form."""
    assert answer.status_code == 200, answer.text
    head, rest = answer.content, b""
    if LENGTH in answer.headers:
        assert answer.headers["content-type"] == "application/octet-stream"
        size = int(answer.headers[LENGTH])
        head, rest = head[:size], head[size:]
    found = {}
    for output in json.loads(head)["outputs"]:
        kind = {"INT64": "<i8", "FP32": "<f4", "BYTES": object}[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = output["data"]
        else:
            data, rest = rest[:size], rest[size:]
            values = unpacked(data) if kind is object else np.frombuffer(data, kind)
        found[output["name"]] = np.array(values, kind).reshape(output["shape"])
    assert not rest
    return found


def unpacked(data):
    found = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


def require_same(outputs, predictions):
    for row, want in enumerate(predictions):
        assert outputs["classes"][row].tolist() == list(want.classes)
        assert outputs["labels"][row].tolist() == list(want.labels)
        np.testing.assert_allclose(outputs["scores"][row], want.scores, atol=1e-6)
        in_order = outputs["probabilities"][row][list(want.classes)]
        np.testing.assert_allclose(in_order, want.scores, atol=1e-6)


# --------------------------------------------------------------------------- the specification


def test_health_and_metadata(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    server = client.get("/v2").json()
    assert set(server) == {"name", "version", "extensions"}
    assert server["name"] == "ppcls"
    assert "binary_tensor_data" in server["extensions"]
    assert client.get("/v2/models/small/ready").json() == {"name": "small", "ready": True}
    model = client.get("/v2/models/small").json()
    assert model["name"] == "small"
    assert model["versions"] == ["1"]
    assert model["platform"] == "ppcls_onnxruntime"
    assert model["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == list(OUTPUTS)
    assert model["outputs"][3]["shape"] == [-1, 2]
    tensor = {"name": "tensor", "datatype": "FP32", "shape": [-1, 3, 32, 32]}
    assert model["parameters"]["in_place_of_images"] == tensor


def test_versions(client):
    assert client.get("/v2/models/small/versions/1").json() == (
        client.get("/v2/models/small").json()
    )
    assert client.get("/v2/models/small/versions/1/ready").status_code == 200
    body = {"inputs": []}
    for path in ("/v2/models/small/versions/2", "/v2/models/other", "/v2/models/other/ready",
                 "/v2/models/small/versions/2/ready"):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]
    answer = client.post("/v2/models/small/versions/2/infer", json=body)
    assert answer.status_code == 404
    assert "1 is" in answer.json()["error"]


def test_repository_index(client):
    for body in (b"", b"{}"):
        (found,) = client.post("/v2/repository/index", content=body).json()
        assert found == {"name": "small", "version": "1", "state": "READY", "reason": ""}


def test_images_as_json(client, photos, predictor):
    want = predictor.predict(list(map(str, photos)))
    answer = client.post(PATH, json={"id": "it's 7", "inputs": [images_in(*photos)]})
    found = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert found["model_name"] == "small"
    assert found["model_version"] == "1"
    assert found["id"] == "it's 7"
    assert found["parameters"]["digest"] == predictor.folder.digest()
    assert found["parameters"]["engine_ms"] > 0
    assert [output["name"] for output in found["outputs"]] == list(OUTPUTS)
    require_same(outputs_of(answer), want)
    nested = images_in(*photos, shape=[5, 1], data=[[b64(path)] for path in photos])
    require_same(outputs_of(client.post(PATH, json={"inputs": [nested]})), want)
    assert "id" not in client.post(PATH, json={"inputs": [nested]}).json()


def test_images_as_binary_data(client, photos, predictor):
    data = packed(*(path.read_bytes() for path in photos))
    given = images_in(*photos, parameters={"binary_data_size": len(data)})
    del given["data"]
    want = predictor.predict(list(map(str, photos)))
    plain = client.post(PATH, **binary([given], data))
    assert LENGTH not in plain.headers
    require_same(outputs_of(plain), want)
    all_binary = client.post(PATH, **binary([given], data, parameters={"binary_data_output": True}))
    assert LENGTH in all_binary.headers
    require_same(outputs_of(all_binary), want)
    chosen = [{"name": "labels", "parameters": {"binary_data": True}}, {"name": "classes"}]
    answer = client.post(PATH, **binary([given], data, outputs=chosen))
    outputs = outputs_of(answer)
    assert list(outputs) == ["labels", "classes"]
    assert outputs["labels"].tolist() == [list(one.labels) for one in want]


def test_tensors(client, photos, predictor):
    """What the network takes, preprocessed by the client."""
    from ppcls.inference.inputs import open_image

    preprocess = predictor.manifest.preprocess
    pixels = [open_image(path.read_bytes(), preprocess, None) for path in photos]
    tensor = preprocess.normalize(pixels).astype("<f4")
    want = predictor.predict(list(map(str, photos)))
    given = {"name": "tensor", "datatype": "FP32", "shape": list(tensor.shape)}
    size = {"parameters": {"binary_data_size": tensor.nbytes}}
    require_same(outputs_of(client.post(PATH, **binary([given | size], tensor.tobytes()))), want)
    for data in (tensor.tolist(), tensor.reshape(-1).tolist()):
        body = {"inputs": [given | {"data": data}]}
        require_same(outputs_of(client.post(PATH, json=body)), want)


def test_pixels_as_a_tensor(serve, small, export_as, photos, tmp_path):
    """A network that normalises by itself takes uint8 [N, H, W, C]."""
    folder = export_as(small, tmp_path, Form(("onnx",), "uint8", "logits"))
    served = serve(folder, "--engine", "onnxruntime")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with ppcls.Predictor(folder, engine="onnxruntime") as predictor, served.client() as client:
        (about,) = [client.get("/v2/models/small").json()["parameters"]["in_place_of_images"]]
        assert about == {"name": "tensor", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
        given = {"name": "tensor", "datatype": "UINT8", "shape": [2, 32, 32, 3]}
        as_json = client.post(PATH, json={"inputs": [given | {"data": pixels.tolist()}]})
        size = {"parameters": {"binary_data_size": pixels.nbytes}}
        as_binary = client.post(PATH, **binary([given | size], pixels.tobytes()))
        rows = predictor.probabilities(predictor.engine.run_all(pixels)[0])
        for answer in (as_json, as_binary):
            np.testing.assert_allclose(outputs_of(answer)["probabilities"], rows, atol=1e-6)
        for value in (256, -1, 1.5):
            data = [value, *pixels.reshape(-1)[1:].tolist()]
            answer = client.post(PATH, json={"inputs": [given | {"data": data}]})
            assert answer.status_code == 400
            assert "0 to 255" in answer.json()["error"]
        require_same(
            outputs_of(client.post(PATH, json={"inputs": [images_in(*photos)]})),
            predictor.predict(list(map(str, photos))),
        )


def test_topk_and_threshold(client, photos):
    for own, sides in (({"topk": 1}, 1), ({"threshold": 1}, 0), ({"threshold": 0}, 2)):
        body = {"inputs": [images_in(*photos)], "parameters": own}
        outputs = outputs_of(client.post(PATH, json=body))
        assert outputs["classes"].shape == outputs["labels"].shape == (5, sides)
        assert outputs["probabilities"].shape == (5, 2)


# --------------------------------------------------------------------------- mistakes


TENSOR = {"name": "tensor", "datatype": "FP32", "shape": [1, 3, 32, 32]}
ONE = {"name": "images", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "no JSON"),
        ("[]", "should be"),
        ({}, "inputs should be a list with one"),
        ({"inputs": []}, "inputs should be a list with one"),
        ({"inputs": [ONE | {"data": ["aaaa"]}] * 2}, "inputs should be a list with one"),
        ({"inputs": [ONE]}, "no data"),
        ({"inputs": [ONE | {"data": [5]}]}, "base64"),
        ({"inputs": [ONE | {"data": ["%"]}]}, "base64"),
        ({"inputs": [ONE | {"data": ["aaaa", "aaaa"]}]}, "2 images came, and shape says 1"),
        ({"inputs": [ONE | {"shape": [0], "data": []}]}, "shape should be"),
        ({"inputs": [ONE | {"shape": [True], "data": []}]}, "shape should be"),
        ({"inputs": [ONE | {"shape": [1, 2], "data": ["aaaa"]}]}, "[N]"),
        ({"inputs": [ONE | {"name": "image", "data": ["aaaa"]}]}, "'image' of 'BYTES' is no input"),
        ({"inputs": [ONE | {"parameters": {"binary_data_size": 4}}]}, "binary_data_size (4)"),
        ({"inputs": [ONE | {"parameters": 4, "data": ["aaaa"]}]}, "parameters of the input"),
        ({"inputs": [TENSOR | {"datatype": "FP64", "data": [0]}]}, "tensor of FP32"),
        ({"inputs": [TENSOR | {"shape": [1, 3, 32, 33], "data": [0]}]}, "[N, 3, 32, 32]"),
        ({"inputs": [TENSOR | {"data": [0] * 3071}]}, "3072 numbers"),
        ({"inputs": [TENSOR | {"data": ["a"] * 3072}]}, "3072 numbers"),
        ({"inputs": [TENSOR | {"data": [[0], [0, 1]]}]}, "3072 numbers"),
        ({"inputs": [TENSOR | {"data": [1e300] * 3072}]}, "float32"),
        ({"inputs": [TENSOR | {"data": [10**400] * 3072}]}, "3072 numbers"),
        ({"inputs": [TENSOR | {"data": [True] * 3072}]}, "3072 numbers"),
        ({"inputs": [ONE | {"data": ["aaaa"]}], "id": 5}, "id should be a text"),
        ({"inputs": [ONE | {"data": ["aaaa"]}], "outputs": [{"name": "x"}]}, "output 'x'"),
        ({"inputs": [ONE | {"data": ["aaaa"]}], "outputs": 5}, "outputs should be a list"),
        ({"inputs": [ONE | {"data": ["aaaa"]}], "parameters": []}, "parameters of the request"),
    ],
)
def test_mistakes(client, body, words):
    content = body if isinstance(body, str) else json.dumps(body)
    answer = client.post(PATH, content=content)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["error"]


def test_mistakes_of_binary_data(client, photos):
    data = packed(photos[0].read_bytes())
    size = {"parameters": {"binary_data_size": len(data)}}
    good = binary([ONE | size], data)
    assert client.post(PATH, **good).status_code == 200
    for length in ("x", "-1", "99999999", "", "1e3", "٣"):
        headers = {LENGTH: length.encode()}
        answer = client.post(PATH, content=good["content"], headers=headers)
        assert answer.status_code == 400
        assert LENGTH in answer.json()["error"]
    for rest, words in (
        (data[:-1], "binary_data_size"),
        (data + b"x", "binary_data_size"),
        (b"", "binary_data_size"),
    ):
        answer = client.post(PATH, **binary([ONE | size], rest))
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    for rest, words in ((b"\1\0\0", "within a length"), (b"\xff\xff\xff\xff", "within an image")):
        own = {"parameters": {"binary_data_size": len(rest)}}
        answer = client.post(PATH, **binary([ONE | own], rest))
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    answer = client.post(PATH, **binary([ONE | {"data": ["aaaa"]}], b"rest"))
    assert answer.status_code == 400
    assert "no input has binary_data_size" in answer.json()["error"]


def test_images_that_are_none(client, photos):
    given = ONE | {"shape": [2], "data": [b64(photos[0]), "aaaa"]}
    answer = client.post(PATH, json={"inputs": [given]})
    assert answer.status_code == 422
    assert "images[1]" in answer.json()["error"]
    many = ONE | {"shape": [65], "data": ["aaaa"] * 65}
    answer = client.post(PATH, json={"inputs": [many]})
    assert answer.status_code == 413
    assert "at most 64" in answer.json()["error"]


# --------------------------------------------------------------------------- Triton's client


@pytest.fixture
def triton(service):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    client = http.InferenceServerClient(f"{service.host}:{service.port}")
    yield http, client
    client.close()


def test_tritons_client_reads_metadata(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("small")
    assert client.is_model_ready("small", "1")
    assert not client.is_model_ready("small", "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "ppcls"
    assert client.get_model_metadata("small")["inputs"][0]["datatype"] == "BYTES"
    assert client.get_model_metadata("small", "1")["versions"] == ["1"]
    (found,) = client.get_model_repository_index()
    assert found["state"] == "READY"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [None, True, False])
def test_tritons_client_infers(triton, photos, predictor, binary_in, binary_out):
    http, client = triton
    want = predictor.predict(list(map(str, photos)))
    given = http.InferInput("images", [len(photos)], "BYTES")
    if binary_in:
        given.set_data_from_numpy(np.array([path.read_bytes() for path in photos], object))
    else:  # texts in JSON, which images are not; base64 is
        texts = np.array([b64(path).encode() for path in photos], object)
        given.set_data_from_numpy(texts, binary_data=False)
    asked = None
    if binary_out is not None:
        asked = [http.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS]
    found = client.infer("small", [given], outputs=asked, request_id="9", model_version="1")
    assert found.get_response()["id"] == "9"
    outputs = {name: found.as_numpy(name) for name in OUTPUTS}
    if outputs["labels"].dtype == object:
        texts = [[text.decode() if isinstance(text, bytes) else text for text in row]
                 for row in outputs["labels"]]  # fmt: skip
        outputs["labels"] = np.array(texts, object)
    require_same(outputs, want)


def test_tritons_client_sends_tensors_and_parameters(triton):
    http, client = triton
    tensor = np.random.default_rng(0).normal(0, 1, (3, 3, 32, 32)).astype(np.float32)
    given = http.InferInput("tensor", list(tensor.shape), "FP32")
    given.set_data_from_numpy(tensor)
    found = client.infer("small", [given], parameters={"topk": 1})
    assert found.as_numpy("labels").shape == (3, 1)
    np.testing.assert_allclose(found.as_numpy("probabilities").sum(1), 1, atol=1e-5)
    best = found.as_numpy("probabilities").argmax(1)
    assert (found.as_numpy("classes")[:, 0] == best).all()


def test_tritons_client_reads_errors(triton):
    http, client = triton
    given = http.InferInput("images", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"no image"], object))
    with pytest.raises(http.InferenceServerException, match="the image given") as caught:
        client.infer("small", [given])
    assert caught.value.status() == "422"
    with pytest.raises(http.InferenceServerException, match="no model here"):
        client.infer("other", [given])
    with pytest.raises(http.InferenceServerException, match="--keys"):
        client.load_model("small")

"""A calibrated model in the service: scores, sets and states are those of `Predictor`."""

import numpy as np
import pytest
import small_network
from photos import write_photo

import ppcls
from ppcls.calibrate.calibrate import calibrate_on
from ppcls.calibrate.fit import Wish
from ppcls.data.samples import Dataset, Paths
from ppcls.export import Form

ENGINE = "onnxruntime"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Forty images."""
    paths = [tmp_path_factory.mktemp("known") / f"{seed:02}.png" for seed in range(40)]
    for seed, path in enumerate(paths, 50):
        write_photo(path, seed)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def calibrated(export_as, known, tmp_path_factory):
    form = Form(("onnx",), features=True)
    folder = export_as(small_network.trained(), tmp_path_factory.mktemp("calibrated"), form)
    with ppcls.Predictor(folder, engine=ENGINE) as predictor:
        labels = np.array([answer.classes[0] for answer in predictor.predict(known)])
    labels[::5] = 1 - labels[::5]
    samples = Dataset(Paths(known), labels, ("ant", "bee"), "known")
    calibrate_on(folder, samples, "known", Wish(0.7, false_alarms=0.2), ENGINE)
    return folder


@pytest.fixture(scope="module")
def client(serve, calibrated):
    with serve(calibrated, "--engine", ENGINE).client() as client:
        yield client


@pytest.fixture(scope="module")
def expected(calibrated, known):
    with ppcls.Predictor(calibrated, engine=ENGINE) as predictor:
        return predictor.predict(known, topk=2)


def test_answers_are_those_of_the_predictor(client, known, expected):
    files = [("image", (path, open(path, "rb").read())) for path in known]  # noqa: SIM115
    found = client.post("/predict", files=files, params={"topk": 2}).json()["predictions"]
    assert {answer.state for answer in expected} == {"sure", "unsure", "unknown"}
    for answer, image in zip(expected, found, strict=True):
        assert (image["set"], image["state"]) == (answer.set, answer.state)
        assert image["labels"] == answer.labels
        assert image["scores"] == pytest.approx(answer.scores, abs=1e-6)


def test_a_threshold_leaves_set_and_state_as_they_are(client, known, expected):
    data = open(known[0], "rb").read()  # noqa: SIM115
    answer = client.post("/predict", content=data, params={"threshold": 1}).json()
    (image,) = answer["predictions"]
    assert (image["labels"], image["set"]) == ([], expected[0].set)
    assert image["state"] == expected[0].state


def test_the_protocol_has_calibrated_probabilities(client, known, expected):
    import base64

    data = base64.b64encode(open(known[0], "rb").read()).decode()  # noqa: SIM115
    given = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [data]}
    answer = client.post("/v2/models/small/infer", json={"inputs": [given]}).json()
    tensors = {one["name"]: one["data"] for one in answer["outputs"]}
    assert np.sort(tensors["probabilities"])[::-1] == pytest.approx(expected[0].scores, abs=1e-6)
    assert tensors["scores"][:2] == pytest.approx(expected[0].scores, abs=1e-6)


def test_it_is_said_of_the_model(client):
    (model,) = client.get("/models").json()["models"]
    assert model["calibrated"] is True

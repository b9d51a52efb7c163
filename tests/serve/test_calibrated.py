"""A calibrated model in the service: scores, sets and states are those of `Predictor`."""

import time

import numpy as np
import pytest
import small_network
from photos import write_photo
from PIL import Image

import ppcls
from ppcls.calibrate.calibrate import calibrate
from ppcls.calibrate.fit import Wish
from ppcls.drift import PARTS
from ppcls.export import Form
from ppcls.inference import calibration, manifest
from ppcls.inference.inputs import open_image
from ppcls.serve.watch import how_of
from ppcls.serve.worker import classes_of
from ppcls.utils.errors import UserError

ENGINE = "onnxruntime"
SOON = 120  # seconds for what takes less than one


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
    place = tmp_path_factory.mktemp("lists")
    rows = [f"{path},{('ant', 'bee')[label]}\n" for path, label in zip(known, labels, strict=True)]
    (place / "known.csv").write_text("path,label\n" + "".join(rows))
    (place / "costs.csv").write_text("true,ant,bee\nant,0,2\nbee,3,0\n")
    wish = Wish(0.7, false_alarms=0.2)
    calibrate(folder, place / "known.csv", wish, engine=ENGINE, costs=place / "costs.csv")
    return folder


@pytest.fixture(scope="module")
def client(serve, calibrated):
    with serve(calibrated, "--engine", ENGINE, "--drift-window", "20").client() as client:
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
        assert image["decision"] == answer.decision
        assert image["labels"] == answer.labels
        assert image["scores"] == pytest.approx(answer.scores, abs=1e-6)


def test_without_a_calibration_nothing_is_said_of_it(calibrated):
    row = np.array([0.4, 0.6], np.float32)
    with ppcls.Predictor(calibrated, engine=ENGINE, calibrated=False) as predictor:
        assert list(classes_of(predictor, row, 2, None)) == ["classes", "labels", "scores"]


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
    drift = {name: value for name, value in model["drift"].items() if name != "last"}
    assert drift == {"window": 20, "false_alarms": 0.01, "reference": 27}


# --------------------------------------------------------------------------- drift


def drift_of(client):
    """What /metrics says of drift."""
    found = {}
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("ppcls_drift"):
            name, value = line.rsplit(" ", 1)
            found[name.replace('model="small"', "").replace("{}", "")] = float(value)
    return found


def until(client, true):
    end = time.monotonic() + SOON
    while not true(drift_of(client)):
        assert time.monotonic() < end, drift_of(client)
        time.sleep(0.05)
    return drift_of(client)


def send(client, paths):
    files = [("image", (str(path), open(path, "rb").read())) for path in paths]  # noqa: SIM115
    assert client.post("/predict", files=files).status_code == 200


def send_tensors(client, folder, paths):
    """The images as the network takes them."""
    preprocess = manifest.read(folder).preprocess
    tensor = preprocess.normalize([open_image(path, preprocess) for path in paths])
    given = {"name": "tensor", "datatype": "FP32", "shape": list(tensor.shape)}
    body = {"inputs": [given | {"data": tensor.tolist()}]}
    assert client.post("/v2/models/small/infer", json=body).status_code == 200


def test_windows_are_held_against_the_calibration(client, calibrated, known, tmp_path):
    """The other tests' images stand in windows, too."""
    name = 'ppcls_images_total{model="small",outcome="predicted"} '
    before = client.get("/metrics").text.partition(name)[2].partition("\n")[0]
    asked = int(float(before or 0))
    send(client, known[: 20 - asked % 20])
    send(client, known[:27])
    found = until(client, lambda found: windows(found) == asked // 20 + 2)
    assert found["ppcls_drift_p"] > 0.01
    assert found["ppcls_drift_alarm"] == 0
    for part in PARTS:
        assert 0 <= found[f'ppcls_drift_distance{{,part="{part}"}}'] < 10
    until(client, lambda found: found["ppcls_drift_images"] == 7)
    send_tensors(client, calibrated, known[:20])
    found = until(client, lambda found: windows(found) == asked // 20 + 3)
    assert found["ppcls_drift_alarm"] == 0
    assert found['ppcls_drift_distance{,part="looks"}'] < 10
    for number in range(33):
        Image.new("RGB", (40, 48), (number, 0, 0)).save(tmp_path / f"{number}.png")
    send(client, sorted(tmp_path.iterdir()))
    found = until(client, lambda found: found["ppcls_drift_alarm"] == 1)
    assert found["ppcls_drift_p"] <= 0.01
    (model,) = client.get("/models").json()["models"]
    assert model["drift"]["last"]["alarm"] is True
    said = model["drift"]["last"]["said"]
    assert said.startswith("DRIFT (p ")
    assert "looks, " in said


def windows(found):
    return sum(count for name, count in found.items() if name.startswith("ppcls_drift_windows_t"))


def test_a_sketch_of_an_older_ppcls_is_not_watched(calibrated):
    """Which had no looks; nor is a service refused for it, as for a damaged one."""
    asked = {"window": 20, "false_alarms": 0.01}
    with ppcls.Predictor(calibrated, engine=ENGINE) as predictor:
        assert how_of(predictor, asked).window == 20
        values = predictor.calibration.values
        looks = values.pop("sketch_looks")
        assert how_of(predictor, asked) is None
        values["sketch_looks"] = looks[:3]
        with pytest.raises(UserError, match=f"{calibration.FILE}: has no whole sketch of its im"):
            how_of(predictor, asked)

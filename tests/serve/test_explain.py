"""`POST /predict` with maps, of a model exported with them."""

import io

import numpy as np
import pytest
from PIL import Image

import ppcls
from ppcls.export import Form


@pytest.fixture(scope="module")
def mapped(small, export_as, tmp_path_factory):
    form = Form(("onnx",), features=True, explain=True)
    return export_as(small, tmp_path_factory.mktemp("mapped"), form)


@pytest.fixture(scope="module")
def client(mapped, serve):
    with serve(mapped, "--engine", "onnxruntime").client() as client:
        yield client


def test_maps_come_where_they_are_asked_for(client, mapped, photos):
    (model,) = client.get("/models").json()["models"]
    assert model["maps"] == {"classes": 2, "height": 16, "width": 16}
    with ppcls.Predictor(mapped, engine="onnxruntime") as predictor:
        wanted = predictor.predict(list(map(str, photos)), explain=True)
    data = [("image", path.read_bytes()) for path in photos]
    ways = [{"data": {"explain": "true"}}, {"params": {"explain": "1"}}]
    for way in ways:
        found = client.post("/predict", files=data, **way).json()["predictions"]
        for one, other in zip(found, wanted, strict=True):
            assert one["classes"] == other.classes
            difference = np.abs(np.array(one["maps"], np.float32) - other.maps).max()
            assert difference < 1e-3 * np.abs(other.maps).max()  # four digits
            # 36 of 40 pixels is the width, 43 the height; 32 of each are seen.
            assert one["seen"] == pytest.approx([5 / 43, 2 / 36, 37 / 43, 34 / 36], abs=1e-5)
    for way in ({}, {"params": {"explain": "false"}}):
        (plain,) = client.post("/predict", content=photos[0].read_bytes(), **way).json()[
            "predictions"
        ]
        assert set(plain) == {"classes", "labels", "scores"}
    (one,) = client.post("/predict", files=data[:1], data={"explain": "1", "topk": "1"}).json()[
        "predictions"
    ]
    assert np.shape(one["maps"]) == (1, 16, 16)


def test_what_is_seen_is_of_the_photo_upright(client):
    exif = Image.Exif()
    exif[274] = 6
    lying = io.BytesIO()
    Image.new("RGB", (80, 40)).save(lying, "JPEG", exif=exif)
    answer = client.post("/predict", content=lying.getvalue(), params={"explain": "1"})
    top, left, bottom, right = answer.json()["predictions"][0]["seen"]
    assert bottom - top == pytest.approx(32 / 72, abs=1e-5)  # the long side stands
    assert right - left == pytest.approx(32 / 36, abs=1e-5)

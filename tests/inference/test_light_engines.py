"""The light networks in every engine of a CPU, and in INT8: their own numbers."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
import small_network
from paddle import nn
from photos import write_photo

from ppcls.api import create_model
from ppcls.export import FORMATS, Form, export
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import ENGINES, open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.quantize import quantize
from ppcls.models.fuse import fused

LIGHT = ("PPLCNet_x0_25", "MobileNetV3_small_x0_35")
SLOW = ("PPLCNet_x2_5", "MobileNetV3_large_x0_35", "MobileNetV3_large_x1_25")
SIDE = small_network.SIDE
CPU = [name for name, entry in ENGINES.items() if "cpu" in entry.devices]


def trained(name):
    """A network of two classes whose norms have the statistics of noise, with a recipe."""
    paddle.seed(0)
    net = create_model(name, 2)
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0
    noise = np.random.default_rng(0).standard_normal((16, 3, SIDE, SIDE)).astype(np.float32)
    with paddle.no_grad():
        net(paddle.to_tensor(noise))
    scale = 1 / net.head.weight.shape[0] ** 0.5
    head = np.random.default_rng(1).normal(0, scale, net.head.weight.shape)
    net.head.weight.set_value(head.astype(np.float32))
    net.eval()
    return replace(small_network.trained(), net=net)


@pytest.fixture(
    params=[*LIGHT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)], scope="module"
)
def made(request, tmp_path_factory):
    """A trained network and its export in every format."""
    place = tmp_path_factory.mktemp(request.param)
    photos = [place / "photos" / ("ant", "bee")[seed % 2] / f"{seed}.png" for seed in range(6)]
    for seed, photo in enumerate(photos):
        write_photo(photo, seed)
    model = trained(request.param)
    form = Form(tuple(FORMATS), output="logits", dynamic_size=True)
    return model, export(model, place / "exported", [str(photo) for photo in photos], form)


def images(height, width):
    return np.random.default_rng(2).standard_normal((4, 3, height, width)).astype(np.float32)


def logits(net, given):
    with paddle.no_grad():
        return net(paddle.to_tensor(given)).numpy()


def test_every_engine_gives_the_networks_logits(made):
    model, folder = made
    opened = {name: open_engine(open_exported(folder), Settings(name)) for name in CPU}
    for shape in ((SIDE, SIDE), (48, 19)):
        given = images(*shape)
        expected = logits(model.net, given)
        spread = np.abs(expected - expected.mean(0)).max()
        assert spread > 0.01 * np.abs(expected).max()  # else any image would do
        for name, engine in opened.items():
            found = engine.run(given)
            assert np.abs(found - expected).max() < 1e-4 * spread, name
        with fused(model.net):
            assert np.abs(logits(model.net, given) - expected).max() < 1e-4 * spread


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_stays_near(made, tmp_path, engine):
    model, folder = made
    photos = folder.parent / "photos"
    small = quantize(folder, photos, engine, tmp_path / "int8", budget=1.0)
    assert open_exported(small).manifest.precision == "int8"
    given = images(SIDE, SIDE)
    expected = logits(model.net, given)
    found = open_engine(open_exported(small), Settings(engine)).run(given)
    spread = np.abs(expected - expected.mean(0)).max()
    assert np.abs(found - expected).max() < spread
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9

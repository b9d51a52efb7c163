"""The light networks in every engine of a CPU, and in INT8: their own numbers."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
import small_network
from paddle import nn
from photos import write_photo
from quick_export import export

from ppcls.api import create_model
from ppcls.data.preprocess import Preprocess
from ppcls.export import FORMATS, Form
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import ENGINES, open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.manifest import Manifest
from ppcls.inference.quantize import prepare, quantize
from ppcls.models.fuse import fused
from ppcls.weights.load import fill

LIGHT = ("MobileNetV3_small_x0_35",)
SLOW = ("PPLCNet_x0_25", "PPLCNet_x2_5", "MobileNetV3_large_x0_35", "MobileNetV3_large_x1_25")
SIDE = 64
CPU = [name for name, entry in ENGINES.items() if "cpu" in entry.devices]
KEPT = 0.02  # of filled statistics: with more, logits hardly depend on the image


def build(name, images):
    """A network of two classes, its weights filled, its statistics nearly those of the images."""
    net = create_model(name, 2)
    for key, value in net.state_dict().items():
        value.set_value(fill(key, value.shape))
    net.eval()
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = KEPT
            layer.train()
    with paddle.no_grad():
        net(paddle.to_tensor(images))
    net.eval()
    scale = net.head.weight.shape[0] ** -0.5
    head = np.random.default_rng(1).normal(0, scale, net.head.weight.shape)
    net.head.weight.set_value(head.astype(np.float32))
    return net


@pytest.fixture(
    params=[*LIGHT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)], scope="module"
)
def made(request, tmp_path_factory):
    """A network, its export in every format, and the images that it saw, float32 [N, 3, H, W]."""
    place = tmp_path_factory.mktemp(request.param)
    photos = [place / "photos" / ("ant", "bee")[seed % 2] / f"{seed}.png" for seed in range(16)]
    for seed, photo in enumerate(photos):
        write_photo(photo, seed)
    trained = small_network.trained()
    preprocess = Preprocess(resize=SIDE, crop=SIDE)
    images = prepare(Manifest(request.param, preprocess), list(map(str, photos)))
    net = build(request.param, images)
    trained = replace(trained, net=net, recipe=replace(trained.recipe, preprocess=preprocess))
    form = Form(tuple(FORMATS), output="logits", dynamic_size=True)
    return net, export(trained, place / "exported", list(map(str, photos[:2])), form), images


def logits(net, given):
    with paddle.no_grad():
        return net(paddle.to_tensor(given)).numpy()


def spread_of(expected):
    return np.abs(expected - expected.mean(0)).max()


def test_every_engine_gives_the_networks_logits(made):
    net, folder, images = made
    opened = {name: open_engine(open_exported(folder), Settings(name)) for name in CPU}
    for given in (images, images[:, :, :48, :33]):
        expected = logits(net, given)
        spread = spread_of(expected)
        assert spread > 0.005 * np.abs(expected).max()  # else any image would do
        for name, engine in opened.items():
            assert np.abs(engine.run(given) - expected).max() < 1e-3 * spread, name
        with fused(net):
            assert np.abs(logits(net, given) - expected).max() < 1e-3 * spread


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_stays_near(made, tmp_path, engine):
    net, folder, images = made
    small = quantize(folder, folder.parent / "photos", engine, tmp_path / "int8", budget=1.0)
    assert open_exported(small).manifest.precision == "int8"
    expected = logits(net, images)
    found = open_engine(open_exported(small), Settings(engine)).run(images)
    assert np.abs(found - expected).max() < spread_of(expected)
    apart = [values - values.mean(0) for values in (found, expected)]
    assert np.corrcoef(apart[0].ravel(), apart[1].ravel())[0, 1] > 0.7

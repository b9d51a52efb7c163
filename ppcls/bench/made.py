"""A network by its name as an exported folder, without trained weights."""

from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from ppcls.api import create_model
from ppcls.bench.plan import Model
from ppcls.inference import folder, manifest
from ppcls.models.efficientnet_specs import EfficientNetSpec
from ppcls.models.fuse import fused
from ppcls.weights.fill import fill, image

LOGITS = "expected.npy"  # of the dynamic network for `image`

# How much of their filled statistics batch norms keep, the rest being those of noise images. With
# all of them, logits hardly depend on the image, and no comparison would notice a wrong layer; with
# none, rounding errors grow through deep networks beyond any limit.
KEPT, KEPT_EFFICIENTNET = 0.1, 0.003


def export(model: Model, target: Path) -> None:
    """Write the network with filled weights, giving logits, and its own logits; once."""
    if (target / manifest.FILE).is_file():
        return
    target.mkdir(parents=True, exist_ok=True)
    side = model.preprocess.crop
    net = make(model.network, side)
    with paddle.no_grad():
        np.save(target / LOGITS, net(paddle.to_tensor(image(side))).numpy())
    spec = paddle.static.InputSpec([None, 3, side, side], "float32", "image")
    with fused(net):
        paddle.jit.save(net, str(target / folder.NAME), input_spec=[spec])
    about = manifest.Manifest(model.network, model.preprocess, output="logits")
    (target / manifest.FILE).write_text(about.to_yaml(), encoding="utf-8")


def make(name: str, side: int) -> nn.Layer:
    """The network, its weights filled, in evaluation mode."""
    net = create_model(name)
    for key, value in net.state_dict().items():
        value.set_value(fill(key, value.shape))
    net.eval()
    kept = KEPT_EFFICIENTNET if isinstance(net.spec, EfficientNetSpec) else KEPT
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for norm in norms:
        norm._momentum = kept
        norm.train()
    noise = np.random.default_rng(0).standard_normal((2, 3, side, side), dtype=np.float32)
    with paddle.no_grad():
        net(paddle.to_tensor(noise))
    net.eval()
    return net

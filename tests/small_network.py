"""A network small enough to be exported in a second, as training would leave it."""

from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from ppcls.config.load import from_plain
from ppcls.models.layers import ConvNorm, classifier
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import Trained

SIDE = 32


class Small(nn.Layer):
    """Full, depthwise and pointwise convolutions with norms, and a classifier."""

    def __init__(self, channels: int = 3, classes: int = 2):
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(channels, 8, 3, stride=2),
            ConvNorm(8, 8, 3, groups=8),
            ConvNorm(8, 16, 1, act=None),
        )
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = classifier(16, classes)

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.body(images)]

    def pooled(self, features: list[paddle.Tensor]) -> paddle.Tensor:
        return self.pool(features[-1]).flatten(1)

    def logits(self, pooled: paddle.Tensor) -> paddle.Tensor:
        return self.head(pooled)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.logits(self.pooled(self.features(images)))


def settle(net: nn.Layer, seed: int = 0, channels: int = 3) -> nn.Layer:
    """Random statistics and scales in every norm, and a classifier that tells images apart."""
    random = np.random.default_rng(seed)
    for layer in net.sublayers(include_self=True):
        if isinstance(layer, nn.BatchNorm2D):
            count = len(layer.bias)
            layer._mean.set_value(random.normal(0, 0.3, count).astype(np.float32))
            layer._variance.set_value(random.uniform(0.5, 2, count).astype(np.float32))
            layer.weight.set_value(random.uniform(0.5, 1.5, count).astype(np.float32))
            layer.bias.set_value(random.normal(0, 0.3, count).astype(np.float32))
        if isinstance(layer, nn.Linear):
            scale = 4 / layer.weight.shape[0] ** 0.5
            layer.weight.set_value(random.normal(0, scale, layer.weight.shape).astype(np.float32))
            last = layer
    net.eval()
    with paddle.no_grad():
        noise = random.normal(0, 1, (8, channels, SIDE, SIDE)).astype(np.float32)
        last.bias.set_value(last.bias - net(paddle.to_tensor(noise)).mean(0))
    return net


def trained(net: nn.Layer | None = None, names: tuple[str, ...] = ("ant", "bee")) -> Trained:
    """A settled network with a recipe of images of SIDE pixels."""
    paddle.seed(0)
    recipe = {
        "model": {"name": "EfficientNetLite0", "num_classes": 2},
        "preprocess": {"resize": 36, "crop": SIDE},
        "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 0.1}},
    }
    made = from_plain(Recipe, recipe, "a test", [])
    return Trained(made, settle(net or Small()), names, Path("small.safetensors"), {})


def probabilities(net: nn.Layer, images: np.ndarray) -> np.ndarray:
    """Of the network itself for normalised float32 [N, C, H, W]."""
    with paddle.no_grad():
        return nn.functional.softmax(net(paddle.to_tensor(images))).numpy()

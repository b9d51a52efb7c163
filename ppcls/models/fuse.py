"""Batch norms folded into the convolutions before them, as inference needs them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.models.layers import ConvNorm


@contextmanager
def fused(net: nn.Layer) -> Iterator[None]:
    """Within the context every `ConvNorm` of `net` is a convolution with a bias, and no norm.

    norm(x) = (x - mean) * weight / sqrt(variance + epsilon) + bias, computed in float64.
    """
    kept = []
    try:
        for layer in net.sublayers(include_self=True):
            if isinstance(layer, ConvNorm) and isinstance(layer.norm, nn.BatchNorm2D):
                kept.append((layer, layer.norm, layer.conv.weight.numpy()))
                fold(layer)
        yield
    finally:
        for layer, norm, weight in kept:
            layer.norm = norm
            layer.conv.bias = None
            layer.conv.weight.set_value(weight)


def fold(layer: ConvNorm) -> None:
    conv = layer.conv
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2D)
    assert conv.bias is None
    parts: list[Any] = [norm.weight, norm.bias, norm._mean, norm._variance]
    weight, bias, mean, variance = (part.numpy().astype(np.float64) for part in parts)
    scale = weight / np.sqrt(variance + norm._epsilon)
    folded = conv.weight.numpy() * scale.reshape(-1, 1, 1, 1)  # type: ignore
    conv.weight.set_value(folded.astype(np.float32))
    conv.bias = paddle.create_parameter([len(scale)], "float32", is_bias=True)
    conv.bias.set_value((bias - mean * scale).astype(np.float32))
    layer.norm = nn.Identity()  # type: ignore


# Packages whose layers take no turn by the numbers that they see.
STRAIGHT = ("paddle", "ppcls")


class Traced(nn.Layer):
    """A network as its operators follow each other.

    Paddle else rewrites the source of each function that is called, so that an `if` on a tensor
    becomes one of the program, which takes most of the time that an export takes.
    """

    def __init__(self, network: nn.Layer):
        super().__init__()
        self.network = network

    @paddle.jit.not_to_static
    def forward(self, image):
        return self.network(image)


def is_straight(network: nn.Layer) -> bool:
    """Whether all layers are Paddle's and ours."""
    layers = network.sublayers(include_self=True)
    return all(type(layer).__module__.partition(".")[0] in STRAIGHT for layer in layers)


def save_program(
    network: nn.Layer,
    path: Path,
    shape: Sequence[int | None],
    dtype: Any,
    fold: nn.Layer | None = None,
) -> None:
    """Write a network in evaluation mode as Paddle's program, `path`.json and `path`.pdiparams.

    Args:
        shape: of what it takes; None for sides that are free.
        fold: the layer in which norms are folded into convolutions; None: nowhere.
    """
    spec = paddle.static.InputSpec(list(shape), dtype, "image")
    if is_straight(network):
        network = Traced(network)
        network.eval()
    with fused(fold) if fold else nullcontext():
        paddle.jit.save(network, str(path), input_spec=[spec])

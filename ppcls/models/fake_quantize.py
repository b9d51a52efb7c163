"""Networks that train as their INT8 twin will compute: in float32, with numbers rounded to 8 bits.

Every convolution and linear layer sees its weights and what comes in as `ppcls quantize` writes
them (arXiv:1712.05877): weights symmetric, with a scale for each output channel, which folding a
norm into them leaves as it is; what comes in with one scale and zero point. The gradient goes past
the rounding as if it were not there, and stops where a number was clipped.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.kernels import channels_last

STEPS = 255  # between the least and the greatest number of 8 bits
SHARE = 0.01  # of a new step in a range that many steps have made
LEAST = 1e-12  # of a step: all numbers may be 0
GREATEST = {7: 64, 8: 127}  # whole numbers that weights of so many bits have


class Range(nn.Layer):
    """Rounds numbers to 256 even steps of a range that, in training, follows what it sees.

    The range is the mean over images of each one's least and greatest number, 0 included: of all
    images at first, later of about the last hundred steps. `seen` is its state, float32 [3]: the
    least, the greatest, and how many steps have been seen.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", paddle.zeros([3]), persistable=False)
        self.is_known = False  # before anything was seen, numbers stay as they are

    def restore(self, seen: Tensor) -> None:
        self.seen.set_value(seen)
        self.is_known = bool(seen[2] > 0)

    def forward(self, x: Tensor) -> Tensor:
        """x, float32 [N, …], rounded."""
        if self.training:
            self.follow(x)
        if not self.is_known:
            return x
        if channels_last.serves(x):
            low, high, _ = channels_last.numbers(self.seen)
            step = max((high - low) / np.float32(STEPS), np.float32(LEAST))
            return channels_last.rounded(x, step, np.rint(low / step), STEPS)
        low, high, _ = self.seen.unbind()
        step = ((high - low) / STEPS).clip(min=LEAST)
        first = paddle.round(low / step)
        inside = x * ((x >= first * step) & (x <= (first + STEPS) * step)).astype(x.dtype)
        whole = paddle.minimum(paddle.maximum(paddle.round(x / step), first), first + STEPS)
        return inside + (whole * step - inside).detach()

    def follow(self, x: Tensor) -> None:
        with paddle.no_grad():
            if channels_last.serves(x):
                now = paddle.to_tensor(channels_last.image_ends(x).mean(axis=0))
            else:
                flat = x.reshape([x.shape[0], -1])
                now = paddle.stack([flat.min(axis=1).mean(), flat.max(axis=1).mean()])
            now = paddle.stack([now[0].clip(max=0.0), now[1].clip(min=0.0)])
            steps = self.seen[2:] + 1
            share = (1 / steps).clip(min=SHARE)
            known = self.seen[:2]
            self.seen.set_value(paddle.concat([known + (now - known) * share, steps]))
        self.is_known = True


def rounded_weights(weight: Tensor, axis: int, greatest: int) -> Tensor:
    """Weights as whole numbers, `greatest` at most, times a step of each channel along `axis`."""
    with paddle.no_grad():
        others = [i for i in range(weight.ndim) if i != axis]
        step = (weight.abs().amax(axis=others, keepdim=True) / greatest).clip(min=LEAST)
        change = paddle.round(weight / step) * step - weight
    return weight + change


class QuantizedConv2D(nn.Conv2D):
    """A convolution as in INT8; `put_into` makes it."""

    greatest: int
    inputs: Range

    def forward(self, x):
        x, weight = self.simulated(x)
        padding: Any = self._padding
        how = self._stride, padding, self._dilation, self._groups
        return F.conv2d(x, weight, self.bias, *how)

    def simulated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What comes in, and the weights, rounded."""
        return self.inputs(x), rounded_weights(self.weight, 0, self.greatest)


class QuantizedLinear(nn.Linear):
    """A linear layer as in INT8; `put_into` makes it."""

    greatest: int
    inputs: Range

    def forward(self, x):
        return F.linear(self.inputs(x), rounded_weights(self.weight, 1, self.greatest), self.bias)


QUANTIZED = {nn.Conv2D: QuantizedConv2D, nn.Linear: QuantizedLinear}


def put_into(net: nn.Layer, weight_bits: int) -> None:
    """Let the network's convolutions and linear layers compute as in INT8, from now on."""
    for layer in net.sublayers(include_self=True):
        padded = getattr(layer, "_padding_mode", "zeros") != "zeros"
        if type(layer) in QUANTIZED and not padded:
            layer.__class__ = QUANTIZED[type(layer)]
            layer.greatest = GREATEST[weight_bits]
            layer.inputs = Range()


def ranges_of(net: nn.Layer) -> dict[str, Range]:
    """Every range of a network, by the path of the layer whose inputs it is of."""
    layers = net.named_sublayers(include_self=True)
    return {path.removesuffix(".inputs"): one for path, one in layers if isinstance(one, Range)}


def restore(net: nn.Layer, states: Mapping[str, Tensor]) -> None:
    """Put back what the ranges of a run had seen."""
    for path, found in ranges_of(net).items():
        found.restore(states[path])

"""Layers that several backbones share.

No `forward` calls `zip(..., strict=True)`: Paddle's export to static graphs does not know it.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls.kernels import HARDSWISH, NONE, RELU, RELU6, SILU, channels_last
from ppcls.kernels.onednn import Shape
from ppcls.models.fake_quantize import QuantizedConv2D


def conv2d(
    cin: int,
    cout: int,
    kernel: int,
    stride: int = 1,
    padding: int | Literal["SAME"] = 0,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2D:
    """Convolution with He's normal weights for the fan-out (arXiv:1502.01852) and zero bias."""
    # Every input feeds cout / groups outputs; a depthwise layer so gets sqrt(2) / kernel, which is
    # what EfficientNet's authors draw from.
    scale = (2 * groups / (cout * kernel**2)) ** 0.5
    return nn.Conv2D(
        cin,
        cout,
        kernel,
        stride,
        padding,
        groups=groups,
        weight_attr=nn.initializer.Normal(0.0, scale),
        bias_attr=nn.initializer.Constant(0.0) if bias else False,
    )


class NoHead(nn.Identity):
    """Stands where a network of no classes would have its classifier."""


def classifier(cin: int, num_classes: int) -> nn.Linear | NoHead:
    """The last layer, which gives logits for pooled features; of 0 classes the features."""
    if not num_classes:
        return NoHead()
    # Normal(0, 0.01) after arXiv:1706.02677: whatever the number of classes, the logits start near
    # zero and the first loss near log(num_classes).
    return nn.Linear(
        cin,
        num_classes,
        weight_attr=nn.initializer.Normal(0.0, 0.01),
        bias_attr=nn.initializer.Constant(0.0),
    )


def head_name(net: nn.Layer) -> str | None:
    """The path of the classifier: the last linear layer, of `head` where the network has one.

    None where there is no such layer.
    """
    head = getattr(net, "head", None)
    top, start = (head, "head") if isinstance(head, nn.Layer) else (net, "")
    layers = top.named_sublayers(prefix=start, include_self=True)
    found = [path for path, layer in layers if isinstance(layer, nn.Linear | NoHead)]
    return found[-1] if found else None


def has_stages(net: nn.Layer) -> bool:
    """Whether it has `stages` of blocks, as all networks of a family have."""
    stages = getattr(net, "stages", None)
    kinds = (nn.Sequential, nn.LayerList)
    return isinstance(stages, kinds) and all(isinstance(stage, kinds) for stage in stages)


def has_features(net: nn.Layer) -> bool:
    """Whether it has `features` and `classify`, as all networks of a family have."""
    return callable(getattr(net, "features", None)) and callable(getattr(net, "classify", None))


def layer_at(net: nn.Layer, path: str) -> nn.Layer:
    """The sublayer of a dotted path."""
    for part in path.split("."):
        net = getattr(net, part)
    return net


class ConvNorm(nn.Layer):
    """Convolution, batch norm and, unless `act` is None, an activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Layer] | None = nn.ReLU,
        padding: Literal["SAME"] | None = None,  # None: half the kernel on every side
        **norm,
    ):
        super().__init__()
        self.conv = conv2d(cin, cout, kernel, stride, padding or (kernel - 1) // 2, groups)
        self.norm = nn.BatchNorm2D(cout, **norm)
        self.act = act() if act else nn.Identity()

    def forward(self, x):
        if self.is_served(x, self.act):
            return self.served(x, self.act)
        return self.act(self.norm(self.conv(x)))

    def plus(self, x, added, act: nn.Layer, drop_path: nn.Layer):
        """act(drop_path(self(x)) + added)."""
        plain = type(self.act) is nn.Identity and type(act) in (nn.Identity, nn.ReLU)
        if plain and self.is_served(x, act) and not hooked(self.act, drop_path):
            return self.served(x, act, added, kept_images(drop_path, x))
        return act(drop_path(self(x)) + added)

    def is_served(self, x, act: nn.Layer) -> bool:
        """Whether `ppcls.kernels` computes it: not where a part was put in another's place."""
        return (
            channels_last.serves(x, depthwise=x.shape[1] == self.conv._groups > 1)
            and is_plain(self.conv)
            and type(self.norm) is nn.BatchNorm2D
            and self.norm.weight is not None
            and self.norm.bias is not None
            and type(act) in KERNELS
            and not hooked(self.conv, self.norm, act)
        )

    def served(self, x, act: nn.Layer, added=None, keep=channels_last.ONE):
        conv = self.conv
        norm = self.norm
        n, cin, height, width = x.shape
        shape = Shape(
            n,
            height,
            width,
            cin,
            conv._out_channels,
            tuple(conv._kernel_size),
            tuple(conv._stride),
            padding_of(conv, height, width),
            conv._groups,
        )
        training = norm.training and not norm._use_global_stats
        weight: Any = norm.weight
        bias: Any = norm.bias
        frozen = weight.stop_gradient and bias.stop_gradient
        about = channels_last.Norm(
            norm._mean, norm._variance, norm._momentum, norm._epsilon, training, frozen
        )
        code = KERNELS[type(act)]
        kernel = conv.weight
        if isinstance(conv, QuantizedConv2D):
            x, kernel = conv.simulated(x)
        return channels_last.conv_norm_act(x, kernel, weight, bias, added, shape, about, code, keep)


def is_plain(conv: nn.Layer) -> bool:
    """Whether it is as `conv2d` makes them, without a bias, in float32."""
    return (
        type(conv) in (nn.Conv2D, QuantizedConv2D)
        and conv.bias is None
        and (conv._padding == "SAME" or isinstance(conv._padding, int))
        and conv._padding_mode == "zeros"
        and conv._dilation == [1, 1]
        and conv.weight.dtype == paddle.float32
    )


def padding_of(conv: nn.Conv2D, height: int, width: int) -> tuple[int, int, int, int]:
    """What `conv2d` adds to the top, left, bottom and right of images."""
    padding: Any = conv._padding
    if padding != "SAME":
        return padding, padding, padding, padding
    ends = []
    for i, size in enumerate((height, width)):
        stride = conv._stride[i]
        lacking = max((-(-size // stride) - 1) * stride + conv._kernel_size[i] - size, 0)
        ends.append((lacking // 2, lacking - lacking // 2))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def hooked(*layers: nn.Layer) -> bool:
    """Whether somebody hooked a function to one of them, which then has to be called."""
    return any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)


# Which activations `ppcls.kernels` computes, and its names of them.
KERNELS = {
    nn.Identity: NONE,
    nn.ReLU: RELU,
    nn.ReLU6: RELU6,
    nn.Silu: SILU,
    nn.Hardswish: HARDSWISH,
}


def twice(x):
    """x for two readers, whose gradients `ppcls.kernels` adds."""
    if x.stop_gradient or not paddle.is_grad_enabled() or not channels_last.serves(x):
        return x, x
    return channels_last.Twice.apply(x)


class MaxPool(nn.MaxPool2D):
    """The largest of each k x k window, of one stride and padding both ways."""

    def forward(self, x):
        if not channels_last.serves(x):
            return super().forward(x)
        return channels_last.MaxPool.apply(x, window(self, x))


class MeanPool(nn.AvgPool2D):
    """The mean of each k x k window, of one stride and padding both ways."""

    def forward(self, x):
        if not channels_last.serves(x):
            return super().forward(x)
        return channels_last.MeanPool.apply(x, window(self, x, self.exclusive))


def window(pool, x, exclusive: bool = True) -> channels_last.Window:
    """The windows of a pooling of x; rows and columns are those of its output."""
    assert exclusive or not pool.ceil_mode
    more = pool.stride - 1 if pool.ceil_mode else 0
    rows, columns = (
        (side + 2 * pool.padding - pool.ksize + more) // pool.stride + 1 for side in x.shape[2:]
    )
    return channels_last.Window(pool.ksize, pool.stride, pool.padding, rows, columns, exclusive)


class GlobalMean(nn.AdaptiveAvgPool2D):
    """The mean over each image's pixels, [N, C, 1, 1]."""

    def __init__(self):
        super().__init__(1)

    def forward(self, x):
        return channels_last.Mean.apply(x) if channels_last.serves(x) else super().forward(x)


class HardSigmoid(nn.Layer):
    """x * slope + 0.5, from 0 to 1: of a sixth relu6(x + 3) / 6; PaddlePaddle's older one: 0.2."""

    def __init__(self, slope: float = 1 / 6):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return F.hardsigmoid(x, slope=self.slope, offset=0.5)


# What specs call activations. Hard swish is x * relu6(x + 3) / 6 (arXiv:1905.02244).
ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.Silu,
    "hardswish": nn.Hardswish,
}


class SqueezeExcite(nn.Layer):
    """Scale every channel by a gate computed from all channels' means (arXiv:1709.01507).

    `act` and `gate` make the activations within and at its end: nn.Sigmoid, `HardSigmoid` or
    another function to 0 to 1.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Callable[[], nn.Layer] = nn.ReLU,
        gate: Callable[[], nn.Layer] = nn.Sigmoid,
    ):
        super().__init__()
        self.gate = nn.Sequential(
            GlobalMean(),
            conv2d(channels, squeezed, 1, bias=True),
            act(),
            conv2d(squeezed, channels, 1, bias=True),
            gate(),
        )

    def forward(self, x):
        if not self.is_served(x):
            return x * self.gate(x)
        gates, x = self.gates(x)
        return channels_last.Gated.apply(x, gates, None, NONE)

    def plus(self, x, added, act: nn.Layer, drop_path: nn.Layer):
        """act(drop_path(x * gate) + added)."""
        plain = type(act) in (nn.Identity, nn.ReLU) and not hooked(drop_path)
        if not (plain and self.is_served(x)):
            return act(drop_path(self(x)) + added)
        gates, x = self.gates(x)
        keep = paddle.to_tensor(kept_images(drop_path, x)).reshape([-1, 1, 1, 1])
        return channels_last.Gated.apply(x, gates * keep, added, KERNELS[type(act)])

    def is_served(self, x) -> bool:
        return channels_last.serves(x) and not hooked(self.gate, self.gate[0])

    def gates(self, x):
        """The gates, and x, whose gradients are added."""
        means, x = channels_last.MeanAndSelf.apply(x)
        for layer in list(self.gate)[1:]:
            means = layer(means)
        return means, x


class HierarchicalConv(nn.Layer):
    """Res2Net's 3x3 (arXiv:1904.01169): convolve each part of the channels but the last.

    When `chained`, the previous part's result is added to a part first and the last part is passed
    on as it is. Otherwise the last part goes through `mean`, which has the stride of the others.
    """

    def __init__(self, channels, stride, scales, chained, mean):
        super().__init__()
        assert stride == 1 or not chained, "a strided result is too small to be added"
        self.scales = scales
        self.chained = chained
        part = channels // scales
        self.convs = nn.LayerList([ConvNorm(part, part, 3, stride) for _ in range(scales - 1)])
        self.pool = nn.Identity() if chained else mean

    def forward(self, x):
        if channels_last.serves(x):
            return self.served(x)
        *parts, last = paddle.split(x, self.scales, axis=1)
        outs = []
        for i, conv in enumerate(self.convs):
            outs.append(conv(parts[i] + outs[-1] if i > 0 and self.chained else parts[i]))
        return paddle.concat([*outs, self.pool(last)], axis=1)

    def served(self, x):
        *parts, last = channels_last.Split.apply(x, self.scales)
        outs = []
        previous = None
        for part, conv in zip(parts, self.convs, strict=True):
            out = conv(part if previous is None else channels_last.Plus.apply(part, previous))
            if self.chained and len(outs) < len(parts) - 1:
                previous, out = twice(out)
            outs.append(out)
        return channels_last.Concat.apply(*outs, self.pool(last))


class SplitAttention(nn.Layer):
    """ResNeSt's 3x3 (arXiv:2004.08955): `radix` convolutions of the channels' parts, mixed.

    The weights of the mixture are a softmax over the splits, channel by channel; a single split
    has a sigmoid gate.
    """

    def __init__(self, channels, radix):
        super().__init__()
        self.radix = radix
        self.channels = channels
        squeezed = max(channels * radix // 4, 32)
        self.conv = ConvNorm(channels, channels * radix, 3, groups=radix)
        self.pool = GlobalMean()
        self.squeeze = ConvNorm(channels, squeezed, 1)
        self.excite = conv2d(squeezed, channels * radix, 1, bias=True)

    def forward(self, x):
        x = self.conv(x)
        if channels_last.serves(x) and not hooked(self.pool):
            return self.served(x)
        splits = paddle.split(x, self.radix, axis=1)
        gates = self.excite(self.squeeze(self.pool(paddle.add_n(splits))))
        if self.radix == 1:
            return splits[0] * F.sigmoid(gates)
        gates = F.softmax(gates.reshape([-1, self.radix, self.channels, 1, 1]), axis=1)
        gates = paddle.unbind(gates, axis=1)
        return paddle.add_n([splits[i] * gates[i] for i in range(self.radix)])

    def served(self, x):
        means, x = channels_last.MeanAndSelf.apply(x)
        parts = [-1, self.radix, self.channels, 1, 1]
        gates = self.excite(self.squeeze(means.reshape(parts).sum(axis=1)))
        if self.radix == 1:
            gates = F.sigmoid(gates)
        else:
            gates = F.softmax(gates.reshape(parts), axis=1).reshape([0, -1, 1, 1])
        return channels_last.Mixed.apply(x, gates, self.radix)


class DownscalingDropout(nn.Layer):
    """Dropout as PaddlePaddle's first: what training keeps stays as it is, evaluation scales all.

    `nn.Dropout` scales in training, which gives other logits for the same weights.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if self.training:
            return F.dropout(x, self.rate, mode="downscale_in_infer")
        return x * (1 - self.rate)


class DropPath(nn.Layer):
    """Zero whole samples with probability `rate` while training (arXiv:1603.09382).

    The samples kept are divided by `1 - rate`, so that the expectation stays. In evaluation mode
    the input comes back as it is.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return F.dropout(x, self.rate, axis=0, training=self.training)


def kept_images(drop_path: nn.Layer, x) -> np.ndarray:
    """What `DropPath` multiplies each image of x by, float32 [N]; [1] where it leaves all."""
    if not isinstance(drop_path, DropPath) or not drop_path.training:
        return channels_last.ONE
    return drop_path(paddle.ones([len(x), 1, 1, 1])).numpy().reshape(-1)


def plus_branch(
    branch: nn.Sequential,
    x,
    shortcut,
    act: nn.Layer | None = None,
    drop_path: nn.Layer | None = None,
):
    """act(drop_path(branch(x)) + shortcut), in one pass through memory where that can be."""
    act = act or nn.Identity()
    drop_path = drop_path or nn.Identity()
    if not channels_last.serves(x) or hooked(branch, branch[-1], act):
        return act(drop_path(branch(x)) + shortcut)
    *before, end = branch
    for layer in before:
        x = layer(x)
    if isinstance(end, ConvNorm | SqueezeExcite):
        return end.plus(x, shortcut, act, drop_path)
    return act(drop_path(end(x)) + shortcut)


# --------------------------------------------------------------------------
# The layer in front of every network: uint8 images to the numbers it was trained on


class Normalize(nn.Layer):
    """images uint8 [N, H, W, C] to float32 [N, C, H, W], each channel pixel * scale + offset."""

    def __init__(self, scale: np.ndarray, offset: np.ndarray):
        super().__init__()
        for name, values in (("scale", scale), ("offset", offset)):
            tensor = paddle.to_tensor(values.reshape(1, -1, 1, 1), dtype="float32")
            self.register_buffer(name, tensor, persistable=False)
        self.numbers = [np.ravel(values).astype(np.float32) for values in (scale, offset)]

    @staticmethod
    def before(net: nn.Layer, scale: np.ndarray, offset: np.ndarray) -> nn.Sequential:
        """The layer and a network that takes what it gives."""
        return nn.Sequential(Normalize(scale, offset), net)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        if channels_last.serves_images(images):
            return channels_last.to_numbers(images, *self.numbers)
        if channels_last.is_eager() and images.place.is_cpu_place():
            return self.small(images)
        return images.transpose([0, 3, 1, 2]).astype("float32") * self.scale + self.offset

    def small(self, images: paddle.Tensor) -> paddle.Tensor:
        """The same of a batch so small that four operators of Paddle's take longer to start."""
        scale, offset = (values.reshape(-1, 1, 1) for values in self.numbers)
        n, h, w, c = images.shape
        out = paddle.empty([n, c, h, w])
        values = channels_last.numbers(out)
        pixels = channels_last.numbers(images.contiguous())
        np.multiply(pixels.transpose(0, 3, 1, 2), scale, out=values)
        np.add(values, offset, out=values)
        return out

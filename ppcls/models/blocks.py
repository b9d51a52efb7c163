"""What families build their networks of: blocks, and the network that stages of them make.

A block's branch is `branch`, and every block goes from [N, cin, H, W] to [N, cout, h, w].
"""

from collections.abc import Callable, Iterable, Sequence

import paddle
from paddle import nn

from ppcls.models.layers import (
    ConvNorm,
    DropPath,
    GlobalMean,
    HierarchicalConv,
    MaxPool,
    MeanPool,
    SplitAttention,
    SqueezeExcite,
    classifier,
    plus_branch,
    twice,
)
from ppcls.models.spec import Feature, StagedSpec

# Makes a convolution with a norm of input channels, output channels, kernel and, by their names,
# stride, groups and act: `ConvNorm`, or a family's `partial` of it.
Conv = Callable[..., nn.Layer]


class Stages(nn.Layer):
    """A stem and stages, which gives their features; what `features_only` makes of a network."""

    def __init__(self, spec: StagedSpec, stem: nn.Layer, stages: Iterable[nn.Layer]):
        super().__init__()
        self.spec = spec
        self.ends = spec.ends
        self.stem = stem
        self.stages = nn.LayerList(list(stages))

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """Name, channels and stride of each of the `features`."""
        return self.spec.feature_info

    def features(self, x):
        """What the stages put out last at each stride, by `feature_info`.

        Takes float32 images [N, in_channels, H, W]; gives a list of float32 [N, width, h, w].
        """
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.ends[i]:
                outputs.append(x)
        return outputs

    def through(self, x, start):
        """From what the block before number `start` puts out, all blocks being counted through.

        Returns what the last block puts out, and what `features` has of the blocks from `start` on.
        """
        outputs = []
        number = 0
        for i, stage in enumerate(self.stages):
            for block in stage.children():
                if number >= start:
                    x = block(x)
                number += 1
            if self.ends[i] and number > start:
                outputs.append(x)
        return x, outputs

    def forward(self, x):
        return self.features(x)


class StagedNetwork(Stages):
    """Stem, stages of blocks, mean over the pixels, linear head.

    Args:
        spec: what it was built from.
        stem: float32 images to the first stage's input.
        stages: for each stage an `nn.Sequential` of blocks.
        width: channels that the head takes.
        num_classes: 0: no head; the network gives the pooled features [N, width].
        expand: between the last stage and the mean.
        neck: between the mean, [N, C, 1, 1], and the head.
        dropout: before the head: how often, or a layer that drops otherwise, as one that scales in
            evaluation. The features of a network without a head are not dropped at a rate; such a
            layer stays, for it is part of what the head would take.
    """

    def __init__(
        self,
        spec: StagedSpec,
        stem: nn.Layer,
        stages: Iterable[nn.Layer],
        width: int,
        num_classes: int,
        *,
        expand: nn.Layer | None = None,
        neck: nn.Layer | None = None,
        dropout: float | nn.Layer = 0.0,
    ):
        super().__init__(spec, stem, stages)
        for name in spec.built_otherwise():
            self.register_buffer(name, paddle.full([1], float(getattr(spec, name))))
        self.expand = expand or nn.Identity()
        self.pool = GlobalMean()
        self.neck = neck or nn.Identity()
        if not isinstance(dropout, nn.Layer):
            dropout = nn.Dropout(dropout) if dropout and num_classes else nn.Identity()
        self.dropout = dropout
        self.head = classifier(width, num_classes)

    def forward(self, x):
        """Float32 images [N, in_channels, H, W] to float32 logits [N, num_classes]."""
        return self.classify(self.features(x))

    def classify(self, features):
        """What `features` gives to logits."""
        return self.logits(self.pooled(features))

    def unpooled(self, features):
        """What `features` gives to what is pooled, float32 [N, C, h, w]."""
        return self.expand(features[-1])

    def pooled_of(self, unpooled):
        """What `unpooled` gives to the pooled features, float32 [N, width]."""
        return self.neck(self.pool(unpooled)).flatten(1)

    def pooled(self, features):
        """What `features` gives to the pooled features, float32 [N, width]."""
        return self.pooled_of(self.unpooled(features))

    def logits(self, pooled):
        """What `pooled` gives to float32 logits [N, num_classes]."""
        return self.head(self.dropout(pooled))


# --------------------------------------------------------------------------
# Residual networks


def conv_stem(in_channels: int, widths: Sequence[int], kernel: int, pool: bool) -> nn.Sequential:
    """Convolutions of these widths, the first of which strides, and maybe a strided max-pool."""
    cins = (in_channels, *widths[:-1])
    convs = [
        ConvNorm(cin, cout, kernel, stride=2 if i == 0 else 1)
        for i, (cin, cout) in enumerate(zip(cins, widths, strict=True))
    ]
    return nn.Sequential(*convs, *([MaxPool(3, 2, padding=1)] if pool else []))


class ResidualBlock(nn.Layer):
    """A residual branch added to a shortcut, which is projected or the input itself.

    Args:
        mid: channels inside a bottleneck; None: a basic block of two 3x3 convolutions.
        groups: of the bottleneck's 3x3 convolution.
        scales: parts of the 3x3 that `HierarchicalConv` has; 1: none.
        chained: whether it chains them.
        radix: splits of the 3x3 that `SplitAttention` has; 0: none.
        pool_first: average before the split 3x3 rather than after.
        padding_counts: 3x3 means take in the zeros around the image.
        squeezed: channels inside the squeeze-excite at the branch's end; 0: none.
        projects: whether the shortcut is projected, by a strided 1x1 or, where `averages`, a 2x2
            mean and a 1x1.
        drop_path: how often the branch is left out.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        stride: int = 1,
        *,
        mid: int | None = None,
        groups: int = 1,
        scales: int = 1,
        chained: bool = False,
        radix: int = 0,
        pool_first: bool = False,
        padding_counts: bool = False,
        squeezed: int = 0,
        projects: bool = False,
        averages: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        assert projects or (cin == cout and stride == 1), "only a projection changes the shape"
        assert groups == 1 or (scales == 1 and radix == 0), "only plain 3x3 take groups"
        if mid is None:
            branch: list[nn.Layer] = [
                ConvNorm(cin, cout, 3, stride),
                ConvNorm(cout, cout, 3, act=None),
            ]
        else:
            mean = MeanPool(3, stride, padding=1, exclusive=not padding_counts)
            branch = [ConvNorm(cin, mid, 1)]
            if scales > 1:
                branch.append(HierarchicalConv(mid, stride, scales, chained, mean))
            elif radix:  # strides by pooling, so that the split convolution sees every pixel
                pool = [mean] if stride > 1 else []
                attend = [SplitAttention(mid, radix)]
                branch += [*pool, *attend] if pool_first else [*attend, *pool]
            else:
                branch.append(ConvNorm(mid, mid, 3, stride, groups))
            branch.append(ConvNorm(mid, cout, 1, act=None))
        if squeezed:
            branch.append(SqueezeExcite(cout, squeezed))
        self.branch = nn.Sequential(*branch)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.shortcut = projection(cin, cout, stride, averages) if projects else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        x, again = twice(x)
        return plus_branch(self.branch, x, self.shortcut(again), self.act, self.drop_path)


def projection(cin: int, cout: int, stride: int, averages: bool) -> nn.Layer:
    if averages and stride > 1:
        return nn.Sequential(MeanPool(2, 2, ceil_mode=True), ConvNorm(cin, cout, 1, act=None))
    return ConvNorm(cin, cout, 1, stride, act=None)


# --------------------------------------------------------------------------
# Light networks


class InvertedResidual(nn.Layer):
    """Expand, depthwise, gate, project; plus the input where the shapes agree (arXiv:1801.04381).

    Args:
        conv: makes the convolutions, with the network's norm and activation.
        mid: channels inside.
        gate: makes a layer such as a `SqueezeExcite` of so many channels; None: no gate.
        expand: whether a 1x1 makes `mid` channels of the input's; None: where they differ.
        drop_path: how often the branch is left out, where there is a shortcut.
    """

    def __init__(
        self,
        conv: Conv,
        cin: int,
        mid: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        *,
        gate: Callable[[int], nn.Layer] | None = None,
        expand: bool | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        expand = mid != cin if expand is None else expand
        self.branch = nn.Sequential(
            *([conv(cin, mid, 1)] if expand else []),
            conv(mid, mid, kernel, stride, groups=mid),
            *([gate(mid)] if gate else []),
            conv(mid, cout, 1, act=None),
        )
        self.residual = stride == 1 and cin == cout
        self.drop_path = DropPath(drop_path) if self.residual else nn.Identity()

    def forward(self, x):
        if not self.residual:
            return self.branch(x)
        x, again = twice(x)
        return plus_branch(self.branch, x, again, drop_path=self.drop_path)


class DepthwiseSeparable(nn.Layer):
    """Depthwise, gate, 1x1, with activations after both convolutions (arXiv:1704.04861).

    `conv` and `gate` as of `InvertedResidual`.
    """

    def __init__(
        self,
        conv: Conv,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        *,
        gate: Callable[[int], nn.Layer] | None = None,
    ):
        super().__init__()
        self.branch = nn.Sequential(
            conv(cin, cin, kernel, stride, groups=cin),
            *([gate(cin)] if gate else []),
            conv(cin, cout, 1),
        )

    def forward(self, x):
        return self.branch(x)

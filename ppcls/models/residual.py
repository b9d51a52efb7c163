"""The residual network that a `ResidualSpec` describes."""

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls.models.layers import (
    ConvNorm,
    DropPath,
    HierarchicalConv,
    SplitAttention,
    SqueezeExcite,
    classifier,
)
from ppcls.models.residual_specs import ResidualSpec, Stem, built_otherwise


class ResidualNet(nn.Layer):
    """Stem, four stages of blocks, mean over the pixels, linear head (arXiv:1512.03385)."""

    def __init__(self, spec: ResidualSpec, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.spec = spec
        for name in built_otherwise(spec):
            self.register_buffer(name, paddle.full([1], float(getattr(spec, name))))
        self.stem = make_stem(spec.stem, in_channels)
        self.stages = nn.LayerList()
        cin = spec.stem.widths[-1]
        index = 0
        last = max(1, sum(spec.depths) - 1)
        for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            stride = 2 if stage > 0 or not spec.stem.pool else 1
            blocks = []
            for i in range(depth):
                drop_path = spec.drop_path * index / last
                blocks.append(Block(spec, stage, cin, stride if i == 0 else 1, i == 0, drop_path))
                cin = width
                index = index + 1
            self.stages.append(nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = classifier(cin, num_classes)

    def features(self, x):
        """The four stages' outputs, at strides 4, 8, 16 and 32 (sizes round up).

        Takes float32 images [N, in_channels, H, W]; gives a list of float32 [N, width, h, w].
        """
        outputs = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, x):
        """Float32 images [N, in_channels, H, W] to float32 logits [N, num_classes]."""
        return self.classify(self.features(x))

    def classify(self, features):
        """What `features` gives to logits."""
        return self.logits(self.pooled(features))

    def pooled(self, features):
        """What `features` gives to the pooled features, float32 [N, width]."""
        return self.pool(features[-1]).flatten(1)

    def logits(self, pooled):
        """Pooled features to logits."""
        return self.head(pooled)


class Block(nn.Layer):
    """A residual branch added to a shortcut, which is projected or the input itself."""

    def __init__(
        self,
        spec: ResidualSpec,
        stage: int,
        cin: int,
        stride: int,
        first: bool,
        drop_path: float,
    ):
        super().__init__()
        cout = spec.widths[stage]
        projects = first and (stage > 0 or spec.first_projects)
        assert projects or (cin == cout and stride == 1), "only a projection changes the shape"
        if spec.mids is None:
            branch: list[nn.Layer] = [
                ConvNorm(cin, cout, 3, stride),
                ConvNorm(cout, cout, 3, act=None),
            ]
        else:
            mid = spec.mids[stage]
            branch = [
                ConvNorm(cin, mid, 1),
                *spatial(spec, mid, stride, spec.groups[stage], first),
                ConvNorm(mid, cout, 1, act=None),
            ]
        if spec.se:
            branch.append(SqueezeExcite(cout, cout // spec.se))
        self.branch = nn.Sequential(*branch)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.shortcut = project(spec, cin, cout, stride) if projects else nn.Identity()

    def forward(self, x):
        return F.relu(self.drop_path(self.branch(x)) + self.shortcut(x))


def make_stem(stem: Stem, in_channels: int) -> nn.Sequential:
    cins = (in_channels, *stem.widths[:-1])
    convs = [
        ConvNorm(cin, cout, stem.kernel, stride=2 if i == 0 else 1)
        for i, (cin, cout) in enumerate(zip(cins, stem.widths, strict=True))
    ]
    pool = [nn.MaxPool2D(3, 2, padding=1)] if stem.pool else []
    return nn.Sequential(*convs, *pool)


def spatial(
    spec: ResidualSpec, mid: int, stride: int, groups: int, first: bool
) -> Sequence[nn.Layer]:
    """The layers between a bottleneck's two 1x1 convolutions."""
    assert groups == 1 or (spec.scales == 1 and spec.radix == 0), "only plain 3x3 take groups"
    mean = nn.AvgPool2D(3, stride, padding=1, exclusive=not spec.padding_counts)
    if spec.scales > 1:
        chained = stride == 1 and (spec.first_chains or not first)
        return [HierarchicalConv(mid, stride, spec.scales, chained, mean)]
    if spec.radix:  # strides by pooling, so that the split convolution sees every pixel
        pool = [mean] if stride > 1 else []
        attend = [SplitAttention(mid, spec.radix)]
        return [*pool, *attend] if spec.pool_first else [*attend, *pool]
    return [ConvNorm(mid, mid, 3, stride, groups)]


def project(spec: ResidualSpec, cin: int, cout: int, stride: int) -> nn.Layer:
    if spec.shortcut == "avg" and stride > 1:
        return nn.Sequential(nn.AvgPool2D(2, 2, ceil_mode=True), ConvNorm(cin, cout, 1, act=None))
    return ConvNorm(cin, cout, 1, stride, act=None)

"""The network that an `EfficientNetSpec` describes (arXiv:1905.11946)."""

from functools import partial

from paddle import nn

from ppcls.models.efficientnet_specs import STAGES, EfficientNetSpec
from ppcls.models.layers import ConvNorm, DropPath, SqueezeExcite, classifier

ACTIVATIONS = {"silu": nn.Silu, "relu6": nn.ReLU6}


class EfficientNet(nn.Layer):
    """Stem, seven stages of inverted bottlenecks, 1x1 convolution, mean over the pixels, head."""

    def __init__(self, spec: EfficientNetSpec, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.spec = spec
        conv = conv_norm(spec)
        self.stem = conv(in_channels, spec.stem, 3, 2)
        self.stages = nn.LayerList()
        cin = spec.stem
        total = sum(spec.depths)
        drop_paths = (spec.drop_path * index / total for index in range(total))
        for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            blocks = []
            for i in range(depth):
                stride = STAGES[stage].stride if i == 0 else 1
                blocks.append(InvertedBottleneck(spec, stage, cin, stride, next(drop_paths)))
                cin = width
            self.stages.append(nn.Sequential(*blocks))
        self.expand = conv(cin, spec.head, 1)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = classifier(spec.head, num_classes)

    def features(self, x):
        """What the blocks put out last at strides 2, 4, 8, 16 and 32 (sizes round up).

        Takes float32 images [N, in_channels, H, W]; gives a list of float32 [N, width, h, w], the
        last of which is what the 1x1 convolution before the pooling takes.
        """
        outputs = [self.stem(x)]
        for i, blocks in enumerate(self.stages):
            x = blocks(outputs[-1])
            if STAGES[i].stride == 1:
                outputs.pop()  # x is of the same resolution and comes later
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
        return self.pool(self.expand(features[-1])).flatten(1)

    def logits(self, pooled):
        """Pooled features to logits."""
        return self.head(self.dropout(pooled))


class InvertedBottleneck(nn.Layer):
    """Expand, depthwise, squeeze-excite, project; plus the input where the shapes agree."""

    def __init__(self, spec: EfficientNetSpec, stage: int, cin: int, stride: int, drop_path: float):
        super().__init__()
        conv = conv_norm(spec)
        act = ACTIVATIONS[spec.act]
        cout = spec.widths[stage]
        expand = STAGES[stage].expand
        kernel = STAGES[stage].kernel
        mid = cin * expand
        self.branch = nn.Sequential(
            *([conv(cin, mid, 1)] if expand > 1 else []),
            conv(mid, mid, kernel, stride, groups=mid),
            *([SqueezeExcite(mid, cin // 4, act)] if spec.se else []),
            conv(mid, cout, 1, act=None),
        )
        self.residual = stride == 1 and cin == cout
        self.drop_path = DropPath(drop_path) if self.residual else nn.Identity()

    def forward(self, x):
        y = self.drop_path(self.branch(x))
        return x + y if self.residual else y


def conv_norm(spec: EfficientNetSpec):
    """`ConvNorm` with this network's activation, padding and TensorFlow's batch-norm constants."""
    act = ACTIVATIONS[spec.act]
    return partial(ConvNorm, act=act, padding=spec.padding, momentum=0.99, epsilon=1e-3)

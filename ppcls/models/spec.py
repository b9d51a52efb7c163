"""What a family's file is made of: specs of networks, and how other projects name their layers.

Imports no Paddle: a recipe is checked before Paddle is imported. A spec's `build` imports it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from paddle import nn

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Feature:
    """An output of `features`: what its names begin with, as in "stages.3"; its width; its stride.

    Sides round up: those of images of S pixels are ceil(S / stride).
    """

    name: str
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A network as data; `dataclasses.replace` makes one of one's own."""

    resolution: int = 224  # side of the images the published figures were counted at, pixels
    margin: int = field(default=32, compare=False)  # by which evaluation's short side is longer
    drop_path: float | None = None  # of the last block (arXiv:1603.09382); None: the network's own

    interpolation: ClassVar[str] = "bilinear"  # of the images in evaluation
    # How much of their filled statistics batch norms keep where a benchmark fills the weights, the
    # rest being those of noise images. With all of them, logits hardly depend on the image, and no
    # comparison would notice a wrong layer; with none, rounding errors grow through deep networks
    # beyond any limit.
    kept_statistics: ClassVar[float] = 0.1

    @property
    def grouped(self) -> bool:
        """Whether its spatial convolutions are grouped."""
        return True

    def build(self, num_classes: int, in_channels: int) -> "nn.Layer":
        """The network with fresh weights; of 0 classes it ends in the pooled features.

        It maps float32 images [N, in_channels, H, W] to float32 logits [N, num_classes].
        """
        raise NotImplementedError

    def images(self) -> dict[str, Any]:
        """What images go through before they are evaluated: entries of a `Preprocess`."""
        return {
            "resize": self.resolution + self.margin,
            "crop": self.resolution,
            "interpolation": self.interpolation,
        }


@dataclass(frozen=True, kw_only=True)
class StagedSpec(Spec):
    """Shape of a network of a stem and stages of blocks. Tuples give one entry per stage."""

    depths: tuple[int, ...]  # blocks
    widths: tuple[int, ...]  # channels put out
    drop_path: float = 0.0  # type: ignore[assignment]  # grows linearly with depth from 0

    # Fields that another project's network of the same name may have otherwise, and what they are
    # in words. The tensors' shapes need not tell it: a network built otherwise than by default has
    # a buffer named like the field, so that its weights do, in whatever file they are kept.
    marks: ClassVar[Mapping[str, str]] = {}
    alike: ClassVar[bool] = True  # whether all blocks of a stage but the first cost the same

    @property
    def strides(self) -> tuple[int, ...]:
        """Of each stage's first block."""
        raise NotImplementedError

    @property
    def stem_stride(self) -> int:
        return 2

    @property
    def ends(self) -> tuple[bool, ...]:
        """Whether each stage is the last one of its stride, and so one of `feature_info`."""
        return (*(stride > 1 for stride in self.strides[1:]), True)

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """What `features` gives of the network: what the stages put out last at each stride."""
        found = []
        total = self.stem_stride
        for i, (stride, width) in enumerate(zip(self.strides, self.widths, strict=True)):
            total *= stride
            if self.ends[i]:
                found.append(Feature(f"stages.{i}", width, total))
        return tuple(found)

    def number(self, stage: str, block: str) -> int:
        """The block's number when all stages' blocks are counted through."""
        return sum(self.depths[: int(stage)]) + int(block)

    def built_otherwise(self) -> list[str]:
        """The fields of `marks` that are not as by default."""
        return [name for name in self.marks if getattr(self, name) != getattr(type(self), name)]


def scaled(channels: float, factor: float) -> int:
    """`channels * factor` rounded to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels * factor + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * factor else rounded


# --------------------------------------------------------------------------
# A family, and what other projects call what it is made of


@dataclass(frozen=True)
class Names:
    """How a project names the layers of a family.

    Attributes:
        layer: the path of a layer of ours, split at its dots, and the spec, to the project's name.
        block: a pattern of what a block's tensors start with there; the group, which may be empty:
            its stage.
        built: a spec to that of the project's network; a UserError where it has none.
        bridge: weights of a network that is built otherwise, and its spec, to those with which the
            project's computes the same; None where there are none.
        matrices: endings of the project's names of layers that are fully connected, [in, out], and
            1x1 convolutions here.
        biased: endings of our paths of layers that have a bias there and none here, which the norm
            that follows takes out again.
        order: our order of the project's names to its own.
        rates: names of our parameters, for each entry of PaddleClas's `lr_mult_list`.
        stage: PaddleClas's name of a layer, and the spec, to the stage that ends there: -1 is the
            last. None: its names do not tell.
        arguments: PaddleClas's arguments of its networks, and the values of them that ours have.
        spares_norms: whether PaddleClas builds the network so that no regularizer decays its norms.
    """

    layer: Callable[[list[str], Any], str]
    block: str
    built: Callable[[Any], Any] = lambda spec: spec
    bridge: Callable[[Tensors, Any], Tensors | None] = lambda weights, spec: None
    matrices: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    order: Callable[[Iterable[str]], list[str]] = list
    rates: tuple[str, ...] = ()
    stage: Callable[[str, Any], int | None] = lambda key, spec: None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spares_norms: Callable[[Any], bool] = lambda spec: False


@dataclass(frozen=True)
class Family:
    """All that is said of a family of networks; `FAMILY` of its file.

    Attributes:
        titles: what messages say is here.
        words: what a sentence calls its networks.
        paper: its first one's number at arXiv; families are listed in this order.
        specs: name → spec, all of one class.
        groups: what pages group its networks by → a pattern of their names; the first that matches.
        series: a pattern and what takes its place in names of networks that differ in size alone,
            which a plot joins.
        projects: key of `weights.dialects.DIALECTS` → how that project names its layers.
        convs: paths of some convolutions with a norm: the stem's, and the first ones of some blocks
            that every network of the family has.
        elsewhere: patterns of other projects' names, without capitals and what parts words, and
            the names that they have here, written so.
        paddlex: what PaddleX calls some networks → their names here.
        weights: registered weights beside those of `weights/registry.json`, in its form.
        counted: parameters and multiply-adds beside those of `models/complexity.json`.
    """

    titles: tuple[str, ...]
    words: str
    paper: str
    specs: Mapping[str, StagedSpec]
    groups: Mapping[str, str]
    series: tuple[str, str]
    projects: Mapping[str, Names]
    convs: tuple[str, ...]
    elsewhere: tuple[tuple[str, str], ...] = ()
    paddlex: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    counted: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def released_by_paddleclas(
    accuracies: Mapping[str, Mapping[str, tuple[float, ...]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """A family's `weights` that PaddleClas released together: name → tag → its top-1 and top-5.

    They lie in one folder, each under the network's name; of other tags than "imagenet" with it.
    """
    folder = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models"
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, tags in accuracies.items():
        found[name] = {}
        for tag, values in tags.items():
            file = name if tag == "imagenet" else f"{name}_{tag}"
            facts = {"like": "paddleclas", "url": f"{folder}/{file}_pretrained.pdparams"}
            found[name][tag] = facts | dict(zip(("top1", "top5"), values, strict=False))
    return found


def timm_in_branch(roles: Sequence[str], number: int, kind: str) -> str:
    """What timm calls a layer in the branch of an inverted residual.

    Args:
        roles: of the branch's layers in their order: expand, depthwise, gate, project.
        number: of the layer among them; it is no gate.
        kind: conv or norm.
    """
    parts = [role for role in roles if role != "gate"]
    convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    if len(parts) == 2:  # where nothing is expanded, the one 1x1 is plain
        convs["project"] = "conv_pw"
    role = roles[number]
    return convs[role] if kind == "conv" else f"bn{parts.index(role) + 1}"

"""Tasks: what a model learns (classify, multilabel, distill), and who may teach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ppcls import metrics
from ppcls.config.node import NotNegative, PathText, node, without_kind
from ppcls.losses.distill import KL, WITH_LABELS, DistillLoss, SymmetricKL
from ppcls.losses.labels import AnyLoss, BinaryCrossEntropy, CrossEntropy, MultiLabelLoss
from ppcls.metrics import Meter, MultiLabelMeter, TopKMeter
from ppcls.models.registry import ModelName, Weights

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor

    from ppcls.data.loader import Batch


@node
class Network:
    """A network with its weights, which stay exactly as they are."""

    kind: Literal["network"] = "network"
    name: ModelName  # of `ppcls models`
    weights: Weights  # file, URL, hf://org/name, registered tag; true: the default
    cache: PathText | None = (
        None  # a file of `ppcls teach` with its answers, which then serves for it
    )

    @property
    def features(self) -> bool:
        """Whether its stages' features can be learnt from."""
        return self.cache is None


@node
class Exported:
    """A folder with an exported network, run by an engine of inference."""

    kind: Literal["exported"] = "exported"
    folder: PathText  # an exported model
    engine: str | None = None  # None: Paddle's own, on the run's device
    cache: PathText | None = None  # a file of its answers
    features: ClassVar[bool] = False


@node
class Peer:
    """A second student: each learns from the other as from a teacher (arXiv:1706.00384).

    Both take their step at once, where the paper's algorithm takes turns. It is saved in
    latest.safetensors for --resume, and not evaluated or handed on.
    """

    kind: Literal["peer"] = "peer"
    name: ModelName  # of `ppcls models`
    weights: Weights | None = None  # what it starts from
    features: ClassVar[bool] = True


def named_teacher(value: Any) -> Any:
    """A teacher without a kind is an exported folder where it has one, else a network."""
    if not isinstance(value, dict):
        return value
    return {"kind": "exported" if "folder" in value else "network", **value}


def listed(value: Any) -> Any:
    """One teacher is a list of one."""
    return [value] if isinstance(value, dict | Network | Exported | Peer) else value


Teacher = Annotated[
    Annotated[Network | Exported | Peer, Field(discriminator="kind")],
    BeforeValidator(named_teacher),
]
Teachers = Annotated[tuple[Teacher, ...], BeforeValidator(listed)]


# --------------------------------------------------------------------------
# How answers are judged, and the loss where a recipe does not say which kind it is

OneLabelLoss = Annotated[AnyLoss, without_kind("cross_entropy")]
ManyLabelsLoss = Annotated[MultiLabelLoss, without_kind("bce")]


class OneLabel:
    """An image is of one class: the likeliest is the answer."""

    answers: ClassVar[str] = "classify"  # as an exported network's `task`
    multilabel: ClassVar[bool] = False  # labels per image
    best: ClassVar[metrics.Score] = "top1"  # the score that chooses the best weights
    watched: ClassVar[str] = "top1"  # the score of training steps

    def meter(self, classes: int, thresholds: Sequence[float] = ()) -> Meter:
        return TopKMeter(classes)

    def score_names(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return TopKMeter.score_names(classes)

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each image how right it is, from 0 to 1, [N]; on the device that computed it."""
        return TopKMeter.right(logits, targets)


class ManyLabels:
    """An image has any number of labels, each a yes or no of its own."""

    answers: ClassVar[str] = "multilabel"
    multilabel: ClassVar[bool] = True
    best: ClassVar[metrics.Score] = "map"
    watched: ClassVar[str] = "label_accuracy"

    def meter(self, classes: int, thresholds: Sequence[float] = ()) -> Meter:
        return MultiLabelMeter(thresholds)

    def score_names(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return MultiLabelMeter.score_names()

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each image how right it is, from 0 to 1, [N]; on the device that computed it."""
        return MultiLabelMeter.right(logits, targets)


# --------------------------------------------------------------------------
# The task of learning from a teacher


@node
class Distill(OneLabel):
    """One label per image, learnt from a teacher and, where `labels_weight` is above 0, labels.

    The loss is the sum of `losses`, each times its weight, and of `loss`, against the labels, times
    `labels_weight`. Of several teachers the probabilities are averaged.
    """

    kind: Literal["distill"] = "distill"
    teacher: Teachers  # one, or a list
    losses: tuple[DistillLoss, ...] = (KL(),)  # between student and teacher
    loss: OneLabelLoss = CrossEntropy()  # of the labels
    labels_weight: NotNegative = 0.0  # of `loss`; 0: labels are not looked at

    def __post_init__(self):
        if not (self.teacher and self.losses):
            raise ValueError("give at least one teacher and one of losses")
        if self.peer and (len(self.teacher) > 1 or not self.labels_weight):
            raise ValueError(
                "a peer teaches alone, and two students need labels, too: give one teacher and "
                "labels_weight: 1"
            )
        asking = [loss.kind for loss in self.losses if loss.features]
        able = [node for node in self.teacher if node.features]
        if asking and not len(self.teacher) == len(able) == 1:
            raise ValueError(
                f"{asking[0]} compares features, which one teacher that is a network has: leave "
                "out the loss, or name one network with its weights as the teacher"
            )

    @property
    def peer(self) -> bool:
        """Whether the teacher is a second student."""
        return any(isinstance(teacher, Peer) for teacher in self.teacher)


@node
class DistillMultiLabel(ManyLabels, Distill):
    """Any number of labels per image, learnt from one teacher's logits and from the labels.

    The teacher is a network that gives several labels, too, or a second student.
    """

    kind: Literal["distill_multilabel"] = "distill_multilabel"  # type: ignore[assignment]
    losses: tuple[DistillLoss, ...] = (SymmetricKL(act="sigmoid"),)
    loss: ManyLabelsLoss = BinaryCrossEntropy()  # type: ignore[assignment]

    def __post_init__(self):
        Distill.__post_init__(self)
        needy = [loss.kind for loss in self.losses if isinstance(loss, WITH_LABELS)]
        if needy:
            raise ValueError(f"{needy[0]} needs one label an image: another of losses")
        (first, *others) = self.teacher
        network = isinstance(first, Network) and not first.cache
        if others or not (network or self.peer):
            raise ValueError(
                "of several labels one network teaches as it runs, or a peer: give task.teacher "
                "one {name, weights} without a cache, or {kind: peer, name}"
            )


# --------------------------------------------------------------------------
# What a training step computes, and what evaluation counts

# Images, targets, and the batch that they are of -> loss, logits
Step = Callable[["Tensor", "Tensor", "Batch"], "tuple[Tensor, Tensor]"]


@node
class Classify(OneLabel):
    """One label per image, learnt from the labels alone."""

    kind: Literal["classify"] = "classify"
    loss: OneLabelLoss = CrossEntropy()  # what is learnt by

    def build(
        self, network: Callable[[Tensor], Tensor], counts: Sequence[int] = (), images: int = 0
    ) -> Step:
        """The function from images uint8 [N, H, W, C] and targets to loss and logits.

        Targets are labels int64 [N] or shares float [N, classes]; `counts`: how many images of each
        class there are, of `images`.
        """
        return step_of(self.loss.build(counts, images) if counts else self.loss, network)


@node
class MultiLabel(ManyLabels):
    """Any number of labels per image, each a yes or no of its own."""

    kind: Literal["multilabel"] = "multilabel"
    loss: ManyLabelsLoss = BinaryCrossEntropy()  # what is learnt by

    def build(
        self, network: Callable[[Tensor], Tensor], counts: Sequence[int] = (), images: int = 0
    ) -> Step:
        """As of `Classify`; targets are 0 and 1, or between where images were mixed."""
        return step_of(self.loss.build(counts, images) if counts else self.loss, network)


def step_of(loss: AnyLoss, network: Callable[[Tensor], Tensor]) -> Step:
    def step(images: Tensor, targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(images)
        return loss(logits, targets), logits

    return step


Task = Annotated[
    Annotated[Classify | MultiLabel | Distill | DistillMultiLabel, Field(discriminator="kind")],
    without_kind("classify"),
]

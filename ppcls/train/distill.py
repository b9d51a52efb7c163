"""What a step of distillation computes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.api import create_model
from ppcls.losses.distill import Compare, Seen
from ppcls.losses.distill_layers import build
from ppcls.models.layers import Normalize
from ppcls.recipe import Recipe
from ppcls.tasks import Distill, Peer, Step
from ppcls.train.setup import Datasets
from ppcls.train.step import Precision
from ppcls.train.teachers import AnyTeacher, NetworkTeacher, open_teacher
from ppcls.utils.errors import UserError

# Images uint8 [N, H, W, C] to logits float32 [N, classes] and the features of the stages.
Look = Callable[[Tensor], tuple[Tensor, Sequence[Tensor]]]
# Images, and which photos of the data set they are (int64 [N]), to what teachers make of them.
Guide = Callable[[Tensor, np.ndarray], Seen]


def looking(network: nn.Sequential, features: bool) -> Look:
    """How `Normalize` and a network after it look at photos; without `features` they are ()."""
    normalize, net = network

    def look(images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        found = net.features(normalize(images))
        return net.classify(found), found if features else ()

    return look


def widths(net: nn.Layer, channels: int) -> list[int]:
    """The width of each stage; no statistics move."""
    training = net.training
    net.eval()
    with paddle.no_grad():
        found = [feature.shape[1] for feature in net.features(paddle.zeros([1, channels, 32, 32]))]
    if training:
        net.train()
    return found


def together(guides: Sequence[Guide]) -> Guide:
    """Several teachers as one, whose probabilities are the mean of theirs."""
    if len(guides) == 1:
        return guides[0]

    def guide(images: Tensor, indices: np.ndarray) -> Seen:
        logs = [F.log_softmax(each(images, indices).logits, axis=-1) for each in guides]
        return Seen(paddle.stack(logs).logsumexp(axis=0) - math.log(len(logs)))

    return guide


class Learning:
    """The step of one student and its teachers."""

    def __init__(self, task: Distill, student: Look, guide: Guide, compared: Sequence[Compare]):
        self.task, self.student, self.guide, self.compared = task, student, guide, compared

    def __call__(
        self, images: Tensor, targets: Tensor, indices: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        own = Seen(*self.student(images))
        with paddle.no_grad():
            guide = self.guide(images, indices)
        return lesson_of(self.task, self.compared, own, guide, targets), own.logits


class Mutual:
    """The step of two students, each the other's teacher; the logits are the first one's.

    `compared`: the losses of the first student, and those of the second, its peer.
    """

    def __init__(
        self,
        task: Distill,
        students: tuple[Look, Look],
        compared: tuple[Sequence[Compare], Sequence[Compare]],
    ):
        self.task, self.students, self.compared = task, students, compared

    def __call__(
        self, images: Tensor, targets: Tensor, indices: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        first, second = (Seen(*student(images)) for student in self.students)
        own, others = self.compared
        loss = lesson_of(self.task, own, first, second.detached(), targets)
        loss = loss + lesson_of(self.task, others, second, first.detached(), targets)
        return loss, first.logits


def lesson_of(
    task: Distill, compared: Sequence[Compare], own: Seen, guide: Seen, targets: Tensor
) -> Tensor:
    """The loss of one student."""
    terms = [
        loss.weight * compare(own, guide, targets)
        for loss, compare in zip(task.losses, compared, strict=True)
    ]
    if task.labels_weight:
        terms.append(task.labels_weight * where_known(task.loss, own.logits, targets))
    return paddle.add_n(terms)


def where_known(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor
) -> Tensor:
    """A loss over all photos, to which those without labels (-1) add nothing."""
    if targets.ndim > 1 or not bool((targets < 0).any()):
        return loss(logits, targets)
    rows = paddle.nonzero(targets >= 0).flatten()
    if not len(rows):
        return 0 * logits.sum()
    share = len(rows) / len(targets) if getattr(loss, "reduction", "mean") == "mean" else 1.0
    return loss(logits[rows], targets[rows]) * share


# --------------------------------------------------------------------------
# What a run's network learns from: its task's step, and whatever teaches or trains beside it


@dataclass
class Objective:
    """The step; `layers`, which train and are saved beside the network; teachers, which do not."""

    step: Step
    layers: nn.LayerList = field(default_factory=nn.LayerList)
    teachers: Sequence[AnyTeacher] = ()
    peer: str = ""  # the name of a second student's network

    def __post_init__(self):
        self.digests = [teacher.digest() for teacher in self.teachers]

    def about(self) -> list[str]:
        """A line on each teacher."""
        lines = [f"teacher {teacher.name}, {teacher.source}" for teacher in self.teachers]
        return [*lines, f"{self.peer} trains beside it"] if self.peer else lines

    def take(self, digests: Sequence[str]) -> None:
        """UserError unless these are the teachers that the run began with."""
        for teacher, now, before in zip(self.teachers, self.digests, digests, strict=True):
            if now != before:
                raise UserError(
                    f"task.teacher: {teacher.source} is not what it was when the run began: put "
                    "the earlier file back, or start a new run"
                )

    def check(self) -> None:
        """Teachers are what they were when the run began, to the bit."""
        for teacher, digest in zip(self.teachers, self.digests, strict=True):
            assert teacher.digest() == digest, f"the teacher {teacher.source} changed in the run"


def lesson(
    recipe: Recipe, inputs: Datasets, network: nn.Sequential, precision: Precision
) -> Objective:
    """The lesson of a recipe for its network, which has its `Normalize` before it.

    Raises:
        UserError: a teacher that cannot be had or does not fit.
    """
    classes = recipe.model.num_classes or 0
    task = recipe.task.prepared(inputs.train.counts(classes).tolist())
    if not isinstance(task, Distill):
        return Objective(task.build(precision.around(network)))
    features = any(loss.features for loss in task.losses)
    if isinstance(task.teacher[0], Peer):
        return mutual(recipe, task, task.teacher[0], network, precision)
    nodes = [node for node in task.teacher if not isinstance(node, Peer)]
    teachers = [open_teacher(node, recipe, inputs, precision, features) for node in nodes]
    net = teachers[0].net if isinstance(teachers[0], NetworkTeacher) else None
    compared = comparisons(task, network[1], net, recipe.model.in_channels)
    look = precision.around(looking(network, features))
    step = Learning(task, look, together(teachers), compared)
    return Objective(step, with_layers(compared), teachers)


def mutual(
    recipe: Recipe, task: Distill, node: Peer, network: nn.Sequential, precision: Precision
) -> Objective:
    """The lesson of two students, the second of which is built here."""
    model, features = recipe.model, any(loss.features for loss in task.losses)
    peer = create_model(
        node.name, model.num_classes or 0, node.weights, in_channels=model.in_channels
    )
    if recipe.train.sync_norms:
        peer = nn.SyncBatchNorm.convert_sync_batchnorm(peer)
    pair = network, Normalize.before(peer, recipe.preprocess.scale, recipe.preprocess.offset)
    looks = [precision.around(looking(each, features)) for each in pair]
    own = comparisons(task, network[1], peer, model.in_channels)
    others = comparisons(task, peer, network[1], model.in_channels)
    step = Mutual(task, (looks[0], looks[1]), (own, others))
    return Objective(step, nn.LayerList([peer, *with_layers([*own, *others])]), peer=node.name)


def comparisons(
    task: Distill, student: nn.Layer, teacher: nn.Layer | None, channels: int
) -> list[Compare]:
    """The losses of a task for one student and its teacher, None for one without features."""
    asked = any(loss.features for loss in task.losses)
    own, guide = (widths(net, channels) if asked and net else [] for net in (student, teacher))
    return [build(loss, own, guide) for loss in task.losses]


def with_layers(compared: Sequence[Compare]) -> nn.LayerList:
    """The losses that train, too."""
    return nn.LayerList([each for each in compared if isinstance(each, nn.Layer)])

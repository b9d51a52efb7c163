"""What a step of distillation computes, and what it is made of."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.api import create_model
from ppcls.data.loader import Batch
from ppcls.losses.distill import Compare, Outputs
from ppcls.losses.distill_layers import build
from ppcls.models.layers import Normalize
from ppcls.tasks import Distill, Peer
from ppcls.train.step import Objective, Precision
from ppcls.train.teachers import Forward, NetworkTeacher, Student, open_teacher, with_features
from ppcls.utils.device import on_device

# Images, and which images of the data set they are (int64 [N]), to what teachers make of them.
Guide = Callable[[Tensor, np.ndarray], Outputs]
# Logits and targets to a loss.
LabelsLoss = Callable[[Tensor, Tensor], Tensor]


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

    def guide(images: Tensor, indices: np.ndarray) -> Outputs:
        logs = [F.log_softmax(each(images, indices).logits, axis=-1) for each in guides]
        return Outputs(paddle.stack(logs).logsumexp(axis=0) - math.log(len(logs)))

    return guide


class Learning:
    """The step of one student and its teachers.

    `labels_loss`: the task's own, where the labels count.
    """

    def __init__(
        self,
        task: Distill,
        student: Forward,
        guide: Guide,
        compared: Sequence[Compare],
        labels_loss: LabelsLoss | None = None,
    ):
        self.student = student
        self.guide = guide
        self.loss = StudentLoss(task, compared, labels_loss)

    def __call__(self, images: Tensor, targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        own = Outputs(*self.student(images))
        with paddle.no_grad():
            guide = self.guide(images, batch.indices)
        return self.loss(own, guide, targets, batch.known), own.logits


class Mutual:
    """The step of two students, each the other's teacher; the logits are the first one's.

    `compared`: the losses of the first student, and those of the second, its peer.
    """

    def __init__(
        self,
        task: Distill,
        students: tuple[Forward, Forward],
        compared: tuple[Sequence[Compare], Sequence[Compare]],
        labels_loss: LabelsLoss | None = None,
    ):
        self.students = students
        self.losses = [StudentLoss(task, each, labels_loss) for each in compared]

    def __call__(self, images: Tensor, targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        known = batch.known
        first, second = (Outputs(*student(images)) for student in self.students)
        own, others = self.losses
        loss = own(first, second.detached(), targets, known)
        loss = loss + others(second, first.detached(), targets, known)
        return loss, first.logits


class StudentLoss:
    """The loss of one student: of what it and its teacher see, and of the labels."""

    def __init__(
        self, task: Distill, compared: Sequence[Compare], labels_loss: LabelsLoss | None = None
    ):
        self.compared = [(one.weight, c) for one, c in zip(task.losses, compared, strict=True)]
        self.labels_loss = labels_loss or task.loss
        self.labels_weight = task.labels_weight

    def __call__(self, own: Outputs, guide: Outputs, targets: Tensor, known: np.ndarray) -> Tensor:
        """`known`: which images have labels, int64 [K]."""
        terms = [weight * compare(own, guide, targets) for weight, compare in self.compared]
        if self.labels_weight:
            loss = where_known(self.labels_loss, own.logits, targets, known)
            terms.append(self.labels_weight * loss)
        return paddle.add_n(terms)


def where_known(loss: LabelsLoss, logits: Tensor, targets: Tensor, known: np.ndarray) -> Tensor:
    """A loss over all images, to which those without labels add nothing.

    Args:
        known: the images with labels, int64 [K]: known to the host, so that no device is asked.
    """
    if targets.ndim > 1 or len(known) == len(targets):
        return loss(logits, targets)
    if not len(known):
        return 0 * logits.sum()
    rows = on_device(known)
    share = len(rows) / len(targets) if getattr(loss, "reduction", "mean") == "mean" else 1.0
    return loss(logits[rows], targets[rows]) * share


# --------------------------------------------------------------------------
# What a run's network learns from: its task's step, and whatever teaches or trains beside it


def distill_objective(
    task: Distill,
    network: nn.Sequential,
    student: Student,
    precision: Precision,
    counts: Sequence[int],
    synced: bool = False,
    images: int = 0,
) -> Objective:
    """What a student learns from its teachers, which are opened here, or from its peer.

    Args:
        network: the student's `Normalize` and model.
        student: what teachers have to fit.
        counts: how many images of each class there are.
        images: how many there are with labels.
        synced: convert a peer's batch norms, too, to synchronised ones.

    Raises:
        UserError: a teacher that cannot be had or does not fit.
    """
    features = any(loss.features for loss in task.losses)
    labels_loss = task.loss.build(counts, images) if task.labels_weight else None
    forward = precision.around(with_features(network, features))
    if isinstance(task.teacher[0], Peer):
        node = task.teacher[0]
        peer = create_model(node.name, student.classes, node.weights, in_channels=student.channels)
        if synced:
            peer = nn.SyncBatchNorm.convert_sync_batchnorm(peer)
        scale = student.preprocess.scale
        offset = student.preprocess.offset
        other = precision.around(with_features(Normalize.before(peer, scale, offset), features))
        own = comparisons(task, network[1], peer, student.channels)
        others = comparisons(task, peer, network[1], student.channels)
        step = Mutual(task, (forward, other), (own, others), labels_loss)
        return Objective(step, nn.LayerList([peer, *trained([*own, *others])]), peer=node.name)
    nodes = [node for node in task.teacher if not isinstance(node, Peer)]
    teachers = [open_teacher(node, student, precision, features) for node in nodes]
    net = teachers[0].net if isinstance(teachers[0], NetworkTeacher) else None
    compared = comparisons(task, network[1], net, student.channels)
    step = Learning(task, forward, together(teachers), compared, labels_loss)
    return Objective(step, nn.LayerList(trained(compared)), teachers)


def comparisons(
    task: Distill, student: nn.Layer, teacher: nn.Layer | None, channels: int
) -> list[Compare]:
    """The losses of a task for one student and its teacher, None for one without features."""
    asked = any(loss.features for loss in task.losses)
    own, guide = (widths(net, channels) if asked and net else [] for net in (student, teacher))
    return [build(loss, own, guide) for loss in task.losses]


def trained(compared: Sequence[Compare]) -> list[nn.Layer]:
    """The losses that train, too."""
    return [each for each in compared if isinstance(each, nn.Layer)]

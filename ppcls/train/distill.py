"""What a step of distillation computes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.losses.distill import Compare, Seen
from ppcls.tasks import Distill

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

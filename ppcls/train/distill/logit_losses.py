"""Losses between the logits of a student and of its teacher, each the mean over the photos.

z are the student's logits and t the teacher's, p and q their softmax, T a temperature that divides
the logits before it. Where there is a T, the loss is multiplied by T ** 2, so that its gradients
keep their size (arXiv:1503.02531, section 2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from ppcls.config.node import NotNegative, Positive, node
from ppcls.train.distill.seen import Seen
from ppcls.train.losses import TINY, shares_of

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor

HIDDEN = 1000.0  # subtracted from a logit, leaves its class without any probability
LEAST = 1e-12  # added to probabilities before their logarithms, as PaddleClas does


@node
class SoftCrossEntropy:
    """-sum q log p (arXiv:1503.02531); least, but not 0, where p equals q."""

    kind: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        return soft_cross_entropy(student.logits, teacher.logits, self.temperature).mean()


@node
class KL:
    """KL(q || p) = sum q (log q - log p): soft cross entropy less its least value."""

    kind: Literal["kl"] = "kl"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        return softened_kl(student.logits, teacher.logits, self.temperature).mean()


@node
class JS:
    """Jensen-Shannon divergence, (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2.

    What the paper of SSLD writes (arXiv:2103.05959); its code is `symmetric_kl`.
    """

    kind: Literal["js"] = "js"
    weight: NotNegative = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        import paddle
        from paddle.nn import functional as F

        logs = [F.log_softmax(seen.logits, axis=-1) for seen in (student, teacher)]
        middle = paddle.stack(logs).logsumexp(axis=0) - math.log(2)
        terms = [log.exp() * (log - middle) for log in logs]
        return (terms[0] + terms[1]).sum(-1).mean() / 2


@node
class SymmetricKL:
    """(KL(p || q) + KL(q || p)) / 2: what the code of SSLD learns by, and of PaddleClas's DML.

    Where networks agree about 4 times the Jensen-Shannon divergence; without bound where they
    do not. `act` sigmoid: p and q of each class by the logistic function, as several labels ask
    for, of which PaddleClas takes the terms of yes alone. Probabilities count as at least 1e-12.
    """

    kind: Literal["symmetric_kl"] = "symmetric_kl"
    weight: NotNegative = 1.0
    act: Literal["softmax", "sigmoid"] = "softmax"
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        act = F.sigmoid if self.act == "sigmoid" else F.softmax
        p, q = act(student.logits), act(teacher.logits)
        return ((p - q) * ((p + LEAST).log() - (q + LEAST).log())).sum(-1).mean() / 2


@node
class DKD:
    """Decoupled: `target` * KL of (q_y, 1 - q_y) + `others` * KL of what is left without class y.

    arXiv:2203.08679, whose alpha and beta these are; `others` should grow with the teacher's
    certainty. y is the label, of a mixed photo the class with the largest share.
    """

    kind: Literal["dkd"] = "dkd"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    target: NotNegative = 1.0
    others: NotNegative = 0.5  # the paper's for ImageNet with temperature 1
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        import paddle
        from paddle.nn import functional as F

        z, t = student.logits / self.temperature, teacher.logits / self.temperature
        labels = targets if targets.ndim == 1 else targets.argmax(axis=-1)
        own = F.one_hot(labels, z.shape[-1]).astype(z.dtype)
        split = []
        for logits in (z, t):
            label = (own * F.log_softmax(logits, axis=-1)).sum(-1)
            rest = (logits - HIDDEN * own).logsumexp(axis=-1) - logits.logsumexp(axis=-1)
            split.append(paddle.stack([label, rest], axis=-1))
        target = kl(*split)
        others = kl(*(F.log_softmax(logits - HIDDEN * own, axis=-1) for logits in (z, t)))
        return self.temperature**2 * (self.target * target + self.others * others).mean()


@node
class WSL:
    """Soft cross entropy of each photo times 1 - exp(-CE(p, y) / CE(q, y)) (arXiv:2102.00650).

    A photo counts less the better the student knows its label already. The factor is taken
    without temperature, and as a constant: no gradient flows through it.
    """

    kind: Literal["wsl"] = "wsl"
    weight: NotNegative = 1.0
    temperature: Positive = 2.0
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        shares = shares_of(targets, student.logits)
        own, guide = (
            -(shares * F.log_softmax(seen.logits.detach(), axis=-1)).sum(-1)
            for seen in (student, teacher)
        )
        factor = 1 - (-own / guide.clip(min=TINY)).exp()
        each = soft_cross_entropy(student.logits, teacher.logits, self.temperature)
        return (factor * each).mean()


@node
class SKD:
    """KL of logits on one sphere: centred, divided by their length, times the same `length`.

    Spherical distillation (arXiv:2010.07485): what the student is to learn is the direction of the
    teacher's logits, not its confidence. `length` None: the mean length of the teacher's centred
    logits in the batch. The authors' code has a fixed 2 * sqrt(classes), as has PaddleClas, which
    adds a cross entropy; here that is the task's own.
    """

    kind: Literal["skd"] = "skd"
    weight: NotNegative = 1.0
    temperature: Positive = 4.0
    length: Positive | None = None
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        (z, _), (t, lengths) = (direction(seen.logits) for seen in (student, teacher))
        length = self.length or lengths.mean()
        return softened_kl(z * length, t * length, self.temperature).mean()


def kl(logs: Tensor, guide: Tensor) -> Tensor:
    """KL(guide || own) [N] of log probabilities [N, classes]."""
    return (guide.exp() * (guide - logs)).sum(-1)


def softened_kl(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """T ** 2 * KL(q || p) [N] of logits [N, classes]."""
    from paddle.nn import functional as F

    logs = (F.log_softmax(logits / temperature, axis=-1) for logits in (z, t))
    return temperature**2 * kl(*logs)


def soft_cross_entropy(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """T ** 2 * -sum q log p [N] of logits [N, classes]."""
    from paddle.nn import functional as F

    shares = F.softmax(t / temperature, axis=-1)
    return -(temperature**2) * (shares * F.log_softmax(z / temperature, axis=-1)).sum(-1)


def direction(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their means as vectors of length 1, and how long they were, [N, 1].

    A row of equal numbers has no direction: it becomes 0, and its gradient, too.
    """
    centred = rows - rows.mean(axis=-1, keepdim=True)
    return unit(centred)


def unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors along the last axis at length 1, and how long they were, [..., 1]; 0 stays 0."""
    lengths = rows.square().sum(axis=-1, keepdim=True).clip(min=TINY**2).sqrt()
    return rows / lengths, lengths

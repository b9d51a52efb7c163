"""Losses between student and teacher, as a recipe names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ppcls.config.node import NotNegative, Positive, Side, Times, node
from ppcls.config.own import OrOwn, Own
from ppcls.losses.labels import TINY, shares_of

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


@dataclass(frozen=True)
class Outputs:
    """A network's answers to a batch.

    Attributes:
        logits: float32 [N, classes].
        features: of its stages, each float32 [N, width, h, w], the last stage last; () where no
            loss asks for them.
    """

    logits: Tensor
    features: Sequence[Tensor] = ()

    def detached(self) -> Outputs:
        """The same numbers, through which no gradient flows."""
        return Outputs(self.logits.detach(), [feature.detach() for feature in self.features])


# Student, teacher, targets -> loss. Targets are labels int64 [N] or shares float [N, classes].
Compare = Callable[[Outputs, Outputs, "Tensor"], "Tensor"]


# --------------------------------------------------------------------------
# Losses between the logits of a student and of its teacher, each the mean over the images

HIDDEN = 1000.0  # subtracted from a logit, leaves its class without any probability
LEAST = 1e-12  # added to probabilities before their logarithms, as PaddleClas does


@node
class SoftCrossEntropy:
    """-sum q log p (arXiv:1503.02531); least, but not 0, where p equals q."""

    kind: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        return soft_cross_entropy(student.logits, teacher.logits, self.temperature).mean()


@node
class KL:
    """KL(q || p) = sum q (log q - log p): soft cross entropy less its least value."""

    kind: Literal["kl"] = "kl"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        return softened_kl(student.logits, teacher.logits, self.temperature).mean()


@node
class JS:
    """Jensen-Shannon divergence, (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2.

    What the paper of SSLD writes (arXiv:2103.05959); its code is `symmetric_kl`.
    """

    kind: Literal["js"] = "js"
    weight: NotNegative = 1.0
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
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

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        act = F.sigmoid if self.act == "sigmoid" else F.softmax
        p = act(student.logits)
        q = act(teacher.logits)
        return ((p - q) * ((p + LEAST).log() - (q + LEAST).log())).sum(-1).mean() / 2


@node
class DKD:
    """Decoupled: `target` * KL of (q_y, 1 - q_y) + `others` * KL of what is left without class y.

    arXiv:2203.08679, whose alpha and beta these are; `others` should grow with the teacher's
    certainty. y is the label, of a mixed image the class with the largest share.
    """

    kind: Literal["dkd"] = "dkd"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    target: NotNegative = 1.0  # weight of the part that is about the right class
    others: NotNegative = 0.5  # the paper's for ImageNet with temperature 1
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        import paddle
        from paddle.nn import functional as F

        z = student.logits / self.temperature
        t = teacher.logits / self.temperature
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
    """Soft cross entropy of each image times 1 - exp(-CE(p, y) / CE(q, y)) (arXiv:2102.00650).

    An image counts less the better the student knows its label already. The factor is taken
    without temperature, and as a constant: no gradient flows through it.
    """

    kind: Literal["wsl"] = "wsl"
    weight: NotNegative = 1.0
    temperature: Positive = 2.0
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
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

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
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


# --------------------------------------------------------------------------
# Losses between relations: of classes in an image and images in a batch


@node
class DIST:
    """1 - Pearson correlation of student's and teacher's probabilities (arXiv:2205.10536).

    `inter` times its mean over the images (between classes) + `intra` times its mean over the
    classes (between images), times temperature ** 2. PaddleClas has no temperature and both 1.
    """

    kind: Literal["dist"] = "dist"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    inter: NotNegative = 2.0
    intra: NotNegative = 2.0
    features: ClassVar[bool] = False

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        p, q = (F.softmax(seen.logits / self.temperature, -1) for seen in (student, teacher))
        inter = 1 - correlations(p, q).mean()
        intra = 1 - correlations(p.T, q.T).mean()
        return self.temperature**2 * (self.inter * inter + self.intra * intra)


@node
class RKD:
    """Huber loss between distances of images and between angles of three (arXiv:1904.05068).

    An image is the mean over the pixels of its last stage. Distances are divided by their mean over
    the pairs of the batch (PaddleClas: over the diagonal, too). Both terms are means over all pairs
    and triplets, as in the authors' code, where the paper has sums.
    """

    kind: Literal["rkd"] = "rkd"
    weight: NotNegative = 1.0
    distance: NotNegative = 1.0
    angle: NotNegative = 2.0  # the paper weighs them 25 and 50
    features: ClassVar[bool] = True

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        own, guide = (between(pooled(seen.features[-1])) for seen in (student, teacher))
        distance = F.smooth_l1_loss(own[0], guide[0])
        return self.distance * distance + self.angle * F.smooth_l1_loss(own[1], guide[1])


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, of each row of a with that of b; 0 where a row has equal numbers."""
    return (direction(a)[0] * direction(b)[0]).sum(-1)


def pooled(feature: Tensor) -> Tensor:
    """The mean over the pixels: [N, width, h, w] to [N, width]."""
    return feature.mean(axis=[2, 3])


def between(images: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [N, N] over their mean, and cosines [N, N, N] at the first image of each three."""
    import paddle

    count = images.shape[0]
    differences = images.unsqueeze(0) - images.unsqueeze(1)
    directions, lengths = unit(differences)
    distances = lengths.squeeze(-1) * (1 - paddle.eye(count, dtype=images.dtype))
    mean = (distances.sum() / max(1, count * (count - 1))).clip(min=TINY)
    return distances / mean, directions.matmul(directions, transpose_y=True)


# --------------------------------------------------------------------------
# Losses between the features of stages, made with layers that train beside the student

Stage = Annotated[int, Field(strict=True, le=-1)]
Widths = Sequence[int]  # of the stages, the last one last


@node
class FeatureL2:
    """Half the squared distance of a stage's features (FitNets, arXiv:1412.6550, equation 3).

    The sum over channels and pixels, as in the paper. Where the widths differ, a 1x1 convolution
    takes the student's to the teacher's.
    """

    kind: Literal["feature_l2"] = "feature_l2"
    weight: NotNegative = 1.0
    stage: Stage = -2  # FitNets takes its hints in the middle
    features: ClassVar[bool] = True


@node
class MGD:
    """Squared distance of the teacher's features and those generated from masked ones of the
    student (arXiv:2205.01529): two 3x3 convolutions with a ReLU between.

    The sum over channels and pixels. `masked` is the share of pixels that are hidden, drawn for
    each image and step; the authors' code for classification, and PaddleClas, hide channels.
    """

    kind: Literal["mgd"] = "mgd"
    weight: NotNegative = 7e-5
    stage: Stage = -1
    masked: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.15
    features: ClassVar[bool] = True


@node
class PEFD:
    """1 - cosine of the teacher's last features and a mean of projections of the student's.

    arXiv:2210.15274. Features are means over the pixels; a projection is linear with a ReLU.
    """

    kind: Literal["pefd"] = "pefd"
    weight: NotNegative = 25.0
    projectors: Times = 3
    features: ClassVar[bool] = True


@node
class AFD:
    """Distances of all pairs of stages, weighed by attention that is learnt (arXiv:2102.02973).

    A stage is its map of mean squares over the channels at length 1, the student's resized to the
    teacher's. The squared distance is a sum over the pixels, where the authors' code and
    PaddleClas take the mean.
    """

    kind: Literal["afd"] = "afd"
    weight: NotNegative = 1.0
    width: Side = 128  # of queries and keys
    features: ClassVar[bool] = True


# --------------------------------------------------------------------------
# The losses between two networks that a recipe may name


@dataclass(frozen=True)
class OwnDistillLoss(Own):
    """A loss of one's own between logits: called as `loss(student, teacher)`, float32
    [N, classes] each, it gives the mean over the images. `weight` multiplies it.
    """

    called: ClassVar[str] = "a loss, called as loss(student, teacher)"
    supplied: ClassVar[int] = 2
    beside: ClassVar[Mapping[str, Any]] = {"weight": NotNegative}
    features: ClassVar[bool] = False

    @property
    def weight(self) -> float:
        return self.options.get("weight", getattr(self.part, "weight", 1.0))

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        return self.run(student.logits, teacher.logits)


DistillLoss = Annotated[
    SoftCrossEntropy
    | KL
    | JS
    | SymmetricKL
    | DKD
    | WSL
    | SKD
    | DIST
    | RKD
    | FeatureL2
    | MGD
    | PEFD
    | AFD,
    Field(discriminator="kind"),
    OrOwn(OwnDistillLoss),
]


WITH_LABELS = (DKD, WSL)  # of every image

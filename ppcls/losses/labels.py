"""Losses: logits and targets to one number, the mean over the images of a batch.

Targets are int64 labels [N], or float [N, classes]: shares of each class, as mixing images makes
them, or the 0 and 1 of many labels at once. Every image counts alike whatever batch it is in, so
that parts of a batch add up to the whole; but for `asymmetric`, a sum by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ppcls.config.node import Flag, NotNegative, Share, node
from ppcls.config.own import OrOwn, Own
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


TINY = 1e-8  # keeps powers and logarithms away from 0, where their slopes are infinite


def one_of_two(value: Any) -> Any:
    numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    if value is None or value == "balanced" or numbers:
        return value
    raise ValueError("should be balanced or a list of numbers, one for each class")


Weights = tuple[NotNegative, ...] | Literal["balanced"]  # of the classes
SomeWeights = Annotated[Weights | None, BeforeValidator(one_of_two)]


def counted_or_shares(value: Any) -> Any:
    numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    if value is None or value == "counted" or numbers:
        return value
    raise ValueError("should be counted or a list of shares from 0 to 1, one for each class")


Frequencies = Annotated[
    tuple[Share, ...] | Literal["counted"] | None, BeforeValidator(counted_or_shares)
]


@node
class CrossEntropy:
    """Softmax cross entropy; `smoothing` spreads that share of the target over all classes.

    Smoothing as in arXiv:1512.00567: (1 - s) * target + s / classes, for mixed targets, too.
    `weights` multiply each class's term; "balanced": images / (classes * images of the class).
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    smoothing: Share = 0.0  # share of a target that all classes get
    weights: SomeWeights = None  # of classes: a list, or balanced

    def build(self, counts: Sequence[int] = (), images: int = 0) -> CrossEntropy:
        """The loss for training data with so many images of each class."""
        return replace(self, weights=class_weights(self.weights, counts))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images of float32 logits [N, classes] against targets."""
        from paddle.nn import functional as F

        if targets.ndim == 1 and self.weights is None:  # without a table of shares
            hard = F.cross_entropy(logits, targets)
            if not self.smoothing:
                return hard
            uniform = -F.log_softmax(logits, axis=-1).mean()
            return (1 - self.smoothing) * hard + self.smoothing * uniform
        shares = smooth(shares_of(targets, logits), self.smoothing)
        return weighted(-shares * F.log_softmax(logits, axis=-1), self.weights).sum(-1).mean()


@node
class Focal:
    """Cross entropy times (1 - p) ** gamma, which counts what is known less (arXiv:1708.02002).

    With the softmax's p; for independent labels: asymmetric with both gammas equal and clip 0.
    """

    kind: Literal["focal"] = "focal"
    gamma: NotNegative = 2.0  # how much less what is known counts
    smoothing: Share = 0.0
    weights: SomeWeights = None  # the paper's alpha

    def build(self, counts: Sequence[int] = (), images: int = 0) -> Focal:
        """The loss for training data with so many images of each class."""
        return replace(self, weights=class_weights(self.weights, counts))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images of float32 logits [N, classes] against targets."""
        from paddle.nn import functional as F

        shares = smooth(shares_of(targets, logits), self.smoothing)
        logs = F.log_softmax(logits, axis=-1)
        doubt = (1 - logs.exp()).clip(min=TINY) ** self.gamma
        return weighted(-shares * doubt * logs, self.weights).sum(-1).mean()


@node
class BinaryCrossEntropy:
    """Every class a yes or no of its own, by the logistic function.

    For one label an image as in arXiv:2110.00476, where shares above `threshold` count as yes.
    With `frequencies` f, the share of images that each class has, a yes counts e ** (1 - f) and a
    no e ** f, the rarer answer more (DeepMAR, doi:10.1109/ACPR.2015.7486476, with its sigma 1).
    """

    kind: Literal["bce"] = "bce"
    smoothing: Share = 0.0  # for one label an image, as in cross_entropy; after the threshold
    threshold: Share | None = None  # shares above it are a yes; null: as they are
    frequencies: Frequencies = None  # of the classes: a list, or as in the training data: counted
    reduction: Literal["mean", "sum"] = "mean"  # over the classes; over the images the mean

    def build(self, counts: Sequence[int] = (), images: int = 0) -> BinaryCrossEntropy:
        """The loss for so many images, so many of them of each class.

        Raises:
            UserError: another number of frequencies than classes.
        """
        if self.frequencies is None:
            return self
        if self.frequencies == "counted":
            return replace(self, frequencies=tuple(count / max(images, 1) for count in counts))
        if len(self.frequencies) != len(counts):
            raise UserError(
                f"task.loss.frequencies: {plural(len(self.frequencies), 'number')} for "
                f"{plural(len(counts), 'class')}: give one for each, or counted"
            )
        return self

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over images and classes of float32 logits [N, classes] against targets."""
        import paddle
        from paddle.nn import functional as F

        shares = shares_of(targets, logits)
        if self.threshold is not None:
            shares = (shares > self.threshold).astype(logits.dtype)
        smoothed = smooth(shares, self.smoothing)
        if self.frequencies is None and self.reduction == "mean":
            return F.binary_cross_entropy_with_logits(logits, smoothed)
        terms = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        if self.frequencies is not None:
            assert self.frequencies != "counted", "a loss is built before it is called"
            shares_of_yes = paddle.to_tensor(self.frequencies, dtype=terms.dtype)
            terms = terms * paddle.where(shares > 0.5, 1 - shares_of_yes, shares_of_yes).exp()
        return (terms.sum(-1) if self.reduction == "sum" else terms.mean(-1)).mean()


@node
class Asymmetric:
    """Logistic loss of many labels whose easy negatives count less (arXiv:2009.14119).

    L+ = (1 - p) ** gamma_positive * log p; L- = q ** gamma_negative * log(1 - q) with
    q = max(p - clip, 0). The sum over the classes and, as in the method's own code, over the
    images of a batch: its gradient grows with `train.batch_size`. `reduction: mean` is the mean
    over the images. No gradient flows through the powers unless `focal_gradient`, which the
    paper's formulas have and its code has not.
    """

    kind: Literal["asymmetric"] = "asymmetric"
    gamma_positive: NotNegative = 0.0  # how much less easy labels count
    gamma_negative: NotNegative = 4.0  # the same of classes that are not there
    clip: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.05
    reduction: Literal["sum", "mean"] = "sum"  # over the images of a batch
    focal_gradient: Flag = False  # through the weights, too

    def build(self, counts: Sequence[int] = (), images: int = 0) -> Asymmetric:
        """The loss for training data with so many images of each class."""
        return self

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum or mean over the images of float32 logits [N, classes] against targets."""
        from paddle.nn import functional as F

        shares = shares_of(targets, logits)
        yes = F.sigmoid(logits)
        shifted = (yes - self.clip).clip(min=0)
        # log(1 - q) loses its digits near q = 1, which a clip keeps away.
        log_no = (1 - shifted).log() if self.clip else F.log_sigmoid(-logits)
        right = (1 - yes).clip(min=TINY) ** self.gamma_positive
        wrong = shifted.clip(min=TINY) ** self.gamma_negative
        if not self.focal_gradient:
            right = right.detach()
            wrong = wrong.detach()
        terms = shares * right * F.log_sigmoid(logits) + (1 - shares) * wrong * log_no
        images = -terms.sum(-1)
        return images.sum() if self.reduction == "sum" else images.mean()


@dataclass(frozen=True)
class OwnLoss(Own):
    """A loss of one's own: called as `loss(logits, targets)`, float32 [N, classes] and targets as
    above, it gives one number, the mean over the images. Where it has a `build(counts)`, that is
    called first, with the images of each class, and gives the loss to call.
    """

    called: ClassVar[str] = "a loss, called as loss(logits, targets)"
    supplied: ClassVar[int] = 2
    argument: ClassVar[str] = "loss"

    def build(self, counts: Sequence[int] = (), images: int = 0) -> OwnLoss:
        part = self.require("task.loss")
        if not hasattr(part, "build"):
            return self
        with self.speaking():
            return replace(self, part=part.build(counts))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = self.run(logits, targets)
        if getattr(loss, "size", None) != 1:
            raise UserError(f"{self.name}: a loss is one number, the mean over the images")
        return loss.reshape([])


MultiLabelLoss = Annotated[
    BinaryCrossEntropy | Asymmetric, Field(discriminator="kind"), OrOwn(OwnLoss)
]
AnyLoss = Annotated[
    CrossEntropy | Focal | BinaryCrossEntropy | Asymmetric,
    Field(discriminator="kind"),
    OrOwn(OwnLoss),
]


def shares_of(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as float [N, classes]."""
    from paddle.nn import functional as F

    if targets.ndim == 1:
        return F.one_hot(targets, logits.shape[-1]).astype(logits.dtype)
    return targets.astype(logits.dtype)


def smooth(shares: Tensor, smoothing: float) -> Tensor:
    return shares * (1 - smoothing) + smoothing / shares.shape[-1] if smoothing else shares


def weighted(terms: Tensor, weights: Weights | None) -> Tensor:
    """Terms [N, classes] times the weights of the classes."""
    import paddle

    if weights is None:
        return terms
    assert weights != "balanced", "a loss is built before it is called"
    return terms * paddle.to_tensor(weights, dtype=terms.dtype)


def class_weights(weights: Weights | None, counts: Sequence[int]) -> Weights | None:
    """The weights as numbers, for training data with so many images of each class.

    Raises:
        UserError: there are not as many weights as classes, or a class to balance has no image.
    """
    if weights is None:
        return None
    if weights == "balanced":
        if not all(counts):
            empty = [index for index, count in enumerate(counts) if not count]
            raise UserError(
                f"task.loss.weights: balanced has no weight for class {empty[0]}, of which "
                f"data.train has no image ({len(empty)} such); give a list of {len(counts)}"
            )
        return tuple(float(sum(counts) / (len(counts) * count)) for count in counts)
    if len(weights) != len(counts):
        raise UserError(
            f"task.loss.weights: {plural(len(weights), 'value')} for {plural(len(counts), 'class')}"
        )
    return weights

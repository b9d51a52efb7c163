"""Losses between relations: of classes in a photo and photos in a batch.

What is compared are all photos of a batch at once. With `train.accumulate` or several processes
each part has relations of its own, so that their mean is not that of one large batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ppcls.config.node import NotNegative, Positive, node
from ppcls.train.distill.logit_losses import direction, unit
from ppcls.train.distill.seen import Seen
from ppcls.train.losses import TINY

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


@node
class DIST:
    """1 - Pearson correlation of student's and teacher's probabilities (arXiv:2205.10536).

    `inter` times its mean over the photos (between classes) + `intra` times its mean over the
    classes (between photos), times temperature ** 2. PaddleClas has no temperature and both 1.
    """

    kind: Literal["dist"] = "dist"
    weight: NotNegative = 1.0
    temperature: Positive = 1.0
    inter: NotNegative = 2.0
    intra: NotNegative = 2.0
    features: ClassVar[bool] = False

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        from paddle.nn import functional as F

        p, q = (F.softmax(seen.logits / self.temperature, -1) for seen in (student, teacher))
        inter, intra = 1 - correlations(p, q).mean(), 1 - correlations(p.T, q.T).mean()
        return self.temperature**2 * (self.inter * inter + self.intra * intra)


@node
class RKD:
    """Huber loss between distances of photos and between angles of three (arXiv:1904.05068).

    A photo is the mean over the pixels of its last stage. Distances are divided by their mean over
    the pairs of the batch (PaddleClas: over the diagonal, too). Both terms are means over all pairs
    and triplets, as in the authors' code, where the paper has sums.
    """

    kind: Literal["rkd"] = "rkd"
    weight: NotNegative = 1.0
    distance: NotNegative = 1.0
    angle: NotNegative = 2.0  # the paper weighs them 25 and 50
    features: ClassVar[bool] = True

    def __call__(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
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


def between(photos: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [N, N] over their mean, and cosines [N, N, N] at the first photo of each three."""
    import paddle

    count = photos.shape[0]
    differences = photos.unsqueeze(0) - photos.unsqueeze(1)
    directions, lengths = unit(differences)
    distances = lengths.squeeze(-1) * (1 - paddle.eye(count, dtype=photos.dtype))
    mean = (distances.sum() / max(1, count * (count - 1))).clip(min=TINY)
    return distances / mean, directions.matmul(directions, transpose_y=True)

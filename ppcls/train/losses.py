"""Losses: logits and labels to one number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ppcls.config.node import Share, node

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


@node
class CrossEntropy:
    """Softmax cross entropy; `smoothing` spreads that share of the label over all classes.

    Label smoothing as in arXiv:1512.00567: the target is (1 - s) * one-hot + s / classes.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    smoothing: Share = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the batch of float32 logits [N, classes] against int64 labels [N]."""
        from paddle.nn import functional as F

        hard = F.cross_entropy(logits, labels)
        if not self.smoothing:
            return hard
        uniform = -F.log_softmax(logits, axis=-1).mean()
        return (1 - self.smoothing) * hard + self.smoothing * uniform

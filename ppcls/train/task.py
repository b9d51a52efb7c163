"""What a training step computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ppcls.config.node import node
from ppcls.train.losses import CrossEntropy

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor, nn

Step = Callable[["Tensor", "Tensor"], "tuple[Tensor, Tensor]"]  # images, labels -> loss, logits


@node
class Classify:
    """One label per photo, learnt from the labels alone."""

    kind: Literal["classify"] = "classify"
    loss: CrossEntropy = CrossEntropy()

    def build(self, network: nn.Layer) -> Step:
        """The function from images uint8 [N, H, W, C] and labels int64 [N] to loss and logits."""

        def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = network(images)
            return self.loss(logits, labels), logits

        return step

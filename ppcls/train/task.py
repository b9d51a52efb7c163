"""What a training step computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from ppcls.config.node import node
from ppcls.train.losses import AnyLoss, CrossEntropy

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor

Step = Callable[["Tensor", "Tensor"], "tuple[Tensor, Tensor]"]  # images, targets -> loss, logits


@node
class Classify:
    """One label per photo, learnt from the labels alone."""

    kind: Literal["classify"] = "classify"
    loss: AnyLoss = CrossEntropy()

    @field_validator("loss", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        """A loss without a kind is a cross entropy."""
        return {"kind": "cross_entropy", **value} if isinstance(value, dict) else value

    def prepared(self, counts: Sequence[int]) -> Classify:
        """The task for training data with so many photos of each class."""
        return replace(self, loss=self.loss.prepared(counts))

    def build(self, network: Callable[[Tensor], Tensor]) -> Step:
        """The function from images uint8 [N, H, W, C] and targets to loss and logits.

        Targets are labels int64 [N] or shares float [N, classes].
        """

        def step(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            logits = network(images)
            return self.loss(logits, targets), logits

        return step

"""What a loss of distillation compares: a batch as a network sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor


@dataclass(frozen=True)
class Seen:
    """A network's answers to a batch.

    Attributes:
        logits: float32 [N, classes].
        features: of its stages, each float32 [N, width, h, w], the last stage last; () where no
            loss asks for them.
    """

    logits: Tensor
    features: Sequence[Tensor] = ()

    def detached(self) -> Seen:
        """The same numbers, through which no gradient flows."""
        return Seen(self.logits.detach(), [feature.detach() for feature in self.features])


# Student, teacher, targets -> loss. Targets are labels int64 [N] or shares float [N, classes].
Compare = Callable[[Seen, Seen, "Tensor"], "Tensor"]

"""What a training step computes, and what evaluation counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from ppcls import metrics
from ppcls.config.node import node
from ppcls.train.distill.task import Distill, DistillMany
from ppcls.train.losses import AnyLoss, BinaryCrossEntropy, CrossEntropy, ManyLabelsLoss
from ppcls.train.tally import ManyLabels, OneLabel, Tally

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor

# Images, targets, and which photos of the data set they are -> loss, logits
Step = Callable[["Tensor", "Tensor", np.ndarray], "tuple[Tensor, Tensor]"]


@node
class Classify:
    """One label per photo, learnt from the labels alone."""

    kind: Literal["classify"] = "classify"
    loss: AnyLoss = CrossEntropy()
    answers: ClassVar[str] = "classify"  # as an exported network's `task`
    several: ClassVar[bool] = False  # labels per photo
    best: ClassVar[metrics.Score] = "top1"  # the score that chooses the best weights
    watched: ClassVar[str] = "top1"  # the score of training steps

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
        return step_of(self.loss, network)

    def tally(self, classes: int, thresholds: Sequence[float] = ()) -> Tally:
        return OneLabel(classes)

    def scored(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return OneLabel.scored(classes)

    def right(self, logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right, as `OneLabel` counts."""
        return OneLabel.right(logits, targets)


@node
class MultiLabel:
    """Any number of labels per photo, each a yes or no of its own."""

    kind: Literal["multilabel"] = "multilabel"
    loss: ManyLabelsLoss = BinaryCrossEntropy()
    answers: ClassVar[str] = "multilabel"
    several: ClassVar[bool] = True
    best: ClassVar[metrics.Score] = "map"
    watched: ClassVar[str] = "label_accuracy"

    @field_validator("loss", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        """A loss without a kind is a binary cross entropy."""
        return {"kind": "bce", **value} if isinstance(value, dict) else value

    def prepared(self, counts: Sequence[int]) -> MultiLabel:
        """The task for training data with so many photos of each class."""
        return replace(self, loss=self.loss.prepared(counts))

    def build(self, network: Callable[[Tensor], Tensor]) -> Step:
        """As of `Classify`; targets are 0 and 1, or between where photos were mixed."""
        return step_of(self.loss, network)

    def tally(self, classes: int, thresholds: Sequence[float] = ()) -> Tally:
        return ManyLabels(thresholds)

    def scored(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return ManyLabels.scored()

    def right(self, logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right, as `ManyLabels` counts."""
        return ManyLabels.right(logits, targets)


def step_of(loss: AnyLoss, network: Callable[[Tensor], Tensor]) -> Step:
    def step(images: Tensor, targets: Tensor, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        logits = network(images)
        return loss(logits, targets), logits

    return step


def named(value: Any) -> Any:
    """A task without a kind learns one label per photo."""
    return {"kind": "classify", **value} if isinstance(value, dict) else value


Task = Annotated[
    Annotated[Classify | MultiLabel | Distill | DistillMany, Field(discriminator="kind")],
    BeforeValidator(named),
]

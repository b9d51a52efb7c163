"""The task of learning from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from ppcls import metrics
from ppcls.config.node import NotNegative, node
from ppcls.train.distill.logit_losses import KL, SymmetricKL
from ppcls.train.distill.losses import WITH_LABELS, DistillLoss
from ppcls.train.distill.teachers import Network, Peer, Teachers
from ppcls.train.losses import AnyLoss, BinaryCrossEntropy, CrossEntropy, ManyLabelsLoss
from ppcls.train.tally import ManyLabels, OneLabel, Tally


@node
class Distill:
    """One label per photo, learnt from a teacher and, where `labels_weight` is above 0, labels.

    The loss is the sum of `losses`, each times its weight, and of `loss`, against the labels, times
    `labels_weight`. Of several teachers the probabilities are averaged.
    """

    kind: Literal["distill"] = "distill"
    teacher: Teachers  # one, or a list
    losses: tuple[DistillLoss, ...] = (KL(),)
    loss: AnyLoss = CrossEntropy()
    labels_weight: NotNegative = 0.0
    answers: ClassVar[str] = "classify"
    several: ClassVar[bool] = False
    best: ClassVar[metrics.Score] = "top1"
    watched: ClassVar[str] = "top1"

    @field_validator("loss", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        """A loss without a kind is a cross entropy."""
        return {"kind": "cross_entropy", **value} if isinstance(value, dict) else value

    def __post_init__(self):
        if not (self.teacher and self.losses):
            raise ValueError("give at least one teacher and one of losses")
        if self.peer and (len(self.teacher) > 1 or not self.labels_weight):
            raise ValueError(
                "a peer teaches alone, and two students need labels, too: give one teacher and "
                "labels_weight: 1"
            )
        asking = [loss.kind for loss in self.losses if loss.features]
        able = [node for node in self.teacher if node.features]
        if asking and not len(self.teacher) == len(able) == 1:
            raise ValueError(
                f"{asking[0]} compares features, which one teacher that is a network has: leave "
                "out the loss, or name one network with its weights as the teacher"
            )

    @property
    def peer(self) -> bool:
        """Whether the teacher is a second student."""
        return any(isinstance(teacher, Peer) for teacher in self.teacher)

    def prepared(self, counts: Sequence[int]) -> Distill:
        """The task for training data with so many photos of each class."""
        return replace(self, loss=self.loss.prepared(counts)) if self.labels_weight else self

    def tally(self, classes: int, thresholds: Sequence[float] = ()) -> Tally:
        return OneLabel(classes)

    def scored(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return OneLabel.scored(classes)

    def right(self, logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right, as `OneLabel` counts."""
        return OneLabel.right(logits, targets)


@node
class DistillMany(Distill):
    """Any number of labels per photo, learnt from one teacher's logits and from the labels.

    The teacher is a network that gives several labels, too, or a second student.
    """

    kind: Literal["distill_multilabel"] = "distill_multilabel"  # type: ignore[assignment]
    losses: tuple[DistillLoss, ...] = (SymmetricKL(act="sigmoid"),)
    loss: ManyLabelsLoss = BinaryCrossEntropy()  # type: ignore[assignment]
    answers: ClassVar[str] = "multilabel"
    several: ClassVar[bool] = True
    best: ClassVar[metrics.Score] = "map"
    watched: ClassVar[str] = "label_accuracy"

    @field_validator("loss", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        """A loss without a kind is a binary cross entropy."""
        return {"kind": "bce", **value} if isinstance(value, dict) else value

    def __post_init__(self):
        Distill.__post_init__(self)
        needy = [loss.kind for loss in self.losses if isinstance(loss, WITH_LABELS)]
        if needy:
            raise ValueError(f"{needy[0]} needs one label a photo: another of losses")
        (first, *others) = self.teacher
        network = isinstance(first, Network) and not first.cache
        if others or not (network or self.peer):
            raise ValueError(
                "of several labels one network teaches as it runs, or a peer: give task.teacher "
                "one {name, weights} without a cache, or {kind: peer, name}"
            )

    def tally(self, classes: int, thresholds: Sequence[float] = ()) -> Tally:
        return ManyLabels(thresholds)

    def scored(self, classes: int) -> list[str]:
        """The names of the scores that evaluation gives."""
        return ManyLabels.scored()

    def right(self, logits: np.ndarray, targets: np.ndarray) -> float:
        """How many photos are right, as `ManyLabels` counts."""
        return ManyLabels.right(logits, targets)

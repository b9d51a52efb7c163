"""What a network said of each photo."""

from dataclasses import dataclass

import numpy as np

from ppcls import metrics
from ppcls.data.datasets import Samples
from ppcls.data.loader import Batch
from ppcls.errors import UserError


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One network's answers, in the order of the photos.

    Attributes:
        samples: the photos.
        probabilities: float32 [N, classes], softmax of the logits.
        predicted: int64 [N]; where the label ties with another class, that one, as top-1 counts.
        ranks: int64 [N], the label's place among the classes, from 1; a tie counts against it.
        losses: float64 [N], cross entropy in nats.
    """

    samples: Samples
    probabilities: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray

    @classmethod
    def to_fill(cls, samples: Samples, classes: int) -> "Outcomes":
        """Room for the answers to these photos, each of which is then to be added.

        Raises:
            UserError: photos with several labels each.
        """
        if samples.labels.ndim != 1:
            raise UserError(
                f"{samples.source}: its photos have several labels each and a report is on one "
                "label per photo; evaluate without --report"
            )
        count = len(samples)
        probabilities = np.full((count, classes), np.nan, np.float32)
        numbers = np.zeros(count, np.int64)
        return cls(samples, probabilities, numbers, numbers.copy(), np.full(count, np.nan))

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Keep the answers to one batch: float32 [N, classes].

        Raises:
            UserError: logits that are no numbers, of which there is nothing to report.
        """
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(broken):
            place = self.samples.where(int(batch.indices[broken[0]]))
            raise UserError(f"{place}: the network's logits are not finite; mend its weights")
        own, rows = batch.labels, np.arange(len(batch.labels))
        values = logits.astype(np.float64)
        values -= values.max(axis=1, keepdims=True)
        total = np.exp(values).sum(axis=1)
        ranks = 1 + metrics.rivals(logits, own)
        others = logits.copy()
        others[rows, own] = -np.inf
        self.probabilities[batch.indices] = np.exp(values) / total[:, None]
        self.predicted[batch.indices] = np.where(ranks == 1, own, others.argmax(axis=1))
        self.ranks[batch.indices] = ranks
        self.losses[batch.indices] = np.log(total) - values[rows, own]

    def filled(self) -> "Outcomes":
        """Without the photos to which no answer was added, since they cannot be read."""
        there = np.flatnonzero(~np.isnan(self.losses))
        arrays = (self.probabilities, self.predicted, self.ranks, self.losses)
        return Outcomes(self.samples.subset(there), *(array[there] for array in arrays))

    @property
    def labels(self) -> np.ndarray:
        """int64 [N], the true classes."""
        return self.samples.labels

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    @property
    def right(self) -> np.ndarray:
        """bool [N]: where the predicted class is the true one."""
        return self.predicted == self.labels

    @property
    def confidences(self) -> np.ndarray:
        """float32 [N]: the probability of the predicted class."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted]

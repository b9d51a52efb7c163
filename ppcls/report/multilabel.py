"""What a network said of images with several labels each, and the figures made of that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls import metrics
from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset
from ppcls.report.figures import PAIRS, RATE, WORST, distinct, known, require_finite
from ppcls.thresholds import MIDDLE, Chosen

OF_A_CLASS = 6  # mistakes that are shown while there are other classes
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of scores


@dataclass(frozen=True, eq=False)
class MultiLabelOutcomes:
    """One network's answers, in the order of the images.

    Attributes:
        samples: the images; labels are 0 and 1 [N, classes].
        probabilities: float32 [N, classes], sigmoid of the logits.
    """

    samples: Dataset
    probabilities: np.ndarray

    @classmethod
    def to_fill(cls, samples: Dataset, classes: int) -> "MultiLabelOutcomes":
        """Room for the answers to these images, each of which is then to be added."""
        return cls(samples, np.full((len(samples), classes), np.nan, np.float32))

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Keep the answers to one batch: float32 [N, classes].

        Raises:
            UserError: logits that are no numbers, of which there is nothing to report.
        """
        require_finite(self.samples, batch, logits)
        with np.errstate(over="ignore"):  # infinity gives the right 0
            shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
        self.probabilities[batch.indices] = shares

    def filled(self) -> "MultiLabelOutcomes":
        """Without the images to which no answer was added, since they cannot be read."""
        there = np.flatnonzero(~np.isnan(self.probabilities[:, 0]))
        return MultiLabelOutcomes(self.samples.subset(there), self.probabilities[there])

    @property
    def labels(self) -> np.ndarray:
        """0 and 1 [N, classes], the true labels."""
        return self.samples.labels

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]


# --------------------------------------------------------------------------
# The figures of a report


@dataclass(frozen=True)
class LabelFigures:
    """One class, at its threshold.

    Attributes:
        aim: what the threshold was chosen by on these images, in words; None where it was not.
        photos: images that have it.
        named: images that are said to have it.
        right: images that are both.
        precision: None where it is never named. recall, f1, average_precision: None without images.
        mean_accuracy: None where all images have it, or none.
        tpr_at_fpr: recall where at most a share RATE of the others is taken; None as before.
        with_it, without_it: QUANTILES of the scores of images that have it and have it not, () of
            none.
    """

    number: int
    name: str
    threshold: float
    aim: str | None
    photos: int
    named: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    mean_accuracy: float | None
    tpr_at_fpr: float | None
    with_it: tuple[float, ...]
    without_it: tuple[float, ...]


@dataclass(frozen=True)
class Confusion:
    """Images that have class `true` and were wrongly said to have class `named`.

    Attributes:
        photos: how many.
        instead: those of them where `true` was not found.
        of: images that have `true` and not `named`.
    """

    true: int
    named: int
    photos: int
    instead: int
    of: int


@dataclass(frozen=True)
class Together:
    """Two classes that images have together.

    Attributes:
        photos: images that have both.
        both: images that are said to have both, rightly or not.
    """

    first: int
    second: int
    photos: int
    both: int


@dataclass(frozen=True)
class Mistake:
    """One class of one image that is wrongly named, or missed."""

    index: int
    number: int
    score: float


@dataclass(frozen=True, eq=False)
class MultiLabelReport:
    """Everything that a report on several labels per image says.

    Attributes:
        about: model, weights and data, in words.
        scores: mAP, F1 and loss as evaluation prints them.
        names: one for each class, no two alike.
        thresholds: float64 [classes], those in force.
        source: where the thresholds are from, in words.
        chosen: how they were chosen, where they were by an aim.
        averages: macro (of the classes with images) and micro (of all answers), each precision,
            recall and f1.
        attributes: `metrics.attributes` at the thresholds in force and "at 0.5".
        exact: the share of images all of whose labels are right.
        confusion: float64 [classes, classes]: of the images that have the row's class and not the
            column's, the share said to have the column's; on the diagonal the recall. NaN without.
        together: float64 [2, classes, classes]: of the images that have the row's class, the share
            that has the column's; and the same of the answers. NaN without.
        confused: pairs of classes with most wrong names.
        pairs: pairs of classes that are together most often.
        alarms: classes wrongly named, the highest score first.
        misses: classes missed, the lowest score first.
    """

    about: dict[str, str]
    scores: dict[str, float]
    names: tuple[str, ...]
    outcomes: MultiLabelOutcomes
    thresholds: np.ndarray
    source: str
    chosen: Chosen | None
    classes: list[LabelFigures]
    averages: dict[str, dict[str, float]]
    attributes: dict[str, dict[str, float]]
    exact: float
    confusion: np.ndarray
    together: np.ndarray
    confused: list[Confusion]
    pairs: list[Together]
    alarms: list[Mistake]
    misses: list[Mistake]

    @property
    def decisions(self) -> np.ndarray:
        """bool [N, classes]: what is said of each image."""
        return self.outcomes.probabilities > self.thresholds


def make(
    about: dict[str, str],
    scores: dict[str, float],
    names: Sequence[str],
    outcomes: MultiLabelOutcomes,
    thresholds: Sequence[float],
    source: str,
    chosen: Chosen | None = None,
) -> MultiLabelReport:
    """The report on an evaluation; `names` () when unknown."""
    shown = distinct(names or [str(number) for number in range(outcomes.classes)])
    limits = np.array(thresholds, np.float64)
    decisions = outcomes.probabilities > limits
    has = outcomes.labels == 1
    aims = [str(one.aim) for one in chosen.classes] if chosen else [None] * len(shown)
    classes = by_class(outcomes, shown, limits, aims)
    return MultiLabelReport(
        about,
        scores,
        shown,
        outcomes,
        limits,
        source,
        chosen,
        classes,
        averages(classes, decisions, has),
        {
            "in force": metrics.attributes(decisions, outcomes.labels),
            f"at {MIDDLE:g}": metrics.attributes(outcomes.probabilities > MIDDLE, outcomes.labels),
        },
        float((decisions == has).all(axis=1).mean()),
        shares_named(decisions, has),
        np.stack([shares_together(has), shares_together(decisions)]),
        confused(decisions, has),
        together(decisions, has),
        mistakes(np.where(decisions & ~has, -outcomes.probabilities, np.nan)),
        mistakes(np.where(has & ~decisions, outcomes.probabilities, np.nan)),
    )


def by_class(
    outcomes: MultiLabelOutcomes,
    names: Sequence[str],
    limits: np.ndarray,
    aims: Sequence[str | None],
) -> list[LabelFigures]:
    """Each class's figures at its threshold."""
    labels = outcomes.labels
    decisions = outcomes.probabilities > limits
    f1 = metrics.f1(decisions, labels)
    precisions = metrics.average_precisions(outcomes.probabilities, labels)
    accuracies = metrics.mean_accuracies(decisions, labels)
    found = []
    for number, name in enumerate(names):
        scores = outcomes.probabilities[:, number]
        has = labels[:, number] == 1
        said = decisions[:, number]
        photos, named, right = int(has.sum()), int(said.sum()), int((has & said).sum())
        found.append(
            LabelFigures(
                number,
                name,
                float(limits[number]),
                aims[number],
                photos,
                named,
                right,
                right / named if named else None,
                right / photos if photos else None,
                float(f1[number]) if photos else None,
                known(precisions[number]),
                known(accuracies[number]),
                known(metrics.tpr_at_fpr(scores, has, RATE)),
                spread(scores[has]),
                spread(scores[~has]),
            )
        )
    return found


def spread(scores: np.ndarray) -> tuple[float, ...]:
    return tuple(np.quantile(scores, QUANTILES).tolist()) if len(scores) else ()


def averages(
    classes: Sequence[LabelFigures], decisions: np.ndarray, has: np.ndarray
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1: "macro", the mean over the classes with images, in which one that
    is never named has precision 0; "micro", of all answers together.
    """
    filled = [one for one in classes if one.photos]
    values = [(one.precision or 0.0, one.recall or 0.0, one.f1 or 0.0) for one in filled]
    macro = np.mean(values or [(0.0, 0.0, 0.0)], axis=0).tolist()
    right = int((decisions & has).sum())
    named, there = int(decisions.sum()), int(has.sum())
    micro = [right / max(named, 1), right / max(there, 1), 2 * right / max(named + there, 1)]
    keys = ("precision", "recall", "f1")
    kinds = {"macro": macro, "micro": micro}
    return {kind: dict(zip(keys, own, strict=True)) for kind, own in kinds.items()}


def counts(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 [classes, classes]: images that are in the row's class of one and the column's of
    the other; both bool [N, classes].
    """
    return rows.T.astype(np.float64) @ columns.astype(np.float64)


def shares_named(decisions: np.ndarray, has: np.ndarray) -> np.ndarray:
    """As `MultiLabelReport.confusion`."""
    wrong, of = counts(has, decisions & ~has), counts(has, ~has)
    np.fill_diagonal(wrong, (decisions & has).sum(axis=0))
    np.fill_diagonal(of, has.sum(axis=0))
    return divided(wrong, of)


def shares_together(marks: np.ndarray) -> np.ndarray:
    """Of the images of the row's class, the share that is of the column's."""
    return divided(counts(marks, marks), marks.sum(axis=0)[:, None])


def divided(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return values / of


def confused(decisions: np.ndarray, has: np.ndarray) -> list[Confusion]:
    """The PAIRS pairs with most wrong names; of equal ones, by share."""
    wrong, of = counts(has, decisions & ~has), counts(has, ~has)
    instead = counts(has & ~decisions, decisions & ~has)
    true, named = np.nonzero(wrong)
    photos = wrong[true, named]
    order = np.lexsort((-photos / of[true, named], -photos))[:PAIRS]
    return [
        Confusion(int(a), int(b), int(wrong[a, b]), int(instead[a, b]), int(of[a, b]))
        for a, b in zip(true[order], named[order], strict=True)
    ]


def together(decisions: np.ndarray, has: np.ndarray) -> list[Together]:
    """The PAIRS pairs of classes that images have together most often."""
    photos, both = counts(has, has), counts(decisions, decisions)
    first, second = np.nonzero(np.triu(photos, 1))
    order = np.argsort(-photos[first, second], kind="stable")[:PAIRS]
    return [
        Together(int(a), int(b), int(photos[a, b]), int(both[a, b]))
        for a, b in zip(first[order], second[order], strict=True)
    ]


def mistakes(keys: np.ndarray) -> list[Mistake]:
    """The WORST with the lowest keys, at most OF_A_CLASS of a class while there are others.

    Args:
        keys: float [N, classes]; NaN where there is no mistake.
    """
    index, number = np.nonzero(~np.isnan(keys))
    order = np.argsort(keys[index, number], kind="stable")
    index, number = index[order], number[order]
    before: Counter[int] = Counter()
    later = np.zeros(len(number), bool)
    for place, own in enumerate(number.tolist()):
        later[place] = before[own] >= OF_A_CLASS
        before[own] += 1
    shown = np.sort(np.argsort(later, kind="stable")[:WORST])
    pairs = zip(index[shown].tolist(), number[shown].tolist(), strict=True)
    return [Mistake(i, k, float(abs(keys[i, k]))) for i, k in pairs]

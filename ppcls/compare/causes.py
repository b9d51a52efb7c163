"""What makes the answers of two classifiers differ, found by exchanging one part at a time.

A classifier is a network in an engine, how images are prepared for it, the names of its classes and
how a probability becomes a decision. Where A and B differ in several of these, A is run with each
part of B alone: the part that brings it nearest to B is named first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.compare.answers import Answered, Way, answers, renumbered
from ppcls.compare.weights import WeightsDifference
from ppcls.data.preprocess import KEYS, Preprocess
from ppcls.inference.manifest import Manifest
from ppcls.inference.predictor import Predictor
from ppcls.paired import ClassDifference
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural, visible

TRIED = 200  # images on which parts are exchanged: those whose answers differ most
ALONE = 0.9  # of what changes between two networks' outputs, that makes it one class's
CERTAIN = 0.01  # p below which one class alone is said to be worse or better
MOST = 0.6  # of the images that change sides, which then are of that class or taken for it
ANEW = 0.9  # typical relative difference of weights of networks that are not learnt from each other
BESIDE = 0.5  # of the images by which it changes on balance: all others change by less
MISNAMED = 0.5  # the share above which the names of classes are held to be wrong
TINY = 1e-30  # probabilities whose logarithm says nothing more
NONE, ALL = 0.005, 0.995  # shares that are as good as 0 and 1
NEAR = 1e-3  # relative difference of weights that cannot make much
# In the order in which they are named where nothing tells them apart.
KINDS = (
    *("class names", "threshold", "class", "network", "weights", "precision"),
    *("preprocessing", "engine", "format"),
)


@dataclass(frozen=True)
class Cause:
    """A part in which A and B differ.

    Attributes:
        kind: one of KINDS.
        words: what A has there and what B has.
        share: the part of the difference in answers that it makes alone, 0 to 1; None: it could
            not be exchanged alone.
    """

    kind: str
    words: str
    share: float | None

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.kind}: {self.words}; it cannot be tried alone"
        part = f"{100 * self.share:.0f} %"
        part = "none" if self.share <= NONE else "all" if self.share >= ALL else part
        return f"{self.kind}: {self.words}; alone it makes {part} of the difference"

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": self.words, "share": self.share}


@dataclass(frozen=True)
class Sides:
    """A and B, what they answer, and B's columns in the order of A's classes."""

    a: Predictor
    b: Predictor
    order: np.ndarray | None
    answered: tuple[Answered, Answered]
    weights: WeightsDifference | None
    same_file: bool

    @property
    def predictors(self) -> tuple[Predictor, Predictor]:
        return self.a, self.b

    @property
    def normalize_inside(self) -> bool:
        """Whether mean and std are a part of both networks."""
        return all(predictor.manifest.input == "uint8" for predictor in self.predictors)

    def decided_as_b(self, probabilities: np.ndarray) -> np.ndarray:
        """What B decides of probabilities whose classes are as A numbers them."""
        if self.order is None:
            return self.b.manifest.answers(probabilities)
        own = probabilities[:, np.argsort(self.order)]
        return renumbered(self.b.manifest.answers(own), self.order)

    def ordered(self, probabilities: np.ndarray, side: int) -> np.ndarray:
        """The outputs of A's or B's network, the classes as A numbers them."""
        return probabilities if side == 0 or self.order is None else probabilities[:, self.order]


def find_causes(
    sides: Sides,
    paths: Sequence[str],
    labels: np.ndarray | None,
    classes: Sequence[ClassDifference],
) -> list[Cause]:
    """What differs, what makes most of the difference first; [] where all answers are the same.

    Args:
        paths: the images, all of which can be read.
        labels: their classes, int64 [N]; None where images have several.
        classes: how the answers to each class's images differ.
    """
    first, second = sides.answered
    distances = first.distances(second)
    if not distances.any():
        return []
    chosen = np.sort(np.argsort(-distances, kind="stable")[:TRIED])
    trial = Trial(sides, [paths[int(place)] for place in chosen], chosen)
    found = sorted(trial.of_decisions() + trial.of_parts(), key=rank)
    if found and found[0].kind in ("weights", "network") and labels is not None:
        found = one_class(trial, found[0], labels, classes) + found
    return found


def rank(cause: Cause) -> tuple[float, int]:
    share = cause.share if cause.share is not None else 0.0
    return -round(share, 2), KINDS.index(cause.kind)


# --------------------------------------------------------------------------- exchanging parts


class Trial:
    """A and B on the images that differ most, and what else their parts answer together."""

    def __init__(self, sides: Sides, paths: Sequence[str], chosen: np.ndarray):
        self.sides = sides
        self.paths = paths
        a, b = (answered.take(chosen) for answered in sides.answered)
        self.ends = (a, b)
        self.whole = float(a.distances(b).mean())
        # By network, preprocessing and engine: 1 for B's, 0 for A's and where both are the same.
        self.known: dict[tuple[int, ...], Answered | None] = {}
        self.misnamed = False  # whether B's names stand in another order than its outputs

    def share_of(self, found: Answered, end: int = 1) -> float:
        """How much nearer to B (`end` 1) or to A an exchange has brought the other one."""
        left = float(found.distances(self.ends[end]).mean())
        return min(max(1 - left / self.whole, 0.0), 1.0)

    def of_decisions(self) -> list[Cause]:
        """Names and thresholds, which are exchanged without running anything."""
        sides = self.sides
        a = self.ends[0]
        found = []
        manifest, other = (predictor.manifest for predictor in sides.predictors)
        if sides.order is not None:
            moved = a.probabilities[:, sides.order]  # A's, called as B calls them
            renamed = Answered(moved, manifest.answers(moved))
            share = self.share_of(renamed)
            self.misnamed = share > MISNAMED  # else the outputs are in another order, too
            if self.misnamed:
                moves = int((sides.order != np.arange(len(sides.order))).sum())
                words = f"{plural(moves, 'class')} have other numbers in B, and the outputs do not"
                found.append(Cause("class names", words, share))
        if rule(manifest) != rule(other):
            again = Answered(a.probabilities, sides.decided_as_b(a.probabilities))
            words = f"{in_words(other)} in place of {in_words(manifest)}"
            found.append(Cause("threshold", words, self.share_of(again)))
        return found

    def of_parts(self) -> list[Cause]:
        """Network, preprocessing, engine, as far as they differ and can be exchanged."""
        named = (self.differing_network(), self.differing_preprocess(), self.differing_engine())
        differs = tuple(int(one is not None) for one in named)
        found = []
        left = []
        for place, about in enumerate(named):
            if about is None:
                continue
            share = self.tried(place, differs)
            if share is None:
                left.append(about)
            else:
                found.append(Cause(about[0], about[1], share))
        rest = max(0.0, 1 - sum(one.share or 0.0 for one in found))
        if len(left) == 1:  # what no other part makes
            return [*found, Cause(left[0][0], left[0][1], rest)]
        return [*found, *(Cause(kind, words, None) for kind, words in left)]

    def tried(self, place: int, differs: tuple[int, ...]) -> float | None:
        """The share of a part, exchanged alone: in A or, where that cannot run, in B."""
        if sum(differs) == 1 and not self.differ_in_decisions():
            return 1.0
        alone = tuple(int(other == place) for other in range(len(differs)))
        others = tuple(int(d and other != place) for other, d in enumerate(differs))
        for mix, end in ((alone, 1), (others, 0)):
            found = self.answered(mix)
            if found is not None:
                return self.share_of(found, end)
        weights = self.sides.weights
        near = weights is not None and not weights.alone and weights.largest <= NEAR
        return 0.0 if place == 0 and near else None

    def differ_in_decisions(self) -> bool:
        a, b = (predictor.manifest for predictor in self.sides.predictors)
        return self.sides.order is not None or rule(a) != rule(b)

    def answered(self, mix: tuple[int, ...]) -> Answered | None:
        """What a network answers with these parts; None where it cannot run so."""
        if mix not in self.known:
            try:
                self.known[mix] = self.run(mix)
            except UserError:
                self.known[mix] = None
        return self.known[mix]

    def run(self, mix: tuple[int, ...]) -> Answered:
        network, preprocess, engine = mix
        own = self.sides.predictors[network]
        prepared = self.sides.predictors[preprocess].manifest.preprocess
        inside = own.manifest.preprocess
        alike = (prepared.mean, prepared.std) == (inside.mean, inside.std)
        if own.manifest.input == "uint8" and not alike and not self.sides.normalize_inside:
            raise UserError(f"{own.folder.path}: the network normalises pixels itself")
        engines = [predictor.engine.settings for predictor in self.sides.predictors]
        same = engines[engine] == engines[network]
        with_engine = own if same else self.opened(network, engine)
        try:
            way = Way(with_engine, prepared)
            (found,), _ = answers([way], self.paths, what="exchanging parts")
        finally:
            if with_engine is not own:
                with_engine.close()
        if not self.misnamed:
            found = self.sides.ordered(found, network)
        return Answered(found, self.sides.a.manifest.answers(found))

    def opened(self, network: int, engine: int) -> Predictor:
        """The one's network in the other's engine."""
        settings = self.sides.predictors[engine].engine.settings
        own = self.sides.predictors[network]
        return Predictor(
            own.folder.path, settings.device, settings.threads, settings.engine,
            settings.precision, own.batch_size,
        )  # fmt: skip

    # ----------------------------------------------------------------- what differs

    def differing_network(self) -> tuple[str, str] | None:
        """The kind of a difference between the networks' files, and words on it."""
        sides = self.sides
        if sides.same_file:
            return None
        a, b = (predictor.manifest for predictor in sides.predictors)
        weights = sides.weights
        if a.precision != b.precision:
            kept = weights.quantized if weights else made_from(a) == made_from(b)
            if kept:
                return "precision", f"{b.precision} in place of {a.precision}"
        if weights and weights.normalization:
            said = changes(a.preprocess, b.preprocess, ("mean", "std"))
            return "preprocessing", ", ".join(["inside of the network", *said])
        if a.model != b.model:
            return "network", f"{visible(b.model)} in place of {visible(a.model)}"
        if not weights:
            return "weights", "other files, whose weights cannot be compared"
        if weights.same:
            return "format", "the same weights in other files"
        if weights.alone:
            return "network", f"{plural(weights.alone, 'array')} of weights only in A or only in B"
        return "weights", (
            f"{weights.differ} of {plural(weights.arrays, 'array')} differ, most {weights.where}, "
            f"by {100 * weights.largest:.2g} %"
        )

    def differing_preprocess(self) -> tuple[str, str] | None:
        a, b = (predictor.manifest.preprocess for predictor in self.sides.predictors)
        inside = ("mean", "std") if self.sides.normalize_inside else ()
        changed = changes(a, b, [key for key in KEYS if key not in inside])
        return ("preprocessing", ", ".join(changed)) if changed else None

    def differing_engine(self) -> tuple[str, str] | None:
        a, b = (predictor.engine.settings for predictor in self.sides.predictors)
        if a.engine != b.engine or a.device != b.device:
            return "engine", f"{b} in place of {a}"
        if a.precision != b.precision:
            return "precision", f"{b.precision} in place of {a.precision}"
        return None


def made_from(manifest: Manifest) -> tuple[str, str]:
    return manifest.model, str(manifest.about.get("source", ""))


def rule(manifest: Manifest) -> tuple[Any, int | None] | None:
    """What decides beside the probabilities; None where the likeliest class wins."""
    if manifest.task != "multilabel" and manifest.default is None:
        return None
    return manifest.threshold, manifest.default


def in_words(manifest: Manifest) -> str:
    if rule(manifest) is None:
        return "the likeliest class"
    own = manifest.threshold
    said = f"{len(own)} of classes" if isinstance(own, tuple) else f"{own:g}"
    return f"threshold {said}"


def changes(a: Preprocess, b: Preprocess, keys: Sequence[str]) -> list[str]:
    """What of preparing images differs and can change them: `crop 24 in place of 32`."""
    unused = {"crop": ("fill",), "squash": ("resize", "fill"), "letterbox": ("resize",)}
    found = []
    for key in keys:
        before, after = getattr(a, key), getattr(b, key)
        if before != after and not (a.fit == b.fit and key in unused[a.fit]):
            said = [list(own) if isinstance(own, tuple) else own for own in (after, before)]
            found.append(f"{key} {said[0]} in place of {said[1]}")
    return found


# --------------------------------------------------------------------------- one class


def one_class(
    trial: Trial, network: Cause, labels: np.ndarray, classes: Sequence[ClassDifference]
) -> list[Cause]:
    """That what differs between two networks sits in a single class, if so.

    Either the outputs of all other classes move together, or one class has become worse or better
    and is in most of what changes sides, and the rest changes little on balance: to train on moves
    all classes a little, and to train less makes all a little worse, one of them most. Between
    networks that were learnt apart a class is no cause, but one of the places where it shows.
    """
    a, b = trial.ends
    b = trial.known.get((1, 0, 0)) or b
    names = trial.sides.a.manifest.labels
    number, part = moved_class(a.probabilities, b.probabilities)
    weights = trial.sides.weights
    by_number = {one.number: one for one in classes}
    if part >= ALONE:
        words = f"{called(names, number)}, whose output alone moves ({100 * part:.0f} %)"
        known = by_number.get(number)
        if known:
            words += f"; {accuracy(known)}"
        return [Cause("class", words, network.share)]
    if weights is not None and weights.typical >= ANEW:
        return []
    suspect = min(classes, key=lambda one: one.p)
    first, second = (answered.decided for answered in trial.sides.answered)
    flips = (first == labels) != (second == labels)
    # Of its images, or of others that were or are taken for it.
    its = np.any([taken == suspect.number for taken in (labels, first, second)], axis=0)
    part = float(its[flips].mean()) if flips.any() else 0.0
    others = int((second == labels)[~its].sum()) - int((first == labels)[~its].sum())
    own = suspect.whole.won - suspect.whole.lost
    if suspect.p < CERTAIN and part >= MOST and abs(others) < BESIDE * abs(own):
        words = (
            f"{called(names, suspect.number)}: {accuracy(suspect)}; {100 * part:.0f} % of the "
            "images that change sides are of it or taken for it"
        )
        return [Cause("class", words, network.share)]
    return []


def moved_class(before: np.ndarray, after: np.ndarray) -> tuple[int, float]:
    """The class whose output moves most, and its part of all movement, 0 to 1.

    Probabilities [N, classes] of which one logit is moved change in all classes; the differences of
    their logarithms, less the median over the classes, do so in that one alone. With two classes
    nothing tells one from the other.
    """
    if before.shape[1] < 3:
        return 0, 0.0
    known = (before > TINY) & (after > TINY)
    logs = np.log(np.where(known, after, 1.0)) - np.log(np.where(known, before, 1.0))
    logs = np.where(known, logs, np.nan)
    moved = np.abs(logs - np.nanmedian(logs, axis=1, keepdims=True))
    sums = np.nansum(moved, axis=0)
    total = float(sums.sum())
    number = int(sums.argmax())
    return number, float(sums[number]) / total if total else 0.0


def called(names: Sequence[str], number: int) -> str:
    return repr(visible(names[number])) if names else f"class {number}"


def accuracy(one: ClassDifference) -> str:
    return (
        f"{100 * one.whole.before:.1f} % of its images were right with A and "
        f"{100 * one.whole.after:.1f} % are with B"
    )

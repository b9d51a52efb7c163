"""How well a network in INT8 does beside the one in float: answers, and time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppcls.data.datasets import Samples, find_parts, missing, numbered_as, open_samples
from ppcls.errors import DataError, UserError
from ppcls.inference.engines.base import Engine
from ppcls.inference.folder import Folder
from ppcls.inference.manifest import Manifest
from ppcls.inference.photos import open_photo
from ppcls.inference.predictor import are_finite, link
from ppcls.inference.timing import Clock, example, settle, timed
from ppcls.log import Progress, say
from ppcls.utils.text import plural

NO_PHOTO = "no photo to compare answers on can be read"
BATCH = 8
COMPARED = 500  # unlabelled photos at most
TIMED = (1, 8)  # batch sizes
TURNS = 15  # that engines take in being timed
SECONDS = 0.001  # of timed runs in a turn, at least one


@dataclass(frozen=True)
class Score:
    """Right answers in float and in INT8, None for unlabelled photos; and the share of equal ones.

    An answer is a photo's class (`name` top1) or each of its labels (label_accuracy).
    """

    right: tuple[float, float] | None
    agreement: float
    name: str = "top1"

    @property
    def loss(self) -> float:
        """What the budget is held against."""
        return self.right[0] - self.right[1] if self.right else 1 - self.agreement

    def __str__(self) -> str:
        answer, words = ("class", "top-1") if self.name == "top1" else ("labels", "labels right")
        same = f"the same {answer} on {100 * self.agreement:.1f} %"
        if not self.right:
            return same
        before, after = (100 * share for share in self.right)
        return f"{words} {before:.1f} % in float, {after:.1f} % in int8, {same}"

    def about(self) -> dict[str, Any]:
        right = dict(zip(("float", "int8"), self.right, strict=True)) if self.right else None
        return {self.name: right, "agreement": self.agreement}


@dataclass(frozen=True, eq=False)
class Judge:
    """Photos, the float network's answers on them and, None when unknown, the right ones: classes
    int64 [N], or 0 and 1 [N, classes] in multilabel.
    """

    source: str
    paths: Sequence[str]
    labels: np.ndarray | None
    manifest: Manifest
    expected: np.ndarray

    def score(self, engine: Engine) -> Score:
        found = answers(engine, self.manifest, self.paths).found
        agreement = float((found == self.expected).mean())
        name = "top1" if self.manifest.task == "classify" else "label_accuracy"
        if self.labels is None:
            return Score(None, agreement, name)
        before, after = (float((c == self.labels).mean()) for c in (self.expected, found))
        return Score((before, after), agreement, name)

    @property
    def advice(self) -> str:
        if self.labels is None:
            return "--eval labelled photos: another class is not always a worse one"
        return "--photos, to calibrate with more"


def labelled(source: Path, manifest: Manifest, in_float: Engine, skip: bool = False) -> Judge:
    """UserError for photos whose classes are not the network's and, unless `skip`, missing ones."""
    source = Path(find_parts(None, str(source))[1] or source)
    samples = open_samples(source, several=manifest.task == "multilabel")
    lost = [] if skip else missing(samples)
    if lost:
        raise UserError(f"--eval: photos that do not exist: {'; '.join(lost)}")
    paths = list(samples.paths)
    labels = numbers(samples, manifest.labels, classes_of(in_float, manifest, paths, skip))
    known = answers(in_float, manifest, paths, skip)
    labels = labels[known.places]
    paths = [paths[place] for place in known.places]
    return Judge(str(source), paths, labels, manifest, known.found)


def numbers(samples: Samples, names: Sequence[str], classes: int) -> np.ndarray:
    """The photos' labels as the network numbers its classes: by name where it knows the names."""
    if samples.labels.ndim == 2:
        if samples.classes != classes:
            raise UserError(
                f"--eval {samples.source}: has {plural(samples.classes, 'label')} a photo "
                f"and the network {plural(classes, 'class')}; give photos of its classes"
            )
        known = bool(samples.names) and set(samples.names) == set(names)
        order = [samples.names.index(name) for name in names] if known else slice(None)
        return samples.labels[:, order]
    samples = numbered_as(samples, names, classes, "the network")
    outside = np.flatnonzero(samples.labels >= classes)
    if len(outside):
        first = int(outside[0])
        raise UserError(
            f"--eval {samples.where(first)}: label {samples.labels[first]}, but the network's last "
            f"class is {classes - 1}; give photos of its classes"
        )
    return samples.labels


def unlabelled(
    source: Path,
    found: Sequence[str],
    chosen: Sequence[str],
    manifest: Manifest,
    in_float: Engine,
    skip: bool = False,
) -> Judge:
    """Photos that are not calibrated with or, where those are fewer, all."""
    used = set(chosen)
    others = [path for path in found if path not in used]
    paths = others if len(others) >= len(chosen) else found
    paths = [paths[i] for i in spread(len(paths), COMPARED)]
    known = answers(in_float, manifest, paths, skip)
    paths = [paths[place] for place in known.places]
    return Judge(str(source), paths, None, manifest, known.found)


def spread(total: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly spread: photos often stand by class."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


class Answers(NamedTuple):
    """The answers on photos as `decide` gives them, and which of the photos those are."""

    found: np.ndarray
    places: list[int]


def classes_of(engine: Engine, manifest: Manifest, paths: Sequence[str], skip: bool) -> int:
    """How many classes the network has, seen from a photo."""
    for path in paths:
        kept, images = readable(manifest, [path], skip)
        if kept:
            return engine.run(images).shape[1]
    raise UserError(NO_PHOTO)


def answers(
    engine: Engine, manifest: Manifest, paths: Sequence[str], skip: bool = False
) -> Answers:
    """With `skip` of the photos that can be read; UserError where that is none."""
    places: list[int] = []
    found = []
    starts = range(0, len(paths), BATCH)
    for start in Progress(starts, "comparing", len(starts)):
        batch = paths[start : start + BATCH]
        kept, images = readable(manifest, batch, skip)
        if not kept:
            continue
        output = engine.run(images)
        for place, whole in zip(kept, are_finite(output), strict=True):
            if not whole:
                raise UserError(
                    f"{batch[place]}: the output of {engine.path} is not finite (NaN or infinite, "
                    f"by {engine.settings}): its weights are damaged or it overflows"
                )
        found.append(decide(manifest, output))
        places += [start + place for place in kept]
    if len(places) < len(paths):
        lost = f"{plural(len(paths) - len(places), 'photo')} of {len(paths):,}"
        say(f"note: compared without {lost} that cannot be read")
    if not places:
        raise UserError(NO_PHOTO)
    return Answers(np.concatenate(found), places)


def decide(manifest: Manifest, output: np.ndarray) -> np.ndarray:
    """Of outputs [N, classes] the likeliest classes int64 [N] or, in multilabel, 0 and 1 of all."""
    if manifest.task == "classify" and manifest.default is None:
        return output.argmax(axis=1)
    probabilities = link(output, manifest.task) if manifest.output == "logits" else output
    if manifest.default is not None:
        return np.array([manifest.decide(row, 1)[0][0] for row in probabilities])
    return (probabilities > np.array(manifest.threshold)).astype(np.uint8)


def prepare(manifest: Manifest, paths: Sequence[str]) -> np.ndarray:
    """Photos as the network takes them."""
    return readable(manifest, paths, skip=False)[1]


def readable(manifest: Manifest, paths: Sequence[str], skip: bool) -> tuple[list[int], np.ndarray]:
    """Photos as the network takes them and which of the paths they are; UserError for a broken one
    unless `skip`.
    """
    kept, pixels = [], []
    for place, path in enumerate(paths):
        try:
            pixels.append(open_photo(path, manifest.preprocess))
            kept.append(place)
        except DataError:
            if not skip:
                raise
    stacked = np.stack(pixels) if pixels else np.empty(0, np.uint8)
    whole = manifest.input == "uint8" or not pixels
    return kept, stacked if whole else manifest.preprocess.normalize(stacked)


def milliseconds(
    engines: dict[str, Engine], folder: Folder, clock: Clock = time.perf_counter
) -> dict[str, dict[str, float]]:
    """By batch size the median of each engine, timed by turns, on noise."""
    measured = {}
    for batch in TIMED:
        given = example(folder, batch)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(TURNS):
            for name, engine in engines.items():
                settle(engine, given, clock)
                times[name] += timed(engine, given, SECONDS, clock)
        medians = {name: round(1000 * float(np.median(own)), 2) for name, own in times.items()}
        measured[f"batch {batch}"] = medians
    return measured

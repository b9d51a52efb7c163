"""Whether B is better than A on labelled images: scores, what changes sides, causes, speed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.compare.answers import Answered, Way, answers, renumbered
from ppcls.compare.causes import Cause, Sides, find_causes
from ppcls.compare.weights import weights_difference
from ppcls.data.datasets import find_parts, labels_as, missing, open_samples
from ppcls.inference.auto import CANDIDATES, Clock, milliseconds
from ppcls.inference.engines.table import device_for, installed
from ppcls.inference.inputs import pixels_of
from ppcls.paired import ClassDifference, Difference, Spread, by_class, chance, difference_of
from ppcls.prediction import Predictor
from ppcls.report import sheets
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text
from ppcls.utils.log import say
from ppcls.utils.text import at_most, plural, to_json, visible

NAMES = ("A", "B")
SIDE = 192  # pixels of an image on a sheet
MOST_FLIPS = 200  # images that change sides on a sheet, those that lose first


@dataclass(frozen=True)
class Opening:
    """How A or B is opened.

    Attributes:
        path: exported folder, checkpoint of ours, a run's folder, or .onnx file.
        engine: a name in `ENGINES`, or auto: the first that can run both A and B.
        precision: of the arithmetic: fp32, bf16 or fp16.
    """

    path: Path
    engine: str = "auto"
    precision: str = "fp32"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found.

    Attributes:
        about: of A and B: path, network, engine, bytes of the files that were given.
        score: top1, or label_accuracy where images have several labels.
        paths: the images that could be read, in their order.
        labels: their classes int64 [N], or 0 and 1 [N, classes], as A numbers them.
        answered: what A and B answer, B's classes in the order of A's.
        names: of A's classes.
        whole: the score of B beside that of A.
        f1: F1 over all labels, where images have several.
        classes: the classes that have images, each on its own.
        spread: how far probabilities lie apart.
        causes: what differs, what makes most of the difference first.
        milliseconds: by batch size, of each; {} where speed was not measured.
    """

    about: tuple[dict[str, Any], dict[str, Any]]
    source: str
    score: str
    paths: list[str]
    labels: np.ndarray
    answered: tuple[Answered, Answered]
    names: Sequence[str]
    whole: Difference
    f1: Difference | None
    classes: Sequence[ClassDifference]
    spread: Spread
    causes: Sequence[Cause]
    milliseconds: dict[str, dict[str, float]]

    @property
    def agreement(self) -> float:
        """The share of the answers that are the same."""
        first, second = self.answered
        return float((first.decided == second.decided).mean())

    def changed(self) -> tuple[np.ndarray, np.ndarray]:
        """The places of the images that are worse with B than with A, and of those that are better.

        Those of which B, and A, is surest come first.
        """
        right = [answer.decided == self.labels for answer in self.answered]
        scores = [one if one.ndim == 1 else one.mean(axis=1) for one in right]
        lost, won = (
            np.flatnonzero(scores[side] > scores[1 - side].astype(float)) for side in (0, 1)
        )
        moved = np.abs(self.answered[0].probabilities - self.answered[1].probabilities).sum(axis=1)
        ordered = (there[np.argsort(-moved[there], kind="stable")] for there in (lost, won))
        return next(ordered), next(ordered)

    def class_name(self, number: int) -> str:
        return self.names[number] if self.names else str(number)

    def answer(self, side: int, place: int) -> str:
        """What A or B takes an image for, in words."""
        own = self.answered[side]
        row = own.probabilities[place]
        if own.decided.ndim == 2:
            return (
                ", ".join(map(self.class_name, np.flatnonzero(own.decided[place]).tolist()))
                or "nothing"
            )
        number = int(own.decided[place])
        return f"{self.class_name(number)} {row[number]:.2f}"

    def truth(self, place: int) -> str:
        own = self.labels[place]
        numbers = [int(own)] if self.labels.ndim == 1 else np.flatnonzero(own).tolist()
        return ", ".join(map(self.class_name, numbers)) or "nothing"


def compare(
    first: Opening,
    second: Opening,
    data: Path,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int = 8,
    skip: bool = False,
    speed: bool = True,
    clock: Clock = time.perf_counter,
) -> Comparison:
    """Run both on labelled images, and find what differs.

    Args:
        data: a folder with one for each class, or with val/; a list or CSV file.
        threads: of the CPU; None: all cores.
        skip: leave out images that cannot be read.
        speed: time both by turns, too, which takes some seconds.

    Raises:
        UserError: what is given cannot be opened, or A and B do not tell the same classes apart.
    """
    a, b = open_both((first, second), device_for(device), threads, batch_size)
    with a, b:
        source = find_parts(None, str(data))[1] or str(data)
        samples = open_samples(source, multilabel=a.manifest.task == "multilabel")
        lost = [] if skip else missing(samples)
        if lost:
            raise UserError(f"--data: images that do not exist: {at_most(lost, 3)}")
        if not len(samples):
            raise UserError(f"--data {source}: has no images")
        order = order_of(a, b)
        ways = [Way(one, one.manifest.preprocess) for one in (a, b)]
        (found, other), places = answers(ways, list(samples.paths), skip)
        if found.shape != other.shape:
            counts = (plural(rows.shape[1], "class") for rows in (found, other))
            raise UserError(
                f"A tells {next(counts)} apart and B {next(counts)}: give two that do the same"
            )
        samples = samples.subset(places)
        labels = labels_as(samples, a.class_names, found.shape[1], "--data")
        other_decided = b.manifest.answers(other)
        if order is not None:
            other = other[:, order]
            other_decided = renumbered(other_decided, order)
        answered = Answered(found, a.manifest.answers(found)), Answered(other, other_decided)
        decided = [one.decided for one in answered]
        right = [one == labels for one in decided]
        several = labels.ndim == 2
        paths = list(samples.paths)
        folders = (a.folder, b.folder)
        same_file = a.folder.digest() == b.folder.digest()
        weights = None if same_file else weights_difference((first.path, second.path), folders)
        classes = by_class(labels, right[0], right[1], found.shape[1])
        sides = Sides(a, b, order, answered, weights, same_file)
        causes = find_causes(sides, paths, None if several else labels, classes)
        opened = {name: (one.engine, one.folder) for name, one in zip(NAMES, (a, b), strict=True)}
        return Comparison(
            about=(about(first, a), about(second, b)),
            source=source,
            score="label_accuracy" if several else "top1",
            paths=paths,
            labels=labels,
            answered=answered,
            names=a.class_names or b.class_names,
            whole=difference_of(labels, *decided),
            f1=Difference.of_f1(labels, *decided) if several else None,
            classes=classes,
            spread=Spread.of(found, other),
            causes=causes,
            milliseconds=milliseconds(opened, clock) if speed else {},
        )


def open_both(
    both: tuple[Opening, Opening], device: str, threads: int | None, batch_size: int
) -> tuple[Predictor, Predictor]:
    """A and B, where no engine is named in the first one that can run both."""

    def opened(one: Opening, engine: str) -> Predictor:
        return Predictor(one.path, device, threads, engine, one.precision, batch_size)

    asked = [one.engine for one in both if one.engine != "auto"]
    tried = [*asked, *(name for name in CANDIDATES[device] if installed(name))]
    kept: list[Predictor | None] = [None, None]
    refused: list[str] = []
    for engine in dict.fromkeys(tried):
        found: list[Predictor | None] = [None, None]
        for side, one in enumerate(both):
            try:
                found[side] = opened(one, engine if one.engine == "auto" else one.engine)
            except UserError as error:
                if one.engine != "auto":
                    raise
                refused += error.lines
        if found[0] and found[1]:
            return found[0], found[1]
        kept = [before or now for before, now in zip(kept, found, strict=True)]
    if not kept[0] or not kept[1]:
        raise UserError(
            *dict.fromkeys(refused or ["no engine is installed: pip install 'ppcls[deploy]'"])
        )
    return kept[0], kept[1]


def order_of(a: Predictor, b: Predictor) -> np.ndarray | None:
    """B's number of each class of A, int64 [classes]; None where they are the same."""
    if a.manifest.task != b.manifest.task:
        tasks = {"classify": "one label", "multilabel": "several labels"}
        said = [tasks[one.manifest.task] for one in (a, b)]
        raise UserError(f"A gives an image {said[0]} and B {said[1]}: give two that do the same")
    own, others = a.class_names, b.class_names
    if not own or not others or own == others:
        return None
    if sorted(own) != sorted(others) or len(set(own)) < len(own):
        alone = [sorted(set(x) - set(y)) for x, y in ((own, others), (others, own))]
        only = [
            f"only {name} has {at_most([repr(visible(one)) for one in names], 3)}"
            for name, names in zip(NAMES, alone, strict=True)
            if names
        ]
        said = "; ".join(only) or "names that stand twice are in another order"
        raise UserError(f"A and B tell other classes apart: {said}")
    place = {name: number for number, name in enumerate(others)}
    return np.array([place[name] for name in own])


def about(given: Opening, predictor: Predictor) -> dict[str, Any]:
    folder = predictor.folder
    used = [given.path] if given.path.is_file() else folder.files
    return {
        "path": str(given.path),
        "model": folder.manifest.model,
        "precision": folder.manifest.precision,
        "engine": str(predictor.engine.settings),
        "bytes": sum(path.stat().st_size for path in used),
    }


# --------------------------------------------------------------------------- words


def lines(found: Comparison) -> list[str]:
    """What people read, what matters most first."""
    whole = found.whole
    unit = "right" if found.score == "top1" else "of the labels right"
    said = [
        f"{name}: {about['path']}: {100 * score:.2f} % {unit}, {visible(about['model'])} in "
        f"{about['engine']}"
        for name, about, score in zip(NAMES, found.about, (whole.before, whole.after), strict=True)
    ]
    said.append(f"{found.source}: {whole.words(NAMES)}")
    if found.f1:
        said.append(f"F1 {found.f1.before:.4f} and {found.f1.after:.4f}: {found.f1.words(NAMES)}")
    answer = "class" if found.score == "top1" else "labels"
    said.append(
        f"{plural(whole.lost + whole.won, 'image')} change sides: {whole.lost:,} are worse with B, "
        f"{whole.won:,} better; the same {answer} on {100 * found.agreement:.1f} %"
    )
    spread = found.spread
    if spread.largest:
        where = visible(found.paths[spread.where])
        said.append(
            f"probabilities differ by {spread.mean:.2g} on average and {spread.largest:.2g} at "
            f"most ({where})"
        )
    else:
        said.append("probabilities are the same to the last bit")
    said += [f"what differs: {one}" for one in found.causes]
    said += class_lines(found)
    said.append(
        "files: {:,} bytes and {:,}, {:.2f} times as large".format(
            *(one["bytes"] for one in found.about),
            found.about[1]["bytes"] / max(found.about[0]["bytes"], 1),
        )
    )
    for batch, times in found.milliseconds.items():
        a, b = times["A"], times["B"]
        said.append(f"{batch}: {a} ms and {b} ms, B is {a / max(b, 1e-9):.2f} times as fast")
    return said


def class_lines(found: Comparison) -> list[str]:
    """The classes that are better or worse with B, beyond chance."""
    seen = sorted((one for one in found.classes if one.is_seen), key=lambda one: one.p)
    said = [
        f"class {visible(found.class_name(one.number))}: {100 * one.whole.before:.1f} % right with "
        f"A and {100 * one.whole.after:.1f} % with B, of {plural(one.whole.images, 'image')} "
        f"(p {chance(one.p)}, for {plural(len(found.classes), 'class')} tried)"
        for one in seen[:10]
    ]
    more = [f"… and {plural(len(seen) - 10, 'more class')}"] if len(seen) > 10 else []
    return said + more


def to_plain(found: Comparison) -> dict[str, Any]:
    """For programs; shares from 0 to 1."""
    lost, won = found.changed()
    ratios = {
        batch: times["A"] / max(times["B"], 1e-9) for batch, times in found.milliseconds.items()
    }
    return {
        "a": found.about[0],
        "b": found.about[1],
        "data": found.source,
        "score": found.score,
        **found.whole.to_plain(),
        "f1": found.f1.to_plain() if found.f1 else None,
        "agreement": found.agreement,
        "probabilities": {
            "largest": found.spread.largest,
            "path": found.paths[found.spread.where],
            "mean": found.spread.mean,
        },
        "causes": [one.to_plain() for one in found.causes],
        "classes": [
            {
                "number": one.number,
                "name": found.class_name(one.number),
                **one.whole.to_plain(),
                "p_holm": one.p,
                "different": one.is_seen,
            }
            for one in found.classes
        ],
        "worse": [flip(found, int(place)) for place in lost],
        "better": [flip(found, int(place)) for place in won],
        "milliseconds": found.milliseconds,
        "times_as_fast": ratios,
    }


def flip(found: Comparison, place: int) -> dict[str, str]:
    return {
        "path": found.paths[place],
        "true": found.truth(place),
        "a": found.answer(0, place),
        "b": found.answer(1, place),
    }


def write_json(found: Comparison, path: Path, more: dict[str, Any]) -> None:
    text = to_json(to_plain(found) | more, indent=1, allow_nan=False) + "\n"
    write_text(path, text, f"--json {path}")


# --------------------------------------------------------------------------- pictures


def draw(found: Comparison, path: Path) -> str:
    """A sheet of the images that change sides, those that lose first; its files in words.

    Raises:
        UserError: none changes sides, an image is gone, or the sheet cannot be written.
    """
    lost, won = found.changed()
    half = MOST_FLIPS // 2
    shown = [(place, "worse") for place in lost[: max(half, MOST_FLIPS - len(won))]]
    shown += [(place, "better") for place in won[: MOST_FLIPS - len(shown)]]
    if not shown:
        raise UserError(f"--flips {path}: no image changes sides")
    first = [found.paths[place] for place, _ in shown[:8]]
    side = max(max(pixels_of(image, 3, image).shape[:2]) for image in first)
    layout = sheets.lay_out(len(shown), 1, min(side, SIDE), 3)

    def cards():
        for place, kind in shown:
            image: str = found.paths[place]
            texts = [
                f"{kind} with B",
                f"A: {found.answer(0, place)}",
                f"B: {found.answer(1, place)}",
            ]
            yield sheets.Card([pixels_of(image, 3, image)], [f"true: {found.truth(place)}"], texts)

    return sheets.write_pages(f"--flips {path}", path, sheets.draw_pages(cards(), layout))


def report(
    found: Comparison, max_loss: float | None, json: Path | None, flips: Path | None
) -> bool:
    """Say what was found and write the files; whether B loses no more than is allowed.

    Args:
        max_loss: share of the score that B may lose, as measured on these images; None: any.
    """
    say(*lines(found))
    fine = max_loss is None or found.whole.loss <= max_loss + 1e-12
    if max_loss is not None:
        say(verdict(found.whole, max_loss, fine))
    if json:
        write_json(found, json, {"max_loss": max_loss, "passed": fine})
        say(f"wrote {json}")
    if flips and len(found.changed()[0]) + len(found.changed()[1]):
        say(f"wrote {draw(found, flips)}")
    elif flips:
        say(f"no image changes sides: {flips} is not written")
    return fine


def verdict(whole: Difference, max_loss: float, fine: bool) -> str:
    """What `--max-loss` says, and whether so many images can tell."""
    loss, allowed = 100 * max(whole.loss, 0.0), 100 * max_loss
    said = f"B loses {loss:.2f} points, {allowed:g} are allowed: {'passed' if fine else 'FAILED'}"
    if not fine and not whole.is_seen:
        return f"{said}; it may be chance: more images would tell"
    if fine and -whole.low > max_loss:
        return f"{said}; with so few images {-100 * whole.low:.2f} cannot be ruled out"
    return said

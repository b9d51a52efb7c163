"""Cross-validation: a run for each fold of the data, scored on the images that it has not seen.

A run's folder is that of the fold, `fold-1` and so on, in the folder of the whole. There,
`folds.json` says how far it has come; it is replaced as a whole whenever a fold begins or is done.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config.load import from_plain, to_plain
from ppcls.config.tree import differences
from ppcls.data.loader import Batch
from ppcls.data.samples import Dataset
from ppcls.recipe import LENGTH, Recipe, may_change
from ppcls.train import run_folder
from ppcls.train.checkpoint import BEST, LATEST, Trained, read_record
from ppcls.train.evaluate import WORDS, describe, run
from ppcls.train.open_data import each_fold, located, open_part
from ppcls.train.setup import eval_samples, open_trained, refuse_among_images, without_places
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file, write_bytes, write_text
from ppcls.utils.log import say
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import columns, from_json, plural, to_csv, to_json
from ppcls.weights import files

STATE = "folds.json"
TABLE = "folds.md"
PREDICTIONS = "predictions.csv"
COLUMNS = ("path", "label", "fold", "predicted", "score")
WAITING, BEGUN, DONE = "waiting", "begun", "done"

# Trains a recipe's run (going on with it, or in place of another); returns the exit code.
TrainOne = Callable[[Recipe, bool, bool], int]
State = dict[str, Any]


def train_folds(recipe: Recipe, resume: bool, overwrite: bool, train_one: TrainOne) -> int:
    """Train a run for each fold of a recipe, and write what they come to together.

    Args:
        resume: go on with the fold that was interrupted; those that are done are left alone.
        overwrite: start anew although the folder holds earlier folds.

    Returns:
        0, or the exit code of the run that did not come to its end.

    Raises:
        UserError: anything the user can mend.
    """
    refuse_among_images(recipe)
    folder = recipe.folder
    with run_folder.one_run(folder):
        before = read_state(folder) if resume else None
        if not (resume or overwrite):
            refuse_existing(recipe)
        digest = look_at_folds(recipe)
        state = started(recipe, digest) if before is None else before
        if before is not None:
            check_same(recipe, before, digest, folder / STATE)
        elif overwrite:
            for name in (STATE, TABLE, PREDICTIONS):
                (folder / name).unlink(missing_ok=True)
        for fold in state["folds"]:
            own = of_fold(recipe, fold["fold"])
            if fold["state"] == DONE and (own.folder / PREDICTIONS).exists():
                which = f"fold {own.data.fold} of {own.data.folds}"
                say(f"{which}: done before, {describe(fold['scores'])}")
                continue
            code = go_on(own, fold, lambda: write_state(folder, state), train_one)
            if code:
                return code
            with signals_interrupt():
                fold.update(scored(own), state=DONE)
            write_state(folder, state)
        finish(folder, state)
    return 0


def of_fold(recipe: Recipe, number: int) -> Recipe:
    """The recipe of one fold's run, from 1."""
    data = replace(recipe.data, fold=number)
    return replace(recipe, data=data, output=str(recipe.folder / f"fold-{number}"))


def refuse_existing(recipe: Recipe) -> None:
    """UserError for a folder that holds folds already."""
    count = recipe.data.folds or 0
    runs = [of_fold(recipe, number).folder for number in range(1, count + 1)]
    if (recipe.folder / STATE).exists() or any(map(run_folder.has_run, runs)):
        raise UserError(
            f"{recipe.folder} already holds runs of folds: --resume goes on with them, --overwrite "
            f"starts anew, {run_folder.ELSEWHERE}"
        )


def look_at_folds(recipe: Recipe) -> str:
    """See that every fold can be trained before the first one is; returns the images' digest."""
    data = located(recipe.data)
    train = open_part("data.train", data.train, data, recipe.task.multilabel)
    folds = [len(held) for _, held in each_fold(train, data, recipe.seed)]
    sizes = f"{min(folds):,}" + (f" to {max(folds):,}" if min(folds) < max(folds) else "")
    say(f"{train.source}: {plural(len(train), 'image')} in {len(folds)} folds of {sizes}")
    return train.digest()


def go_on(recipe: Recipe, fold: State, note: Callable[[], None], train_one: TrainOne) -> int:
    """Begin a fold's run, or go on with it where it has a checkpoint of its own.

    Args:
        note: writes down what `fold` has become.
    """
    latest = recipe.folder / LATEST
    there = run_folder.state(latest) if latest.exists() else None
    if fold["state"] != WAITING and there and there != fold["before"]:
        return train_one(recipe, True, False)
    fold.update(state=BEGUN, before=there)  # an earlier run's checkpoint, which may come back
    note()
    return train_one(recipe, False, True)


def scored(recipe: Recipe) -> State:
    """What a fold's best weights say of its images: their scores; the predictions are written."""
    best = recipe.folder / BEST
    trained = open_trained(None, (), str(best))
    trained = replace(trained, recipe=replace(trained.recipe, data=recipe.data))
    samples = eval_samples(trained)
    answers: dict[int, tuple[str, str]] = {}

    def keep(batch: Batch, logits: np.ndarray) -> None:
        answers.update(zip(batch.indices.tolist(), answered(trained, logits), strict=True))

    scores = run(trained, samples, keep)
    text = to_csv(rows(samples, recipe.data.fold or 0, answers), "\n")
    write_bytes(recipe.folder / PREDICTIONS, text.encode("utf-8", "surrogateescape"))
    records = [read_record(p, files.metadata_of(p)) for p in (best, recipe.folder / LATEST)]
    return {
        "images": len(answers),
        "step": records[0].step,
        "scores": scores,
        "last": records[1].scores,
    }


def answered(trained: Trained, logits: np.ndarray) -> Iterator[tuple[str, str]]:
    """For each image the class or classes that are predicted, and their probabilities."""
    values = logits.astype(np.float64)
    if trained.recipe.task.multilabel:
        shares = 1 / (1 + np.exp(-values))
        limits = np.array(trained.thresholds or [0.5] * trained.classes)
        chosen = [np.flatnonzero(row > limits) for row in shares]
    else:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        chosen = [[row.argmax()] for row in shares]
    names = trained.names or tuple(map(str, range(trained.classes)))
    for own, row in zip(chosen, shares, strict=True):
        yield ", ".join(names[c] for c in own), ", ".join(f"{row[c]:.4f}" for c in own)


def rows(
    samples: Dataset, fold: int, answers: dict[int, tuple[str, str]]
) -> Iterator[Sequence[Any]]:
    """A row for each image that could be read, in the order of the data set."""
    yield COLUMNS
    for index in sorted(answers):
        predicted, score = answers[index]
        own = samples.labels[index]
        labels = [own] if own.ndim == 0 else np.flatnonzero(own)
        label = ", ".join(samples.class_name(int(number)) for number in labels)
        yield [samples.paths[index], label, fold, predicted, score]


# --------------------------------------------------------------------------
# How far the folds have come


def started(recipe: Recipe, digest: str) -> State:
    numbers = range(1, (recipe.data.folds or 0) + 1)
    folds = [{"fold": number, "state": WAITING, "before": None} for number in numbers]
    return {"recipe": to_plain(recipe), "data": digest, "folds": folds}


def write_state(folder: Path, state: State) -> None:
    write_text(folder / STATE, to_json(state, indent=1) + "\n")


def read_state(folder: Path) -> State:
    """What `write_state` wrote.

    Raises:
        UserError: there is nothing to go on with, or something else.
    """
    path = folder / STATE
    if not path.exists():
        raise UserError(f"{path} does not exist: there are no folds to go on with in {folder}")
    try:
        state = from_json(read_file(path))
        kept = {"recipe": dict(state["recipe"]), "data": str(state["data"])}
        folds = [dict(fold) for fold in state["folds"]]
        for number, fold in enumerate(folds, 1):
            if fold["fold"] != number or fold["state"] not in (WAITING, BEGUN, DONE):
                raise ValueError(f"fold {number}")
            if fold["state"] == DONE:
                fold["scores"] = {str(k): float(v) for k, v in fold["scores"].items()}
                fold["images"] = int(fold["images"])
            fold.setdefault("before", None)
        if len({tuple(sorted(fold["scores"])) for fold in folds if fold["state"] == DONE}) > 1:
            raise ValueError("folds with other scores")
        return {**kept, "folds": folds}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: damaged, so it does not say which folds are done: --overwrite starts anew"
        ) from None


def check_same(recipe: Recipe, state: State, digest: str, path: Path) -> None:
    """UserError where folds would be trained otherwise than those before."""
    old = from_plain(Recipe, state["recipe"], str(path))
    found = differences(without_places(to_plain(old)), without_places(to_plain(recipe)))
    found = {key: text for key, text in found.items() if key == LENGTH or not may_change(key)}
    found |= differences(state["data"], digest, ("images of data.train",))
    if found:
        changes = "; ".join(f"{key}: {change}" for key, change in found.items())
        raise UserError(
            f"{path} was made otherwise ({changes}): resume with the old values, or --overwrite "
            f"starts anew, {run_folder.ELSEWHERE}"
        )


# --------------------------------------------------------------------------
# What all folds come to


def finish(folder: Path, state: State) -> None:
    """Write and say the scores of all folds, and put their predictions together."""
    folds = state["folds"]
    names = list(folds[0]["scores"])
    values = {name: [fold["scores"][name] for fold in folds] for name in names}
    mean = {name: statistics.fmean(found) for name, found in values.items()}
    spread = {name: statistics.stdev(found) for name, found in values.items()}
    write_state(folder, {**state, "mean": mean, "spread": spread})
    write_bytes(folder / PREDICTIONS, b"".join(joined_predictions(folder, len(folds))))
    table = [["fold", "images", *map(heading, names)]]
    for fold in folds:
        shown_scores = [shown(name, fold["scores"][name]) for name in names]
        table.append([str(fold["fold"]), f"{fold['images']:,}", *shown_scores])
    total = sum(fold["images"] for fold in folds)
    both = [f"{shown(name, mean[name])} ± {shown(name, spread[name])}" for name in names]
    table.append(["mean ± spread", f"{total:,}", *both])
    write_text(folder / TABLE, in_markdown(table))
    say(*columns(table))
    say(f"finished: {folder / TABLE}, {folder / STATE}, {folder / PREDICTIONS}")


def joined_predictions(folder: Path, count: int) -> Iterator[bytes]:
    """The folds' files one behind the other, with one header."""
    for number in range(1, count + 1):
        header, _, rest = read_file(folder / f"fold-{number}" / PREDICTIONS).partition(b"\n")
        yield (header + b"\n" if number == 1 else b"") + rest


def in_markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |\n" for row in table]
    return head + "|---|" + "---:|" * (len(table[0]) - 1) + "\n" + "".join(rest)


def heading(name: str) -> str:
    """What a column of scores is called; shares stand there in percent."""
    own = WORDS.get(name) or name.replace("top", "top-")
    return own if name == "loss" else f"{own} %"


def shown(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "loss" else f"{100 * value:.2f}"

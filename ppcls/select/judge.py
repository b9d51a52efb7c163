"""Who scores photos: a recipe's teachers, with what of its data they have to know."""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.check.survey import chunks, in_order
from ppcls.config.load import to_plain
from ppcls.data.datasets import Samples, require_numbers
from ppcls.data.paths import Paths
from ppcls.device import select
from ppcls.errors import UserError
from ppcls.inputs import Inputs, class_names, located, open_eval, open_part, with_preprocess
from ppcls.log import Progress, say
from ppcls.recipe import Recipe
from ppcls.select.look import look
from ppcls.select.photos import Photos
from ppcls.select.scores import Scores
from ppcls.train.distill.step import Guide, together
from ppcls.train.distill.task import Distill
from ppcls.train.distill.teachers import Exported, Network, Peer
from ppcls.train.precision import Precision
from ppcls.train.teachers import find, open_teacher

HASH = "signs of 256 frequencies, 1"  # how ppcls.check.photo hashes
NORMS = ("mean", "std")  # each teacher's own


@dataclass(frozen=True)
class Judge:
    """The teachers of a recipe, which look at photos as its evaluation does."""

    recipe: Recipe
    inputs: Inputs  # without training photos
    nodes: list[Network | Exported]
    precision: Precision

    @property
    def classes(self) -> int:
        return self.recipe.model.num_classes or 0

    def header(self) -> dict[str, Any]:
        """Who judges, and what is seen of a photo; UserError for files that cannot be read."""
        view = to_plain(self.recipe.preprocess)
        teachers = []
        for found in (find(node, self.recipe) for node in self.nodes):
            own = {key: list(getattr(found.preprocess, key)) for key in NORMS}
            teachers.append({"name": found.name, "weights": found.digest, **own})
        return {
            "teachers": teachers,
            **{key: value for key, value in view.items() if key not in NORMS},
            "channels": self.recipe.model.in_channels,
            "classes": self.classes,
            "precision": self.precision.kind,
            "hash": HASH,
        }

    def score(self, photos: Photos, scores: Scores) -> None:
        """Look at the photos that have no score yet.

        Raises:
            DataError: a worker process was ended, maybe by a photo.
            UserError: a teacher does not fit, or its answers are no numbers.
        """
        opened = [
            open_teacher(node, self.recipe, self.inputs, self.precision) for node in self.nodes
        ]
        for teacher in opened:
            say(f"teacher {teacher.name}, {teacher.source}")
        guide, batch = together(opened), self.recipe.eval.batch_size
        read = partial(look, preprocess=self.recipe.preprocess)
        paths = chunks(photos.paths(scores.done), batch)
        with closing(in_order(read, paths, self.recipe.data.workers)) as looked:
            total, first = -(-photos.count // batch), scores.done // batch
            for seen in Progress(looked, f"scores, in batches of {batch}", total, first):
                if len(seen.images):
                    fill(seen.records, *answers(guide, seen.images))
                scores.add(seen.records, seen.reasons)


def open_judge(recipe: Recipe) -> Judge:
    """Choose the device and open the evaluation photos; teachers are opened to score.

    Training photos are opened only where nothing else says how many classes there are.

    Raises:
        UserError: no teacher that could score photos, or data that is missing or at odds.
    """
    nodes = teachers_of(recipe)
    recipe = with_preprocess(recipe)
    select(recipe.device)
    model, data = recipe.model, recipe.data
    classes, names = model.num_classes, class_names(data.labels)
    places = located(data)
    if not classes:
        train = open_part("data.train", places.train, data, recipe.task.several)
        require_numbers(train)
        classes, names = train.classes, train.names
    evaluation = None
    if places.eval or data.holdout:
        evaluation = open_eval(replace(recipe, data=places), classes)
        names = names or evaluation.names
    else:
        say("the recipe has no evaluation photos (data.eval): there are none to keep away from")
    size, batch = recipe.preprocess.crop, recipe.eval.batch_size
    train = replace(recipe.train, size=size, batch_size=batch, repeats=1)
    recipe = replace(recipe, model=replace(model, num_classes=classes), train=train)
    none = Samples(Paths(), np.empty(0, np.int64), names, "")
    precision = Precision(recipe.train.precision, recipe.train.amp_level)
    if precision.note():
        say(precision.note())
    return Judge(recipe, Inputs(none, evaluation, names), nodes, precision)


def teachers_of(recipe: Recipe) -> list[Network | Exported]:
    """The teachers of a recipe, themselves and not files of their answers."""
    nodes = recipe.task.teacher if isinstance(recipe.task, Distill) else ()
    fixed = [replace(node, cache=None) for node in nodes if not isinstance(node, Peer)]
    if not fixed:
        raise UserError(
            "task.teacher: there is none that could score photos; a recipe names one with "
            "task: {kind: distill, teacher: {name: NAME, weights: FILE}}"
        )
    return fixed


@paddle.no_grad()
def answers(guide: Guide, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class (int64 [N]) and its probability (float32 [N]) of uint8 [N, H, W, C]."""
    places = np.zeros(len(images), np.int64)  # of no use: no teacher here has kept answers
    shares = F.softmax(guide(paddle.to_tensor(images), places).logits.astype("float32"), axis=-1)
    labels, confidence = shares.argmax(axis=-1).numpy(), shares.max(axis=-1).numpy()
    if not np.isfinite(confidence).all():
        raise UserError(
            "task.teacher: its answers are no numbers; is it whole? Where a narrow precision "
            "overflows, -o train.precision=fp32"
        )
    return labels, confidence


def fill(records: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> None:
    """Write the answers to the photos that could be read into RECORD [N]."""
    read = records["pixels"] != 0
    records["label"][read], records["confidence"][read] = labels, confidence

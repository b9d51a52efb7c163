"""What each step of a run learns from: which photos, read ahead, in this process's batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import paddle

from ppcls.data.loader import Batch, Reader, train_order
from ppcls.data.sampling import epoch_photos
from ppcls.errors import DataError, UserError
from ppcls.inputs import Inputs
from ppcls.recipe import Recipe
from ppcls.train.processes import Processes


class Feed:
    """The steps of every epoch; the same for all processes, each of which reads its part."""

    def __init__(
        self, recipe: Recipe, inputs: Inputs, processes: Processes, limit: int | None = None
    ):
        """`limit`: steps of an epoch, of which the rest is left out."""
        self.limit = limit
        self.recipe, self.samples, self.processes = recipe, inputs.train, processes
        self.photos_per_step = recipe.train.photos_per_step * processes.count

    def order(self, epoch: int) -> list[np.ndarray]:
        """The photos of each step of an epoch, as virtual indices."""
        train, classes = self.recipe.train, self.recipe.model.num_classes or 0
        shown = epoch_photos(
            train.sampler, self.samples, classes, train.repeats, self.recipe.seed, epoch
        )
        return train_order(shown, self.photos_per_step, train.drop_last)[: self.limit]

    def steps(
        self, reader: Reader, order: Sequence[np.ndarray], epoch: int
    ) -> Iterator[list[Batch] | DataError]:
        """For each step this process's photos, or why there are none.

        They come in batches that fit into memory, the last one maybe smaller.
        """
        size = self.recipe.train.batch_size
        own = [self.processes.part(photos) for photos in order]
        parts = [np.split(photos, range(size, len(photos), size)) for photos in own]
        parts = [[part for part in step if len(part)] for step in parts]
        batches = reader.batches("train", [part for step in parts for part in step], epoch)
        for step in parts:
            try:
                found = [next(batches) for _ in step]
            except DataError as error:
                yield error
                return
            yield found


def check(recipe: Recipe, inputs: Inputs, photos_per_step: int, epoch_steps: int) -> None:
    """What a recipe, its data and the device must agree on, before anything is built.

    Raises:
        UserError: there is nothing to train on, or nothing to evaluate that is needed, or no GPU.
    """
    count, train = len(inputs.train), recipe.train
    if not epoch_steps:
        batches = photos_per_step // train.batch_size
        parts = f" ({batches} batches of {train.batch_size})"
        raise UserError(
            f"data.train has {count} photos, fewer than one batch of {photos_per_step}"
            f"{parts if batches > 1 else ''}: "
            f"-o train.batch_size={max(1, count // batches)} or -o train.drop_last=false"
        )
    classes = recipe.model.num_classes or 0
    for key, asked in asked_scores(recipe).items():
        if inputs.eval is None:
            raise UserError(
                f"{key} needs scores and there is nothing to evaluate: "
                "-o data.eval=PATH or -o data.holdout=0.2"
            )
        if asked not in recipe.task.scored(classes):
            known = ", ".join(recipe.task.scored(classes))
            raise UserError(
                f"{key}: {asked} is not scored in {recipe.task.kind} of {classes} classes: "
                f"{known} are"
            )
    if train.sync_norms and not paddle.get_device().startswith("gpu"):
        raise UserError(
            "train.sync_norms: Paddle synchronises batch norms on GPUs only and this run is on "
            f"{paddle.get_device()}: -o train.sync_norms=false"
        )


def asked_scores(recipe: Recipe) -> dict[str, str]:
    """The scores that a recipe decides by, under the keys that ask for them."""
    train, asked = recipe.train, {}
    if recipe.eval.best:
        asked["eval.best"] = recipe.eval.best
    if train.early_stop:
        asked["train.early_stop.score"] = train.early_stop.score or recipe.best
    if train.schedule.decay.kind == "plateau":
        asked["train.schedule.decay.score"] = train.schedule.decay.score or recipe.best
    return asked

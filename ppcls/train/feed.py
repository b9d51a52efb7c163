"""What each step of a run learns from: which photos, read ahead, in this process's batches."""

from collections.abc import Iterator, Sequence

import numpy as np

from ppcls.data.loader import Batch, Reader, train_order
from ppcls.data.sampler import epoch_photos, mixed_steps
from ppcls.data.unlabeled import Joined
from ppcls.recipe import Recipe
from ppcls.train.distributed import Processes
from ppcls.train.setup import Datasets
from ppcls.utils.errors import DataError


class Feed:
    """The steps of every epoch; the same for all processes, each of which reads its part."""

    def __init__(
        self, recipe: Recipe, inputs: Datasets, processes: Processes, limit: int | None = None
    ):
        """`limit`: steps of an epoch, of which the rest is left out."""
        self.limit = limit
        self.recipe, self.samples, self.processes = recipe, inputs.shown, processes
        self.photos_per_step = recipe.train.photos_per_step * processes.count

    def order(self, epoch: int) -> list[np.ndarray]:
        """The photos of each step of an epoch, as virtual indices."""
        train, classes = self.recipe.train, self.recipe.model.num_classes or 0
        seed, samples = self.recipe.seed, self.samples
        if isinstance(samples, Joined):
            assert self.recipe.data.unlabeled
            sizes = self.recipe.data.unlabeled.split(self.photos_per_step)
            return mixed_steps(train.sampler, samples, classes, sizes, seed, epoch)[: self.limit]
        shown = epoch_photos(train.sampler, samples, classes, train.repeats, seed, epoch)
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

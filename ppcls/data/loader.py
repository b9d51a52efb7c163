"""Images to uint8 batches, in this process or in worker processes, with the same numbers.

The order of an epoch comes from (seed, epoch) and an image's augmentation from (seed, epoch,
virtual index), which `ppcls.data.sampler` explains: a batch depends neither on the number of
workers nor on where a run was interrupted. Workers are started afresh (not forked) and import no
paddle.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from ppcls.config.own import own_parts
from ppcls.data import batch_transforms, decode
from ppcls.data.batch_transforms import BatchTransform
from ppcls.data.preprocess import Preprocess
from ppcls.data.samples import Dataset
from ppcls.data.transforms import Size, Transform, apply, side
from ppcls.data.unlabeled import JoinedDataset
from ppcls.data.workers import WorkerGone, Workers
from ppcls.utils import environment, modules, remote
from ppcls.utils.errors import LATER, AwayError, DataError, UserError
from ppcls.utils.log import Pace, Progress, say
from ppcls.utils.text import plural

MIXED = 1  # tells the random numbers of a batch from those of its first image


@dataclass(frozen=True)
class Batch:
    """images: uint8 [N, H, W, C]; indices: int64 [N] into the data set; labels: int64 [N], -1 where
    unknown, or uint8 [N, classes] of 0 and 1 where an image may have several.

    `shares`: float32 [N, classes] where images were mixed: how much of each class one shows.
    `skipped`: places of images that were to be in it and cannot be read, with the reason.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    shares: np.ndarray | None = None
    skipped: tuple[str, ...] = ()

    @property
    def targets(self) -> np.ndarray:
        """What to learn: the shares or, without any, the labels."""
        return self.labels if self.shares is None else self.shares

    @property
    def known(self) -> np.ndarray:
        """Which images have labels: the indices into this batch, int64 [K]."""
        return np.flatnonzero((self.labels >= 0).reshape(len(self.labels), -1).all(axis=1))


@dataclass(frozen=True)
class TrainPipeline:
    """How training sees images: through random transforms, seeded per epoch and showing.

    The size of a batch and the operations that mix images of `classes` classes are seeded per epoch
    and first showing of the batch. Showings are given as virtual indices.
    """

    ops: tuple[Transform, ...]
    size: Size
    channels: int
    seed: int
    batch_ops: tuple[BatchTransform, ...] = ()
    classes: int = 0
    skip: bool = False  # images that cannot be read

    def __call__(self, image: np.ndarray, epoch: int, index: int, first: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch, index])
        return apply(self.ops, image, rng, side(self.size, self.seed, epoch, first))

    def mix(self, batch: Batch, epoch: int, first: int) -> Batch:
        if not self.batch_ops or not len(batch.images):
            return batch
        rng = np.random.default_rng([self.seed, epoch, first, MIXED])
        shares = batch_transforms.one_hot(batch.labels, self.classes)
        images, shares = batch_transforms.apply(self.batch_ops, batch.images, shares, rng)
        return replace(batch, images=images, shares=shares)


@dataclass(frozen=True)
class EvalPipeline:
    """How evaluation sees an image: always the same."""

    preprocess: Preprocess
    skip: bool = False  # images that cannot be read

    @property
    def channels(self) -> int:
        return self.preprocess.channels

    def __call__(self, image: np.ndarray, epoch: int, index: int, first: int) -> np.ndarray:
        return self.preprocess(image)

    def mix(self, batch: Batch, epoch: int, first: int) -> Batch:
        return batch


Pipeline = TrainPipeline | EvalPipeline
Part = tuple[Dataset | JoinedDataset, Pipeline]


def load_batch(part: Part, shown: np.ndarray, epoch: int, later: np.ndarray | None = None) -> Batch:
    """Read and transform the images of one batch, given as virtual indices int64 [N].

    Args:
        later: those of the batch that will be asked for next, which are read meanwhile where they
            lie elsewhere.

    Raises:
        DataError: an image cannot be read, and is not to be skipped; names it and its line.
    """
    samples, view = part
    first = int(shown[0])
    read_ahead(samples, shown if later is None else np.concatenate([shown, later]))
    kept = []
    skipped = []
    pixels = np.empty((0, 1, 1, view.channels), np.uint8)
    for virtual in shown.tolist():
        index = virtual % len(samples)
        path = samples.paths[index]
        try:
            seen = view(decode.read(path, view.channels), epoch, virtual, first)
        except UserError as error:
            reason = f"{samples.where(index)}: {error.without(path)}"
            if not view.skip or isinstance(error, AwayError):  # the image is good
                raise DataError(reason) from None
            skipped.append(reason)
            continue
        if not kept:
            pixels = np.empty((len(shown), *seen.shape), np.uint8)
        pixels[len(kept)] = seen  # copied while it is in the cache, its memory then used again
        kept.append(index)
    indices = np.array(kept, np.int64)
    batch = Batch(pixels[: len(kept)], samples.labels[indices], indices, skipped=tuple(skipped))
    return view.mix(batch, epoch, first)


def read_ahead(samples: Dataset | JoinedDataset, shown: np.ndarray) -> None:
    """Begin to read the images that lie elsewhere."""
    paths = (samples.paths[virtual % len(samples)] for virtual in shown.tolist())
    spans = [span for path in paths if (span := getattr(path, "span", None))]
    if spans:
        remote.read_ahead(spans)


class Loader:
    """Batches of several data sets (`parts`), read ahead by `workers` processes."""

    def __init__(self, parts: Mapping[str, Part], workers: int):
        """UserError where so many workers are a slip of the finger."""
        check_workers(workers)
        self.parts = dict(parts)
        self.workers = workers if not workers or can_be_sent(self.parts) else 0
        self.pool: Workers | None = None

    def batches(self, name: str, order: Sequence[np.ndarray], epoch: int = 0) -> Iterator[Batch]:
        """The batches of one part whose virtual indices `order` lists."""
        # Calls are dealt out in turn: so many later is the next one of the same process.
        turns = max(1, self.workers)
        following = zip_longest(order, order[turns:])
        if not self.workers:
            part = self.parts[name]
            yield from (load_batch(part, indices, epoch, later) for indices, later in following)
            return
        pool = self.started()
        pending: deque[int] = deque()
        try:
            for indices, later in following:
                pending.append(pool.submit(name, indices, epoch, later))
                if len(pending) > 2 * self.workers:
                    yield pool.result(pending.popleft())
            while pending:
                yield pool.result(pending.popleft())
        except WorkerGone:
            raise DataError(
                "a data worker was ended from outside, most likely for lack of memory; "
                f"fewer workers need less: -o data.workers=0, or {LATER}"
            ) from None
        finally:
            for number in pending:
                pool.forget(number)

    def evaluation(
        self, batch: int, rank: int = 0, processes: int = 1, pace: Pace | None = None
    ) -> Progress[Batch]:
        """Every image of the part "eval", in order, with a progress bar.

        Of several processes each gets every so manieth batch, the first of them from number `rank`.
        """
        order = eval_order(len(self.parts["eval"][0]), batch)[rank::processes]
        return Progress(self.batches("eval", order), "evaluation", len(order), pace=pace)

    def started(self) -> Workers:
        if not self.pool:
            self.pool = Workers(self.workers, work, Sent(self.parts))
        return self.pool

    def close(self) -> None:
        remote.forget()
        if self.pool:
            self.pool.close()
            self.pool = None


def check_workers(count: int) -> None:
    cores = environment.core_count()
    most = environment.most_at_once()
    if count > most:
        raise UserError(
            f"data.workers={count}: more processes than {plural(cores, 'core')} can serve, "
            f"{most} at most: -o data.workers={cores}"
        )


class Sent:
    """What a worker process gets. Modules that were named may be looked up there before that."""

    def __init__(self, parts: dict[str, Part]):
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle calls the function first, and only then looks up the classes of the parts.
        known = tuple(modules.allowed), tuple(modules.folders)
        return received, known, self.parts

    def __setstate__(self, parts: dict[str, Part]) -> None:
        self.parts = parts


def received(names: Sequence[str], folders: Sequence[str]) -> Sent:
    modules.allow(names, folders)
    return Sent({})


def can_be_sent(parts: Mapping[str, Part]) -> bool:
    """Whether workers can have the parts: those of a notebook or a script they cannot import."""
    for dataset, view in parts.values():
        images = dataset.labeled.paths if isinstance(dataset, JoinedDataset) else dataset.paths
        own = [one.part for one in own_parts(view)]
        for part in [*own, getattr(images, "part", None)]:
            path = modules.path_of(part)
            if path.startswith("__main__."):
                name = path.removeprefix("__main__.")
                say(
                    f"note: {name} is written in a notebook or script: images are read in this "
                    "process; in a module of its own it would also work in data.workers"
                )
                return False
    return True


def work(
    sent: Sent, name: str, indices: np.ndarray, epoch: int, later: np.ndarray | None = None
) -> Batch:
    return load_batch(sent.parts[name], indices, epoch, later)


def step_batches(
    loader: Loader, name: str, steps: Sequence[np.ndarray], batch_size: int, epoch: int
) -> Iterator[list[Batch]]:
    """For each step, given as virtual indices, its batches; the last one may be smaller.

    Raises:
        DataError: at the first step with an image that cannot be read and is not to be skipped.
    """
    parts = [np.split(shown, range(batch_size, len(shown), batch_size)) for shown in steps]
    parts = [[part for part in step if len(part)] for step in parts]
    batches = loader.batches(name, [part for step in parts for part in step], epoch)
    for step in parts:
        yield [next(batches) for _ in step]


def eval_order(count: int, batch: int) -> list[np.ndarray]:
    """The image indices of each batch, in order, the last one maybe smaller."""
    return [np.arange(i, min(i + batch, count)) for i in range(0, count, batch)]

"""Scores of a network on labelled images."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from PIL import Image

from ppcls.data import decode
from ppcls.data.loader import Batch, EvalPipeline, Loader
from ppcls.data.samples import Dataset
from ppcls.metrics import Meter
from ppcls.models.class_maps import grad_cam, why_no_grad_cam
from ppcls.models.layers import Normalize
from ppcls.report import figures, page
from ppcls.report.figures import Outcomes
from ppcls.report.heatmaps import over
from ppcls.train.checkpoint import Trained
from ppcls.utils.device import on_device
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import plural

WORDS = {"map": "mAP", "f1": "F1"}

Keep = Callable[[Batch, np.ndarray], None]


@paddle.no_grad()
def evaluate(
    network: nn.Layer, batches: Iterable[Batch], meter: Meter, keep: Keep | None = None
) -> Meter:
    """Let the meter take in all batches and return it; the network is left in evaluation mode.

    Args:
        network: from uint8 images [N, H, W, C] to logits [N, classes].
        keep: is handed each batch and its logits, float32 [N, classes].
    """
    network.eval()
    for batch in batches:
        if not len(batch.images):  # none of its images could be read
            continue
        logits = network(on_device(batch.images)).astype("float32")
        meter.add(logits, batch.labels)
        if keep:
            keep(batch, logits.numpy())
    return meter


def noting(batches: Iterable[Batch], skipped: list[str]) -> Iterator[Batch]:
    """The batches; what they had to leave out is added to `skipped`."""
    for batch in batches:
        skipped.extend(batch.skipped)
        yield batch


def describe(scores: dict[str, float]) -> str:
    """The scores in words: `top-1 98.06 %, top-5 99.72 %, loss 0.0712`."""
    shares = [
        f"{WORDS.get(name) or name.replace('top', 'top-')} {100 * value:.2f} %"
        for name, value in scores.items()
        if name != "loss"
    ]
    return ", ".join([*shares, f"loss {scores['loss']:.4f}"])


# --------------------------------------------------------------------------
# A trained network's scores on its recipe's evaluation images


def score(
    trained: Trained, samples: Dataset, report: Path | None = None, overwrite: bool = False
) -> dict[str, float]:
    """Evaluate and print; returns the scores that training gives.

    Args:
        samples: the images, with labels as the network numbers its classes.
        report: a folder for `report.html` and the files that belong to it. An earlier report on
            the same weights and images is replaced.
        overwrite: replace a report on others, too.

    Raises:
        UserError: a broken image, a report that cannot be written.
    """
    if not report:
        return run(trained, samples)
    outcomes = Outcomes.to_fill(samples, trained.classes)
    about = {
        "model": trained.recipe.model.title,
        "weights": str(trained.source),
        "data": samples.source,
    }
    with page.staged(report, page.FILES, page.RECORD, about, overwrite) as folder:
        scores = run(trained, samples, outcomes.add)
        names = trained.names or samples.names
        found = figures.make(about, scores, names, outcomes.filled())
        with page.writing(report):
            page.write(found, folder, heat_maps(trained, found))
    say(f"wrote {report / page.PAGE}")
    return scores


def heat_maps(trained: Trained, report: figures.Report) -> dict[int, Image.Image]:
    """Where the network saw the predicted class of the worst mistakes (arXiv:1610.02391), by their
    places among the images; {} where it does not say what its features are.
    """
    if why_no_grad_cam(trained.net):
        return {}
    preprocess = trained.recipe.preprocess
    trained.net.eval()
    drawn = {}
    for index in report.worst:
        pixels = decode.read(report.outcomes.samples.paths[index], preprocess.channels)
        inputs = paddle.to_tensor(preprocess.normalize([preprocess(pixels)]))
        classes = report.outcomes.predicted[index].reshape(1, 1)
        try:
            values = grad_cam(trained.net, inputs, classes)[0, 0]
        except UserError:
            return {}
        drawn[index] = over(pixels, values, preprocess, page.SIDE)
    return drawn


def run(trained: Trained, samples: Dataset, keep: Keep | None = None) -> dict[str, float]:
    preprocess = trained.recipe.preprocess
    data = trained.recipe.data
    task = trained.recipe.task
    network = Normalize.before(trained.net, preprocess.scale, preprocess.offset)
    view = EvalPipeline(preprocess, data.on_error == "skip")
    loader = Loader({"eval": (samples, view)}, data.workers)
    meter = task.meter(trained.classes, trained.thresholds)
    skipped: list[str] = []
    try:
        batches = loader.evaluation(trained.recipe.eval.batch_size)
        evaluate(network, noting(batches, skipped), meter, keep)
    finally:
        loader.close()
    if not meter.parts:
        raise UserError(f"data.eval: no image of {samples.source} can be read: {skipped[0]}")
    scores = meter.scores()
    if skipped:
        many = f"{plural(len(skipped), 'image')} cannot be read"
        say(f"note: {many} and did not count, such as {skipped[0]}")
    if task.multilabel and not trained.thresholds:
        say("note: F1 is at thresholds chosen on these images: the checkpoint has none")
    say(f"{trained.source} on {plural(len(samples) - len(skipped), 'image')}: {describe(scores)}")
    return scores

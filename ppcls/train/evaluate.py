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
from ppcls.metrics import Meter, MultiLabelMeter, attributes
from ppcls.models.class_maps import grad_cam, why_no_grad_cam
from ppcls.models.layers import Normalize
from ppcls.report import figures, multilabel, multilabel_page, page
from ppcls.report.figures import Outcomes
from ppcls.report.heatmaps import over
from ppcls.report.multilabel import MultiLabelOutcomes
from ppcls.thresholds import MIDDLE, Aim, Aims, Chosen, choose, lines
from ppcls.train.checkpoint import Trained
from ppcls.utils.device import on_device
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import at_most, plural

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
    trained: Trained,
    samples: Dataset,
    report: Path | None = None,
    overwrite: bool = False,
    aims: Aims | None = None,
) -> dict[str, float]:
    """Evaluate and print; returns the scores that training gives.

    Args:
        samples: the images, with labels as the network numbers its classes.
        report: a folder for `report.html` and the files that belong to it. An earlier report on
            the same weights and images is replaced.
        overwrite: replace a report on others, too.
        aims: choose thresholds by them on these images, say what they reach, and score at them.

    Raises:
        UserError: a broken image, a report that cannot be written, an aim of a class that there is
            not, or where the likeliest of more than two classes wins.
    """
    if aims:
        require_thresholds(trained)
    if not report:
        return run(trained, samples, aims=aims)
    outcomes = to_fill(trained, samples)
    about = {
        "model": trained.recipe.model.title,
        "weights": str(trained.source),
        "data": samples.source,
    }
    names = trained.names or samples.names
    own, others = page.FILES, multilabel_page.FILES
    if trained.recipe.task.multilabel:
        own, others = others, own
    files = dict.fromkeys((*others[:-1], *own))  # of an earlier report of the other kind, too
    with page.staged(report, tuple(files), page.RECORD, about, overwrite) as folder:
        meter, chosen = measure(trained, samples, outcomes, aims=aims)
        scores = meter.scores()
        filled = outcomes.filled()
        if isinstance(filled, MultiLabelOutcomes):
            limits = meter.thresholds()
            source = source_of(trained, chosen)
            several = multilabel.make(about, scores, names, filled, limits, source, chosen)
            with page.writing(report):
                multilabel_page.write(several, folder)
        else:
            one = figures.make(about, scores, names, filled)
            with page.writing(report):
                page.write(one, folder, heat_maps(trained, one))
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


def to_fill(trained: Trained, samples: Dataset) -> Outcomes | MultiLabelOutcomes:
    """Room for the answers to these images."""
    several = trained.recipe.task.multilabel
    return (MultiLabelOutcomes if several else Outcomes).to_fill(samples, trained.classes)


def source_of(trained: Trained, chosen: Chosen | None) -> str:
    """Where the thresholds in force are from, in words."""
    if chosen:
        return f"chosen on these images for {chosen.aim}"
    return "of the checkpoint" if trained.thresholds else f"chosen on these images for {Aim('f1')}"


def run(
    trained: Trained, samples: Dataset, keep: Keep | None = None, aims: Aims | None = None
) -> dict[str, float]:
    """Evaluate and print; `keep` is handed each batch and its logits."""
    outcomes = to_fill(trained, samples) if aims else None
    return measure(trained, samples, outcomes, keep, aims)[0].scores()


def measure(
    trained: Trained,
    samples: Dataset,
    outcomes: Outcomes | MultiLabelOutcomes | None = None,
    keep: Keep | None = None,
    aims: Aims | None = None,
) -> tuple[Meter, Chosen | None]:
    """Evaluate, choose thresholds where there are aims, and print.

    Args:
        outcomes: to be filled with the answers; with aims they are needed.
    """
    names = trained.names or samples.names or tuple(map(str, range(trained.classes)))
    first = 0 if trained.recipe.task.multilabel else 1  # of two classes the second has a threshold
    by_class, unnamed = aims.of_classes(names, first) if aims else ([], [])
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
        evaluate(network, noting(batches, skipped), meter, outcomes.add if outcomes else keep)
    finally:
        loader.close()
    if not meter.parts:
        raise UserError(f"data.eval: no image of {samples.source} can be read: {skipped[0]}")
    chosen = None
    if aims and outcomes:
        found = outcomes.filled()
        scores, labels = found.probabilities, found.labels
        if labels.ndim == 1:
            scores, labels = scores[:, 1:], (labels == 1)[:, None]
        chosen = choose(scores, labels, by_class, names[first:], samples.source)
        if isinstance(meter, MultiLabelMeter):
            meter.given = list(chosen.values)
    scores = meter.scores()
    if skipped:
        many = f"{plural(len(skipped), 'image')} cannot be read"
        say(f"note: {many} and did not count, such as {skipped[0]}")
    if task.multilabel and not trained.thresholds and not aims:
        say("note: F1 is at thresholds chosen on these images: the checkpoint has none")
    if aims and unnamed:
        many = plural(len(unnamed), "class is", "classes are")
        say(f"note: {many} not in {aims.source}, so for {aims.rest}: {at_most(unnamed)}")
    if chosen:
        say(*lines(chosen))
    say(f"{trained.source} on {plural(len(samples) - len(skipped), 'image')}: {describe(scores)}")
    if isinstance(meter, MultiLabelMeter):
        say(attribute_words(meter))
    return meter, chosen


def attribute_words(meter: MultiLabelMeter) -> str:
    """The metrics of attribute recognition, at the thresholds in force and at the usual one."""
    probabilities, labels = meter.joined()
    found = []
    for limits, where in ((np.array(meter.thresholds()), "at the thresholds"), (MIDDLE, "at 0.5")):
        values = attributes(probabilities > limits, labels)
        own = [f"{'mA' if k == 'ma' else k} {100 * v:.2f} %" for k, v in values.items()]
        found.append(f"{where} {', '.join(own)}".replace("f1", "F1"))
    return f"attributes {'; '.join(found)}"


# --------------------------------------------------------------------------
# Thresholds by an aim


def require_thresholds(trained: Trained) -> None:
    """UserError for a network that has no use for thresholds."""
    if not trained.recipe.task.multilabel and trained.classes != 2:
        raise UserError(
            "thresholds by an aim are for several labels per image, or for the second of two "
            f"classes; of the {trained.classes:,} classes of {trained.source} the likeliest wins "
            "(ppcls calibrate --costs decides between them by costs)"
        )


def choose_thresholds(trained: Trained, samples: Dataset, aims: Aims) -> Chosen:
    """Evaluate, and choose thresholds on these images; both is printed.

    Raises:
        UserError: a broken image, an aim of a class that there is not, or a network that has no use
            for thresholds.
    """
    require_thresholds(trained)
    _, chosen = measure(trained, samples, to_fill(trained, samples), aims=aims)
    assert chosen
    return chosen

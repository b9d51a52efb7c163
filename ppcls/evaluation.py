"""A trained network's scores on its recipe's evaluation photos."""

from collections.abc import Iterator
from pathlib import Path

from ppcls.data.datasets import Samples
from ppcls.data.loader import Batch, Reader
from ppcls.errors import UserError
from ppcls.inputs import eval_view, open_eval
from ppcls.log import say
from ppcls.models.normalize import Normalize
from ppcls.report import figures, target, write
from ppcls.report.outcomes import Outcomes
from ppcls.train.evaluate import Keep, describe, evaluate
from ppcls.trained import Trained
from ppcls.utils.text import plural


def score(
    trained: Trained, report: Path | None = None, overwrite: bool = False
) -> dict[str, float]:
    """Evaluate and print; returns the scores that training gives.

    Args:
        report: a folder for `report.html` and the files that belong to it. An earlier report on
            the same weights and photos is replaced.
        overwrite: replace a report on others, too.

    Raises:
        UserError: no evaluation data, other classes than the network's, a broken photo, a report
            that cannot be written.
    """
    whose = str(trained.source)
    samples = open_eval(trained.recipe, trained.classes, trained.names, whose)
    if not report:
        return run(trained, samples)
    outcomes = Outcomes.to_fill(samples, trained.classes)
    about = {
        "model": trained.recipe.model.name,
        "weights": str(trained.source),
        "data": samples.source,
    }
    with target.staged(report, write.FILES, write.RECORD, about, overwrite) as folder:
        scores = run(trained, samples, outcomes.add)
        names = trained.names or samples.names
        found = figures.make(about, scores, names, outcomes.filled())
        with target.writing(report):
            write.write(found, folder)
    say(f"wrote {report / write.PAGE}")
    return scores


def run(trained: Trained, samples: Samples, keep: Keep | None = None) -> dict[str, float]:
    recipe = trained.recipe
    network = Normalize.before(trained.net, recipe.preprocess.scale, recipe.preprocess.offset)
    reader = Reader({"eval": (samples, eval_view(recipe))}, recipe.data.workers)
    tally = recipe.task.tally(trained.classes, trained.thresholds)
    skipped: list[str] = []

    def noted() -> Iterator[Batch]:
        for batch in reader.evaluation(recipe.eval.batch_size):
            skipped.extend(batch.skipped)
            yield batch

    try:
        evaluate(network, noted(), tally, keep)
    finally:
        reader.close()
    if not tally.parts:
        raise UserError(f"data.eval: no photo of {samples.source} can be read: {skipped[0]}")
    scores = tally.scores()
    if skipped:
        many = f"{plural(len(skipped), 'photo')} cannot be read"
        say(f"note: {many} and did not count, such as {skipped[0]}")
    if recipe.task.several and not trained.thresholds:
        say("note: F1 is at thresholds chosen on these photos: the checkpoint has none")
    say(f"{trained.source} on {plural(len(samples) - len(skipped), 'photo')}: {describe(scores)}")
    return scores

"""A trained network's scores on its recipe's evaluation photos."""

from ppcls.data.datasets import Samples
from ppcls.data.loader import Reader
from ppcls.errors import UserError
from ppcls.inputs import eval_view, open_eval
from ppcls.log import say
from ppcls.models.normalize import Normalize
from ppcls.train.evaluate import describe, evaluate
from ppcls.trained import Trained


def score(trained: Trained) -> dict[str, float]:
    """Evaluate and print; returns the scores that training gives.

    Raises:
        UserError: no evaluation data, other classes than the network's, a broken photo.
    """
    recipe = trained.recipe
    samples = open_eval(recipe, trained.classes)
    check_names(samples, trained)
    network = Normalize.before(trained.net, recipe.preprocess.scale, recipe.preprocess.offset)
    reader = Reader({"eval": (samples, eval_view(recipe))}, recipe.data.workers)
    tally = recipe.task.tally(trained.classes, trained.thresholds)
    try:
        evaluate(network, reader.evaluation(recipe.eval.batch_size), tally)
    finally:
        reader.close()
    scores = tally.scores()
    if recipe.task.several and not trained.thresholds:
        say("note: F1 is at thresholds chosen on these photos: the checkpoint has none")
    say(f"{trained.source} on {len(samples)} photos: {describe(scores)}")
    return scores


def check_names(samples: Samples, trained: Trained) -> None:
    """The photos' classes must be the network's; names of another kind are compared by order."""
    own, names = trained.names, samples.names
    if not own or not names or own == names:
        return
    shared = set(own) & set(names)
    if shared:
        odd = sorted(set(names) ^ set(own)) or ["the order"]
        raise UserError(
            f"{samples.source}: its classes are not those of {trained.source}; "
            f"what differs: {', '.join(odd[:5])}"
        )
    say(f"note: {names[0]!r} is taken for {own[0]!r} and so on, in order: no name is in both")

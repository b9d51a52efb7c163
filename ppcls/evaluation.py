"""A trained network's scores on its recipe's evaluation photos."""

from paddle import nn

from ppcls.data.datasets import Samples
from ppcls.data.loader import Reader, eval_order
from ppcls.errors import UserError
from ppcls.log import Progress, say
from ppcls.models.normalize import Normalize
from ppcls.train.evaluate import describe, evaluate
from ppcls.train.inputs import eval_view, open_eval
from ppcls.trained import Trained


def score(trained: Trained) -> dict[str, float]:
    """Evaluate and print; returns top-k accuracies and loss as in training.

    Raises:
        UserError: no evaluation data, other classes than the network's, a broken photo.
    """
    recipe = trained.recipe
    samples = open_eval(recipe)
    check_names(samples, trained)
    network = nn.Sequential(
        Normalize(recipe.preprocess.scale, recipe.preprocess.offset), trained.net
    )
    reader = Reader({"eval": (samples, eval_view(recipe))}, recipe.data.workers)
    order = eval_order(len(samples), recipe.eval.batch_size)
    try:
        batches = Progress(reader.batches("eval", order), "evaluation", len(order))
        scores = evaluate(network, batches, trained.classes)
    finally:
        reader.close()
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

"""A trained network's scores on its recipe's evaluation photos."""

from paddle import nn

from ppcls.data.loader import Reader, eval_order
from ppcls.log import Progress, say
from ppcls.models.normalize import Normalize
from ppcls.train.evaluate import describe, evaluate
from ppcls.train.inputs import eval_view, open_eval
from ppcls.trained import Trained


def score(trained: Trained) -> dict[str, float]:
    """Evaluate and print; returns top-k accuracies and loss as in training.

    Raises:
        UserError: no evaluation data, labels outside the network's classes, a broken photo.
    """
    recipe = trained.recipe
    samples = open_eval(recipe)
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

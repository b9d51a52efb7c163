"""When several processes that share the images of a step compute what one process does.

They do, up to float32 rounding, where nothing looks at several images at once: gradients are added
up, and dropout and drop path are drawn in each of them for all images of the step (`SharedDraw`).
"""

from ppcls.config.own import Own
from ppcls.data.transforms import sides
from ppcls.models import registry
from ppcls.models.own import OwnSpec
from ppcls.recipe import Recipe
from ppcls.tasks import Distill


def why_not(recipe: Recipe) -> str:
    """Why several processes would not compute what one does; "" where the recipe lets them.

    Whether all norms are frozen, the network itself has to tell.
    """
    train = recipe.train
    model = recipe.model
    own = model.given or isinstance(registry.spec_of(model.name), OwnSpec)
    reasons = {
        "train.accumulate": train.accumulate > 1 and "draws for one batch after the other",
        "train.repeats": train.repeats > 1 and "keeps showings of an image together",
        "train.batch_transforms": train.batch_transforms and "mix the images of a batch",
        "train.size": len(sides(recipe.train_size)) > 1 and "changes between batches",
        "train.sync_norms": train.sync_norms and "is for GPUs",
        "task.kind": isinstance(recipe.task, Distill) and "distill may compare images",
        "task.loss": isinstance(recipe.task.loss, Own) and "of one's own may compare images",
        "model.name": own and "of one's own may compare images",
        "model.freeze": not any("norm" in entry or entry == "*" for entry in model.freeze)
        and "leaves norms to train, which look at all images of a batch: '*.norm.*' freezes them",
    }
    return next((f"{key}: {reason}" for key, reason in reasons.items() if reason), "")

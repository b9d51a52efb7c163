"""What a recipe, its data and the device must agree on before a run."""

import paddle
from paddle import nn

from ppcls.data.datasets import one_class
from ppcls.inputs import Inputs
from ppcls.optim.parameters import HEAD, random_ones
from ppcls.recipe import Model, Recipe
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural


def check(recipe: Recipe, inputs: Inputs, photos_per_step: int, epoch_steps: int) -> None:
    """What a recipe, its data and the device must agree on, before anything is built.

    Raises:
        UserError: there is nothing to train on, or nothing to evaluate that is needed, or no GPU.
    """
    count, train = len(inputs.shown), recipe.train
    alone = one_class(inputs.train)
    if alone and getattr(recipe.task, "labels_weight", 1):  # else a teacher says what they show
        raise UserError(f"data.train: {alone}")
    if not epoch_steps:
        batches = photos_per_step // train.batch_size
        parts = f" ({batches} batches of {train.batch_size})"
        if inputs.unlabeled is not None:
            raise UserError(
                f"data.train and data.unlabeled have {plural(count, 'photo')} together, "
                "fewer than one step "
                f"of {photos_per_step}: -o train.batch_size={max(2, count // batches)}"
            )
        raise UserError(
            f"data.train has {plural(count, 'photo')}, fewer than one batch of {photos_per_step}"
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


def check_freeze(model: Model, net: nn.Layer) -> None:
    """What a new run's network leaves as it is must have learnt something before.

    Raises:
        UserError: it is random. Constants may stay: norms without a scale and shift of their own.
    """
    frozen = random_ones(net) if model.freeze else []
    if frozen and not model.weights:
        raise UserError(
            f"model.freeze would keep random weights ({frozen[0]} and so on), as model.weights "
            "is not given: give model.weights, or -o model.freeze=[]"
        )
    if model.new_head and any(name.startswith(HEAD) for name in frozen):
        raise UserError(
            "model.freeze would keep the classifier that model.new_head starts afresh, which is "
            "random: leave head.* out of model.freeze, or -o model.new_head=false"
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

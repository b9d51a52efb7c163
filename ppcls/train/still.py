"""What a teacher whose answers are kept may be shown: each photo in one way, apart from flips."""

from typing import Any

from ppcls.config.load import to_plain
from ppcls.data.loader import TrainView
from ppcls.inputs import train_view
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError

STILL = ("resize", "resize_short", "center_crop", "pad")  # the same in every epoch
FLIPS = ("horizontal_flip",)  # for which the answer to the photo that is not flipped serves


def still_view(recipe: Recipe) -> TrainView:
    """The recipe's view of training photos without flips.

    Raises:
        UserError: it shows photos otherwise in each epoch.
    """
    train = recipe.train
    moving = [op.op for op in train.ops if op.op not in STILL + FLIPS]
    moving += [op.op for op in train.batch_ops]
    if moving:
        raise UserError(
            f"a teacher's answers are kept for photos that look the same in every epoch, and "
            f"{moving[0]} changes them: -o 'train.ops=[{{op: resize_short}}, {{op: center_crop}}, "
            "{op: horizontal_flip}]' train.batch_ops=[], or leave out teacher.cache"
        )
    if not isinstance(recipe.train_size, int):
        raise UserError(
            "a teacher's answers are kept for one size of photos: -o train.size=224, or leave out "
            "teacher.cache"
        )
    view = train_view(recipe)
    ops = tuple(op for op in view.ops if op.op not in FLIPS)
    return TrainView(ops, view.size, view.channels, view.seed)


def seen_as(view: TrainView) -> dict[str, Any]:
    """What a header says of a view."""
    ops = [to_plain(op) for op in view.ops]
    return {"ops": ops, "size": view.size, "channels": view.channels}

"""A teacher's answers to the training photos, written once for runs that learn from them."""

from dataclasses import replace
from pathlib import Path

import paddle

from ppcls.data.loader import Reader, eval_order
from ppcls.inputs import open_inputs
from ppcls.recipe import Recipe
from ppcls.tasks import Distill, Exported, Network, Peer
from ppcls.train.answers import Writing
from ppcls.train.step import Precision
from ppcls.train.still import still_view
from ppcls.train.teachers import find, header, open_teacher
from ppcls.utils.device import select
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import Progress, say
from ppcls.utils.text import plural

TOP = 32  # classes whose answers are kept, unless told


def teach(recipe: Recipe, output: Path, top: int = TOP, which: int = 0) -> Path:
    """Write what a recipe's teacher answers to its training photos, or go on with that.

    Args:
        top: classes of each photo that are kept.
        which: of several teachers that are no peers, counted from 0.

    Raises:
        UserError: the recipe has no such teacher, or shows photos otherwise in each epoch; or
            `output` cannot be written or holds something else.
    """
    node = teacher_of(recipe, which)
    select(recipe.device)
    recipe, inputs = open_inputs(recipe)
    view = still_view(recipe)
    teacher = open_teacher(node, recipe, inputs, Precision("fp32", "O1"))
    about = header(find(node, recipe), view, recipe, inputs)
    top = min(top, recipe.model.num_classes or 0)
    writing = Writing(output, {**about, "top": top})
    samples = inputs.shown
    order = eval_order(len(samples), recipe.train.batch_size)
    # Whole batches, for the answers to a photo differ in the last bits with those beside it.
    first = len(order)
    if writing.done < len(samples):
        first = writing.done // recipe.train.batch_size
        writing.cut(first * recipe.train.batch_size)
    reader = Reader({"train": (samples, view)}, recipe.data.workers)
    batches = reader.batches("train", order[first:])
    try:
        for batch in Progress(batches, f"teacher {teacher.name}", len(order), first):
            with paddle.no_grad():
                seen = teacher(paddle.to_tensor(batch.images), batch.indices)
            writing.add(seen.logits.numpy())
    except DataError as error:
        raise UserError(f"{error}; the same command goes on from here") from None
    finally:
        reader.close()
        writing.close()
    say(
        f"{output}: {teacher.name}'s answers to {plural(len(samples), 'photo')}, "
        f"{plural(top, 'class')} each"
    )
    return output


def teacher_of(recipe: Recipe, which: int) -> Network | Exported:
    """The teacher that is to answer, without a file of its answers."""
    teachers = recipe.task.teacher if isinstance(recipe.task, Distill) else ()
    fixed = [node for node in teachers if not isinstance(node, Peer)]
    if which >= len(fixed):
        raise UserError(
            f"task.teacher: there is no teacher {which + 1} whose answers could be kept; a recipe "
            "names one with task: {kind: distill, teacher: {name: NAME, weights: FILE}}"
        )
    return replace(fixed[which], cache=None)

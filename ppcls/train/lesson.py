"""What a run's network learns from: its task's step, and whatever teaches or trains beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from paddle import nn

from ppcls.api import create_model
from ppcls.inputs import Inputs
from ppcls.losses.distill import Compare
from ppcls.losses.distill_layers import build
from ppcls.models.layers import Normalize
from ppcls.recipe import Recipe
from ppcls.tasks import Distill, Peer, Step
from ppcls.train.distill import Learning, Mutual, looking, together, widths
from ppcls.train.step import Precision
from ppcls.train.teachers import AnyTeacher, NetworkTeacher, open_teacher
from ppcls.utils.errors import UserError


@dataclass
class Lesson:
    """The step; `layers`, which train and are saved beside the network; teachers, which do not."""

    step: Step
    layers: nn.LayerList = field(default_factory=nn.LayerList)
    teachers: Sequence[AnyTeacher] = ()
    peer: str = ""  # the name of a second student's network

    def __post_init__(self):
        self.digests = [teacher.digest() for teacher in self.teachers]

    def about(self) -> list[str]:
        """A line on each teacher."""
        lines = [f"teacher {teacher.name}, {teacher.source}" for teacher in self.teachers]
        return [*lines, f"{self.peer} trains beside it"] if self.peer else lines

    def take(self, digests: Sequence[str]) -> None:
        """UserError unless these are the teachers that the run began with."""
        for teacher, now, before in zip(self.teachers, self.digests, digests, strict=True):
            if now != before:
                raise UserError(
                    f"task.teacher: {teacher.source} is not what it was when the run began: put "
                    "the earlier file back, or start a new run"
                )

    def check(self) -> None:
        """Teachers are what they were when the run began, to the bit."""
        for teacher, digest in zip(self.teachers, self.digests, strict=True):
            assert teacher.digest() == digest, f"the teacher {teacher.source} changed in the run"


def lesson(recipe: Recipe, inputs: Inputs, network: nn.Sequential, precision: Precision) -> Lesson:
    """The lesson of a recipe for its network, which has its `Normalize` before it.

    Raises:
        UserError: a teacher that cannot be had or does not fit.
    """
    classes = recipe.model.num_classes or 0
    task = recipe.task.prepared(inputs.train.counts(classes).tolist())
    if not isinstance(task, Distill):
        return Lesson(task.build(precision.around(network)))
    features = any(loss.features for loss in task.losses)
    if isinstance(task.teacher[0], Peer):
        return mutual(recipe, task, task.teacher[0], network, precision)
    nodes = [node for node in task.teacher if not isinstance(node, Peer)]
    teachers = [open_teacher(node, recipe, inputs, precision, features) for node in nodes]
    net = teachers[0].net if isinstance(teachers[0], NetworkTeacher) else None
    compared = comparisons(task, network[1], net, recipe.model.in_channels)
    look = precision.around(looking(network, features))
    step = Learning(task, look, together(teachers), compared)
    return Lesson(step, with_layers(compared), teachers)


def mutual(
    recipe: Recipe, task: Distill, node: Peer, network: nn.Sequential, precision: Precision
) -> Lesson:
    """The lesson of two students, the second of which is built here."""
    model, features = recipe.model, any(loss.features for loss in task.losses)
    peer = create_model(
        node.name, model.num_classes or 0, node.weights, in_channels=model.in_channels
    )
    if recipe.train.sync_norms:
        peer = nn.SyncBatchNorm.convert_sync_batchnorm(peer)
    pair = network, Normalize.before(peer, recipe.preprocess.scale, recipe.preprocess.offset)
    looks = [precision.around(looking(each, features)) for each in pair]
    own = comparisons(task, network[1], peer, model.in_channels)
    others = comparisons(task, peer, network[1], model.in_channels)
    step = Mutual(task, (looks[0], looks[1]), (own, others))
    return Lesson(step, nn.LayerList([peer, *with_layers([*own, *others])]), peer=node.name)


def comparisons(
    task: Distill, student: nn.Layer, teacher: nn.Layer | None, channels: int
) -> list[Compare]:
    """The losses of a task for one student and its teacher, None for one without features."""
    asked = any(loss.features for loss in task.losses)
    own, guide = (widths(net, channels) if asked and net else [] for net in (student, teacher))
    return [build(loss, own, guide) for loss in task.losses]


def with_layers(compared: Sequence[Compare]) -> nn.LayerList:
    """The losses that train, too."""
    return nn.LayerList([each for each in compared if isinstance(each, nn.Layer)])

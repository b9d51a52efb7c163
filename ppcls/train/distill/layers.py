"""The layers of losses between features; each is called with student, teacher and targets."""

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.train.distill.logit_losses import unit
from ppcls.train.distill.relations import pooled
from ppcls.train.distill.seen import Seen


class Hint(nn.Layer):
    """Half the squared distance at a stage (arXiv:1412.6550)."""

    def __init__(self, stage: int, student: int, teacher: int):
        super().__init__()
        self.stage, self.align = stage, align(student, teacher)

    def forward(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        own = self.align(student.features[self.stage])
        return squares(own - teacher.features[self.stage]) / 2


class Generator(nn.Layer):
    """Features of the teacher from masked ones of the student (arXiv:2205.01529)."""

    def __init__(self, stage: int, masked: float, student: int, teacher: int):
        super().__init__()
        self.stage, self.masked, self.align = stage, masked, align(student, teacher)
        self.generate = nn.Sequential(
            nn.Conv2D(teacher, teacher, 3, padding=1),
            nn.ReLU(),
            nn.Conv2D(teacher, teacher, 3, padding=1),
        )

    def forward(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        own = self.align(student.features[self.stage])
        count, _, height, width = own.shape
        shown = (paddle.rand([count, 1, height, width]) >= self.masked).astype(own.dtype)
        return squares(self.generate(own * shown) - teacher.features[self.stage])


class Projectors(nn.Layer):
    """Directions of the last features, the student's through several projections (2210.15274)."""

    def __init__(self, count: int, student: int, teacher: int):
        super().__init__()
        self.linears = nn.LayerList([nn.Linear(student, teacher) for _ in range(count)])

    def forward(self, student: Seen, teacher: Seen, targets: Tensor) -> Tensor:
        own = pooled(student.features[-1])
        mean = paddle.stack([F.relu(linear(own)) for linear in self.linears]).mean(0)
        cosines = (unit(mean)[0] * unit(pooled(teacher.features[-1]))[0]).sum(-1)
        return (1 - cosines).mean()


def align(student: int, teacher: int) -> nn.Layer:
    """A 1x1 convolution from one width to the other; nothing where they are the same."""
    return nn.Identity() if student == teacher else nn.Conv2D(student, teacher, 1)


def squares(difference: Tensor) -> Tensor:
    """The sum of squares of each photo, the mean over the photos."""
    return difference.square().sum(axis=[1, 2, 3]).mean()

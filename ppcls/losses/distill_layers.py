"""Losses between features as layers that train beside the student."""

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls.losses.distill import (
    AFD,
    MGD,
    PEFD,
    Compare,
    DistillLoss,
    FeatureL2,
    Outputs,
    Widths,
    pooled,
    unit,
)
from ppcls.utils.errors import UserError


class Hint(nn.Layer):
    """Half the squared distance at a stage (arXiv:1412.6550)."""

    def __init__(self, stage: int, student: int, teacher: int):
        super().__init__()
        self.stage = stage
        self.align = align(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        own = self.align(student.features[self.stage])
        return squares(own - teacher.features[self.stage]) / 2


class Generator(nn.Layer):
    """Features of the teacher from masked ones of the student (arXiv:2205.01529)."""

    def __init__(self, stage: int, masked: float, student: int, teacher: int):
        super().__init__()
        self.stage = stage
        self.masked = masked
        self.align = align(student, teacher)
        self.generate = nn.Sequential(
            nn.Conv2D(teacher, teacher, 3, padding=1),
            nn.ReLU(),
            nn.Conv2D(teacher, teacher, 3, padding=1),
        )

    def forward(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        own = self.align(student.features[self.stage])
        count, _, height, width = own.shape
        shown = (paddle.rand([count, 1, height, width]) >= self.masked).astype(own.dtype)
        return squares(self.generate(own * shown) - teacher.features[self.stage])


class Projectors(nn.Layer):
    """Directions of the last features, the student's through several projections (2210.15274)."""

    def __init__(self, count: int, student: int, teacher: int):
        super().__init__()
        self.linears = nn.LayerList([nn.Linear(student, teacher) for _ in range(count)])

    def forward(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        own = pooled(student.features[-1])
        mean = paddle.stack([F.relu(linear(own)) for linear in self.linears]).mean(0)
        cosines = (unit(mean)[0] * unit(pooled(teacher.features[-1]))[0]).sum(-1)
        return (1 - cosines).mean()


def align(student: int, teacher: int) -> nn.Layer:
    """A 1x1 convolution from one width to the other; nothing where they are the same."""
    return nn.Identity() if student == teacher else nn.Conv2D(student, teacher, 1)


def squares(difference: Tensor) -> Tensor:
    """The sum of squares of each image, the mean over the images."""
    return difference.square().sum(axis=[1, 2, 3]).mean()


# --------------------------------------------------------------------------
# The attention between stages of student and teacher (arXiv:2102.02973)


class Attention(nn.Layer):
    """Which stage of the student learns from which of the teacher, by queries and keys."""

    def __init__(self, width: int, student: Widths, teacher: Widths):
        super().__init__()
        self.width = width
        self.queries = nn.LayerList([NormedLinear(cin, width) for cin in teacher])
        self.keys = nn.LayerList([NormedLinear(cin, width) for cin in student])
        self.bilinear = NormedLinear(width, width * len(teacher))
        normal = nn.initializer.XavierNormal()
        self.teacher_place, self.student_place = (
            self.create_parameter([len(widths), width], default_initializer=normal)
            for widths in (teacher, student)
        )

    def forward(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        attention = self.attention(student, teacher)  # [N, teacher's stages, student's stages]
        total = paddle.zeros([], attention.dtype)
        for row, guide in enumerate(teacher.features):
            wanted = flat_map(guide).unsqueeze(1)
            own = paddle.stack([flat_map(f, guide.shape[2:]) for f in student.features], axis=1)
            total += (attention[:, row] * (own - wanted).square().sum(-1)).sum(-1).mean()
        return total

    def attention(self, student: Outputs, teacher: Outputs) -> Tensor:
        """The weight of each stage of the student for each of the teacher; a row adds up to 1."""
        own, guide = ([pooled(f) for f in seen.features] for seen in (student, teacher))
        queries = [layer(f) for layer, f in zip(self.queries, guide, strict=True)]
        keys = [F.relu(layer(f)) for layer, f in zip(self.keys, own, strict=True)]
        query = paddle.stack(queries, axis=1)  # [N, teacher's stages, width]
        count = query.shape[0]
        rows = len(queries)
        columns = len(keys)
        key = self.bilinear(paddle.concat(keys, axis=0))  # all stages in one batch norm
        key = key.reshape([columns, count, rows, self.width]).transpose([1, 2, 0, 3])
        scores = (key * query.unsqueeze(2)).sum(-1)
        places = self.teacher_place.matmul(self.student_place, transpose_y=True)
        return F.softmax((scores + places) / self.width**0.5, axis=-1)


class NormedLinear(nn.Layer):
    """A linear layer and a batch norm, as the authors have them."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.linear = nn.Linear(cin, cout)
        self.norm = nn.BatchNorm1D(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def flat_map(feature: Tensor, size: list[int] | None = None) -> Tensor:
    """The mean square over the channels, resized if asked, as a vector [N, h * w] of length 1."""
    squares = feature.square().mean(axis=1, keepdim=True)
    if size and squares.shape[2:] != size:
        squares = F.adaptive_avg_pool2d(squares, size)
    return unit(squares.flatten(1))[0]


def build(loss: DistillLoss, student: Widths, teacher: Widths) -> Compare:
    """What compares a batch of both networks, whose stages have these widths.

    An nn.Layer, which trains beside the student, for a loss between features; else the loss itself.

    Raises:
        UserError: the stage that is compared is not there.
    """
    match loss:
        case FeatureL2():
            return Hint(loss.stage, *at(loss.stage, student, teacher))
        case MGD():
            return Generator(loss.stage, loss.masked, *at(loss.stage, student, teacher))
        case PEFD():
            return Projectors(loss.projectors, student[-1], teacher[-1])
        case AFD():
            return Attention(loss.width, student, teacher)
    return loss


def at(stage: int, student: Widths, teacher: Widths) -> tuple[int, int]:
    """The widths of a stage in both networks."""
    least = min(len(student), len(teacher))
    if -stage > least:
        raise UserError(f"task.losses: stage {stage} is not there: the networks share {least}")
    return student[stage], teacher[stage]

"""Losses between the features of stages, made with layers that train beside the student.

A stage is counted from the end, for networks of all families have the same strides there: -1 has
stride 32, -2 has 16. To compare several stages, list the loss several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ppcls.config.node import NotNegative, Side, Times, node

Stage = Annotated[int, Field(strict=True, le=-1)]
Widths = Sequence[int]  # of the stages, the last one last


@node
class FeatureL2:
    """Half the squared distance of a stage's features (FitNets, arXiv:1412.6550, equation 3).

    The sum over channels and pixels, as in the paper. Where the widths differ, a 1x1 convolution
    takes the student's to the teacher's.
    """

    kind: Literal["feature_l2"] = "feature_l2"
    weight: NotNegative = 1.0
    stage: Stage = -2  # FitNets takes its hints in the middle
    features: ClassVar[bool] = True


@node
class MGD:
    """Squared distance of the teacher's features and those generated from masked ones of the
    student (arXiv:2205.01529): two 3x3 convolutions with a ReLU between.

    The sum over channels and pixels. `masked` is the share of pixels that are hidden, drawn for
    each photo and step; the authors' code for classification, and PaddleClas, hide channels.
    """

    kind: Literal["mgd"] = "mgd"
    weight: NotNegative = 7e-5
    stage: Stage = -1
    masked: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.15
    features: ClassVar[bool] = True


@node
class PEFD:
    """1 - cosine of the teacher's last features and a mean of projections of the student's.

    arXiv:2210.15274. Features are means over the pixels; a projection is linear with a ReLU.
    """

    kind: Literal["pefd"] = "pefd"
    weight: NotNegative = 25.0
    projectors: Times = 3
    features: ClassVar[bool] = True


@node
class AFD:
    """Distances of all pairs of stages, weighed by attention that is learnt (arXiv:2102.02973).

    A stage is its map of mean squares over the channels at length 1, the student's resized to the
    teacher's. The squared distance is a sum over the pixels, where the authors' code and
    PaddleClas take the mean.
    """

    kind: Literal["afd"] = "afd"
    weight: NotNegative = 1.0
    width: Side = 128  # of queries and keys
    features: ClassVar[bool] = True

"""The losses between two networks that a recipe may name."""

from typing import Annotated

from pydantic import Field

from ppcls.train.distill.feature_losses import AFD, MGD, PEFD, FeatureL2, Widths
from ppcls.train.distill.logit_losses import (
    DKD,
    JS,
    KL,
    SKD,
    WSL,
    SoftCrossEntropy,
    SymmetricKL,
)
from ppcls.train.distill.relations import DIST, RKD
from ppcls.train.distill.seen import Compare

DistillLoss = Annotated[
    SoftCrossEntropy
    | KL
    | JS
    | SymmetricKL
    | DKD
    | WSL
    | SKD
    | DIST
    | RKD
    | FeatureL2
    | MGD
    | PEFD
    | AFD,
    Field(discriminator="kind"),
]


def built(loss: DistillLoss, student: Widths, teacher: Widths) -> Compare:
    """The loss, with layers (an nn.Layer) for stages of these widths where it has some."""
    return loss.build(student, teacher) if isinstance(loss, WITH_LAYERS) else loss


WITH_LABELS = (DKD, WSL)  # of every photo
WITH_LAYERS = (FeatureL2, MGD, PEFD, AFD)

"""The losses between two networks that a recipe may name."""

from typing import Annotated

from pydantic import Field

from ppcls.train.distill.feature_losses import AFD, MGD, PEFD, FeatureL2
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


WITH_LABELS = (DKD, WSL)  # of every photo

"""Grad-CAM of checkpoints, for `predict --explain`."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from ppcls.inference.predictor import Explain
from ppcls.models.class_maps import grad_cam, why_no_grad_cam
from ppcls.train.setup import open_trained
from ppcls.utils.errors import UserError


def explainer_of(checkpoint: Path) -> Explain:
    """What gives maps of a checkpoint's network, for one caller at a time.

    Raises:
        UserError: it cannot be read, or the network does not say what its features are.
    """
    trained = open_trained(None, ["device=cpu"], str(checkpoint))
    if why := why_no_grad_cam(trained.net):
        raise UserError(
            f"{checkpoint}: {trained.recipe.model.name} {why}, so there is nothing to explain with"
        )
    turn = threading.Lock()

    def explain(images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        with turn:
            return grad_cam(trained.net, paddle.to_tensor(images), np.array([classes], int))[0]

    return explain

"""The network as a recipe trains it."""

from collections.abc import Mapping

import numpy as np
from paddle import nn

from ppcls.api import create_model
from ppcls.models.recompute import recompute_blocks
from ppcls.recipe import Recipe


def network(recipe: Recipe, saved: Mapping[str, np.ndarray] | None) -> nn.Layer:
    """The recipe's network with its weights, or with those of a checkpoint, `saved`.

    Raises:
        UserError: weights that cannot be read or do not fit.
    """
    model = recipe.model
    net = create_model(
        model.name,
        model.num_classes or 0,
        model.weights if saved is None else saved,
        in_channels=model.in_channels,
        new_head=model.new_head and saved is None,
        drop_path=model.drop_path,
        source="the checkpoint",
    )
    if recipe.train.sync_norms:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if recipe.train.recompute:  # after the norms are what they are to be
        recompute_blocks(net)
    return net

"""The public functions on networks."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike

import numpy as np
from paddle import nn

from ppcls.models import registry
from ppcls.utils.errors import UserError
from ppcls.utils.guard import guarded
from ppcls.utils.log import say
from ppcls.weights import files, load, store


@guarded
def create_model(
    name: str,
    num_classes: int = 1000,
    weights: str | Mapping[str, np.ndarray] | bool | None = None,
    *,
    in_channels: int = 3,
    new_head: bool = False,
    drop_path: float | None = None,
    source: str | PathLike[str] = "weights",
) -> nn.Layer:
    """A network: normalised float32 images [N, in_channels, H, W] to float32 logits [N, classes].

    Args:
        name: one of `ppcls.list_models()`.
        num_classes: size of the classifier.
        weights: a file, a URL, hf://org/name, a registered tag, True for the registered default,
            or name → array; under the names of ppcls, PaddleClas, timm, torchvision or
            efficientnet-pytorch. The network is built as the project they come from builds it.
            None: fresh ones from Paddle's generator.
        in_channels: 1, 3 or 4.
        new_head: keep a fresh classifier where that of the weights has another size.
        drop_path: how often training leaves out the last block's branch for a sample, 0 to below 1,
            falling linearly to 0 at the first block (arXiv:1603.09382). None: the network's own.
        source: what errors call weights that are given as arrays.

    Raises:
        ValueError: an unknown name, or weights that cannot be read or do not fit; nothing of them
            is left in a network.
    """
    spec = registry.spec_of(name)
    registry.check_numbers(name, num_classes, in_channels)
    if drop_path is not None:
        if not 0 <= drop_path < 1:
            raise UserError(f"{name}: {drop_path=} should be at least 0 and below 1")
        spec = replace(spec, drop_path=drop_path)
    if weights is None or weights is False:
        return registry.network(spec, num_classes, in_channels)
    if isinstance(weights, Mapping):
        tensors, notes = load.arrays(weights, str(source))
    else:
        found = store.find(name, store.DEFAULT if weights is True else str(weights))
        checkpoint = files.read(found.path)
        tensors = checkpoint.tensors
        source = found.path
        notes = filter(None, (found.about, *checkpoint.notes))
    spec = load.structure(spec, tensors, str(source))
    net = registry.network(spec, num_classes, in_channels)
    for note in (*notes, *load.put(net, tensors, str(source), new_head)):
        say(note)
    return net


list_models = registry.list_models

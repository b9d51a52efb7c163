"""The public functions on networks."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from paddle import nn

from ppcls.data.preprocess import KEYS, Preprocess
from ppcls.models import registry
from ppcls.models.blocks import Stages
from ppcls.models.spec import Spec
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
    features_only: bool = False,
    source: str | PathLike[str] = "weights",
) -> nn.Layer:
    """A network: normalised float32 images [N, in_channels, H, W] to float32 logits [N, classes].

    Its `preprocess` is what images go through before: as the weights say, else the usual for the
    network's resolution (None where there is none for so many channels). The `feature_info` of a
    network of a family says name, channels and stride of each output of `features_only`.

    Args:
        name: one of `ppcls.list_models()`.
        num_classes: size of the classifier; 0: none, the network gives the pooled features [N,
            width], and a classifier of the weights is left out.
        weights: a file, a URL, hf://org/name, a registered tag, True for the registered default,
            or name → array; under the names of ppcls, PaddleClas, timm, torchvision or
            efficientnet-pytorch. The network is built as the project they come from builds it.
            None: fresh ones from Paddle's generator.
        in_channels: 1, 3 or 4.
        new_head: keep a fresh classifier where that of the weights has another size.
        drop_path: how often training leaves out the last block's branch for a sample, 0 to below 1,
            falling linearly to 0 at the first block (arXiv:1603.09382). None: the network's own.
        features_only: a layer that gives a list of what the stages put out last at each stride,
            float32 [N, channels, h, w], instead of logits.
        source: what errors call weights that are given as arrays.

    Raises:
        ValueError: an unknown name, or weights that cannot be read or do not fit; nothing of them
            is left in a network.
    """
    spec = registry.spec_of(name)
    num_classes = 0 if features_only else num_classes
    registry.check_numbers(name, num_classes, in_channels)
    if drop_path is not None:
        if not 0 <= drop_path < 1:
            raise UserError(f"{name}: {drop_path=} should be at least 0 and below 1")
        spec = replace(spec, drop_path=drop_path)
    if weights is None or weights is False:
        net = registry.network(spec, num_classes, in_channels)
        return finished(net, spec, name, features_only, in_channels)
    stated = None
    if isinstance(weights, Mapping):
        tensors, notes = load.arrays(weights, str(source))
    else:
        found = store.find(name, store.DEFAULT if weights is True else str(weights))
        checkpoint = files.read(found.path)
        tensors = checkpoint.tensors
        source = found.path
        stated = found.preprocess
        notes = filter(None, (found.about, *checkpoint.notes))
    spec = load.structure(spec, tensors, str(source))
    net = registry.network(spec, num_classes, in_channels)
    for note in (*notes, *load.put(net, tensors, str(source), new_head, spec)):
        say(note)
    return finished(net, spec, name, features_only, in_channels, stated)


def finished(
    net: nn.Layer,
    spec: Spec,
    name: str,
    features_only: bool,
    channels: int,
    stated: Mapping[str, Any] | None = None,
) -> nn.Layer:
    """The network, or what of it gives its features, with its `preprocess`.

    Args:
        stated: what the weights' images went through, as far as the weights say.
    """
    if features_only:
        net = features_of(net, name)
    if "preprocess" not in dir(net):  # which one's own network may have for itself
        net.preprocess = preprocess_of(spec, channels, stated or {})
    return net


def features_of(net: nn.Layer, name: str) -> nn.Layer:
    """The layer that gives the network's features."""
    if isinstance(net, Stages):
        return Stages(net.spec, net.stem, net.stages)
    if not callable(getattr(net, "features", None)):
        raise UserError(f"{name}: has no features(images), which features_only gives")
    return Features(net)


class Features(nn.Layer):
    """The features of a network of one's own, whose parameters are named `net.*`."""

    def __init__(self, net: nn.Layer):
        super().__init__()
        self.net = net

    def forward(self, x):
        return list(self.net.features(x))


def preprocess_of(spec: Spec, channels: int, stated: Mapping[str, Any]) -> Preprocess | None:
    """What images of so many channels go through; None where that is not 1, 3 or 4.

    Where nothing is stated, pixels are between -1 and 1 but in colour, which has ImageNet's.
    """
    values = spec.images() | {key: stated[key] for key in stated if key in KEYS}
    if channels != 3 and "mean" not in values:
        values |= {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    try:
        return Preprocess(**values)
    except ValueError:
        return None


list_models = registry.list_models

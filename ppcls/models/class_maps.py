"""Where a network sees a class: class activation maps and Grad-CAM.

A class activation map (arXiv:1512.04150) has, for each place of the last features, what they add to
the class's logit there. Where a network ends in the mean over the places and a linear layer, the
map's mean plus the layer's bias is the logit.

Grad-CAM (arXiv:1610.02391) weights the features by the logit's gradient, for networks that end
otherwise. The gradient is summed over the places here, not averaged, and nothing is cut off at 0:
where a network ends as above, its Grad-CAM is the class activation map itself.
"""

from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.models.layers import head_name, layer_at
from ppcls.utils.errors import UserError

METHODS = ("features", "pooled", "logits")
ROUNDING = 1e-4  # of a logit, relative to the largest
OTHERWISE = "has more than a mean over the places between its last features and the classifier"


def why_inexact(net: nn.Layer, images: Tensor) -> str:
    """Why a network's class activation maps would not add up to its logits; "" where they do.

    Args:
        images: float32 [N, C, H, W] to try it on, none of one colour.
    """
    missing = [name for name in METHODS if not callable(getattr(net, name, None))]
    if missing:
        return f"has no method {missing[0]}"
    head = classifier_of(net)
    if head is None:
        return "has no linear layer that classifies"
    own: Any = net
    with paddle.no_grad():
        features = own.features(images)
        logits = own.logits(own.pooled(features)).numpy()
        last = unpooled(net, features)
        if last.ndim != 4 or last.shape[1] != head.weight.shape[0]:
            return OTHERWISE
        found = class_maps(net, features).mean([2, 3]).numpy()
    if head.bias is not None:
        found = found + head.bias.numpy()
    if found.shape != logits.shape:
        return OTHERWISE
    largest = max(np.abs(logits).max(), np.abs(found).max(), 1e-6)
    return "" if np.abs(found - logits).max() <= ROUNDING * largest else OTHERWISE


def classifier_of(net: nn.Layer) -> nn.Linear | None:
    """The last linear layer; None where there is none."""
    path = head_name(net)
    layer = layer_at(net, path) if path else None
    return layer if isinstance(layer, nn.Linear) else None


def unpooled(net: nn.Layer, features: list[Tensor]) -> Tensor:
    """What a network pools, float32 [N, C, h, w]: its own `unpooled`, else the last features."""
    own: Any = getattr(net, "unpooled", None)
    return own(features) if own else features[-1]


def class_maps(net: nn.Layer, features: list[Tensor]) -> Tensor:
    """Every class's activation map, float32 [N, classes, h, w].

    Of a network that `why_inexact` says nothing about. It has no weights of its own: those of the
    classifier are shared.
    """
    head = classifier_of(net)
    assert head
    # In evaluation a dropout may scale what the classifier takes.
    drop = getattr(net, "dropout", None)
    places = unpooled(net, features).transpose([0, 2, 3, 1])
    places = drop(places) if isinstance(drop, nn.Layer) else places
    return paddle.matmul(places, head.weight).transpose([0, 3, 1, 2])


def why_no_grad_cam(net: nn.Layer) -> str:
    """What a network lacks for Grad-CAM; "" where it lacks nothing."""
    if not callable(getattr(net, "features", None)):
        return "has no method features"
    ends = callable(getattr(net, "classify", None))
    ends = ends or all(callable(getattr(net, name, None)) for name in ("pooled", "logits"))
    return "" if ends else "has no method classify"


def grad_cam(net: nn.Layer, images: Tensor, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM of a network in evaluation mode, float32 [N, k, h, w].

    Args:
        images: float32 [N, C, H, W].
        classes: int [N, k], of which each image's maps are.

    Raises:
        UserError: its last features have no places.
    """
    own: Any = net
    with paddle.no_grad():
        features = own.features(images)
        last = unpooled(net, features)
    if last.ndim != 4:
        raise UserError(f"the network's last features are {list(last.shape)}, not [N, C, h, w]")
    last = last.detach()
    last.stop_gradient = False
    with paddle.enable_grad():
        if hasattr(net, "unpooled"):
            logits = own.logits(own.pooled_of(last))
        elif hasattr(net, "classify"):
            logits = own.classify([*features[:-1], last])
        else:
            logits = own.logits(own.pooled([*features[:-1], last]))
        maps = []
        for column in np.transpose(classes):
            index = paddle.to_tensor(column.astype(np.int64)[:, None])
            chosen = paddle.take_along_axis(logits, index, 1).sum()
            (found,) = paddle.grad(chosen, last, retain_graph=True, allow_unused=True)
            if found is None:  # the logits do not depend on it
                found = paddle.zeros_like(last)
            maps.append((found.sum([2, 3], keepdim=True) * last.detach()).sum(1).numpy())
    if not maps:
        return np.zeros((len(images), 0, *last.shape[2:]), np.float32)
    return np.stack(maps, axis=1)

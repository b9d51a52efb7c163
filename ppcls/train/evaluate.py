"""Scores of a network on labelled photos."""

from collections.abc import Callable, Iterable

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls import metrics
from ppcls.data.loader import Batch

Keep = Callable[[Batch, np.ndarray], None]


@paddle.no_grad()
def evaluate(
    network: nn.Layer, batches: Iterable[Batch], num_classes: int, keep: Keep | None = None
) -> dict[str, float]:
    """Top-k accuracies and mean cross entropy; the network is left in evaluation mode.

    Args:
        network: from uint8 images [N, H, W, C] to logits [N, num_classes].
        keep: is handed each batch and its logits, float32 [N, num_classes].
    """
    network.eval()
    ranks = metrics.ranks(num_classes)
    right, loss, count = dict.fromkeys(ranks, 0), 0.0, 0
    for batch in batches:
        logits = network(paddle.to_tensor(batch.images)).astype("float32")
        loss += float(F.cross_entropy(logits, paddle.to_tensor(batch.labels), reduction="sum"))
        values = logits.numpy()
        for k in ranks:
            right[k] += metrics.correct(values, batch.labels, k)
        count += len(batch.labels)
        if keep:
            keep(batch, values)
    return {f"top{k}": right[k] / count for k in ranks} | {"loss": loss / count}


def describe(scores: dict[str, float]) -> str:
    """The scores in words: `top-1 98.06 %, top-5 99.72 %, loss 0.0712`."""
    shares = [f"top-{k[3:]} {v:.2%}".replace("%", " %") for k, v in scores.items() if k != "loss"]
    return ", ".join([*shares, f"loss {scores['loss']:.4f}"])

"""Scores of a network on labelled photos."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import paddle
from paddle import nn

from ppcls.data.loader import Batch
from ppcls.errors import DataError
from ppcls.train.interrupt import Interrupt, Interrupted
from ppcls.train.tally import Tally

WORDS = {"map": "mAP", "f1": "F1"}

Keep = Callable[[Batch, np.ndarray], None]


@paddle.no_grad()
def evaluate(
    network: nn.Layer, batches: Iterable[Batch], tally: Tally, keep: Keep | None = None
) -> Tally:
    """Let the tally take in all batches and return it; the network is left in evaluation mode.

    Args:
        network: from uint8 images [N, H, W, C] to logits [N, classes].
        keep: is handed each batch and its logits, float32 [N, classes].
    """
    network.eval()
    for batch in batches:
        if not len(batch.images):  # none of its photos could be read
            continue
        logits = network(paddle.to_tensor(batch.images)).astype("float32")
        tally.add(logits, batch.labels)
        if keep:
            keep(batch, logits.numpy())
    return tally


def evaluate_watched(
    network: nn.Layer, batches: Iterable[Batch], tally: Tally, interrupt: Interrupt
) -> list[Batch] | DataError:
    """As `evaluate`, until a signal or an error comes; returns the error or emptied batches."""
    seen: list[Batch] = []

    def noted() -> Iterator[Batch]:
        for batch in interrupt.watch(batches):
            seen.append(replace(batch, images=batch.images[:0]))
            yield batch

    try:
        evaluate(network, noted(), tally)
    except DataError as error:
        return error
    except Interrupted:
        assert interrupt.asked
    return seen


def describe(scores: dict[str, float]) -> str:
    """The scores in words: `top-1 98.06 %, top-5 99.72 %, loss 0.0712`."""
    shares = [
        f"{WORDS.get(name) or name.replace('top', 'top-')} {100 * value:.2f} %"
        for name, value in scores.items()
        if name != "loss"
    ]
    return ", ".join([*shares, f"loss {scores['loss']:.4f}"])

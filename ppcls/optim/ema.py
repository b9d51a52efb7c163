"""A moving average of a network's weights, which is what such a run evaluates and hands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.config.node import Flag, node

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor, nn


@node
class Ema:
    """Exponential moving average of parameters and batch-norm statistics (arXiv:1703.01780).

    The statistics are averaged, not copied: they then belong to the same stretch of training as
    the weights, while those of the last step fit the last step's weights alone.
    """

    decay: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9999
    warmup: Flag = True  # at most (1 + steps) / (10 + steps), so that the start is soon forgotten

    def build(self, net: nn.Layer) -> Average:
        return Average(net, self)

    def at(self, step: int) -> float:
        """The share of the average that stays after `step` steps, counted from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay


class Average:
    """Holds the average; while `shown`, it is the network's and the trained weights are held."""

    def __init__(self, net: nn.Layer, ema: Ema):
        self.state = net.state_dict()
        self.ema = ema
        self.held: dict[str, Tensor] = {k: v.detach().clone() for k, v in self.state.items()}

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps; a frozen weight stays exactly as it is."""
        import paddle

        with paddle.no_grad():
            for name, value in self.state.items():
                self.held[name].add_((value - self.held[name]) * (1 - self.ema.at(step)))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The network has the average meanwhile."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        import paddle

        with paddle.no_grad():
            for name, value in self.state.items():
                other = value.detach().clone()
                value.set_value(self.held[name])
                self.held[name] = other

    def restore(self, trained: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint: the network has its average, `trained` are the weights."""
        self.held = {name: trained[name] for name in self.state}
        self.swap()

"""Gradient checkpointing: blocks whose inner values are computed again on the way back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import paddle
from paddle import Tensor, nn

from ppcls.models.layers import has_stages
from ppcls.utils.errors import UserError

Forward = Callable[[Tensor], Tensor]
NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.SyncBatchNorm)


def recompute_blocks(net: nn.Layer) -> None:
    """Gradient checkpointing of every block of the network's stages (arXiv:1604.06174).

    Of a block only the input is kept. Losses, gradients and statistics are those without it: the
    blocks are computed again with the same random numbers. Names and layers stay as they are.

    Raises:
        UserError: it has no stages, as a network of one's own may have none.
    """
    if not has_stages(net):
        raise UserError(
            f"train.recompute: {type(net).__name__} has no stages of blocks to compute twice: "
            "-o train.recompute=false"
        )
    for stage in net.stages:
        for block in stage:
            block.forward = recomputed(block)


def recomputed(block: nn.Layer) -> Forward:
    """The block's forward, twice where gradients are asked for: without them, then backwards."""
    from paddle.distributed.fleet.utils import recompute

    plain: Forward = block.forward
    norms = [layer for layer in block.sublayers() if isinstance(layer, NORMS)]

    def once_or_again(x: Tensor) -> Tensor:
        if not paddle.is_grad_enabled():  # the first time
            return plain(x)
        with statistics_kept(norms):
            return plain(x)

    def forward(x: Tensor) -> Tensor:
        # Paddle gives no gradients to the parameters of a block whose input needs none, as after
        # a frozen stem: such a block is computed as ever.
        if x.stop_gradient or not paddle.is_grad_enabled():
            return plain(x)
        return recompute(once_or_again, x)

    return forward


@contextmanager
def statistics_kept(norms: Sequence[nn.Layer]) -> Iterator[None]:
    """Batch norms in training use a batch's statistics meanwhile and do not take them in."""
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 1.0  # the share of the running statistics that stays
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm._momentum = momentum

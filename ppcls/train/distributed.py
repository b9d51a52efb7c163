"""The processes that train together: which one this is, and what they tell one another."""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import numpy as np
import paddle
from paddle import Tensor, distributed, nn

from ppcls.models.layers import DownscalingDropout, DropPath
from ppcls.train.link import SILENCE, SILENCE_SECONDS, Link
from ppcls.train.rendezvous import meet, network_of, process_count, seconds, tell_paddle
from ppcls.utils.errors import LATER, UserError
from ppcls.utils.text import visible

GLOO_NETWORK = "GLOO_SOCKET_IFNAME"
BUCKET = 1 << 24  # numbers that are added up at a time
FEW = 8  # numbers of each process that travel with the words that say who is here

Item = TypeVar("Item")


class Processes:
    """This process's number among `count`; alone, 0 of 1, it tells nobody anything.

    Attributes:
        divided: they share the images of one process's step, and draw what it would, instead of
            having as many each.
        step_images: of the step in hand, in all processes.
    """

    def __init__(self, rank: int = 0, count: int = 1, link: Link | None = None):
        """`link`: what tells it of the others, where there are any."""
        self.rank = rank
        self.count = count
        self.link = link
        self.divided = False
        self.step_images = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that speaks and writes files."""
        return self.rank == 0

    def together(self) -> AbstractContextManager[None]:
        """While entered, all processes compute something together.

        Raises:
            PeerError: another one has gone or does not answer.
        """
        return self.link.together() if self.link else nullcontext()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While entered, the others learn of an error that ends this process."""
        try:
            yield
        except UserError as error:
            self.leave(str(error), error.code)
            raise
        except BaseException:
            self.leave(None)
            raise

    def leave(self, reason: str | None = "", code: int = 0) -> None:
        """Tell the others that this process comes no more, and why; None: nobody knows.

        Args:
            code: its exit code where there is a reason: a mistake or what another try may not meet
                end the others with it, too.
        """
        if self.link:
            self.link.leave(reason, code)

    @property
    def stopped(self) -> bool:
        """Whether another process was asked to stop; `stop` tells the others, `start` forgets."""
        return self.link is not None and self.link.stopped

    def stop(self) -> None:
        if self.link:
            self.link.stop()

    def start(self) -> None:
        if self.link:
            self.link.stopped = False

    def part(self, images: np.ndarray) -> np.ndarray:
        """Its share of a step's images: equal parts, in order, the first ones maybe larger."""
        return np.array_split(images, self.count)[self.rank]

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its share of items that are dealt out one by one; `dealt` puts results together."""
        return items[self.rank :: self.count]

    def gather(self, value: Item) -> list[Item]:
        """Everybody's value, by rank; any that can be pickled."""
        if self.count == 1:
            return [value]
        found: list[Item] = []
        with self.together():
            distributed.all_gather_object(found, value)
        return found

    def numbers(self, own: Sequence[float]) -> list[Sequence[float]]:
        """Everybody's few numbers, by rank: the way for what is told in every step.

        Raises:
            PeerError: another one has gone or does not answer.
        """
        return self.link.meet(own) if self.link else [own]

    def dealt(self, results: list[Item]) -> list[Item]:
        """Everybody's results of their `own` items, in the order of the items."""
        parts = self.gather(results)
        longest = max(map(len, parts))
        return [part[i] for i in range(longest) for part in parts if i < len(part)]

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, in float64."""
        if self.count == 1:
            return [*values]
        told = self.numbers(values) if len(values) <= FEW else self.gather([*values])
        return np.sum(told, axis=0).tolist()

    def reducing(self, network: nn.Layer) -> nn.Layer:
        """The network; of several processes one that adds up gradients during the backward pass.

        Its processes have to begin with the same weights, and each parameter that trains has to
        take part in what comes out. `synchronised` says when it adds up; it leaves the mean.
        """
        if self.count == 1:
            return network
        with self.together():
            return paddle.DataParallel(network)

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Each gradient becomes the sum of everybody's; none counts as 0."""
        if self.count == 1:
            return
        with self.together():
            for bucket in buckets(parameters):
                own = [paddle.zeros_like(p) if p.grad is None else p.grad for p in bucket]
                flat = paddle.concat([gradient.flatten() for gradient in own])
                distributed.all_reduce(flat)
                pieces = flat.split([parameter.size for parameter in bucket])
                for parameter, piece in zip(bucket, pieces, strict=True):
                    parameter.grad = piece.reshape(parameter.shape)

    @paddle.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the mean of everybody's; equal ones stay exactly as they are."""
        if self.count == 1 or not tensors:
            return
        flat = paddle.concat([tensor.flatten() for tensor in tensors])
        first = flat.clone()
        with self.together():
            distributed.broadcast(first, 0)
            rest = flat - first
            distributed.all_reduce(rest)
        pieces = (first + rest / self.count).split([tensor.size for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.set_value(piece.reshape(tensor.shape))


class SharedDraw(nn.Layer):
    """A layer that drops at random, drawn as for all images of a step, of which these are a part.

    So processes that share a step drop together what one would.
    """

    def __init__(self, layer: nn.Layer, processes: Processes):
        super().__init__()
        self.layer = layer
        self.processes = processes

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.layer(x)
        count = self.processes.count
        total = self.processes.step_images
        own = x.shape[0]
        each, more = divmod(total, count)
        first = each * self.processes.rank + min(self.processes.rank, more)
        first = min(first, total - own)  # where images were skipped, the others have fewer
        rest = [1] * (x.ndim - 1) if isinstance(self.layer, DropPath) else x.shape[1:]
        factors = self.layer(paddle.ones([total, *rest]))
        return x * factors[first : first + own]


def share_draws(net: nn.Layer, processes: Processes) -> None:
    """Put `SharedDraw` around all layers of a network that drop at random."""
    for parent in net.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout | DownscalingDropout | DropPath):
                parent.add_sublayer(name, SharedDraw(layer, processes))


def buckets(parameters: Sequence[Tensor], numbers: int = BUCKET) -> list[list[Tensor]]:
    """The parameters in groups of about so many numbers."""
    groups: list[list[Tensor]] = [[]]
    size = 0
    for parameter in parameters:
        if groups[-1] and size + parameter.size > numbers:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.size
    return groups


def join(device: str) -> Processes:
    """Meet the processes that a launcher started beside this one; alone without a launcher.

    Raises:
        UserError: they do not come, or cannot train together.
    """
    global together
    if process_count() == 1:
        return Processes()
    if together and together.link and not together.link.closed:
        return together
    limit = seconds(SILENCE, SILENCE_SECONDS)
    place, members, channels = meet()
    link = Link(members, channels, place.own.rank, limit)
    if device == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
        # gloo takes the network of the machine's name, which may be known to this machine alone.
        if GLOO_NETWORK not in os.environ and (name := network_of(next(iter(channels.values())))):
            os.environ[GLOO_NETWORK] = name
    os.environ["PADDLE_CURRENT_ENDPOINT"] = (
        os.environ.get("PADDLE_CURRENT_ENDPOINT") or place.address
    )
    os.environ["PADDLE_MASTER"] = place.address
    tell_paddle(place.own)
    try:
        with link.instead():
            distributed.init_parallel_env()
    except (RuntimeError, OSError) as error:
        reason = visible(" ".join(str(error).split()))
        text = (
            f"the processes met at {place.address}, and Paddle cannot connect them ({reason}): "
            f"{GLOO_NETWORK}, NCCL_SOCKET_IFNAME on GPUs, say which network to take; or {LATER}"
        )
        error = UserError(text)
        link.leave(text, error.code)
        raise error from None
    together = Processes(place.own.rank, len(members), link)
    atexit.register(together.leave)
    return together


together: Processes | None = None  # that this process has joined

"""Processes that train together: what they tell one another, and how they learn that one has gone.

What keeps processes that train together in touch: who is there, who has gone, who is silent.

Beside the sums that Paddle computes, each process has a thread that sends a beat to process 0, and
process 0 to all, and that reads what comes. All `meet` before they compute something together:
there a process that has left, died or is silent for too long ends the others with a line that names
it. Paddle's own connection (gloo) waits for 30 seconds, whatever the reason, and cannot be used
after that. Pauses, however long, are none: the thread sends its beats all the while.
"""

import atexit
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import paddle
from paddle import Tensor, distributed, nn

from ppcls.models.layers import DownscalingDropout, DropPath
from ppcls.train.launch import end_as_lost
from ppcls.train.rendezvous import (
    Channel,
    Member,
    Message,
    meet,
    network_of,
    process_count,
    readable,
    seconds,
    tell_paddle,
)
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import duration, visible

SILENCE = "PPCLS_SILENCE_SECONDS"
GLOO_NETWORK = "GLOO_SOCKET_IFNAME"
SILENCE_SECONDS = 30.0
NOTICE = 3.0  # seconds for word of a process to come after Paddle's connection to it has broken
PATIENCE = 60.0  # seconds until it is said that a process lets the others wait
LONGEST_REASON = 600


class PeerError(UserError):
    """Another process of the run has gone; `unexplained` where nothing is known of why."""

    def __init__(self, text: str, unexplained: bool = False):
        super().__init__(text)
        self.unexplained = unexplained

    def adding(self, text: str) -> "PeerError":
        return PeerError(f"{self}; {text}", self.unexplained)


@dataclass
class Peer:
    """What is known of another process. silent: seconds without a word while this one listened."""

    member: Member
    channel: Channel
    met: int = 0  # how often it has come to meet or, of process 0, has let the others go on
    said: Sequence = ()  # what it told when it came: its numbers or, of process 0, everybody's
    silent: float = 0.0
    gone: bool = False
    reason: str | None = None  # why it left, "" without one; None: it has not said that it leaves
    verdict: str = ""  # of process 0: why the run ends


class Link:
    """This process's connection to the others: of process 0 to all, of any other to process 0."""

    def __init__(
        self, members: Sequence[Member], channels: Mapping[int, Channel], own: int, limit: float
    ):
        """`limit`: seconds of silence after which a process counts as lost."""
        self.own = own
        self.limit = limit
        self.count = len(members)
        self.peers = {rank: Peer(members[rank], channel) for rank, channel in channels.items()}
        self.interval = min(limit / 12, 5.0)
        self.changed = threading.Condition()
        self.rounds = 0
        self.closed = False
        self.alone = False  # whether it ends the process itself where another one has gone
        self.thread = threading.Thread(target=self.listen, name="ppcls-link", daemon=True)
        self.thread.start()

    # ------------------------------------------------------------------ the thread

    def listen(self) -> None:
        """Read what comes, send beats, and count the time in which nothing came.

        Only time is counted in which this process runs: one that was stopped and goes on hears
        first what has come meanwhile.
        """
        last = 0.0
        while not self.closed:
            before = time.monotonic()
            there = [peer for peer in self.peers.values() if not peer.gone]
            ready = readable([peer.channel for peer in there], self.interval)
            now = time.monotonic()
            if now - last >= self.interval:
                last = now
                self.tell({"beat": 1})
            with self.changed:
                for peer in there:
                    peer.silent += min(now - before, 2 * self.interval)
                    if peer.channel in ready:
                        self.hear(peer)
                self.changed.notify_all()
            if self.alone:
                for lost in filter(None, map(self.loss, there)):
                    self.ended(lost)
                    os._exit(end_as_lost(str(lost), lost.unexplained))

    def hear(self, peer: Peer) -> None:
        try:
            messages = peer.channel.receive()
        except ValueError:
            messages = None
        peer.silent = 0.0
        peer.gone = messages is None
        for message in messages or ():
            if message.get("here"):
                peer.said = message.get("says", ())
                peer.met += 1
            if "left" in message:
                peer.reason = visible(str(message["left"]), LONGEST_REASON)
            if "end" in message:
                peer.verdict = visible(str(message["end"]), 2 * LONGEST_REASON)

    def tell(self, message: Message) -> None:
        for peer in self.peers.values():
            if not peer.gone:
                peer.channel.send(message)

    # ------------------------------------------------------------------ meeting

    def meet(self, own: Sequence[float] = ()) -> list[Sequence[float]]:
        """Wait until all have come here; a few numbers of each, by rank, to the last bit.

        They travel with the words that say who is here, so that they cost nothing, and nobody
        waits for a device.

        Raises:
            PeerError: one of them never will.
        """
        self.rounds += 1
        if self.own:
            self.tell({"here": 1, "says": [*own]})
        waited = Waited()
        notice = set[int]()
        with self.changed:
            while late := [peer for peer in self.peers.values() if peer.met < self.rounds]:
                for peer in late:
                    if lost := self.loss(peer):
                        raise self.ended(lost)
                    self.warn(peer, notice)
                waited.tell(late)
                self.changed.wait(self.interval)
            for peer in self.peers.values():  # who came, and died
                if peer.gone and peer.reason is None and (lost := self.loss(peer)):
                    raise self.ended(lost)
        if self.own:
            return [*self.peers[0].said]
        # None tells of the next round before it has heard of this one.
        told = [own, *(self.peers[rank].said for rank in range(1, self.count))]
        self.tell({"here": 1, "says": [[*numbers] for numbers in told]})
        return told

    def warn(self, peer: Peer, notice: set[int]) -> None:
        """Say, once, that the run may end."""
        if peer.silent > self.limit / 4 and peer.member.rank not in notice:
            notice.add(peer.member.rank)
            say(
                f"{peer.member} has not answered for {duration(peer.silent)}; the run ends "
                f"after {duration(self.limit)} ({SILENCE})"
            )

    def loss(self, peer: Peer, limit: float | None = None) -> PeerError | None:
        """Why the run cannot go on with a peer; None where it can."""
        who = str(peer.member)
        if peer.verdict:
            return PeerError(peer.verdict)
        if peer.reason:
            return PeerError(f"{who} has ended: {peer.reason}")
        if peer.reason is not None:
            return PeerError(f"{who} has ended")
        if peer.gone:
            return PeerError(
                f"{who} ended without a word, maybe for lack of memory; what it printed may tell",
                unexplained=True,
            )
        if peer.silent >= (limit or self.limit):
            return PeerError(
                f"{who} has not answered for {duration(peer.silent)}: it was stopped, or its "
                "machine or the network is down"
            )
        return None

    def ended(self, lost: PeerError) -> PeerError:
        """The same, after the others have been told."""
        if not self.own:
            self.tell({"end": str(lost)})
        return lost

    @contextmanager
    def instead(self) -> Iterator[None]:
        """While entered, the thread ends the process where another one has gone.

        For what waits for the others without a word and without an end, as Paddle does where it
        connects the processes.
        """
        self.alone = True
        try:
            yield
        finally:
            self.alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """While entered, all compute something together; what breaks it is said in one line."""
        self.meet()
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise self.broken(error) from None

    def broken(self, error: Exception) -> PeerError:
        """Whose fault it is that Paddle's connection does no more."""
        deadline = time.monotonic() + NOTICE
        with self.changed:
            while time.monotonic() < deadline:
                for peer in self.peers.values():
                    if lost := self.loss(peer):
                        return self.ended(lost)
                self.changed.wait(0.1)
            peer = max(self.peers.values(), key=lambda peer: peer.silent)
            lost = self.loss(peer, limit=2.5 * self.interval)
        reason = visible(" ".join(str(error).split()), 200)
        return self.ended(
            lost or PeerError(f"the connection between the processes broke ({reason})")
        )

    # ------------------------------------------------------------------ leaving

    def leave(self, reason: str | None = "") -> None:
        """This process comes no more; the others are told why, None: they are told nothing."""
        if self.closed:
            return
        if reason is not None:
            self.tell({"left": reason[:LONGEST_REASON]})
        self.closed = True
        for peer in self.peers.values():
            peer.channel.end()


class Waited:
    """Says now and then for whom this process waits, who does answer."""

    def __init__(self):
        self.started = time.monotonic()
        self.next = PATIENCE

    def tell(self, late: Sequence[Peer]) -> None:
        waited = time.monotonic() - self.started
        if waited > self.next:
            self.next = 2 * waited
            say(f"waiting for {late[0].member}, which answers, for {duration(waited)}")


# --------------------------------------------------------------------------
# The processes that train together: which one this is, and what they tell one another

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
            self.leave(str(error))
            raise
        except BaseException:
            self.leave(None)
            raise

    def leave(self, reason: str | None = "") -> None:
        """Tell the others that this process comes no more, and why; None: nobody knows."""
        if self.link:
            self.link.leave(reason)

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
            f"{GLOO_NETWORK}, NCCL_SOCKET_IFNAME on GPUs, say which network to take"
        )
        link.leave(text)
        raise UserError(text) from None
    together = Processes(place.own.rank, len(members), link)
    atexit.register(together.leave)
    return together


together: Processes | None = None  # that this process has joined

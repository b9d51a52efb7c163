"""How processes that train together learn that one of them has gone.

Each has a thread that sends a beat to process 0, and process 0 to all, and that reads what comes.
All `meet` before they compute something together: there a process that has left, died or is silent
for too long ends the others with a line that names it. Paddle's own connection (gloo) waits for 30
seconds, whatever the reason, and cannot be used after that. Pauses, however long, are none: the
thread sends its beats all the while.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ppcls.train.launch import LOST, end_as_lost
from ppcls.train.rendezvous import Channel, Member, Message, readable
from ppcls.utils.errors import TRY_AGAIN, UserError
from ppcls.utils.log import say
from ppcls.utils.text import duration, visible

SILENCE = "PPCLS_SILENCE_SECONDS"
SILENCE_SECONDS = 30.0
NOTICE = 3.0  # seconds for word of a process to come after Paddle's connection to it has broken
PATIENCE = 60.0  # seconds until it is said that a process lets the others wait
LONGEST_REASON = 600


class PeerError(UserError):
    """Another process of the run has gone; `unexplained` where nothing is known of why.

    Args:
        code: the exit code that it ended with, where it has said so.
    """

    def __init__(self, text: str, unexplained: bool = False, code: object = LOST):
        super().__init__(text)
        self.unexplained = unexplained
        # Of several exit codes Slurm's srun takes the highest: a mistake of one is everybody's.
        self.exit_code = code if code in (2, TRY_AGAIN) else LOST

    @property
    def code(self) -> int:
        return self.exit_code  # type: ignore[return-value]

    def adding(self, text: str) -> "PeerError":
        return PeerError(f"{self}; {text}", self.unexplained, self.code)


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
    code: object = LOST  # that it ends with, or that the verdict asks for


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
        self.stopped = False  # whether any process was asked to stop
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
                    os._exit(end_as_lost(str(lost), lost.unexplained, lost.code))

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
            if "stop" in message and not self.stopped:
                self.stopped = True
                if not self.own:
                    self.tell({"stop": 1})
            if "left" in message:
                peer.reason = visible(str(message["left"]), LONGEST_REASON)
            if "end" in message:
                peer.verdict = visible(str(message["end"]), 2 * LONGEST_REASON)
            peer.code = message.get("code", peer.code)

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
            return PeerError(peer.verdict, code=peer.code)
        if peer.reason:
            return PeerError(f"{who} has ended: {peer.reason}", code=peer.code)
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
            self.tell({"end": str(lost), "code": lost.code})
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

    def stop(self) -> None:
        """Tell the others that this process was asked to stop, for what they do meanwhile."""
        self.stopped = True
        self.tell({"stop": 1})

    def leave(self, reason: str | None = "", code: int = 0) -> None:
        """This process comes no more; the others are told why, None: they are told nothing."""
        if self.closed:
            return
        if reason is not None:
            self.tell({"left": reason[:LONGEST_REASON], "code": code})
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

"""Where the processes of a run meet before Paddle connects them: who is there, and who is missing.

Process 0 listens at the address that the launcher gave to all, where Paddle's own store listens
afterwards, and the others come to it. Paddle waits there without a word and without an end, and a
port that is taken ends it with SIGABRT: both are found here first, and said.
"""

import errno
import json
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from typing import Any

from ppcls.utils.errors import LATER, UserError
from ppcls.utils.log import say
from ppcls.utils.text import at_most, duration, from_json, plural, visible, whole_number

RANK = "PADDLE_TRAINER_ID"
COUNT = "PADDLE_TRAINERS_NUM"
# What says which process this is and how many there are, the first pair that is set to be taken:
# of `paddle.distributed.launch` and `--processes`, torchrun, srun and an Indexed Job of Kubernetes,
# which sets the first and has the second in its manifest. All but Paddle's count only where
# MASTER_ADDR and MASTER_PORT say where to meet: a shell that Slurm opens has its variables, too.
LAUNCHERS = (
    (RANK, COUNT),
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("JOB_COMPLETION_INDEX", "WORLD_SIZE"),
)
GPU = "FLAGS_selected_gpus"
ON_NODE = ("LOCAL_RANK", "SLURM_LOCALID")  # the number of a process on its machine
MASTER = "PADDLE_MASTER"
ENDPOINTS = "PADDLE_TRAINER_ENDPOINTS"
COUNT_DIGITS = 9  # at most, of how many processes there are
JOIN = "PPCLS_JOIN_SECONDS"
JOIN_SECONDS = 300.0
FIRST_WORD = 5.0  # seconds until it is said who is waited for
ANSWER = 10.0  # seconds in which process 0 greets whoever comes
SIOCGIFADDR = 0x8915  # of Linux: asks for the address of a network interface
LONGEST = 1 << 20  # bytes of a message: a few numbers of each of very many processes

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

Message = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One process of a run, as it introduces itself."""

    rank: int
    count: int
    pid: int = 0
    host: str = ""

    def __str__(self) -> str:
        where = "" if self.host in ("", socket.gethostname()) else f" on {visible(self.host)}"
        known = f" (pid {self.pid}{where})" if self.pid else ""
        return f"process {self.rank} of {self.count}{known}"


@dataclass(frozen=True)
class Meeting:
    """Who this process is, and where all meet.

    named: the variable that the address stands in.
    """

    own: Member
    host: str
    port: int
    named: str

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


class Channel:
    """Messages to and from another process: JSON objects, one a line, over a socket."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(ANSWER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.rest = b""
        self.sending = threading.Lock()

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, message: Message) -> None:
        """Send a message; one that cannot be sent is lost, for the other has gone."""
        with suppress(OSError), self.sending:
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """What has come, to be called when something has; None at the end.

        Raises:
            ValueError: what came is no message.
        """
        try:
            came = self.connection.recv(LONGEST)
        except OSError:
            came = b""
        if not came:
            return None
        *lines, self.rest = (self.rest + came).split(b"\n")
        found = [from_json(line) for line in lines if line]
        if len(self.rest) > LONGEST or not all(isinstance(message, dict) for message in found):
            raise ValueError("no message")
        return found

    def end(self) -> None:
        """Let the other side read what was sent, and then the end."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.connection.close()


def readable(channels: Sequence[Channel], seconds: float) -> list[Channel]:
    """Those from which something has come, as soon as there is one."""
    if not channels:
        time.sleep(seconds)
    by_number = {channel.fileno(): channel for channel in channels}
    return [by_number[number] for number in wait(list(by_number), seconds)]  # type: ignore[index]


def network_of(channel: Channel) -> str:
    """The network interface that a channel goes through, as "eth0"; "" where unknown."""
    if fcntl is None:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        own = channel.connection.getsockname()[0]
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # an interface without an address
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, asked)
                if socket.inet_ntoa(found[20:24]) == own:
                    return name
    return ""


# --------------------------------------------------------------------------- the environment


def process_count() -> int:
    """How many processes the launcher has started; 1 without a launcher."""
    names = names_of_launcher()
    return whole(names[1], 1) if names else 1


def names_of_launcher() -> tuple[str, str] | None:
    """The variables of this process's number and of how many there are; None without a launcher."""
    if COUNT in os.environ:
        return RANK, COUNT
    if not (os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT")):
        return None
    return next((pair for pair in LAUNCHERS if all(name in os.environ for name in pair)), None)


def tell_paddle(own: Member) -> None:
    """Say what another launcher has said in the variables that Paddle reads."""
    os.environ[RANK] = str(own.rank)
    os.environ[COUNT] = str(own.count)
    here = next((os.environ[name] for name in ON_NODE if name in os.environ), "")
    given = [text for text in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if text]
    if here.isdecimal() and GPU not in os.environ:
        # Where each process is given its own GPU alone, that is its first.
        os.environ[GPU] = "0" if given and int(here) >= len(given) else here


def meeting() -> Meeting:
    """What the launcher has told this process, one of several.

    Raises:
        UserError: it is missing, or makes no sense.
    """
    named_rank, named_count = names_of_launcher() or (RANK, COUNT)
    count = whole(named_count, 1)
    rank = whole(named_rank, 0)
    if rank >= count:
        raise UserError(
            f"{named_rank}={rank}: {named_count}={count} processes are numbered from 0 to "
            f"{count - 1}"
        )
    endpoints = [text for text in os.environ.get(ENDPOINTS, "").split(",") if text]
    if endpoints and len(endpoints) != count:
        raise UserError(
            f"{ENDPOINTS} has {plural(len(endpoints), 'address')}, and {COUNT} says {count}: "
            "give one for each process"
        )
    for name, text in ((ENDPOINTS, text) for text in endpoints):
        require_address(name, text, "the address of each process")
    named, text = next((found for found in given_addresses(endpoints) if found[1]), (MASTER, ""))
    host, port = require_address(named, text, "the address at which process 0 is met")
    return Meeting(Member(rank, count, os.getpid(), socket.gethostname()), host, int(port), named)


def require_address(name: str, text: str, meaning: str) -> tuple[str, str]:
    """Host and port of `HOST:PORT`; UserError for anything else in the variable `name`."""
    host, _, port = text.strip().rpartition(":")
    if not host or ":" in host or not 0 < (whole_number(port) or 0) < 65536:
        raise UserError(f"{name}={visible(text)!r}: should be HOST:PORT, {meaning}")
    return host, port


def given_addresses(endpoints: Sequence[str]) -> list[tuple[str, str]]:
    """Variables, and the addresses they give, in the order in which Paddle takes them."""
    host = os.environ.get("MASTER_ADDR")
    port = os.environ.get("MASTER_PORT")
    return [
        ("MASTER_ADDR:MASTER_PORT", f"{host}:{port}" if host and port else ""),
        (MASTER, os.environ.get(MASTER, "")),
        (ENDPOINTS, endpoints[0] if endpoints else ""),
    ]


def whole(name: str, least: int) -> int:
    text = os.environ.get(name, "").strip()
    number = whole_number(text, COUNT_DIGITS)
    if number is None or number < least:
        given = f"{name}={visible(text)!r}" if name in os.environ else f"{name} is not set"
        raise UserError(
            f"{given}: a launcher sets it to a whole number of at least {least}; "
            f"to train with one process, unset {COUNT}"
        )
    return number


def seconds(name: str, default: float) -> float:
    """A time limit of the environment."""
    text = os.environ.get(name, "").strip() or str(default)
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1e6:
        raise UserError(f"{name}={visible(text)!r}: should be a number of seconds, such as 300")
    return found


# --------------------------------------------------------------------------- meeting


class Wait:
    """Says now and then whom a process waits for, and ends when it has been long enough."""

    def __init__(self, limit: float):
        self.limit = limit
        self.started = time.monotonic()
        self.next = min(FIRST_WORD, limit / 4)

    def check(self, whom: str, address: str, why: str = "") -> None:
        """Called all the while.

        Raises:
            UserError: whoever is waited for does not come.
        """
        because = f" ({why})" if why else ""
        if not self.goes_on(f"{whom} at {address}", because):
            raise UserError(
                f"{whom} did not come to {address} within {duration(self.limit)}{because}: start "
                f"all with the same address, let them wait longer with {JOIN}=SECONDS, or {LATER}"
            )

    def goes_on(self, what: str, because: str) -> bool:
        """Whether there is time left, in which it says what is waited for."""
        waited = time.monotonic() - self.started
        if waited > self.limit:
            return False
        if waited > self.next:
            self.next = 2 * waited
            say(f"waiting for {what}, up to {duration(self.limit)}{because}")
        return True


def meet() -> tuple[Meeting, list[Member], dict[int, Channel]]:
    """Wait until all processes are there.

    Returns:
        The meeting, who has come to it by rank, and this process's channels: of process 0 to all
        others, and of any other to process 0.

    Raises:
        UserError: someone does not come in time, or it cannot work.
    """
    place = meeting()
    limit = seconds(JOIN, JOIN_SECONDS)
    require_name(place, limit)
    if place.own.rank:
        members, channel = Guest(place, limit).run()
        return place, members, {0: channel}
    return place, *Host(place, limit).run()


def require_name(place: Meeting, limit: float) -> None:
    """Process 0 must know the address by its name; a cluster may learn of it a little later."""
    try:
        place.host.encode("idna")
    except UnicodeError:
        raise UserError(
            f"{place.named}: {visible(place.host)}: no such host can be; give an address of the "
            "machine of process 0"
        ) from None
    wait = Wait(limit)
    while place.own.rank == 0 and (reason := unknown(place)):
        if not wait.goes_on(f"a machine named {place.host}", f" ({reason})"):
            raise UserError(
                f"{place.named}: {place.host}: {reason}; give an address of this machine, or "
                f"{LATER}"
            )
        time.sleep(min(1.0, limit / 4))


def unknown(place: Meeting) -> str:
    """Why a host's name says nothing, else ""."""
    try:
        socket.getaddrinfo(place.host, place.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return f"no such host is known ({error.strerror})"
    return ""


class Host:
    """Process 0, which the others come to."""

    def __init__(self, place: Meeting, limit: float):
        self.place = place
        self.own = place.own
        self.wait = Wait(limit)
        self.members: dict[int, Member] = {}
        self.channels: dict[int, Channel] = {}
        self.strangers: list[Channel] = []

    def run(self) -> tuple[list[Member], dict[int, Channel]]:
        listener = self.listen()
        try:
            while missing := [r for r in range(1, self.own.count) if r not in self.members]:
                whom = at_most([str(rank) for rank in missing])
                whom = f"{'processes' if len(missing) > 1 else 'process'} {whom}"
                self.wait.check(f"{whom} of {self.own.count}", self.place.address, self.elsewhere())
                self.serve(listener)
        except UserError as error:
            for channel in self.channels.values():
                channel.send({"refused": str(error)})
                channel.close()
            raise
        finally:
            listener.close()
            for channel in self.strangers:
                channel.close()
        members = [self.own, *(self.members[rank] for rank in range(1, self.own.count))]
        for channel in self.channels.values():
            channel.send({"all": [asdict(member) for member in members]})
        return members, self.channels

    def elsewhere(self) -> str:
        """Why the others may look for this process at another machine, else ""."""
        with socket.socket() as probe:
            try:
                probe.bind((self.place.host, 0))
            except OSError:
                return f"{self.place.host} is no address of this machine, where process 0 runs"
        return ""

    def listen(self) -> socket.socket:
        """As Paddle's store will do on the same port: at every address of this machine."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", self.place.port))
            listener.listen(self.own.count + 8)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise UserError(
                    f"{self.place.named}: port {self.place.port} cannot be listened on "
                    f"({error.strerror}): give another one"
                ) from None
            raise UserError(
                f"port {self.place.port} of this machine, where the others come to process 0, is "
                f"taken by another process, maybe a second one with {RANK}=0: end it, give "
                f"another port (--master HOST:PORT of the launcher, or {self.place.named}), or "
                f"{LATER}"
            ) from None
        return listener

    def serve(self, listener: socket.socket) -> None:
        """Whatever comes within a moment."""
        if wait([listener], 0):
            with suppress(OSError):
                self.strangers.append(Channel(listener.accept()[0]))
        for channel in readable([*self.strangers, *self.channels.values()], 0.1):
            try:
                messages = channel.receive()
            except ValueError:
                messages = None
            if messages is None:
                self.forget(channel)
            elif channel in self.strangers and messages:
                self.strangers.remove(channel)
                self.admit(channel, messages[0])

    def forget(self, channel: Channel) -> None:
        """One who has gone again may come again."""
        channel.close()
        self.strangers = [other for other in self.strangers if other is not channel]
        for rank in [rank for rank, other in self.channels.items() if other is channel]:
            del self.channels[rank], self.members[rank]

    def admit(self, channel: Channel, message: Message) -> None:
        """Take one in who belongs here.

        Raises:
            UserError: the processes were not started to train together.
        """
        new = member_of(message.get("join"))
        if new is None:
            channel.close()
            return
        wrong = self.objection(new)
        if wrong:
            channel.send({"refused": wrong})
            channel.close()
            raise UserError(wrong)
        self.members[new.rank], self.channels[new.rank] = new, channel
        channel.send({"welcome": asdict(self.own)})

    def objection(self, new: Member) -> str:
        if new.count != self.own.count:
            return (
                f"{new} has come to {replace(self.own, pid=0)}: start all with the same number of "
                f"processes ({COUNT})"
            )
        if new.rank == 0 or new.rank in self.members:
            first = self.members.get(new.rank, self.own)
            return (
                f"two processes have the number {new.rank} ({first} and {new}): give each its "
                f"own {RANK}; where the second took the place of the first, {LATER}"
            )
        return ""


def member_of(plain: object) -> Member | None:
    """A process as it was told, None where that is nonsense."""
    if not isinstance(plain, dict):
        return None
    numbers = [plain.get(name) for name in ("rank", "count", "pid")]
    host = plain.get("host")
    if not all(type(number) is int and 0 <= number < 1 << 31 for number in numbers):
        return None
    if not isinstance(host, str) or numbers[0] >= numbers[1]:  # type: ignore[operator]
        return None
    return Member(*numbers, host[:255])  # type: ignore[arg-type]


class Guest:
    """Any other process, which comes to process 0."""

    def __init__(self, place: Meeting, limit: float):
        self.place = place
        self.wait = Wait(limit)
        self.limit = limit
        self.why = ""

    def run(self) -> tuple[list[Member], Channel]:
        while True:
            self.check()
            channel = self.connect()
            if channel:
                members = None
                try:
                    members = self.introduce(channel)
                finally:
                    if not members:
                        channel.close()
                if members:
                    return members, channel
            time.sleep(0.2)

    def check(self) -> None:
        self.wait.check(f"process 0 of {self.place.own.count}", self.place.address, self.why)

    def connect(self) -> Channel | None:
        self.why = unknown(self.place)
        if self.why:
            return None
        try:
            connection = socket.create_connection((self.place.host, self.place.port), ANSWER)
            if connection.getsockname() == connection.getpeername():  # met itself
                connection.close()
                return None
            return Channel(connection)
        except OSError as error:
            self.why = (error.strerror or str(error)).lower()
            return None

    def introduce(self, channel: Channel) -> list[Member] | None:
        """All members, once process 0 has them; None where it is not met or has gone."""
        channel.send({"join": asdict(self.place.own)})
        started = time.monotonic()
        greeted = False
        while True:
            waited = time.monotonic() - started
            if not greeted:
                self.check()
            if waited > (self.limit + ANSWER if greeted else ANSWER):
                self.why = "what answers there is no process of ppcls, or was stopped"
                return None
            if not readable([channel], 0.2):
                continue
            try:
                messages = channel.receive()
            except ValueError:
                self.why = "what answers there is no process of ppcls"
                return None
            if messages is None:
                self.why = "it came and has gone again"
                return None
            for message in messages:
                if "refused" in message:
                    raise UserError(visible(str(message["refused"]), 1000))
                if "all" in message:
                    return [found for plain in message["all"] if (found := member_of(plain))]
                greeted |= "welcome" in message

"""Several training processes on this machine, started, watched and ended together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ppcls.train.rendezvous import process_count
from ppcls.utils import environment
from ppcls.utils.errors import TRY_AGAIN, UserError
from ppcls.utils.log import print_error
from ppcls.utils.text import plural

# Seconds for which the others may go on when one has failed: before they are asked to end, as who
# saves a checkpoint does, and before they are ended.
PATIENCE = 20.0
LAST_PATIENCE = 600.0
AFTER_END = 60.0  # where the first, which writes, is done
AFTER_LOSS = 5.0  # where those who answer have ended because one does not
SECOND_ASKING = 5.0  # before a second Ctrl-C ends all
LAUNCHED = "PPCLS_LAUNCHED"  # in the environment of processes that are started here
LOST = 3  # exit code of a process that another one has left alone
INTERRUPTED = 130  # exit code of a run ended by a signal, as shells count it
ORDERLY = (2, TRY_AGAIN, INTERRUPTED)  # exit codes of processes that have told the others
# What a launcher around this one may have set, which is not meant for these processes.
MEETING = ("MASTER_ADDR", "MASTER_PORT", "PADDLE_MASTER")
ASKED = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
TOLD = 20  # lines of a process that failed which are shown


def most_processes() -> int:
    """How many processes can train on this machine; more are a slip of the finger."""
    return max(16, environment.core_count())


def launch(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes that train together; returns the exit code.

    The first process speaks; what another says is shown where it fails and the first does not.

    Raises:
        UserError: so many are a slip of the finger.
    """
    most = most_processes()
    if count > most:
        cores = environment.core_count()
        raise UserError(
            f"--processes {count}: this machine has {plural(cores, 'core')}, and {most} processes "
            "are the most that can train there; one for each GPU, or 1 without, is what suits"
        )
    with tempfile.TemporaryDirectory(prefix="ppcls-") as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(1, count)]
        processes: list[subprocess.Popen[bytes]] = []
        stop = Stop(processes)
        try:
            with reserved_ports(count) as ports:
                start(command, ports, [None, *logs], processes)
                watch(processes, stop)
            codes = [process.poll() for process in processes]  # None: to be ended below
        finally:
            stop.end()
            for process in processes:
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
        return explain(codes, stop, logs)


def start(
    command: Sequence[str],
    ports: Sequence[int],
    logs: Sequence[Path | None],
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """Add the processes, told of one another as `paddle.distributed.launch` tells them.

    Args:
        logs: where each of them speaks to, None: here.
    """
    count = len(ports)
    places = [f"127.0.0.1:{port}" for port in ports]
    threads = max(1, environment.core_count() // count)
    kept = {name: value for name, value in os.environ.items() if name not in MEETING}
    for rank in range(count):
        own = {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(count),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(places),
            "PADDLE_CURRENT_ENDPOINT": places[rank],
            "PADDLE_RANK_IN_NODE": str(rank),
            "FLAGS_selected_gpus": str(rank),
            LAUNCHED: "1",
            environment.SAFE_PATH: "1",
        }
        if not environment.threads_given:
            own[environment.THREADS[0]] = str(threads)
        log = logs[rank]
        output: IO[bytes] | None = log.open("wb") if log else None
        processes.append(
            subprocess.Popen(
                command, env=kept | own, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        )
        if output:
            output.close()


class Stop:
    """Passes Ctrl-C, SIGTERM and SIGHUP on to the processes; a second Ctrl-C ends them."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]):
        self.processes = processes
        self.asked = 0  # how often
        self.terminated = False
        self.end_at = float("inf")  # when a second Ctrl-C ends all
        handlers: dict[int, Any] = {signal.SIGINT: self.interrupt, signal.SIGTERM: self.pass_on}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self.pass_on
        # `nohup` asks to ignore SIGHUP, and a shell does for SIGINT in the background.
        handlers = {n: h for n, h in handlers.items() if signal.getsignal(n) != signal.SIG_IGN}
        self.previous = {number: signal.signal(number, h) for number, h in handlers.items()}

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.end_at = min(self.end_at, time.monotonic() + SECOND_ASKING)
        if not from_terminal():
            self.pass_on(number, frame)
        else:
            self.asked += 1

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        for process in self.processes:
            process.send_signal(number)

    def ask(self) -> None:
        """Ask the processes, once, to end because another one has failed."""
        if not self.terminated:
            self.terminated = True
            for process in self.processes:
                process.terminate()

    def end(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def from_terminal() -> bool:
    """Whether Ctrl-C comes from this process's terminal, which sends it to all by itself."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def watch(processes: Sequence[subprocess.Popen[bytes]], stop: Stop) -> None:
    """Wait until all have ended, or some time after one failed."""
    failed_at = lost_at = done_at = float("inf")
    while True:
        codes = [process.poll() for process in processes]
        now = time.monotonic()
        if None not in codes:
            return
        ended = [code for code in codes if code]
        if ended:
            failed_at = min(failed_at, now)
        if LOST in ended:
            lost_at = min(lost_at, now)
        if codes[0] == 0:
            done_at = min(done_at, now)
        orderly = all(code in ORDERLY for code in ended)
        last = failed_at + (LAST_PATIENCE if orderly else PATIENCE)
        if now > min(last, lost_at + AFTER_LOSS, done_at + AFTER_END, stop.end_at):
            return
        if now > failed_at + PATIENCE:
            stop.ask()
        time.sleep(0.1)


def explain(found: Sequence[int | None], stop: Stop, logs: Sequence[Path]) -> int:
    """Say why the run ended where the first process did not.

    Args:
        found: exit codes, None of processes that have to be ended.

    Returns:
        The exit code.
    """
    ours = -signal.SIGTERM if stop.terminated else None
    codes = [0 if code in (None, ours) else code for code in found]
    if not any(codes):
        return INTERRUPTED if stop.asked and found[0] is None else 0
    failed = min(range(len(codes)), key=lambda rank: importance(codes[rank]))
    code = codes[failed]
    first = codes[0]
    who = f"process {failed} of {len(codes)}"
    if code < 0 and stop.asked and -code in ASKED:
        print_error("interrupted", mark="")
        return INTERRUPTED
    if code < 0:
        print_error(
            f"{who} {cause(-code)}; the others were ended; "
            "the last checkpoint stays: the same command with --resume goes on"
        )
        return 1
    if code == LOST:
        if failed:
            print_error(*last_words(logs[failed - 1]), mark="")
        return 1
    if failed and first not in (code, INTERRUPTED) and not (first == LOST and code in ORDERLY):
        print_error(f"{who} failed; its last words:")
        print_error(*last_words(logs[failed - 1]), mark="")
    return code


def importance(code: int) -> int:
    """Ranks exit codes: a crash is the reason for whatever the others say."""
    if code < 0:
        return 0
    return {0: 4, LOST: 3, INTERRUPTED: 2}.get(code, 1)


def cause(number: int) -> str:
    """What happened to a process that a signal ended."""
    if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, *ASKED):
        memory = ", maybe for lack of memory" if number == signal.SIGKILL else ""
        return f"was ended from outside by signal {number}{memory}"
    name = signal.strsignal(number) or "unknown"
    return f"crashed with signal {number} ({name.lower()})"


def last_words(log: Path) -> list[str]:
    """The errors that a process ended with; whatever it said last where it named none."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-TOLD:] or lines[-TOLD:]


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports of this machine that nobody listens on and that, while entered, nobody else is given.

    They are bound and not listened on, in the way that lets these processes listen there.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return process_count() > 1


def is_watched() -> bool:
    """Whether `launch` started this process, and tells why one of them ended."""
    return LAUNCHED in os.environ


def end_as_lost(reason: str, unexplained: bool, code: int = LOST) -> int:
    """Say that another process has gone, and that ends this one; the exit code.

    Args:
        unexplained: nothing is known of why: the launcher says more where it started this one.
        code: the exit code.
    """
    if not (unexplained and is_watched()):
        print_error(reason)
    return code


def end_with_launcher() -> None:
    """In a process that `launch` started: end when the launcher is gone, however it went."""
    if is_watched():
        threading.Thread(target=wait_for_end, daemon=True).start()


def wait_for_end() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through Python's buffer, whose lock outlives its thread
    os._exit(1)

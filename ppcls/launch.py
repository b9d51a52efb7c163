"""Several training processes on this machine, started, watched and ended together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ppcls import environment
from ppcls.errors import UserError
from ppcls.log import print_error
from ppcls.utils.text import plural

PATIENCE = 20.0  # seconds that the others have to end by themselves when one has failed
LAUNCHED = "PPCLS_LAUNCHED"  # in the environment of processes that are started here


def launch(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes that train together; returns the exit code.

    The first process speaks; what another says is shown where it fails and the first does not.

    Raises:
        UserError: so many are a slip of the finger.
    """
    cores = environment.core_count()
    most = max(16, cores)
    if count > most:
        raise UserError(
            f"--processes {count}: this machine has {plural(cores, 'core')}, and {most} processes "
            "are the most that can train there; one for each GPU, or 1 without, is what suits"
        )
    with tempfile.TemporaryDirectory(prefix="ppcls-") as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(1, count)]
        processes = start(command, count, logs)
        stop = Stop(processes)
        try:
            failed = watch(processes)
        finally:
            stop.end()
            for process in processes:
                process.kill()
                process.wait()
        if failed is None:
            return 0
        return explain(failed, processes, logs)


def start(
    command: Sequence[str], count: int, logs: Sequence[Path]
) -> list[subprocess.Popen[bytes]]:
    """The processes, told of one another as `paddle.distributed.launch` tells them."""
    ports = free_ports(count)
    places = [f"127.0.0.1:{port}" for port in ports]
    threads = max(1, environment.core_count() // count)
    processes = []
    for rank in range(count):
        own = {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(count),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(places),
            "PADDLE_CURRENT_ENDPOINT": places[rank],
            "PADDLE_RANK_IN_NODE": str(rank),
            "FLAGS_selected_gpus": str(rank),
            LAUNCHED: "1",
        }
        given = any(name in os.environ for name in environment.THREADS)
        own |= {} if given else {environment.THREADS[0]: str(threads)}
        output: IO[bytes] | None = logs[rank - 1].open("wb") if rank else None
        processes.append(
            subprocess.Popen(
                command, env=os.environ | own, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        )
        if output:
            output.close()
    return processes


class Stop:
    """Passes SIGTERM and SIGHUP on to the processes; a terminal sends Ctrl-C to all by itself."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]):
        self.processes = processes
        handlers: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: self.pass_on}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handlers[signal.SIGHUP] = self.pass_on
        self.previous = {number: signal.signal(number, h) for number, h in handlers.items()}

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            process.send_signal(number)

    def end(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def watch(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended, or some time after one failed; returns the first that failed."""
    failed, deadline = None, float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if failed is None and any(codes):
            failed = next(rank for rank, code in enumerate(codes) if code)
            deadline = time.monotonic() + PATIENCE
        if None not in codes:
            break
        time.sleep(0.1)
    return failed


def explain(failed: int, processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> int:
    """Say why the run ended where the first process did not; returns the exit code."""
    code, first = processes[failed].returncode, processes[0].returncode
    if code < 0:
        why = f"was ended from outside by signal {-code}"
        why += ", maybe for lack of memory" if -code == signal.SIGKILL else ""
        print_error(
            f"process {failed} of {len(processes)} {why}; the others were ended; "
            "the last checkpoint stays: the same command with --resume goes on"
        )
        return 1
    if failed and first not in (0, code):  # the first did not end with the same error
        print_error(f"process {failed} of {len(processes)} failed; its last lines:")
        lines = logs[failed - 1].read_text(errors="replace").splitlines()
        print_error(*lines[-20:], mark="")
    return code


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def end_with_launcher() -> None:
    """In a process that `launch` started: end when the launcher is gone, however it went."""
    if LAUNCHED in os.environ:
        threading.Thread(target=wait_for_end, daemon=True).start()


def wait_for_end() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through Python's buffer, whose lock outlives its thread
    os._exit(1)

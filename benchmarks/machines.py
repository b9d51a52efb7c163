"""Training on several machines: what happens when one dies, is cut off, or comes no more?

The machines are network namespaces of this one, each with an address of its own on a bridge. On
each `paddle.distributed.launch` starts one process, which train together over gloo; then something
happens to the last one, and the run has to end with its reason, or go on, within --limit seconds.
Then it is started again with as many machines, fewer or more. With as many its weights must be
those of the undisturbed run to the bit, else they and the losses up to rounding. Packets are
delayed and lost by a relay between two bridges, since many kernels have no netem.

Prints a row for each kind of fault; exits with 1 where one is otherwise. Needs root and `ip`.

    python benchmarks/machines.py [--machines 2] [--only kill part]
"""

import argparse
import fcntl
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kill_and_resume import write_photos  # benchmarks/kill_and_resume.py: 26 images
from resume_anywhere import LIMIT, WEIGHTS_LIMIT, distance, same_bytes, weights_apart

from ppcls.train.checkpoint import LATEST

BRIDGE = "ppcls-br"
SUBNET = "10.77.0"
PORT = 8765
MOST = 4  # machines
FAR = "ppcls-far"  # the bridge of a machine whose packets are relayed
DELAY, LOST, SLOW = 0.02, 0.01, 60.0  # seconds each way; share of packets; seconds of it all
# of Linux's if_tun.h
SET_NAME, TAP, WITHOUT_HEADER = 0x400454CA, 0x0002, 0x1000
STEP = 12  # images
RECIPE = """
model: {name: ResNet18, num_classes: 2, freeze: ["*.norm.*"]}
data: {train: photos/train, eval: photos/eval, workers: 1}
preprocess: {resize: 36, crop: 32}
train:
  epochs: EPOCHS
  batch_size: 12
  drop_last: false
  log_every: 1
  save_every: 1 steps
  schedule: {lr: 0.01}
"""
TRAIN = Path(__file__).resolve().parent.parent / "tools/train.py"


@dataclass
class Fault:
    """What is done to the last machine while it trains, and with how many it goes on then."""

    name: str
    what: str
    do: Callable[["Machines"], None]
    then: int  # more machines than before
    ends: bool = True  # whether it ends the run
    undo: Callable[["Machines"], None] | None = None  # once the others have ended; it ends then


class Impossible(Exception):  # noqa: N818
    pass


class Machines:
    """Processes that train together, one in each namespace."""

    def __init__(self, count: int, first: int, output: str):
        """`first`: with how many machines the run began, for the images of a step stay."""
        self.count = count
        self.output = output
        self.launchers = []
        self.logs = [Path(f"{output}-{number}.txt") for number in range(1, count + 1)]
        resumes = ["--resume"] if (Path(output) / LATEST).exists() else []
        for number, log in enumerate(self.logs, 1):
            launch = ["-m", "paddle.distributed.launch", "--nnodes", str(count)]
            launch += ["--nproc_per_node", "1", "--master", f"{SUBNET}.1:{PORT}"]
            launch += ["--host", f"{SUBNET}.{number}", "--log_dir", f"{output}-logs{number}"]
            train = [str(TRAIN), "-c", "recipe.yaml", *resumes]
            train += ["-o", f"output={output}", f"train.batch_size={STEP // first}"]
            command = ["ip", "netns", "exec", name_of(number), sys.executable, *launch, *train]
            threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            with log.open("wb") as file:
                self.launchers.append(
                    subprocess.Popen(
                        command,
                        stdout=file,
                        stderr=file,
                        env=os.environ | threads,
                        start_new_session=True,
                    )
                )

    def wait_for_steps(self, more: int, limit: float) -> None:
        """Until the run has done so many steps more than when it was started."""
        begun = time.monotonic()
        before = steps_done(self.output)
        while steps_done(self.output) < before + more:
            if time.monotonic() - begun > limit or None not in self.codes():
                raise SystemExit(f"{self.output}: no step was done:\n{self.tail()}")
            time.sleep(0.1)

    def codes(self) -> list[int | None]:
        return [launcher.poll() for launcher in self.launchers]

    def ended(self, limit: float, count: int | None = None) -> float | None:
        """Seconds until the first `count`, or all, have ended; None where they have not."""
        begun = time.monotonic()
        while None in self.codes()[:count]:
            if time.monotonic() - begun > limit:
                return None
            time.sleep(0.1)
        return time.monotonic() - begun

    def reasons(self) -> list[str]:
        """The lines that say why, of all machines, without those that Paddle's launcher repeats."""
        found = [line for log in self.logs for line in log.read_text(errors="replace").splitlines()]
        return list(dict.fromkeys(line for line in found if line.startswith("error: ")))

    def tail(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in self.logs)

    def kill(self) -> None:
        for launcher in self.launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
        for number in range(1, self.count + 1):
            kill_in(name_of(number), signal.SIGKILL)
        for launcher in self.launchers:
            launcher.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=2, choices=range(2, MOST + 1))
    parser.add_argument("--limit", type=float, default=60, help="seconds within which a run ends")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", help="names of faults")
    options = parser.parse_args()
    if why := impossible():
        print(f"skipped: {why}")
        return 0
    faults = [fault for fault in known_faults() if not options.only or fault.name in options.only]
    with tempfile.TemporaryDirectory() as folder, namespaces(options.machines + 1):
        os.chdir(folder)
        write_photos()
        Path("recipe.yaml").write_text(RECIPE.replace("EPOCHS", str(options.epochs)))
        whole = Machines(options.machines, options.machines, "whole")
        require_done(whole, 10 * options.limit)
        print(f"{options.machines} machines, undisturbed: to the end", flush=True)
        print("| what happens to the last machine | the run | and then |\n|---|---|---|")
        good = [try_one(fault, options.machines, options.limit) for fault in faults]
    return 0 if all(good) else 1


def try_one(fault: Fault, count: int, limit: float) -> bool:
    """Whether the run ends or goes on as it should; prints the row."""
    machines = Machines(count, count, fault.name)
    good = True
    try:
        machines.wait_for_steps(3, 10 * limit)
        lost = pids_in(name_of(count))  # which process of the run it has, its launcher decides
        fault.do(machines)
        if fault.ends:
            if fault.undo:
                seconds = machines.ended(limit, count - 1)
                fault.undo(machines)
                seconds = seconds if machines.ended(limit) is not None else None
            else:
                seconds = machines.ended(limit)
            reasons = machines.reasons()
            named = re.search(r"pid (\d+)", reasons[0]) if reasons else None
            good = seconds is not None and named is not None and int(named[1]) in lost
            said = re.sub(r"pid \d+", "pid …", reasons[0]) if reasons else "no reason is said"
            outcome = "STANDS STILL"
            if seconds is not None:
                outcome = f"ends after {seconds:.0f} s: `{said}`"
                outcome += ", and it itself when it goes on" if fault.undo else ""
        else:
            require_done(machines, 10 * limit)
            outcome = "goes on to its end"
    finally:
        machines.kill()
        mend(count)
    then = ""
    if fault.ends:
        again = Machines(count + fault.then, count, fault.name)
        try:
            require_done(again, 10 * limit)
        finally:
            again.kill()
        then = f"goes on with {count + fault.then}, "
    furthest = distance(Path(fault.name), Path("whole"))
    if fault.then == 0:
        same = same_bytes(Path(fault.name), Path("whole"))
        words = "weights and optimizer to the bit" if same else "WEIGHTS OF ANOTHER RUN"
        good = good and same
    else:
        apart = weights_apart(Path(fault.name), Path("whole"))
        words = f"losses within {furthest:.0e}, weights within {apart:.0e}"
        good = good and apart < WEIGHTS_LIMIT
    good = good and furthest < LIMIT
    print(f"| {fault.what} | {outcome} | {then}{words} |", flush=True)
    return good


def require_done(machines: Machines, limit: float) -> None:
    if machines.ended(limit) is None or any(machines.codes()):
        raise SystemExit(f"{machines.output} did not come to its end:\n{machines.tail()}")


def steps_done(output: str) -> int:
    path = Path(output) / "run.jsonl"
    return path.read_text().count('"event": "train"') if path.exists() else 0


# --------------------------------------------------------------------------
# What happens


def known_faults() -> list[Fault]:
    faults = [
        Fault("kill", "its process is killed", lambda m: kill_in(name_of(m.count), 9, "train"), 0),
        Fault("die", "all of it dies", lambda m: kill_in(name_of(m.count), 9), -1),
        Fault("cut", "its network is cut off", lambda m: link(m.count, "down"), 1),
        Fault("stop", "all of it stands still", stop, 0, undo=go_on),
        Fault("part", "its network is cut off for 5 s", cut_for_a_while, 0, ends=False),
    ]
    if Path("/dev/net/tun").exists():
        what = "for a minute its packets take 20 ms each way, and 1 % are lost"
        faults.append(Fault("slow", what, slow_for_a_while, 0, ends=False))
    else:
        print("delay and loss are left out: this kernel has no /dev/net/tun")
    return faults


def stop(machines: Machines) -> None:
    kill_in(name_of(machines.count), signal.SIGSTOP)


def go_on(machines: Machines) -> None:
    kill_in(name_of(machines.count), signal.SIGCONT)


def cut_for_a_while(machines: Machines) -> None:
    link(machines.count, "down")
    time.sleep(5)
    link(machines.count, "up")


def slow_for_a_while(machines: Machines) -> None:
    port = f"{BRIDGE}{machines.count}"
    with Relay():
        must("ip", "link", "set", port, "master", FAR)
        time.sleep(SLOW)
        must("ip", "link", "set", port, "master", BRIDGE)


class Relay:
    """While entered, passes packets on between two bridges, late, and not all of them."""

    def __init__(self):
        must("ip", "link", "add", FAR, "type", "bridge")
        must("ip", "link", "set", FAR, "up")
        self.ends = [self.tap(bridge) for bridge in (BRIDGE, FAR)]
        self.others = dict(zip(self.ends, reversed(self.ends), strict=True))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.pass_on, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.thread.join()
        for end in self.ends:  # and its device goes
            os.close(end)
        run("ip", "link", "del", FAR)

    def tap(self, bridge: str) -> int:
        """A device on a bridge, whose packets are read and written here."""
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = f"{bridge}-tap"
        fcntl.ioctl(end, SET_NAME, struct.pack("16sH", name.encode(), TAP | WITHOUT_HEADER))
        must("ip", "link", "set", name, "master", bridge, "up")
        return end

    def pass_on(self) -> None:
        lots = random.Random(0)
        waiting: deque[tuple[float, int, bytes]] = deque()  # when, where to, what
        while not self.ended.is_set():
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                with suppress(OSError):  # its queue is full: it is lost
                    os.write(*waiting.popleft()[1:])
            wait = max(0.0, waiting[0][0] - now) if waiting else 0.1
            for end in select.select(self.ends, [], [], wait)[0]:
                with suppress(BlockingIOError):
                    while True:
                        packet = os.read(end, 65536)
                        if lots.random() >= LOST:
                            waiting.append((time.monotonic() + DELAY, self.others[end], packet))


def mend(count: int) -> None:
    for number in range(1, count + 1):
        link(number, "up")
        run("ip", "link", "set", f"{BRIDGE}{number}", "master", BRIDGE)


def link(number: int, state: str) -> None:
    run("ip", "link", "set", f"{BRIDGE}{number}", state)


def kill_in(namespace: str, number: int, word: str = "") -> None:
    """Send a signal to the processes of a namespace, or to those whose command has a word."""
    for pid in pids_in(namespace):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if "launch" not in command if word else True:
                os.kill(pid, number)
        except OSError:
            continue


def pids_in(namespace: str) -> list[int]:
    command = ["ip", "netns", "pids", namespace]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


# --------------------------------------------------------------------------
# Namespaces


def impossible() -> str:
    """Why no machines can be made here, else ""."""
    if os.geteuid():
        return "only root can make network namespaces"
    if not shutil.which("ip"):
        return "there is no `ip` (iproute2) here"
    try:
        with namespaces(1):
            return ""
    except Impossible as error:
        return f"network namespaces cannot be made here ({error})"


def name_of(number: int) -> str:
    return f"ppcls-{number}"


@contextmanager
def namespaces(count: int) -> Iterator[None]:
    """So many machines, on one bridge, gone in the end."""
    remove(count)
    try:
        must("ip", "link", "add", BRIDGE, "type", "bridge")
        must("ip", "link", "set", BRIDGE, "up")
        for number in range(1, count + 1):
            name = name_of(number)
            port = f"{BRIDGE}{number}"
            must("ip", "netns", "add", name)
            peer = ("peer", "name", "eth0", "netns", name)
            must("ip", "link", "add", port, "type", "veth", *peer)
            must("ip", "link", "set", port, "master", BRIDGE, "up")
            must("ip", "-n", name, "addr", "add", f"{SUBNET}.{number}/24", "dev", "eth0")
            must("ip", "-n", name, "link", "set", "eth0", "up")
            must("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        remove(count)


def remove(count: int) -> None:
    for number in range(1, count + 1):
        kill_in(name_of(number), signal.SIGKILL)
        run("ip", "link", "del", f"{BRIDGE}{number}")
        run("ip", "netns", "del", name_of(number))
    run("ip", "link", "del", BRIDGE)


def run(*command: str) -> int:
    return subprocess.run(command, check=False, capture_output=True).returncode


def must(*command: str) -> Sequence[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Impossible(f"{' '.join(command)}: {done.stderr.strip()}")
    return command


if __name__ == "__main__":
    sys.exit(main())

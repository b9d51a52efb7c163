"""A place that one process at a time writes to; a lock that vanishes with the process."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ppcls.errors import UserError
from ppcls.utils.files import lock
from ppcls.utils.text import visible, whole_number

TRIES = 100  # where others take the lock and give it back meanwhile


@contextmanager
def locked(file: Path, what: str, busy: str) -> Iterator[None]:
    """While entered, no other process can enter with the same file, whose folder is made.

    A process that dies, however it does, holds it no longer: the system's lock on the file counts,
    not the file. Where a file system has no locks, a living process of this machine that the file
    names counts, and one of another machine whether it lives or not. In the end the file is
    removed, and so are folders that were made for it and are empty.

    Args:
        what: begins the message where another process holds it: the place that is written to.
        busy: ends it: what to do.

    Raises:
        UserError: another process holds it, which the message names.
        OSError: it cannot be written.
    """
    made = [place for place in file.parents if not place.exists()]
    try:
        number = take(file, what, busy)
        try:
            yield
        finally:
            with suppress(OSError):  # removed while it is held, so that nobody else holds it
                file.unlink()
            os.close(number)
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def take(file: Path, what: str, busy: str) -> int:
    """The number of the open file that this process holds and has signed."""
    for _ in range(TRIES):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its folder was removed just now
            continue
        try:
            if not hold(number):
                raise UserError(f"{what}: {holder(number)}: {busy}")
            if is_at(number, file):
                sign(number)
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def hold(number: int) -> bool:
    """Whether nobody else holds the open file, which this process then does."""
    held = lock(number)
    if held is not None:
        return held
    pid, host, _ = signature(number)
    return not pid or (host == socket.gethostname() and not lives(int(pid)))


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return pid != os.getpid()


def is_at(number: int, file: Path) -> bool:
    """Whether the open file is the one of that name, which another process may have replaced."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(file))
    except FileNotFoundError:
        return False


def sign(number: int) -> None:
    """Write into the file who holds it and since when."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(number, 0)
    os.pwrite(number, f"{os.getpid()}\n{socket.gethostname()}\n{since}\n".encode(), 0)


def signature(number: int) -> tuple[str, str, str]:
    """Process number, machine and time that a file was signed with; "" where unknown."""
    lines = os.pread(number, 1000, 0).decode("utf-8", "replace").splitlines()
    lines = [visible(line) for line in lines[:3]] + [""] * 3
    pid = lines[0] if 0 < (whole_number(lines[0]) or 0) < 1 << 31 else ""
    return pid, lines[1], lines[2]


def holder(number: int) -> str:
    """Who holds the file, in words."""
    pid, host, since = signature(number)
    if not pid:
        return "another process is writing there"
    return f"process {pid} on {host} has been writing there since {since}"

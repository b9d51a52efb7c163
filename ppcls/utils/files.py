"""Files and folders that are whole or not there, locks, and texts of any encoding."""

import codecs
import ctypes
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from ppcls.utils.errors import AWAY, LATER, UserError
from ppcls.utils.text import from_json, visible, whole_number

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

# What a shell gives a program to read from, as `<(command)` or `-`.
SHELL_PIPES = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
PIPE = "a pipe"
# folders that are being filled, or soon will
STAGED = ".ppcls-*.incomplete"
NEW = ".ppcls-*.new"
# of Linux's renameat2
AT_FDCWD = -100
RENAME_EXCHANGE = 2
LONGEST_HEADER = 1 << 20  # bytes
# What a file system without locks answers, such as some that networks share.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}


def open_plain(path: str | os.PathLike) -> BinaryIO:
    """A plain file opened to be read, without waiting for whatever else may have that name.

    A pipe that a shell made for this program (`<(command)`, `/dev/stdin`) counts as plain.

    Raises:
        UserError: a pipe, a socket or a device.
        OSError: as `open` raises.
    """
    require_plain(path)
    if is_shell_pipe(path):
        return open(path, "rb")
    file = open(path, "rb", opener=open_at_once)  # noqa: SIM115
    try:
        require_plain(path, os.fstat(file.fileno()).st_mode)  # it may be another one by now
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of a file as `open_plain` opens it, with its errors."""
    with open_plain(path) as file:
        return file.read()


def hash_of(*paths: Path) -> "hashlib._Hash":
    """The SHA-256 of files' contents, one behind the other, a block at a time.

    Raises:
        OSError: one of them cannot be read.
    """
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found


def require_plain(path: str | os.PathLike, mode: int | None = None, seekable: bool = False) -> None:
    """UserError for a pipe, a socket or a device; OSError where there is nothing.

    Args:
        mode: the file's `st_mode` where it is known.
        seekable: refuse a shell's pipe, too: what is read from there comes only once.
    """
    kind = special_kind(os.stat(path).st_mode if mode is None else mode)
    if kind and not (kind == PIPE and is_shell_pipe(path) and not seekable):
        raise UserError(f"{visible(os.fspath(path))}: is {kind}, not a file; give a file's name")


def special_kind(mode: int) -> str:
    """What a file with this `st_mode` is in words, "" for a plain file or a folder."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    if stat.S_ISFIFO(mode):
        return PIPE
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def is_shell_pipe(path: str | os.PathLike) -> bool:
    return os.fspath(path).startswith(SHELL_PIPES)


def open_at_once(path: str, flags: int) -> int:
    """Open as `os.open`, without waiting for somebody who writes to a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with a home folder in the place of `~` or `~user`, as shells write them.

    The folder of that name is `./~`; of an unknown user nothing is changed.
    """
    path = os.fspath(path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # out of a file, which is UTF-8, where the locale is not
        path = os.fsdecode(path.encode("utf-8", "surrogateescape"))
    return os.path.expanduser(path)


def existing(path: str | os.PathLike[str]) -> str:
    """The path as the disk spells it, where that has é as two characters and the path as one.

    Or the reverse: names written on macOS are decomposed (NFD), nearly all others composed (NFC).
    A path of which nothing is there in either spelling comes back as it is.
    """
    path = os.fspath(path)
    if path.isascii() or os.path.exists(path):
        return path
    found = ""
    for part in Path(path).parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        choices = [os.path.join(found, form) for form in forms]
        there = [choice for choice in choices if os.path.exists(choice)]
        if not there:
            return path
        found = there[0]
    return found


@contextmanager
def write_whole(
    path: str | os.PathLike, what: str = "", fix: str = "", synced: bool = True
) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the place of `path` in the end, synced, by one rename.

    When anything is raised meanwhile, `path` is as it was. A symbolic link stays one; a pipe or a
    device (`/dev/stdout`) is written to as it is.

    Args:
        what: begins the message, such as `--save x.csv`; default: the path.
        fix: ends it; default: to name another place or make room.
        synced: off for what its readers check and can make again: after a power cut it may be
            empty or torn, and without waiting for the disk a thousand are written in a second.

    Raises:
        UserError: it cannot be written.
    """
    with writing(what or os.fspath(path), fix):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file() and not target.is_dir():
            with open(target, "wb") as file:
                yield file
            return
        temporary = beside(target, "tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: str | os.PathLike, data: bytes, what: str = "", fix: str = "") -> None:
    with write_whole(path, what, fix) as file:
        file.write(data)


def write_text(path: str | os.PathLike, text: str, what: str = "", fix: str = "") -> None:
    """A UTF-8 file, whole or not at all; names that are no UTF-8 keep the bytes they have."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), what, fix)


@contextmanager
def staged_folder(
    target: Path,
    last: str,
    own: Iterable[str] = (),
    what: str = "",
    fix: str = "",
    shared: bool = False,
) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `target` in the end, by one rename.

    A kill leaves the old or the new one whole. What a killed process left is cleared away by the
    next. Where `target` is a mount point or the working directory, or its parent may not be
    written, the files are moved into it one by one, and `last`, without which the folder means
    nothing, goes first and comes last.

    Args:
        own: patterns of the names in the old folder that go with it; all others move along.
        what, fix: as of `write_whole`.
        shared: others may be writing to `target`, too: where there is anything in it that is not
            `own`, files are moved one by one.

    Raises:
        UserError: it cannot be written.
    """
    name = what or str(target)
    own = tuple(own)
    target = Path(os.path.realpath(target))
    with writing(name, fix):
        foreign = shared and bool(parts_of(target, own)[1])
        whole = not (foreign or os.path.ismount(target) or needs_inside(target))
        place = target if whole else target / target.name
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent)
        temporary, held = hold_new(place)
    try:
        yield temporary
        with writing(name, fix):
            if whole:
                replace_whole(temporary, target, own)
            else:
                replace_singly(temporary, target, own, last)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(held)


def replace_whole(temporary: Path, target: Path, own: Sequence[str]) -> None:
    for path in parts_of(target, own)[1]:
        carry(path, temporary / path.name)
    if target.is_dir():
        shutil.copymode(target, temporary)
    swap(temporary, target)


def replace_singly(temporary: Path, target: Path, own: Sequence[str], last: str) -> None:
    remove_if_there(target / last)
    for path in parts_of(target, own)[0]:
        remove_if_there(path)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
        os.replace(path, target / path.name)


def parts_of(target: Path, own: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """What is in a folder, without what is being staged there: its own files, and others."""
    found = sorted(target.iterdir()) if target.is_dir() else []
    found = [path for path in found if not (path.match(STAGED) or path.match(NEW))]
    mine = [path for path in found if any(path.match(mask) for mask in own)]
    return mine, [path for path in found if path not in mine]


def hold_new(place: Path) -> tuple[Path, int]:
    """A new folder beside `place`, and the open file by which this process holds it."""
    for _ in range(10):
        temporary = beside(place, "new")
        temporary.mkdir()
        with suppress(FileNotFoundError):  # swept away by another process before it was held
            held = os.open(temporary, os.O_RDONLY)
            with suppress(OSError):
                lock(held)
            try:
                return temporary.rename(temporary.with_suffix(".incomplete")), held
            except OSError:
                os.close(held)
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def sweep(folder: Path) -> None:
    """Remove the staged folders whose process is gone."""
    for path in [*folder.glob(STAGED), *folder.glob(NEW)]:
        with suppress(OSError):
            held = os.open(path, os.O_RDONLY)
            if lock(held):
                shutil.rmtree(path, ignore_errors=True)
            os.close(held)


def lock(number: int) -> bool | None:
    """Hold an open file until it is closed; False where another process does, None where none can.

    Raises:
        OSError: the file system refuses for another reason than that it has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None


def needs_inside(target: Path) -> bool:
    """Whether a folder itself has to stay: the one that is worked in, or in a closed one."""
    here = Path.cwd()
    if target == here or target in here.parents:
        return True
    return target.is_dir() and not os.access(target.parent, os.W_OK)


def swap(temporary: Path, target: Path) -> None:
    """Put `temporary` in the place of `target`, a folder or nothing, whose content then goes."""
    if not target.exists():
        os.rename(temporary, target)
        return
    if exchange(temporary, target):
        return
    aside = beside(target, "old")
    os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or file system cannot."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    flags = ctypes.c_uint(RENAME_EXCHANGE)
    if library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def carry(path: Path, to: Path) -> None:
    """Keep what stands in a folder that is about to go, unless the new one has its own."""
    if to.exists():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True, copy_function=link_or_copy)
    else:
        link_or_copy(path, to)


def link_or_copy(path: str | Path, to: str | Path) -> None:
    """The same file under a second name, or a copy where the file system has no such names."""
    try:
        os.link(path, to, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, to, follow_symlinks=False)


def remove_if_there(path: Path) -> None:
    with suppress(FileNotFoundError):
        remove(path)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def beside(target: Path, ending: str) -> Path:
    """A hidden name of its own in the same folder, however long the target's name is."""
    return target.with_name(f".ppcls-{os.getpid()}-{uuid4().hex[:8]}.{ending}")


def place_to_write(name: str, target: str | os.PathLike[str]) -> Path:
    """Where a file is to be, without links; UserError, which begins with `name`, where none can."""
    with writing(name):
        place = Path(os.path.realpath(target))
        if place.exists() and not place.is_file():
            raise UserError(f"{name}: is there and is no file; name another one")
        if not os.access(place.parent, os.W_OK):
            raise UserError(f"{name}: cannot be written; does the folder exist?")
    return place


@contextmanager
def writing(what: str, fix: str = "") -> Iterator[None]:
    """While entered, what the file system refuses is one line: `what`, the reason and the fix."""
    try:
        yield
    except OSError as error:
        fix = LATER if error.errno in AWAY else fix or "choose another place, or make room"
        raise UserError(f"{what}: cannot be written ({error.strerror or error}); {fix}") from None


def header_line(header: Mapping[str, Any]) -> bytes:
    """The first line of a file of records: JSON that says what the records are."""
    return json.dumps(header).encode() + b"\n"


def read_header(path: Path, form: str, mistake: str) -> dict[str, Any]:
    """The header of a file whose "format" is `form`; UserError says the mistake of any other."""
    try:
        with open_plain(path) as file:
            found = from_json(file.readline(LONGEST_HEADER))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != form:
        raise UserError(f"{path}: {mistake}")
    return found


# --------------------------------------------------------------------------
# A place that one process at a time writes to; a lock that vanishes with the process

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
                # Without locks nobody knows whether a process of another machine still lives.
                gone = f"; where it is no more, delete {file}" if lock(number) is None else ""
                raise UserError(f"{what}: {holder(number)}: {busy}{gone}")
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


# --------------------------------------------------------------------------
# Text files of users: read as UTF-8, divided into lines as editors do


def read_text(path: str | PathLike) -> str:
    """The file's text without a byte order mark; UserError names a line that is not UTF-8."""
    try:
        data = read_file(existing(expanded(path)))
    except OSError as error:
        raise UserError(f"{visible(str(path))}: {error.strerror}") from error
    return text_of(data, path)


def text_of(data: bytes, path: str | PathLike) -> str:
    """As `read_text`, of what was read of the file."""
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
        broken = text.find("\0")  # UTF-16 without its mark passes as UTF-8, full of zeros
    except UnicodeDecodeError as error:
        text = error.object.decode("latin-1")
        broken = error.start
    if broken >= 0:
        line = text.count("\n", 0, broken) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` would also break at form feeds and the like."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines

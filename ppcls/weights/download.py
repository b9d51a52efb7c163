"""Downloads: whole or not at all, within limits, kept and checked."""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import hash_of, write_text
from ppcls.utils.log import Pace, say
from ppcls.utils.text import from_json, quoted, visible, whole_number
from ppcls.utils.web import (
    CHUNK,
    PAGE,
    CutShortError,
    Patience,
    RefusedError,
    TooLargeError,
    TooSlowError,
    explained,
    offline,
    refuse,
    timely,
    traffic,
)

if TYPE_CHECKING:  # requests is imported when something is downloaded
    import requests


def folder() -> Path:
    """The folder of downloaded weights: `weights` in $PPCLS_HOME or ~/.cache/ppcls."""
    return environment.home() / "weights"


def place(url: str) -> Path:
    """Where the file of a URL is kept: its own name, in a folder told by the whole address."""
    try:
        name = unquote(PurePosixPath(urlsplit(url).path).name)
        whole = url.encode()
    except ValueError as error:
        raise UserError(f"{visible(url)}: not an address: {visible(str(error))}") from None
    name = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    name = name.encode("utf-8", "replace")[-200:].decode(errors="ignore")
    if not name:
        raise UserError(f"{url}: not the address of a file: it should end with the file's name")
    return folder() / hashlib.sha256(whole).hexdigest()[:8] / name


def check(path: Path, sha256: str | None) -> None:
    """Refuse a file that is not the published one, or not the one that was recorded.

    Its sha256 is computed anew only where its size or time is not that of its record.
    """
    record = read_json(beside(path, ".json"))
    expected = sha256 or record.get("sha256")
    if expected and {"sha256": expected, **state(path)}.items() <= record.items():
        return
    found = digest(path)
    if expected and found != expected:
        origin = "published"
        other = ""
        if not sha256:
            origin = "recorded"
            other = f", or {beside(path, '.json')} to accept this one"
        raise UserError(
            f"{path}: its sha256 is {found}, the {origin} one is {expected}: "
            f"delete the file to download it again{other}"
        )
    try:
        note(path, path, found, published=bool(sha256))
    except OSError as error:  # a shared cache that only its owner writes
        say(f"note: the sha256 of {path} cannot be recorded beside it ({error.strerror})")


def note(path: Path, file: Path, sha256: str, published: bool) -> None:
    """Record what `file`, which is or becomes `path`, was when it was checked."""
    record = beside(path, ".json")
    write_json(record, {"sha256": sha256, **state(file)})
    if not published:
        say(f"no sha256 is published for {path.name}: {sha256} is recorded in {record}")


def state(path: Path) -> dict[str, int]:
    """What tells, without reading a file, that it has changed."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return hash_of(path).hexdigest()


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file, {} where there is none."""
    try:
        found = from_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged; delete it")
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process, and one of its threads, at a time write `path`; their end sets it free."""
    with path.with_name(f".{path.name}.lock").open("a") as file:
        waiting = False
        while not take(file):
            if not waiting:
                say(f"waiting for another process that downloads {path}")
            waiting = True
            time.sleep(0.1)
        yield


if sys.platform == "win32":
    import msvcrt

    def take(file: IO) -> bool:
        with suppress(PermissionError):
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False

else:
    import fcntl

    def take(file: IO) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


# --------------------------------------------------------------------------
# Files from the web into the cache: resumed, checked, and each by one process alone

LARGEST = "PPCLS_LARGEST_DOWNLOAD"  # the variable that says how many GB a file may have …
GIGABYTES = 20.0  # … and what it is without
SPAN = re.compile("bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


def largest() -> float:
    """The bytes that a file may have; UserError where the variable is no number."""
    text = os.environ.get(LARGEST) or str(GIGABYTES)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise UserError(f"{LARGEST}: should be a number of gigabytes, not {quoted(text)}")
    return float(text) * 1e9


def fetch(
    url: str,
    sha256: str | None = None,
    to: Path | None = None,
    patience: Patience | None = None,
) -> Path:
    """The file of an http(s) URL, downloaded unless it is in the cache.

    Args:
        url: its address; whether the file there has changed is not asked once it is in the cache.
        sha256: as published, in hexadecimal; without, that of the first download is recorded, and
            checked when the file's size or time has changed.
        to: where to keep the file instead of `cache.place(url)`.
        patience: how long it may take; default: `Patience()`.

    Raises:
        UserError: no connection, an error of the server's, a damaged or changed file; the line
            says where to put the file by hand, and what lies there is used.
    """
    path = to or place(url)
    by_hand = f"or put the file at {path} by hand"
    try:
        if not path.is_file():
            if offline():
                raise UserError(f"{url}: not downloaded: unset PPCLS_OFFLINE, {by_hand}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                if not path.is_file():  # else another process has just finished it
                    download(url, path, sha256, by_hand, patience or Patience())
        check(path, sha256)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}: make room or give access there, "
            "or set PPCLS_HOME to another folder"
        ) from error
    return path


def download(url: str, path: Path, sha256: str | None, by_hand: str, patience: Patience) -> None:
    """Bring the file to `path` by way of `path`.part, which a later call goes on with."""
    part = beside(path, ".part")
    most = size_of(part)
    failures = 0
    end = time.monotonic() + patience.hours * 3600
    limit = largest()
    while True:
        try:
            transfer(url, part, limit, end, patience)
            break
        except TooSlowError as error:
            raise UserError(
                f"{url}: {error}: {size_of(part):,} bytes are kept and a later run goes on from "
                f"there, {by_hand}"
            ) from None
        except TooLargeError as error:
            discard(part)
            raise UserError(
                f"{url}: {error}, more than the {limit / 1e9:g} GB that {LARGEST} allows: "
                f"set it higher, {by_hand}"
            ) from None
        except RefusedError as error:
            raise UserError(f"{url}: {error}; check the address, {by_hand}") from None
        except CutShortError as error:
            further = size_of(part) >= most + CHUNK  # a byte at a time would never end
            failures = 1 if further else failures + 1
            most = max(most, size_of(part))
            if failures > len(patience.pauses):
                raise UserError(f"{url}: {error}; try again later, {by_hand}") from None
            pause = patience.pauses[failures - 1]
            say(f"{path.name}: {error}; trying again in {pause} s")
        time.sleep(pause)
    found = digest(part)
    if sha256 and found != sha256:
        discard(part)
        raise UserError(
            f"{url}: its sha256 is {found}, the published one is {sha256}: try again, {by_hand}"
        )
    note(path, part, found, published=bool(sha256))
    part.replace(path)
    discard(part)


def discard(part: Path) -> None:
    for file in (part, beside(part, ".json")):
        file.unlink(missing_ok=True)


def transfer(url: str, part: Path, limit: float, end: float, patience: Patience) -> None:
    """One attempt to complete `part`: from its end on, if the server's file is still the same.

    Args:
        limit: bytes that the file may have.
        end: the `time.monotonic()` at which it is given up.

    Raises:
        CutShortError, RefusedError, TooSlowError: why it is not complete; what has arrived stays.
        TooLargeError: it has, or is said to have, more than `limit` bytes.
    """
    kept = about(part)
    have = size_of(part) if kept.get("etag") or kept.get("modified") else 0
    if have and have == kept.get("size"):
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    coming = timely(traffic(url, headers, patience), patience.chunk)
    with explained(patience), closing(coming) as arrivals:
        answer = next(arrivals)
        found = version(answer, have)
        goes_on = answer.status_code == 206 and found == kept
        if answer.status_code in (206, 416) and not have:
            raise RefusedError(f"HTTP {answer.status_code}: a part, and all of it was asked for")
        if answer.status_code in (206, 416) and not goes_on:
            discard(part)
            raise CutShortError("the file there is another one by now")
        refuse(answer)
        if not goes_on:
            have = 0
            discard(part)
            write_json(beside(part, ".json"), found)
        total = found["size"]
        if total is not None and total > limit:
            raise TooLargeError(f"{total / 1e9:,.1f} GB")
        try:
            receive(arrivals, url, part, have, total, limit, end, patience.hours)
        except RefusedError:
            discard(part)
            raise
    if found["size"] not in (None, size_of(part)):
        raise CutShortError(f"only {size_of(part):,} of {found['size']:,} bytes came")
    with part.open("rb") as file:
        head = file.read(200)
    if not head or PAGE.match(head):
        discard(part)
        raise RefusedError("a web page, not the file" if head else "an empty file")


def about(part: Path) -> dict[str, Any]:
    """What is known of the server's file that `part` is the beginning of; {} begins anew."""
    try:
        return read_json(beside(part, ".json"))
    except UserError:
        discard(part)
        return {}


def receive(
    chunks: Iterator[bytes],
    url: str,
    part: Path,
    have: int,
    total: int | None,
    limit: float,
    end: float,
    hours: float,
) -> None:
    """Write what comes to the end of `part`, whatever ends it; see `transfer`."""
    say(f"{'resuming' if have else 'downloading'} {url}: {mebibytes(have, total)}")
    with part.open("ab") as file:
        for chunk in shown(chunks, part.stem, have, total):
            have += len(chunk)
            if total is not None and have > total:
                raise RefusedError(f"more came than the {total:,} bytes that it is said to have")
            if have > limit:
                raise TooLargeError(f"{have / 1e9:,.1f} GB have come and no end is known")
            file.write(chunk)
            if time.monotonic() > end:
                raise TooSlowError(f"not complete after {hours:g} hours")
        file.flush()
        os.fsync(file.fileno())


def version(answer: "requests.Response", start: int) -> dict[str, Any]:
    """What tells the server's file from others; {} for a part of it from elsewhere than `start`."""
    size = answer.headers.get("Content-Length", "")
    if answer.status_code == 206:
        span = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start:
            return {}
        size = span[2]
    return {
        "etag": answer.headers.get("ETag"),
        "modified": answer.headers.get("Last-Modified"),
        "size": whole_number(size.strip()),
    }


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def mebibytes(have: int, total: int | None) -> str:
    start = f"{have / 2**20:.1f} of " if have else ""
    return start + (f"{total / 2**20:.1f} MiB" if total is not None else "unknown size")


def shown(
    chunks: Iterable[bytes], name: str, have: int, total: int | None, pace: Pace | None = None
) -> Iterator[bytes]:
    """The chunks, with a bar in bytes on a terminal and a line now and then elsewhere."""
    pace = pace or Pace()
    with tqdm(
        total=total,
        initial=have,
        desc=visible(name),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        disable=None,
    ) as bar:
        for chunk in chunks:
            yield chunk
            have += len(chunk)
            bar.update(len(chunk))
            if bar.disable and pace.due():
                say(f"{name}: {mebibytes(have, total)}")

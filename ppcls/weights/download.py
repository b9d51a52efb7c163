"""Files from the web into the cache: resumed, checked, and each by one process alone."""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ppcls.errors import UserError
from ppcls.log import Pace, say
from ppcls.utils.text import visible
from ppcls.weights import cache
from ppcls.weights.cache import beside

if TYPE_CHECKING:  # else imported when needed: what is in the cache is read without it
    import requests

CONNECT, READ = 10, 30  # seconds for a connection to stand, and then for each byte to come
PAUSES = (1, 2, 4)  # seconds before a new attempt after the first, second … that got no further
CHUNK = 1 << 16  # bytes
PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that a later attempt may not meet


class CutShortError(Exception):
    """A transfer ended too early; a new attempt may go on with it."""


class RefusedError(Exception):
    """The server has no such file for us."""


def offline() -> bool:
    """Whether $PPCLS_OFFLINE forbids the network."""
    return os.environ.get("PPCLS_OFFLINE", "").lower() not in ("", "0", "false")


def fetch(url: str, sha256: str | None = None, to: Path | None = None) -> Path:
    """The file of an http(s) URL, downloaded unless it is in the cache.

    Args:
        url: its address; whether the file there has changed is not asked once it is in the cache.
        sha256: as published, in hexadecimal; without, that of the first download is recorded, and
            checked when the file's size or time has changed.
        to: where to keep the file instead of `cache.place(url)`.

    Raises:
        UserError: no connection, an error of the server's, a damaged or changed file; the line
            says where to put the file by hand, and what lies there is used.
    """
    path = to or cache.place(url)
    by_hand = f"or put the file at {path} by hand"
    try:
        if not path.is_file():
            if offline():
                raise UserError(f"{url}: not downloaded: unset PPCLS_OFFLINE, {by_hand}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with cache.locked(path):
                if not path.is_file():  # else another process has just finished it
                    download(url, path, sha256, by_hand)
        cache.check(path, sha256)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}: make room or give access there, "
            "or set PPCLS_HOME to another folder"
        ) from error
    return path


def download(url: str, path: Path, sha256: str | None, by_hand: str) -> None:
    """Bring the file to `path` by way of `path`.part, which a later call goes on with."""
    part = beside(path, ".part")
    most, failures = size_of(part), 0
    while True:
        try:
            transfer(url, part)
            break
        except RefusedError as error:
            raise UserError(f"{url}: {error}; check the address, {by_hand}") from None
        except CutShortError as error:
            failures = 1 if size_of(part) > most else failures + 1
            most = max(most, size_of(part))
            if failures > len(PAUSES):
                raise UserError(f"{url}: {error}; try again later, {by_hand}") from None
            pause = PAUSES[failures - 1]
            say(f"{path.name}: {error}; trying again in {pause} s")
        time.sleep(pause)
    found = cache.digest(part)
    if sha256 and found != sha256:
        discard(part)
        raise UserError(
            f"{url}: its sha256 is {found}, the published one is {sha256}: try again, {by_hand}"
        )
    cache.note(path, part, found, published=bool(sha256))
    part.replace(path)
    discard(part)


def discard(part: Path) -> None:
    for file in (part, beside(part, ".json")):
        file.unlink(missing_ok=True)


def transfer(url: str, part: Path) -> None:
    """One attempt to complete `part`: from its end on, if the server's file is still the same.

    Raises:
        CutShortError, RefusedError: why it is not complete; what has arrived stays.
    """
    import requests

    kept = cache.read_json(beside(part, ".json"))
    have = size_of(part) if kept.get("etag") or kept.get("modified") else 0
    if have and have == kept["size"]:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    time_outs = (CONNECT, READ)
    with explained(), requests.get(url, headers=headers, stream=True, timeout=time_outs) as answer:
        found = version(answer, have)
        goes_on = answer.status_code == 206 and found == kept
        if answer.status_code in (206, 416) and not goes_on:
            discard(part)
            raise CutShortError("the file there is another one by now")
        refuse(answer)
        if not goes_on:
            have = 0
            discard(part)
            cache.write_json(beside(part, ".json"), found)
        receive(answer, url, part, have, found["size"])
    if found["size"] not in (None, size_of(part)):
        raise CutShortError(f"only {size_of(part):,} of {found['size']:,} bytes came")
    with part.open("rb") as file:
        head = file.read(200)
    if not head or PAGE.match(head):
        discard(part)
        raise RefusedError("a web page, not the file" if head else "an empty file")


def receive(
    answer: "requests.Response", url: str, part: Path, have: int, total: int | None
) -> None:
    """Write what comes to the end of `part`, whatever ends it."""
    say(f"{'resuming' if have else 'downloading'} {url}: {mebibytes(have, total)}")
    with part.open("ab") as file:
        for chunk in shown(answer.iter_content(CHUNK), part.stem, have, total):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def explained() -> Iterator[None]:
    """Say in a few words what `requests` reports."""
    import requests

    try:
        yield
    except requests.ConnectTimeout:
        raise CutShortError(f"no connection within {CONNECT} s") from None
    except requests.RequestException as error:
        root: BaseException = error
        while root.__context__:
            root = root.__context__
        if isinstance(root, TimeoutError):
            raise CutShortError(f"nothing came for {READ} s") from None
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            raise CutShortError("the connection was cut") from None
        if isinstance(error, requests.ConnectionError):
            text = getattr(root, "strerror", None) or root
            raise CutShortError(f"no connection: {text}") from None
        raise RefusedError(str(error)) from None


def version(answer: "requests.Response", start: int) -> dict[str, Any]:
    """What tells the server's file from others; {} for a part of it from elsewhere than `start`."""
    size = answer.headers.get("Content-Length", "")
    if answer.status_code == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start:
            return {}
        size = span[2]
    return {
        "etag": answer.headers.get("ETag"),
        "modified": answer.headers.get("Last-Modified"),
        "size": int(size) if size.isdigit() else None,
    }


def refuse(answer: "requests.Response") -> None:
    """Raise CutShortError or RefusedError unless a file is to come."""
    status = f"HTTP {answer.status_code} {answer.reason}".strip()
    if answer.status_code in PASSING:
        raise CutShortError(status)
    if not answer.ok:
        raise RefusedError(status)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise RefusedError("a web page, not the file")


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def mebibytes(have: int, total: int | None) -> str:
    start = f"{have / 2**20:.1f} of " if have else ""
    return start + (f"{total / 2**20:.1f} MiB" if total is not None else "unknown size")


def shown(chunks: Iterable[bytes], name: str, have: int, total: int | None) -> Iterator[bytes]:
    """The chunks, with a bar in bytes on a terminal and a line now and then elsewhere."""
    pace = Pace()
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

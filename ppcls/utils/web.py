"""Files from the web, within limits of size and time: what downloads have in common."""

import os
import queue
import re
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppcls.utils.errors import UserError
from ppcls.utils.text import quoted, visible, whole_number

if TYPE_CHECKING:  # requests is imported when something is downloaded
    import requests

CHUNK = 1 << 16  # bytes
PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that a later attempt may not meet
LARGEST_IMAGE = 1 << 28  # bytes


@dataclass(frozen=True)
class Patience:
    """How long a download waits, in seconds.

    Attributes:
        connect: for a connection to stand.
        read: then for each byte to come.
        chunk: for the head of an answer, and for each CHUNK of its body.
        pauses: before a new attempt after the first, second … that got no further.
        hours: for one file; a later call goes on with it.
    """

    connect: float = 10
    read: float = 30
    chunk: float = 60
    pauses: tuple[float, ...] = (1, 2, 4)
    hours: float = 24


class CutShortError(Exception):
    """A transfer ended too early; a new attempt may go on with it."""


class RefusedError(Exception):
    """The server has no such file for us."""


class TooSlowError(Exception):
    """The transfer would take days; what has come is kept."""


class TooLargeError(Exception):
    """More than a file may have."""


def offline() -> bool:
    """Whether $PPCLS_OFFLINE forbids the network."""
    return os.environ.get("PPCLS_OFFLINE", "").lower() not in ("", "0", "false")


def traffic(url: str, headers: dict[str, str], patience: Patience) -> Iterator[Any]:
    """A request's answer, its head read, and then the chunks of its body."""
    import requests

    timeout = (patience.connect, patience.read)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        yield answer
        yield from answer.iter_content(CHUNK)


def timely(items: Iterator[Any], seconds: float) -> Generator[Any, None, None]:
    """The items, made in a thread of its own; TooSlowError where the next is not there in time.

    A time-out of a socket is not enough: it begins anew with each byte.
    """
    arrived: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
    wanted = threading.Semaphore(2)
    over = threading.Event()

    def work() -> None:
        try:
            for item in items:
                arrived.put((item, None))
                wanted.acquire()
                if over.is_set():
                    return
            arrived.put((None, StopIteration()))
        except BaseException as error:  # it is raised where the items are used
            arrived.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            try:
                item, error = arrived.get(timeout=seconds)
            except queue.Empty:
                text = f"less than {CHUNK // 1024} KiB came in {seconds:g} s"
                raise TooSlowError(text) from None
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            yield item
            wanted.release()
    finally:
        over.set()
        wanted.release()


@contextmanager
def explained(patience: Patience) -> Iterator[None]:
    """Say in a few words what `requests` reports."""
    import requests

    try:
        yield
    except requests.ConnectTimeout:
        raise CutShortError(f"no connection within {patience.connect:g} s") from None
    except requests.RequestException as error:
        root: BaseException = error
        while root.__context__:
            root = root.__context__
        if isinstance(root, TimeoutError):
            raise CutShortError(f"nothing came for {patience.read:g} s") from None
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            raise CutShortError("the connection was cut") from None
        if isinstance(error, requests.ConnectionError):
            text = getattr(root, "strerror", None) or root
            raise CutShortError(f"no connection: {visible(str(text))}") from None
        raise RefusedError(visible(str(error))) from None
    except ValueError as error:  # of a host or port that is none, also behind a redirection
        raise RefusedError(f"not an address ({visible(str(error))})") from None


def refuse(answer: "requests.Response") -> None:
    """Raise CutShortError or RefusedError unless a file is to come."""
    status = f"HTTP {answer.status_code} {visible(answer.reason or '')}".strip()
    if answer.status_code in PASSING:
        raise CutShortError(status)
    if not answer.ok:
        raise RefusedError(status)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise RefusedError("a web page, not the file")
    packed = answer.headers.get("Content-Encoding", "").strip().lower()
    if packed not in ("", "identity"):  # a few bytes could stand for any number
        raise RefusedError(f"it comes packed ({quoted(packed)}), which was not asked for")


# --------------------------------------------------------------------------- an image

# A picture on a page is there in seconds; after two attempts others are waited for.
IMAGE = Patience(connect=10, read=20, chunk=30, pauses=(1,), hours=0.1)


def read(url: str, patience: Patience = IMAGE, limit: int = LARGEST_IMAGE) -> bytes:
    """The bytes of a small file of an http(s) URL.

    Raises:
        UserError: no connection, an error of the server's, a web page, more than `limit` bytes, or
            too slow.
    """
    if offline():
        raise UserError(f"{url}: not downloaded: unset PPCLS_OFFLINE, or give a file")
    end = time.monotonic() + patience.hours * 3600
    for pause in (*patience.pauses, None):
        try:
            return read_once(url, patience, limit, end)
        except CutShortError as error:
            if pause is None:
                raise UserError(f"{url}: {error}; try again later") from None
        except (RefusedError, TooSlowError, TooLargeError) as error:
            raise UserError(f"{url}: {error}") from None
        time.sleep(pause)
    raise AssertionError  # the last attempt has no pause


def read_once(url: str, patience: Patience, limit: int, end: float) -> bytes:
    coming = timely(traffic(url, {"Accept-Encoding": "identity"}, patience), patience.chunk)
    found = bytearray()
    with explained(patience), closing(coming) as arrivals:
        answer = next(arrivals)
        refuse(answer)
        size = whole_number(answer.headers.get("Content-Length", "").strip())
        if size is not None and size > limit:
            raise TooLargeError(f"{size:,} bytes, more than an image may have")
        for chunk in arrivals:
            found += chunk
            if len(found) > limit:
                raise TooLargeError(f"more than {limit:,} bytes, which an image may have")
            if time.monotonic() > end:
                raise TooSlowError(f"not complete after {patience.hours * 3600:g} seconds")
    if size is not None and len(found) < size:
        raise CutShortError(f"only {len(found):,} of {size:,} bytes came")
    if PAGE.match(found):
        raise RefusedError("a web page, not an image")
    return bytes(found)

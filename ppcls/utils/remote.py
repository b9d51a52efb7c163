"""Files on object storage and web servers, read by address: `s3://`, `gs://`, `https://`, `http://`.

obstore does the talking, a library in Rust: a part of a file takes it 0.3 ms of a core, where
fsspec's file systems take 1.3 (web servers) to 4 ms (S3), more than decoding a small image. This
module asks for parts ahead of their use, tries again where that may help, and says in one line what
went wrong. Nothing is ever written, and an address never means a file of this machine.

Each process opens its own connections when it first reads. One that was forked from such a process
cannot, and says so: data workers are started afresh.
"""

import base64
import netrc
import os
import random
import re
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

from ppcls.utils import files
from ppcls.utils.errors import LATER, AwayError, UserError
from ppcls.utils.log import say
from ppcls.utils.text import visible
from ppcls.utils.web import LARGEST_IMAGE, PASSING, Patience, offline

WEB = ("http", "https")
SCHEMES = ("s3", "gs", *WEB)
STARTS = tuple(f"{scheme}://" for scheme in SCHEMES)
AT_ONCE = 32  # requests of a process under way
BLOCK = 4 << 20  # bytes of a file read from its beginning on that are asked for at once
AHEAD = 4  # such blocks
LINE = 1 << 12  # bytes that are searched at a time for a line's end
FOLDERS_AHEAD = 16  # listings under way
LISTED = 64  # files above which their folder is listed, instead of asking for each
PATIENCE = Patience(pauses=(1, 2, 4, 8, 16, 30, 60))
# Codes of stores that speak S3, for keys that hold no longer or are no such keys.
INVALID_KEYS = re.compile(
    "<Code>(ExpiredToken|InvalidToken|TokenRefreshRequired|InvalidAccessKeyId|"
    "SignatureDoesNotMatch|RequestTimeTooSkewed)</Code>"
)
STATUS = re.compile(r"status code: ([0-9]{3})\b")  # in obstore's errors
GONE = "there is nothing at this address; check it"

Found = TypeVar("Found")
Span = tuple[str, int, int | None]  # an address, the first byte, and how many; None: all


class State(NamedTuple):
    """What tells, without reading a file, that it has changed: bytes, and a number of its tag."""

    size: int
    tag: int


# --------------------------------------------------------------------------- addresses


def is_remote(path: object) -> bool:
    """Whether a path is an address of a file elsewhere."""
    return isinstance(path, str) and path[:8].lower().startswith(STARTS)


def scheme_of(address: str) -> str:
    return address.partition("://")[0].lower()


def place_of(address: str) -> str:
    """The server or bucket of an address, with its scheme: `s3://bucket`."""
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{rest.partition('/')[0].lower()}"


def check_address(address: str) -> str:
    """The address; UserError, which does not show it, where it may hold a password or a key.

    Addresses stand in messages, reports and checkpoints, where no secret may be.
    """
    if not is_remote(address):
        return address
    try:
        parts = urlsplit(address)
        host, secret = parts.netloc, "@" in parts.netloc
        secret = secret or (scheme_of(address) in WEB and bool(parts.query))
    except ValueError:
        raise UserError("an address of which no host can be read") from None
    if secret:
        place = f"{scheme_of(address)}://{visible(host.rpartition('@')[2], 100)}"
        raise UserError(
            f"an address at {place} holds a password, or a key behind a '?', which would be kept "
            "in checkpoints and reports: give the address without it, and passwords of web "
            "servers in ~/.netrc"
        )
    if not host:
        raise UserError(f"{visible(address)}: an address without a host or bucket")
    return address


def below(root: str, path: str) -> str:
    """The address of what is called `path` below an address that ends in a slash."""
    return root + (quote(path) if scheme_of(root) in WEB else path)


# --------------------------------------------------------------------------- reading


def read(address: str, start: int = 0, count: int | None = None) -> bytes:
    """A file's bytes, or `count` of them from `start` on, fewer where it ends before that.

    Raises:
        UserError: no such file, no access, no connection after all attempts, a missing package, a
            whole file that is larger than an image may be.
    """
    future = connections().pending.pop((address, start, count), None)
    try:
        return future.result() if future else part(address, start, count)
    except AwayError:
        forget()
        raise


def read_ahead(spans: Iterable[Span]) -> None:
    """Begin to read what `read` will soon be asked for; what was begun before and is not among it
    is forgotten.
    """
    pending = connections().pending
    wanted = dict.fromkeys(spans)
    for old in [span for span in pending if span not in wanted]:
        pending.pop(old).cancel()
    for span in wanted:
        if span not in pending:
            pending[span] = started(part, *span)


def forget() -> None:
    """Nobody asks any more for what was begun: no attempt follows those under way."""
    if here:
        here.over.set()
        here.over = threading.Event()
        for future in here.pending.values():
            future.cancel()
        here.pending.clear()


def exist(addresses: Sequence[str]) -> list[bool]:
    """Whether there are such files; UserError where that cannot be known."""
    return [found is not None for found in all_of(state_or_none, addresses)]


def states(addresses: Sequence[str]) -> list[State | None]:
    """The state of each file, None where there is none; of many beside one another by listing."""
    folder = addresses[0].rpartition("/")[0]
    beside = all(address.rpartition("/")[0] == folder for address in addresses)
    if len(addresses) <= LISTED or not beside or scheme_of(folder) in WEB:
        return list(all_of(state_or_none, addresses))
    known = patiently(folder, states_in, {address.rpartition("/")[2] for address in addresses})
    return [known.get(address.rpartition("/")[2]) for address in addresses]


def folder(address: str) -> list[tuple[str, bool]]:
    """The names directly below an address, and whether each is a folder's.

    UserError for a web server, which has no folders, and where nothing is below the address.
    """
    future = connections().listings.pop(address, None)
    return future.result() if future else listed(address)


def list_ahead(addresses: Sequence[str]) -> None:
    """Begin to list the first of the folders that `folder` will soon be asked for."""
    listings = connections().listings
    for address in addresses[:FOLDERS_AHEAD]:
        if address not in listings:
            listings[address] = started(listed, address)


def fetch(address: str, path: Path) -> None:
    """Bring a file here, whole or not at all."""
    with open_file(address) as file, files.write_whole(path) as content:
        while data := file.read(BLOCK):
            content.write(data)


class File:
    """A file elsewhere to be read from here to there, blocks ahead of where it is read in order."""

    def __init__(self, address: str, size: int):
        self.address = address
        self.size = size
        self.place = 0
        self.blocks: dict[int, Future[bytes]] = {}
        self.last = -1  # the block that was read last

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *exception: object) -> None:
        for future in self.blocks.values():
            future.cancel()

    def tell(self) -> int:
        return self.place

    def readline(self) -> bytes:
        """The rest of the line that it stands in, with its end."""
        found = bytearray()
        while piece := self.read(LINE):
            end = piece.find(b"\n") + 1
            found += piece[: end or None]
            if end:
                self.place -= len(piece) - end
                break
        return bytes(found)

    def seek(self, place: int) -> int:
        self.place = place
        return place

    def read(self, count: int = -1) -> bytes:
        """Bytes from where it stands; UserError as `read`, and where the file has shrunk."""
        end = self.size if count < 0 else min(self.size, self.place + count)
        found = bytearray()
        while self.place < end:
            number, inside = divmod(self.place, BLOCK)
            data = self.block(number)[inside : inside + end - self.place]
            if not data:
                raise UserError(f"{self.address}: has changed or was cut short; start again")
            found += data
            self.place += len(data)
        return bytes(found)

    def block(self, number: int) -> bytes:
        """The bytes of a block; those behind it are asked for where it follows the last one."""
        ahead = AHEAD if number in (self.last, self.last + 1) else 1
        wanted = range(number, min(number + ahead, -(-self.size // BLOCK)))
        for old in [other for other in self.blocks if other not in wanted]:
            self.blocks.pop(old).cancel()
        for one in wanted:
            if one not in self.blocks:
                span = self.address, one * BLOCK, min(BLOCK, self.size - one * BLOCK)
                self.blocks[one] = connections().pending.pop(span, None) or started(part, *span)
        self.last = number
        return self.blocks[number].result()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file here or elsewhere, as `files.read_text`, with its errors and those of
    `read`.
    """
    if not is_remote(path):
        return files.read_text(path)
    with open_file(str(path)) as file:
        return files.text_of(file.read(), path)


def first_block(address: str, size: int) -> Span:
    """What is read first of a `File`."""
    return address, 0, min(BLOCK, size)


def open_file(address: str) -> File:
    """UserError where there is none, or it cannot be read."""
    (found,) = states([address])
    if found is None:
        raise UserError(f"{address}: {GONE}")
    return File(address, found.size)


# --------------------------------------------------------------------------- requests


class Connections:
    """What one process has open."""

    def __init__(self):
        if not find_spec("obstore"):
            raise UserError(
                "to read from addresses, obstore is needed, which is not installed: "
                'pip install "ppcls[remote]"'
            )
        self.process = os.getpid()
        self.threads = ThreadPoolExecutor(AT_ONCE, "ppcls-remote")
        self.pending: dict[Span, Future[bytes]] = {}
        self.listings: dict[str, Future[list[tuple[str, bool]]]] = {}
        self.stores: dict[str, Any] = {}
        self.opening = threading.Lock()
        self.over = threading.Event()
        self.random = random.Random()
        self.told = False

    def store(self, address: str) -> tuple[Any, str]:
        """obstore's store of an address, and what the file is called there."""
        place = place_of(address)
        with self.opening:
            if place not in self.stores:
                self.stores[place] = new_store(place)
        name = address.partition("://")[2].partition("/")[2]
        return self.stores[place], unquote(name) if scheme_of(address) in WEB else name


here: Connections | None = None


def connections() -> Connections:
    global here
    if here is None:
        here = Connections()
    if here.process != os.getpid():
        raise UserError(
            "this process was forked from one that reads from addresses, whose connections it "
            'cannot use: start it afresh (multiprocessing\'s "spawn")'
        )
    return here


def new_store(place: str) -> Any:
    from obstore.store import GCSStore, HTTPStore, S3Store

    scheme, _, name = place.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    client: Any = {
        "connect_timeout": f"{PATIENCE.connect:g}s",
        "timeout": f"{PATIENCE.chunk:g}s",
        "allow_http": scheme == "http" or endpoint.startswith("http://"),
    }
    # Attempts are made here, where it can be said.
    once: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=PATIENCE.chunk)}
    if scheme == "gs":
        return GCSStore(name, client_options=client, retry_config=once)
    if scheme == "s3":
        more: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        own = any(os.environ.get(n) for n in ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"))
        if not own and find_spec("boto3"):  # profiles, roles and whatever else `aws` knows
            import boto3
            from obstore.auth.boto3 import Boto3CredentialProvider

            session = boto3.Session()
            if session.get_credentials() is None:
                raise CredentialsError(f"{place}: no credentials; {HOW['s3']}")
            more["credential_provider"] = Boto3CredentialProvider(session)
        return S3Store(name, client_options=client, retry_config=once, **more)
    if basic := password(name):
        client["default_headers"] = {"authorization": basic}
    return HTTPStore.from_url(place, client_options=client, retry_config=once)


def password(host: str) -> str:
    """What ~/.netrc says of a web server, as its header; "" where it says nothing."""
    with suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host.partition(":")[0])
        if known:
            word = base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode()
            return f"Basic {word}"
    return ""


def started(work: Callable[..., Found], *given: Any) -> "Future[Found]":
    """The work under way in a thread."""
    return connections().threads.submit(work, *given)


def all_of(work: Callable[[str], Found], addresses: Iterable[str]) -> Iterator[Found]:
    """What the work finds at each address, in order, some under way ahead."""
    waiting: deque[Future[Found]] = deque()
    try:
        for address in addresses:
            waiting.append(started(work, address))
            if len(waiting) >= 2 * AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def patiently(address: str, ask: Callable[..., Found], *given: Any) -> Found:
    """What `ask` finds at an address, with new attempts where that may help.

    Raises:
        UserError: why nothing was found.
    """
    if offline():
        raise UserError(f"{address}: not read: unset PPCLS_OFFLINE, or give files of this machine")
    own = connections()
    over = own.over
    for pause in (*PATIENCE.pauses, None):
        try:
            return ask(*own.store(address), *given)
        except UserError:
            raise
        except Exception as error:
            reason = passing(error)
            if not reason:
                raise explained(address, error) from error
        if pause is None or over.is_set():
            break
        if not own.told:
            own.told = True
            say(f"note: {address}: {reason}; trying again, from now on without a word")
        over.wait(pause * own.random.uniform(0.5, 1.5))
    raise AwayError(f"{address}: {reason}, {len(PATIENCE.pauses) + 1} times; {LATER}")


def part(address: str, start: int, count: int | None) -> bytes:
    """Bytes of a file: `count` from `start` on, or all that an image may have."""
    if count == 0:
        return b""
    return patiently(address, whole if count is None else piece, address, start, count)


def piece(store: Any, name: str, address: str, start: int, count: int) -> bytes:
    import obstore

    try:
        return bytes(obstore.get_range(store, name, start=start, end=start + count))
    except obstore.exceptions.BaseError as error:
        if status_of(error) == 416:  # there is nothing from there on
            return b""
        raise


def whole(store: Any, name: str, address: str, start: int, count: None) -> bytes:
    import obstore

    found = obstore.get(store, name)
    size = found.meta["size"]
    if size > LARGEST_IMAGE:
        raise UserError(f"{address}: {size:,} bytes, more than an image may have")
    return bytes(found.bytes())


def head(store: Any, name: str, address: str) -> State:
    """A file's state; of one of a web server, too, whether parts of it are sent."""
    import obstore

    found = state_of(obstore.head(store, name))
    if scheme_of(address) in WEB and found.size:
        obstore.get_range(store, name, start=0, end=1)
    return found


def state_of(about: Any) -> State:
    """What a store says of a file."""
    tag = about.get("e_tag") or about.get("last_modified") or ""
    return State(int(about["size"]), zlib.crc32(str(tag).encode("utf-8", "replace")))


def state_or_none(address: str) -> State | None:
    try:
        return patiently(address, head, address)
    except GoneError:
        return None


def states_in(store: Any, name: str, wanted: set[str]) -> dict[str, State]:
    """The states of those files in a folder."""
    import obstore

    found = {}
    for page in obstore.list(store, name):
        for about in page:
            last = about["path"].rpartition("/")[2]
            if last in wanted and about["path"] == f"{name}/{last}".lstrip("/"):
                found[last] = state_of(about)
    return found


def listed(address: str) -> list[tuple[str, bool]]:
    if scheme_of(address) in WEB:
        raise UserError(
            f"{address}: a web server has no folders to look into: give a list file or shards"
        )
    return patiently(address, entries)


def entries(store: Any, name: str) -> list[tuple[str, bool]]:
    import obstore

    found = obstore.list_with_delimiter(store, name or None)
    folders = [(path.rstrip("/").rpartition("/")[2], True) for path in found["common_prefixes"]]
    plain = [(about["path"].rpartition("/")[2], False) for about in found["objects"]]
    if not folders and not plain:
        raise FileNotFoundError
    return folders + plain


# --------------------------------------------------------------------------- what went wrong


class GoneError(UserError):
    """There is no such file."""


class RefusedError(UserError):
    """There may be such a file, for others."""


class CredentialsError(AwayError):
    """There are none, or they no longer hold: nothing can be read with them."""


def status_of(error: Exception) -> int | None:
    """The HTTP status that obstore's error tells of."""
    found = STATUS.search(str(error))
    return int(found[1]) if found else None


def passing(error: Exception) -> str:
    """In a few words what a later attempt may not meet; "" for all else.

    The errors' own words are not said: they may hold what is nobody's business.
    """
    status = status_of(error)
    if status is not None:
        return f"HTTP {status}" if status in PASSING or status >= 500 else ""
    if type(error).__name__ != "GenericError" or lacks_credentials(error):
        return ""
    return "nothing came in time" if "timed out" in str(error) else "no connection, or it was cut"


def lacks_credentials(error: Exception) -> bool:
    return bool(re.search(r"credential|169\.254\.|metadata\.google", str(error), re.IGNORECASE))


def explained(address: str, error: Exception) -> UserError:
    """What cannot be helped, in one line."""
    kind = type(error).__name__
    status = status_of(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return GoneError(f"{address}: {GONE}")
    if lacks_credentials(error) or status == 401 or INVALID_KEYS.search(str(error)):
        how = HOW[scheme_of(address)]
        return CredentialsError(f"{address}: no credentials that are (still) accepted; {how}")
    if status == 403 or kind == "PermissionDeniedError":
        return RefusedError(f"{address}: access is refused; {HOW[scheme_of(address)]}")
    if kind == "NotSupportedError" or isinstance(error, NotImplementedError):
        return UserError(
            f"{address}: this server sends whole files where parts are asked for: "
            "-o data.fetch=true brings shards here first"
        )
    if isinstance(error, ValueError):  # which no file can have
        return GoneError(f"{address}: not an address of a file; check it")
    what = f"HTTP {status}" if status else kind
    region = "; is AWS_REGION the bucket's?" if scheme_of(address) == "s3" else ""
    return UserError(f"{address}: cannot be read ({what}){region}")


HOW = {
    "s3": "see `aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
    "AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "see `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "http": "a user name and password stand in ~/.netrc",
    "https": "a user name and password stand in ~/.netrc",
}

"""`ppcls fix-labels`: a page on this machine to go through labels that are likely wrong.

The page is for one person: it is served to this machine alone, to whoever has the address with its
token, and every decision is written into the list at once, whole.
"""

import hashlib
import io
import json
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from ppcls.data import decode
from ppcls.data.fixes import (
    CHANGE,
    COLUMNS,
    DECISION,
    DECISIONS,
    NEW_LABEL,
    SUGGESTED,
    key_of,
    places_of,
    read_fixes,
    write_fixes,
)
from ppcls.data.lists import PATH_COLUMNS, column, csv_fields, separator
from ppcls.data.samples import Dataset, Paths
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file, read_text
from ppcls.utils.log import say
from ppcls.utils.text import composed, from_json, plural, to_json, whole_number

PAGE = Path(__file__).with_name("page")
# What the page is made of: the file, and its type.
PARTS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HOST = "127.0.0.1"
LONGEST_BODY = 1 << 16  # bytes
LARGEST_SIDE = 2048  # pixels
QUALITY = 90


class Decisions:
    """A list of fixes, its rows in memory and on the disk alike."""

    def __init__(self, file: Path, samples: Sequence[Dataset] = ()):
        """Read the list.

        Args:
            samples: data sets that have the images, for those that are in shards, and the classes.

        Raises:
            UserError: the list is no such list.
        """
        self.file = file
        read_fixes(str(file))  # so that mistakes are said now
        self.lock = threading.Lock()
        text = read_text(file)
        self.mark = separator(text)
        header, table, _ = csv_fields(file)
        self.header = [*header, *(n for n in (NEW_LABEL,) if n not in lowered(header))]
        self.names = lowered(self.header)
        self.path = column(file, self.names, "path", PATH_COLUMNS)
        self.rows = [[*row, *[""] * (len(self.header) - len(row))] for _, row in table]
        self.seen = digest(file)
        root = str(file.absolute().parent / "_")[:-1]
        self.images: list[str] = [Paths([row[self.path]], root)[0] for row in self.rows]
        wanted = {key_of(path): number for number, path in enumerate(self.images)}
        for own in samples:
            for place, key in places_of(own.paths, wanted.keys()).items():
                self.images[wanted[key]] = own.paths[place]
        named = [name for own in samples for name in own.names]
        named += [cell for name in ("label", SUGGESTED, NEW_LABEL) for cell in self.column(name)]
        self.classes = list(dict.fromkeys(composed(name) for name in named if name))

    def column(self, name: str) -> list[str]:
        return [self.cell(row, name) for row in self.rows]

    def cell(self, row: list[str], name: str) -> str:
        """A row's cell; "" where there is no such column."""
        return row[self.names.index(name)] if name in self.names else ""

    def listed(self) -> list[dict[str, str]]:
        """The rows as the page shows them."""
        shown = [name for name in COLUMNS if name not in ("path", DECISION)]
        return [
            {
                "path": row[self.path],
                **{name: self.cell(row, name) for name in shown},
                DECISION: self.cell(row, DECISION).lower(),
            }
            for row in self.rows
        ]

    def decide(self, number: int, decision: str, label: str) -> None:
        """Write one decision into the list, "" for none.

        Raises:
            UserError: the list was changed by others meanwhile, or cannot be written.
        """
        with self.lock:
            if digest(self.file) != self.seen:
                raise UserError(
                    f"{self.file}: was changed by another program meanwhile: nothing was written; "
                    "load the page again after ppcls fix-labels was started again"
                )
            row = list(self.rows[number])
            row[self.names.index(DECISION)] = decision
            row[self.names.index(NEW_LABEL)] = label
            rows = [*self.rows[:number], row, *self.rows[number + 1 :]]
            write_fixes(self.file, self.header, rows, self.mark)
            self.rows = rows
            self.seen = digest(self.file)

    def summary(self) -> str:
        counts = Counter(row[DECISION] for row in self.listed())
        open_ones = counts.pop("", 0)
        words = [f"{counts[name]:,} {name}" for name in DECISIONS if counts[name]]
        made = f"{plural(len(self.rows) - open_ones, 'decision')} ({', '.join(words) or 'none'})"
        return f"{self.file}: {made}, {open_ones:,} open"


def lowered(header: Sequence[str]) -> list[str]:
    return [name.lower() for name in header]


def digest(file: Path) -> bytes:
    return hashlib.sha256(read_file(file)).digest()


def picture(path: str, side: int) -> bytes:
    """The image as a JPEG of at most so many pixels a side."""
    image = Image.fromarray(decode.read(path, 3))
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


# --------------------------------------------------------------------------
# The server


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server_version = "ppcls"
    sys_version = ""
    timeout = 60  # seconds without a word

    def __init__(self, decisions: Decisions, token: str, *arguments: Any):
        self.decisions = decisions
        self.token = token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.answer(self.get)

    def do_POST(self) -> None:
        self.answer(self.post)

    def answer(self, work: Any) -> None:
        """Answer what comes from the page, and nothing that comes from elsewhere."""
        try:
            self.refuse_others()
            work(urlsplit(self.path))
        except Refusal as refusal:
            self.send(refusal.status, {"error": str(refusal)})
        except UserError as error:
            self.send(HTTPStatus.CONFLICT, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def refuse_others(self) -> None:
        """A page of elsewhere may send requests here, under any name of this machine."""
        port = self.server.server_port  # type: ignore
        hosts = (f"{HOST}:{port}", f"localhost:{port}")
        if self.headers.get("Host") not in hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, f"this server is called {hosts[0]}")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in hosts]:
            raise Refusal(HTTPStatus.FORBIDDEN, "only its own page may ask this server")

    def require_token(self, query: Mapping[str, list[str]]) -> None:
        given = self.headers.get("X-Token") or query.get("token", [""])[0]
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "open the whole address that ppcls fix-labels has printed"
            )

    def get(self, address: Any) -> None:
        if address.path in PARTS:
            name, kind = PARTS[address.path]
            self.send(HTTPStatus.OK, (PAGE / name).read_bytes(), kind)
            return
        query = parse_qs(address.query)
        self.require_token(query)
        if address.path == "/list":
            self.send(
                HTTPStatus.OK,
                {
                    "file": str(self.decisions.file),
                    "train": f"ppcls train … -o data.fixes={self.decisions.file}",
                    "classes": self.decisions.classes,
                    "rows": self.decisions.listed(),
                },
            )
            return
        begin, _, number = address.path.rpartition("/")
        side = whole_number(query.get("side", [""])[0]) or LARGEST_SIDE
        if begin != "/image":
            raise Refusal(HTTPStatus.NOT_FOUND, "no such page")
        path = self.decisions.images[self.index(whole_number(number))]
        self.send(HTTPStatus.OK, picture(path, min(side, LARGEST_SIDE)), "image/jpeg")

    def post(self, address: Any) -> None:
        self.require_token({})
        size = whole_number(self.headers.get("Content-Length") or "")
        if size is None or size > LONGEST_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
        try:
            asked = from_json(self.rfile.read(size))
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            raise Refusal(HTTPStatus.BAD_REQUEST, "JSON is expected")
        if address.path == "/end":
            self.send(HTTPStatus.OK, {})
            threading.Thread(target=self.server.shutdown).start()
            return
        if address.path != "/decide":
            raise Refusal(HTTPStatus.NOT_FOUND, "no such page")
        number = self.index(asked.get("number"))
        decision, label = asked.get("decision"), asked.get("new_label", "")
        if decision not in ("", *DECISIONS) or not isinstance(label, str) or len(label) > 1000:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"decision: {', '.join(DECISIONS)}, or empty")
        label = composed(" ".join(label.split())) if decision == CHANGE else ""
        if decision == CHANGE and not label:
            raise Refusal(HTTPStatus.BAD_REQUEST, "new_label: empty")
        self.decisions.decide(number, decision, label)
        self.send(HTTPStatus.OK, {})

    def index(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self.decisions.rows):
            raise Refusal(HTTPStatus.NOT_FOUND, "no such image in the list")
        return number

    def send(self, status: HTTPStatus, content: Any, kind: str = "application/json") -> None:
        data = content if isinstance(content, bytes) else to_json(content).encode()
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: Any) -> None:
        """Say nothing of each request."""


class Refusal(Exception):  # noqa: N818  an answer, not a fault
    """Why a request is not answered."""

    def __init__(self, status: HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the page to this machine alone."""

    daemon_threads = True

    def __init__(self, decisions: Decisions, port: int):
        """UserError where the port is taken. 0: any that is free."""
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), partial(Handler, decisions, self.token))
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror or error}; name another") from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/?token={self.token}"


def fix_labels(file: Path, samples: Sequence[Dataset], port: int) -> None:
    """Serve the page until it is ended there, or by Ctrl-C, and say what was decided.

    Raises:
        UserError: the list is no such list, or the port is taken.
    """
    decisions = Decisions(file, samples)
    with Server(decisions, port) as server:
        say(
            f"{plural(len(decisions.rows), 'image')} to look at: {server.address}",
            "open this address in a browser here; Ctrl-C ends it, and what was decided stays",
        )
        with suppress(KeyboardInterrupt):
            server.serve_forever(0.1)
    say(decisions.summary(), f"train with it: -o data.fixes={json.dumps(str(file))[1:-1]}")

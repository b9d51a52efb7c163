"""What comes with a request: its body within limits, and the images in it."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.types import Receive

from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import Limits
from ppcls.utils.text import did_you_mean, plural, quoted

DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
FIELDS = ("model", "topk", "threshold", "explain")
KEYS = (*FIELDS, "image", "images", "url", "urls")
MOST_TOPK = 1 << 31
SLOWEST = 64 << 10  # bytes a second, on average, that a body has to come with: half a megabit


@dataclass
class Asked:
    """What a request asks for: images as their files' bytes, or as addresses (str)."""

    images: list[bytes | str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    model: str | None = None
    topk: int | None = None
    threshold: float | None = None
    explain: bool = False  # whether maps of the classes are to come, too

    @property
    def has_addresses(self) -> bool:
        return any(isinstance(image, str) for image in self.images)

    def add(self, image: bytes | str, name: str | None = None) -> None:
        self.images.append(image)
        self.names.append(name)


class Budget:
    """Bytes of all bodies at a time, of which each request takes its part and gives it back."""

    def __init__(self, most: int):
        self.most = most
        self.taken = 0

    def take(self, count: int) -> None:
        if self.taken + count > self.most:
            text = "the service holds as many bytes of other requests as it may; ask again"
            raise ProblemError(503, "busy", text, headers={"Retry-After": "1"})
        self.taken += count

    def give_back(self, count: int) -> None:
        self.taken -= count


class Body:
    """A request's body, whose bytes count against the budget until `close`."""

    def __init__(self, budget: Budget):
        self.budget = budget
        self.data = b""
        self.held = 0
        self.seen = 0  # bytes, when the timer last looked
        self.late = False

    async def read(self, request: Request, limits: Limits) -> bytes:
        """All of it.

        Raises:
            ProblemError: it is too large, comes too slowly, or packed.
        """
        headers = request.scope["ppcls.headers"]
        packed = headers.get(b"content-encoding", b"").strip().lower()
        if packed in (b"", b"identity"):
            packed = headers.get(b"transfer-encoding", b"").strip().lower()
            packed = b"" if packed == b"chunked" else packed
        if packed:
            text = f"the body is packed ({quoted(packed.decode('latin-1'))}); send it as it is"
            raise ProblemError(415, "request", text, headers={"Accept-Encoding": "identity"})
        told = headers.get(b"content-length", b"")
        if told.isdigit() and int(told[:18]) > limits.body:
            raise too_large(limits)
        task = asyncio.current_task()
        assert task
        timer = Timer(limits.slow, lambda: self.look(task, limits))
        try:
            self.data = await self.collect(request.receive, limits)
        except asyncio.CancelledError:
            if not self.late:
                raise
            if hasattr(task, "uncancel"):  # Python 3.11
                task.uncancel()  # type: ignore
            text = f"of the body, less than {SLOWEST:,} bytes a second came in {limits.slow:g} s"
            raise ProblemError(408, "slow", text, headers={"Connection": "close"}) from None
        finally:
            timer.stop()
        return self.data

    def look(self, task: "asyncio.Task[Any]", limits: Limits) -> bool:
        """Whether it comes fast enough; ends the task where it does not."""
        if self.held - self.seen < limits.slow * SLOWEST:
            self.late = True
            task.cancel()
            return False
        self.seen = self.held
        return True

    async def collect(self, receive: Receive, limits: Limits) -> bytes:
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise wrong("the client was gone before the end of its body", 400)
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            self.take(len(chunk))
            chunks.append(chunk)
            if self.held > limits.body:
                raise too_large(limits)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def take(self, count: int) -> None:
        """Let more bytes count as the request's."""
        self.budget.take(count)
        self.held += count

    def close(self) -> None:
        self.data = b""
        self.budget.give_back(self.held)
        self.held = 0


class Timer:
    """Calls a function every so many seconds, until that returns False."""

    def __init__(self, seconds: float, work: Callable[[], bool]):
        self.seconds = seconds
        self.work = work
        self.handle = asyncio.get_running_loop().call_later(seconds, self.run)

    def run(self) -> None:
        if self.work():
            self.handle = asyncio.get_running_loop().call_later(self.seconds, self.run)

    def stop(self) -> None:
        self.handle.cancel()


def too_large(limits: Limits) -> ProblemError:
    text = f"the body has more than {limits.body:,} bytes; send fewer or smaller images at a time"
    return ProblemError(413, "large", text)


def wrong(text: str, status: int = 422) -> ProblemError:
    return ProblemError(status, "request", text)


def parse(request: Request, data: bytes, limits: Limits) -> Asked:
    """What a request asks for, by the type of its body.

    Multipart: each file is an image. JSON: `image` or `images`, base64; `url` or `urls`. Anything
    else: the body is an image. `model`, `topk`, `threshold` and `explain` stand beside them, or in
    the query.

    Raises:
        ProblemError: it cannot be understood.
    """
    asked = Asked()
    read_fields(asked, request.query_params)
    kind, options = parse_options_header(request.scope["ppcls.headers"].get(b"content-type"))
    if kind == b"multipart/form-data":
        read_form(asked, data, options.get(b"boundary", b""), limits)
    elif kind == b"application/json":
        read_json(asked, data)
    elif kind == b"application/x-www-form-urlencoded":
        text = "a form with files has the type multipart/form-data (curl -F image=@photo.jpg)"
        raise wrong(f"{text}; curl's -d needs -H 'Content-Type: image/jpeg'", 415)
    elif data:
        asked.add(data)
    if not asked.images:
        raise wrong("no image came; send a file (curl -F image=@photo.jpg), its bytes, or JSON")
    if len(asked.images) > limits.images:
        text = f"{plural(len(asked.images), 'image')} came, of at most {limits.images}"
        raise ProblemError(413, "large", f"{text}; send them in several requests")
    return asked


def read_fields(asked: Asked, found: Mapping[str, Any]) -> None:
    """`model`, `topk`, `threshold` and `explain` of a query, a form or JSON."""
    if found.get("model") is not None:
        asked.model = found["model"]
        if not isinstance(asked.model, str) or not asked.model:
            raise wrong(f"model ({quoted(found['model'])}) should be a model's name")
    if found.get("topk") is not None:
        asked.topk = whole(found["topk"])
    if found.get("threshold") is not None:
        asked.threshold = share(found["threshold"])
    if found.get("explain") is not None:
        asked.explain = truth(found["explain"])


def whole(value: Any) -> int:
    with_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
    if with_digits and len(value) <= 10:
        value = int(value)
    if type(value) is not int or not 1 <= value < MOST_TOPK:
        raise wrong(f"topk ({quoted(value)}) should be a whole number from 1")
    return value


def truth(value: Any) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    value = words.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise wrong(f"explain ({quoted(value)}) should be true or false")
    return value


def share(value: Any) -> float:
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise wrong(f"threshold ({quoted(value)}) should be a number from 0 to 1")
    return float(number)


# --------------------------------------------------------------------------- JSON


def from_json(data: bytes) -> Any:
    """A JSON value, of standard JSON alone; ProblemError for all else."""
    try:
        return json.loads(data, parse_constant=refuse_constant)
    except RecursionError:
        raise wrong("the JSON is nested too deeply", 400) from None
    except ValueError as error:  # also of bytes that are no text
        raise wrong(f"the body is no JSON ({' '.join(str(error).split())[:200]})", 400) from None


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_json(asked: Asked, data: bytes) -> None:
    found = from_json(data)
    if not isinstance(found, dict):
        raise wrong('the JSON should be {"images": ["<base64>", ...]}')
    for key in found:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS)
            raise wrong(f"{quoted(key)} is unknown{hint}; known are {', '.join(KEYS)}")
    read_fields(asked, found)
    for key, many in (("image", "images"), ("url", "urls")):
        values = found.get(many)
        values = [] if values is None else values
        if not isinstance(values, list):
            raise wrong(f"{many} should be a list")
        if found.get(key) is not None:
            values = [found[key], *values]
        for place, value in enumerate(values):
            name = f"{many}[{place}]" if found.get(many) is not None else key
            if not isinstance(value, str) or not value:
                raise wrong(f"{name} should be {'base64' if key == 'image' else 'an address'}")
            asked.add(from_base64(value, name) if key == "image" else value)


def from_base64(text: str, name: str) -> bytes:
    """The bytes that base64 stands for, also of a page's `data:image/jpeg;base64,...`."""
    start = DATA_URL.match(text)
    try:
        found = base64.b64decode(text[start.end() :] if start else text, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(f"{name} is no base64") from None
    if not found:
        raise wrong(f"{name} is empty")
    return found


# --------------------------------------------------------------------------- forms


@dataclass
class Part:
    """One of a form's."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    data: list[bytes] = field(default_factory=list)


def read_form(asked: Asked, data: bytes, boundary: bytes, limits: Limits) -> None:
    """The parts of a multipart form: files, or a field `image`, are images."""
    fields: dict[str, str] = {}
    for part in parts_of(data, boundary, limits):
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        body = b"".join(part.data)
        file = options.get(b"filename")
        if file is not None or name in ("image", "images"):
            if body or file:
                asked.add(body, file.decode("utf-8", "replace") if file else None)
        elif name in FIELDS:
            fields[name] = body[:1000].decode("utf-8", "replace")
        elif name in ("url", "urls"):
            asked.add(body[:10_000].decode("utf-8", "replace"))
        else:
            hint = did_you_mean(name, KEYS)
            raise wrong(f"form field {quoted(name)} is unknown{hint}; known are {', '.join(KEYS)}")
    read_fields(asked, fields)


def parts_of(data: bytes, boundary: bytes, limits: Limits) -> list[Part]:
    if not boundary:
        raise wrong("the form's Content-Type has no boundary; let your client set it", 400)
    found: list[Part] = []

    def begin() -> None:
        if len(found) > limits.images + len(FIELDS):
            raise ProblemError(413, "large", f"the form has more than {limits.images} files")
        found.append(Part())

    def header_field(chunk: bytes, start: int, end: int) -> None:
        found[-1].header += chunk[start:end]

    def header_value(chunk: bytes, start: int, end: int) -> None:
        found[-1].value += chunk[start:end]

    def header_end() -> None:
        part = found[-1]
        part.headers[part.header.lower()] = part.value
        part.header = part.value = b""

    def part_data(chunk: bytes, start: int, end: int) -> None:
        found[-1].data.append(chunk[start:end])

    ended: list[bool] = []
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": header_field,
            "on_header_value": header_value,
            "on_header_end": header_end,
            "on_part_data": part_data,
            "on_end": lambda: ended.append(True),
        },
    )
    try:
        parser.write(data)
        parser.finalize()
    except FormParserError as error:
        raise wrong(f"the form cannot be read ({error})", 400) from None
    if not ended:
        raise wrong("the form ends too early; its last boundary is missing", 400)
    return found

"""One connection as the server sees it: heads within limits, and an end for who does not ask."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ppcls.serve.metrics import Metrics
from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import Limits

LINGER = 2.0  # seconds in which a client reads why it was refused, while what it sends is dropped


def connection_class(limits: Limits, metrics: Metrics) -> type[HttpToolsProtocol]:
    """What uvicorn makes one of for each connection."""
    return type("Connection", (Connection,), {"limits": limits, "metrics": metrics})


class Joined:
    """A transport that sends an answer's head and body in one piece.

    In two, each is a call of the system and wakes the client, which can do nothing with a head.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop):
        self.transport = transport
        self.loop = loop
        self.head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if self.head:
            data = self.head + data
            self.head = b""
        elif data.startswith(b"HTTP/1.1 "):
            self.head = data
            self.loop.call_soon(self.flush)  # where its body does not come at once
            return
        self.transport.write(data)

    def flush(self) -> None:
        if self.head:
            self.transport.write(self.head)
            self.head = b""

    def close(self) -> None:
        self.flush()
        self.transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn's, which by itself waits for ever for a head and takes any length of it.

    What is no HTTP, or comes too slowly, is answered with a problem document, too.
    """

    limits: Limits
    metrics: Metrics
    parser: Any

    timer: asyncio.TimerHandle | None = None
    in_head = True  # what comes next belongs to a head, else to a body
    came = 0  # bytes of the head, and of what came with it
    deaf = False  # nothing more is read: the connection ends

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Joined(transport, self.loop))  # type: ignore
        self.start_timer()
        if len(self.connections) > self.limits.connections:
            text = f"the service has {self.limits.connections:,} connections already; ask again"
            problem = ProblemError(503, "busy", text, headers={"Retry-After": "1"})
            self.refuse(problem, "connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def start_timer(self) -> None:
        self.stop_timer()
        self.timer = self.loop.call_later(self.limits.slow, self.too_slow)

    def stop_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def too_slow(self) -> None:
        self.timer = None
        if self.cycle and not self.cycle.response_complete:
            self.start_timer()  # it waits for the answer to the request before
        elif self.in_head and self.came:
            text = f"the request's head did not come within {self.limits.slow:g} s"
            self.refuse(ProblemError(408, "slow", text), "slow")
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        if self.in_head:
            self.came += len(data)
        super().data_received(data)
        if self.in_head and self.came and not self.deaf:
            if self.came > self.limits.header:
                self.refuse_head()
            elif self.timer is None:
                self.start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.came = self.came or 1  # it came with the request before

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.stop_timer()
        if self.came > self.limits.header:
            size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size + len(self.url) > self.limits.header:
                self.refuse_head()
                return
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            return
        # The parser takes no body behind such a head: it would take it for another request.
        if self.parser.get_method() not in (b"GET", b"HEAD"):
            text = "the request asks for another protocol (Upgrade); send it as plain HTTP/1.1"
            self.refuse(ProblemError(400, "request", text), "malformed")
            return
        super().on_headers_complete()
        self.cycle.keep_alive = False
        self.deaf = True

    def on_body(self, body: bytes) -> None:
        if not self.deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_head = True
        self.came = 0
        if self.cycle:
            self.stop_timer()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.in_head and self.cycle.response_complete and not self.deaf:
            self.start_timer()  # for the rest of a body that nobody wants

    def send_400_response(self, msg: str) -> None:
        text = "what came is no HTTP/1.1 request"
        self.refuse(ProblemError(400, "request", text), "malformed")

    def refuse_head(self) -> None:
        text = f"the request's head has more than {self.limits.header:,} bytes"
        self.refuse(ProblemError(431, "large", text), "head")

    def refuse(self, problem: ProblemError, why: str) -> None:
        """Answer with a problem where no other answer is on its way, and end the connection."""
        if self.deaf or self.transport.is_closing():
            return
        self.deaf = True
        self.stop_timer()
        self.metrics.refused.labels(why).inc()
        running = self.cycle is not None and not self.cycle.response_complete
        if running and self.in_head:
            self.cycle.keep_alive = False  # its answer is the last one
            return
        if running and (self.pipeline or self.cycle.response_started):
            self.transport.close()
            return
        if running:  # it waits for the rest of its body, which will not come
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if running or self.in_head or self.cycle is None:
            self.transport.write(problem.as_http())
        # Closed at once with bytes unread, the client might not see the answer.
        self.timer = self.loop.call_later(LINGER, self.transport.close)

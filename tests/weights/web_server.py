"""A web server in a thread whose every misbehaviour can be switched on."""

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `body` at every address; `asked` holds the Range header of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.ranges = True  # honours Range
        self.validators = {"ETag": '"1"'}
        self.type = "application/octet-stream"
        self.statuses: list[int] = []  # of the next requests, then 200
        self.cuts: list[int] = []  # after how many bytes the next answers end
        self.missing = 0  # bytes declared that never come
        self.length: int | None = None  # declared in place of the body's
        self.endless = False  # the body comes again and again, and no length is declared
        self.encoding = ""  # Content-Encoding
        self.redirect = ""  # where every address leads
        self.drops = 0.0  # seconds after each of the bytes, which come singly
        self.slow_head = 0.0  # seconds after each line of a head
        self.silence = 0.0  # seconds in the middle of an answer
        self.wake = threading.Event()  # once it is set, nothing is waited for
        self.served = 0  # bytes of bodies
        self.asked: list[str | None] = []

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/some/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        total = len(server.body) + server.missing
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and server.ranges:
            start = int(asked[1])
            if start >= total:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", server.type)
        if not server.endless:
            self.send_header("Content-Length", str(server.length or total - start))
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        for name, value in server.validators.items():
            self.send_header(name, value)
            if server.slow_head:
                self.flush_headers()
                server.wake.wait(server.slow_head)
        self.end_headers()
        self.send_body(server.body[start:])

    def send_body(self, body):
        server = self.server
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        if server.endless or server.drops:
            self.send_on(body)
            return
        half = len(body) // 2
        for part in (body[:half], body[half:]):
            self.wfile.write(part)
            self.wfile.flush()
            server.served += len(part)
            server.wake.wait(server.silence)

    def send_on(self, body):
        """Until the other side has had enough."""
        server = self.server
        with suppress(OSError):
            while True:
                part = body[server.served :][:1] if server.drops else body
                if not part:
                    return
                self.wfile.write(part)
                server.served += len(part)
                server.wake.wait(server.drops)


def running():
    """A server with its thread."""
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server

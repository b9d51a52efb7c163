"""Images by their address: never from a private network, whatever the address looks like."""

import asyncio
import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ppcls.serve import addresses
from ppcls.serve.bodies import Asked, Body, Budget
from ppcls.serve.problems import ProblemError

PRIVATE = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1",
    "127.255.0.9", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fdff::1", "fec0::1",
    "ff02::1", "2001:db8::1", "100::1", "5f00::1", "64:ff9b:1::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",  # IPv4 in IPv6
    "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::",  # 6to4
    "64:ff9b::7f00:1", "64:ff9b::10.0.0.1",  # NAT64
    "2001:0:a00:1::1", "2001:0:5ef5:79fd:0:0:f5ff:fffe",  # Teredo, of 10.0.0.1
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111",
    "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert addresses.is_public(address)


def fetch(url, most=10_000, seconds=30.0):
    return asyncio.run(addresses.fetch(url, most, seconds))


def refusal(url, **options):
    with pytest.raises(ProblemError) as caught:
        fetch(url, **options)
    assert caught.value.status == 422
    assert caught.value.kind == "image"
    assert caught.value.detail.isprintable()
    return caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/",
        "http://0177.0.0.1/", "http://0/", "http://localhost/", "http://localhost./",
        "http://LOCALHOST:8000/", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]:80/", "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:0/", "http://127.0.0.1#@example.com/", "https://10.0.0.1/",
        "http://\u2460\u2461\u2466.0.0.1/",  # digits that IDNA makes plain ones of
    ],
)  # fmt: skip
def test_spellings_of_private_addresses(url):
    found = refusal(url)
    assert "private network" in found or "no such host" in found or "cannot be had" in found


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "/etc/passwd", "file:///etc/passwd", "ftp://example.com/", "gopher://a/",
        "http://", "http:///x", "http://user@127.0.0.1/", "http://:p@127.0.0.1/",
        "http://@127.0.0.1/", "http://a.example\\@127.0.0.1/", "data:image/png;base64,aaaa",
        "HTTP:127.0.0.1", "//127.0.0.1/",
    ],
)  # fmt: skip
def test_what_is_no_address(url):
    assert "is no http or https address" in refusal(url)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a:b/", "http://a:99999/", "http://[x]/", "http://a..b/",
            "http://" + "a" * 70 + ".example/", "http://a\u0000b/", "http://a b/"]
)  # fmt: skip
def test_addresses_that_cannot_be_read(url):
    refusal(url)


def test_a_private_address_among_a_hosts(monkeypatch):
    """What a name answers with is looked at as a whole, and once."""
    asked = []

    async def answers(self, host, port, **_):
        asked.append((host, port))
        found = ("8.8.8.8", "192.168.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", answers)
    assert "private network" in refusal("http://two.example:81/")
    assert asked == [("two.example", 81)]


# --------------------------------------------------------------------------- a server of the test


class Pages(BaseHTTPRequestHandler):
    """What tests fetch; `seen` has each request's path and headers."""

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        getattr(self, self.path[1:].partition("?")[0].partition("/")[0])()

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def image(self):
        self.answer(body=b"an image")

    def large(self):
        self.answer(body=b"x" * 10_001)

    def missing(self):
        self.answer(404, b"no")

    def nowhere(self):
        self.answer(302)

    def unchanged(self):
        self.answer(304)

    def hop(self):
        left = int(self.path.rsplit("/", 1)[1])
        self.answer(302, Location=f"/hop/{left - 1}" if left else "../image?x=1")

    def away(self):
        self.answer(307, Location="http://inner.example/")

    def file(self):
        self.answer(301, Location="file:///etc/passwd")

    def cookie(self):
        self.answer(302, Location="/image", **{"Set-Cookie": "a=b"})

    def slow(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.ended.wait(0.02):
                self.wfile.write(b"x")

    def log_message(self, *_):
        pass


@pytest.fixture
def pages(monkeypatch):
    """It is at any name but inner.example, whose address is private."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.seen = []
    server.ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    async def answers(self, host, port, **_):
        one = "10.0.0.1" if host == "inner.example" else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", answers)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    server.address = f"http://photos.example:{server.server_port}"
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_image_is_fetched(pages):
    assert fetch(f"{pages.address}/image?of=me&x=%20#part") == b"an image"
    ((path, headers),) = pages.seen
    assert path == "/image?of=me&x=%20"
    assert headers["Host"] == pages.address.removeprefix("http://")
    assert headers["Accept-Encoding"] == "identity"


def test_redirects(pages):
    assert fetch(f"{pages.address}/hop/2") == b"an image"
    assert [path for path, _ in pages.seen] == ["/hop/2", "/hop/1", "/hop/0", "/image?x=1"]
    assert "redirects more than 3 times" in refusal(f"{pages.address}/hop/3")
    assert "private network" in refusal(f"{pages.address}/away")
    assert "no http or https address" in refusal(f"{pages.address}/file")
    assert fetch(f"{pages.address}/cookie") == b"an image"
    assert "Cookie" not in pages.seen[-1][1]
    for path in ("nowhere", "unchanged"):
        assert "HTTP 30" in refusal(f"{pages.address}/{path}")


def test_what_cannot_be_had(pages):
    assert "HTTP 404" in refusal(f"{pages.address}/missing")
    assert "more than the 10,000 bytes" in refusal(f"{pages.address}/large")
    start = time.monotonic()
    assert "did not come within 0.5 s" in refusal(f"{pages.address}/slow", seconds=0.5)
    assert time.monotonic() - start < 30
    pages.server_close()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "cannot be had" in refusal(f"http://127.0.0.1:{closed.getsockname()[1]}/")


def test_fetched_bytes_count_as_the_requests(pages, monkeypatch):
    """All images together are no larger than a body may be, and are given back with it."""
    from types import SimpleNamespace

    from ppcls.serve.service import Service
    from ppcls.serve.settings import Limits

    limits = Limits(body=20)
    settings = SimpleNamespace(urls=True, limits=limits)
    asked = Asked()
    for image in (f"{pages.address}/image", b"bytes", f"{pages.address}/image"):
        asked.add(image)
    body = Body(Budget(100))
    service = SimpleNamespace(settings=settings)
    found = asyncio.run(Service.images_of(service, asked, body))
    assert found == [b"an image", b"bytes", b"an image"]
    assert body.budget.taken == 16
    asked.add(f"{pages.address}/image")
    body.close()
    assert body.budget.taken == 0
    with pytest.raises(ProblemError, match="more than the 4 bytes"):
        asyncio.run(Service.images_of(service, asked, body))

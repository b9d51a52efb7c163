"""Clients that are slow, broken or hostile: they get a problem or an end, and the service lives.

The clients write to sockets themselves, what no HTTP library would.
"""

import contextlib
import gzip
import itertools
import json
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

SLOW = 1.0  # seconds
HEADER = 8192  # bytes
BODY = 300_000
CONNECTIONS = 40
PATIENCE = 60


@pytest.fixture(scope="module")
def served(serve_limited, exported, tmp_path_factory):
    limits = {"slow": SLOW, "header": HEADER, "body": BODY, "connections": CONNECTIONS}
    accesses = tmp_path_factory.mktemp("hostile") / "access.jsonl"
    found = serve_limited(exported, json.dumps(limits), accesses)
    found.accesses = accesses
    return found


@pytest.fixture(scope="module")
def ordinary(served):
    with served.client() as client:
        yield client


@pytest.fixture(autouse=True)
def lives(served, ordinary, photos):
    """After each test an ordinary request is answered, and nothing went wrong inside."""
    yield
    ordinary.post("/predict", content=photos[0].read_bytes()).raise_for_status()
    assert "Traceback" not in served.said
    assert "error" not in served.said.lower(), served.said


def connect(served):
    return socket.create_connection((served.host, served.port), timeout=PATIENCE)


def rest_of(connection):
    """All that comes until the service closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            found += data
    return found


def answers_to(served, *pieces):
    """What the service says to these bytes, by when it has closed the connection."""
    with connect(served) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        return rest_of(connection)


def split(text):
    """Statuses, headers and bodies of the answers in a text, by their Content-Length."""
    found = []
    while text:
        head, mark, text = text.partition(b"\r\n\r\n")
        assert mark, head
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) ?.*", first)[1])
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if status == 100:
            continue
        size = int(headers["content-length"])
        assert len(text) >= size
        found.append((status, headers, text[:size]))
        text = text[size:]
    return found


def require_problems(text, *statuses):
    """The answers are problems with these statuses, or 200."""
    found = split(text)
    assert [status for status, _, _ in found] == list(statuses), text[:500]
    for status, headers, body in found:
        if status != 200:
            assert headers["content-type"] == "application/problem+json"
            problem = json.loads(body)
            assert problem["status"] == status
            assert problem["detail"].isprintable()
    return found


def post(*headers, path=b"/predict", close=True):
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: x", *headers]
    lines += [b"Connection: close"] * close
    return b"\r\n".join([*lines, b"", b""])


def sized(body, *headers, **options):
    return post(b"Content-Length: %d" % len(body), *headers, **options) + body


GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# --------------------------------------------------------------------------- slow ones


def test_slow_heads(served):
    """Silence, a head that stops, one that comes byte by byte, and empty lines, which are none."""
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        silent = pool.submit(answers_to, served)
        cut = pool.submit(answers_to, served, GET[:30])
        head = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000
        slow = pool.submit(answer_to_bytes, served, (bytes([byte]) for byte in head))
        empty = pool.submit(answer_to_bytes, served, itertools.repeat(b"\r\n"))
    assert silent.result() == b""
    assert time.monotonic() - start >= SLOW * 0.9
    require_problems(cut.result(), 408)
    require_problems(slow.result(), 408)
    assert empty.result() == b"" or b" 408 " in empty.result()


def answer_to_bytes(served, pieces):
    """What the service says to bytes that go on coming, slowly, until it says something."""
    start = time.monotonic()
    with connect(served) as connection:
        connection.settimeout(0.05)
        for piece in pieces:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(piece)
            with contextlib.suppress(TimeoutError):
                return connection.recv(10_000)
            if time.monotonic() - start > PATIENCE:
                break
    return b""


def test_a_head_in_pieces_is_no_slow_one(served):
    with connect(served) as connection:
        for pause in (SLOW * 1.2, 0):  # the time counts for each head, and not between them
            for place in range(0, len(GET), 9):
                connection.sendall(GET[place : place + 9])
                time.sleep(SLOW / 20)
            assert b"200 OK" in connection.recv(1 << 16)
            time.sleep(pause)


def test_slow_bodies(served, photos):
    head = post(b"Content-Length: 1000")
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        silent = pool.submit(answers_to, served, head)
        slow = pool.submit(answer_to_bytes, served, itertools.chain([head], itertools.repeat(b"x")))
    assert time.monotonic() - start >= SLOW * 0.9
    require_problems(silent.result(), 408)
    require_problems(slow.result(), 408)
    with served.client() as client:
        assert 'ppcls_refused_total{why="slow"}' in client.get("/metrics").text


def test_a_body_that_gets_on_may_take_its_time(served):
    """64 KB a second are enough, for longer than the time that a head has."""
    body = b"x" * BODY
    with connect(served) as connection:
        connection.sendall(post(b"Content-Length: %d" % len(body)))
        for place in range(0, len(body), 20_000):
            connection.sendall(body[place : place + 20_000])
            time.sleep(SLOW / 12)
        require_problems(rest_of(connection), 422)


# --------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    ("headers", "body", "statuses"),
    [
        ([b"Content-Length: 100"], b"x" * 50, [408]),  # and no more
        ([b"Content-Length: 3"], b"xxxGET", [422]),
        ([b"Content-Length: -1"], b"", [400]),
        ([b"Content-Length: +1"], b"x", [400]),
        ([b"Content-Length: 1e3"], b"x", [400]),
        ([b"Content-Length: 0x10"], b"x", [400]),
        ([b"Content-Length: 1 1"], b"x", [400]),
        ([b"Content-Length: "], b"x", [400]),
        ([b"Content-Length: 99999999999999999999999"], b"x", [400]),
        ([b"Content-Length: 18446744073709551615"], b"x", [413]),
        ([b"Content-Length: %d" % (BODY + 1)], b"x", [413]),
        ([b"Content-Length: 1", b"Content-Length: 2"], b"xx", [400]),
        ([b"Content-Length: 1, 2"], b"xx", [400]),
        ([b"Content-Length: 4", b"Transfer-Encoding: chunked"], b"0\r\n\r\n", [400]),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 4"], b"0\r\n\r\n", [400]),
        ([b"Transfer-Encoding: chunked, identity"], b"0\r\n\r\n", [400]),
        ([b"Transfer-Encoding: identity"], b"x", [400]),
        ([b"Transfer-Encoding: xchunked"], b"0\r\n\r\n", [400]),
        ([b"Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n", [415]),
        ([b"Transfer-Encoding: chunked"], b"0\r\n\r\n", [422]),
        ([b"Transfer-Encoding: chunked"], b"x\r\n\r\n", [400]),
        ([b"Transfer-Encoding: chunked"], b"-1\r\nx\r\n", [400]),
        ([b"Transfer-Encoding: chunked"], b"1\r\nxx\r\n", [400]),
        ([b"Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nx", [400]),
        ([b"Transfer-Encoding: chunked"], b"1;a=%s\r\nx\r\n0\r\n\r\n" % (b"b" * 100), [422]),
        ([b"Transfer-Encoding : chunked"], b"0\r\n\r\n", [400]),
        ([b"Transfer-Encoding: chunked\r\n X: folded"], b"0\r\n\r\n", [400]),
        ([b"No colon"], b"", [400]),
        ([b": no name"], b"", [400]),
        ([b"A b: c"], b"", [400]),
        ([b"A: \0"], b"", [400]),
        ([b"A: b\nContent-Length: 5"], b"", [400]),
    ],
)
def test_lengths(served, headers, body, statuses):
    """Never does what one side takes for a body become another request."""
    found = answers_to(served, post(*headers) + body)
    require_problems(found, *statuses)


def test_too_large_a_body_is_answered_while_it_is_sent(served):
    """The client that sends all of it first reads the answer, and may ask again."""
    body = b"x" * (20 * BODY)
    for head in (post(b"Content-Length: %d" % len(body), close=False), None):
        with connect(served) as connection:
            if head:
                connection.sendall(head + body)
            else:
                chunk = b"%x\r\n" % BODY + body[:BODY] + b"\r\n"
                chunks = post(b"Transfer-Encoding: chunked", close=False) + chunk * 20
                connection.sendall(chunks + b"0\r\n\r\n")
            connection.sendall(LAST)
            require_problems(rest_of(connection), 413, 200)


def test_a_body_that_never_ends(served):
    """It is answered, and then not read for ever."""
    chunk = b"%x\r\n" % 50_000 + b"x" * 50_000 + b"\r\n"
    with connect(served) as connection:
        connection.sendall(post(b"Transfer-Encoding: chunked", close=False))
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < end:
                connection.sendall(chunk)
                time.sleep(0.01)
        assert time.monotonic() < end


def test_half_bodies(served, photos):
    """The client is gone in the middle, many times."""
    data = photos[0].read_bytes()
    for size in range(0, len(data), len(data) // 20):
        with connect(served) as connection:
            connection.sendall(sized(data)[: -1 - size])
    with served.client() as client:
        held = 'ppcls_queue_images{model="small"} 0.0'
        served.wait(lambda: held in client.get("/metrics").text, "empty queue")


# --------------------------------------------------------------------------- heads and paths


def test_huge_heads(served):
    one = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000
    many = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000
    path = b"GET /" + b"y" * 200_000
    for head, end in ((one, b"\r\n\r\n"), (many, b"\r\n"), (path, b" HTTP/1.1\r\n\r\n")):
        require_problems(answers_to(served, head), 431)
        require_problems(answers_to(served, head + end), 431)
    nearly = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"y" * (HEADER - 200)
    require_problems(answers_to(served, nearly + b"\r\n\r\n"), 200)


def test_a_body_behind_a_head_in_pieces_is_no_head(served, photos):
    """A head that ends in one piece with the beginning of its body."""
    data = b"x" * (4 * HEADER)
    whole = sized(data)
    for cut in (len(whole) - len(data) - 1, len(whole) - len(data) - 3):
        with connect(served) as connection:
            connection.sendall(whole[:cut])
            time.sleep(0.05)
            connection.sendall(whole[cut:])
            require_problems(rest_of(connection), 422)


@pytest.mark.parametrize(
    "path",
    [
        b"/page/../../etc/passwd", b"/page/..%2f..%2fetc/passwd", b"/page/%2e%2e/%2e%2e/app.py",
        b"/page/..\\..\\app.py", b"/page/%5c..%5capp.py", b"/page/%00", b"/page/x%00.css",
        b"/page/....//app.py", b"/page//etc/passwd", b"/page/" + b"a/" * 2000, b"/page/.",
        b"/page/" + b"%c0%ae%c0%ae/" * 3 + b"etc/passwd", b"/docs/assets/../../../app.py",
        b"//etc/passwd", b"//predict", b"/./predict", b"/predict/", b"/predict/../predict",
        b"/%2e%2e/%2e%2e/etc/passwd", b"/" + b"%41" * 2000, b"/%", b"/%zz", b"/%ff%fe",
        b"/page/" + b"x" * 300, b"/v2/models/..%2f..", b"/v2/models/%00/ready",
        b"/v2/models/" + b"m" * 5000, b"/?" + b"a=b&" * 1000, b"/page/con", b"/page/~root",
    ],
)  # fmt: skip
def test_paths(served, path):
    found = answers_to(
        served, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    ((status, headers, body),) = split(found)
    assert status in ((200,) if path.startswith(b"/?") else (400, 404, 405))
    if status != 200:
        assert headers["content-type"] == "application/problem+json"
    assert b"root:x:" not in body
    assert b"import" not in body or path.startswith(b"/?")


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"GET predict HTTP/1.1", [400]),
        (b"GET http://other.example/v2/health/live HTTP/1.1", [200]),
        (b"GET * HTTP/1.1", [400, 404]),
        (b"OPTIONS * HTTP/1.1", [400, 404, 405]),
        (b"CONNECT other.example:443 HTTP/1.1", [400]),
        (b"TRACE /predict HTTP/1.1", [405]),
        (b"PURGE /predict HTTP/1.1", [405]),
        (b"BREW /predict HTTP/1.1", [400]),
        (b"get /predict HTTP/1.1", [400]),
        (b"GET /v2/health/live HTTP/1.2", [400]),
        (b"GET /v2/health/live HTTP/9", [400]),
        (b"GET /v2/health/live", [200, 400]),  # HTTP/0.9 has no more
        (b"GET /a b HTTP/1.1", [400]),
        (b"GET /\xff HTTP/1.1", [400, 404]),
        (b"GET /\x01 HTTP/1.1", [400, 404]),
        (b"PRI * HTTP/2.0", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", [400]),
        (b"SSH-2.0-OpenSSH", [400]),
    ],
)
def test_first_lines(served, line, statuses):
    found = answers_to(served, line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    ((status, headers, _),) = split(found)
    assert status in statuses
    assert status == 200 or headers["content-type"] == "application/problem+json"


def test_http_1_0(served, photos):
    data = photos[0].read_bytes()
    head = b"POST /predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(data)
    ((status, headers, body),) = split(answers_to(served, head + data))
    assert status == 200
    assert headers["connection"] == "close"
    assert json.loads(body)["predictions"]


def test_requests_in_a_row_without_waiting(served, photos):
    data = photos[0].read_bytes()
    rows = [GET, sized(data, close=False), GET, sized(b"x", close=False), LAST]
    require_problems(answers_to(served, b"".join(rows)), 200, 200, 200, 422, 200)
    require_problems(answers_to(served, *(bytes([byte]) for byte in b"".join(rows))),
                     200, 200, 200, 422, 200)  # fmt: skip
    # A body that is still coming when the answer before it is given is no head.
    large = b"x" * (BODY - 1000)
    with connect(served) as connection:
        connection.sendall(GET + sized(large)[:500])
        time.sleep(0.1)
        connection.sendall(sized(large)[500:])
        require_problems(rest_of(connection), 200, 422)
    require_problems(answers_to(served, GET * 2000 + LAST), *[200] * 2001)
    # What is no request ends the row; the answers before it are given, or the connection ends.
    found = answers_to(served, GET + b"\0" * 10 + GET)
    assert [status for status, _, _ in split(found)] in ([200], [200, 400])


def test_other_protocols_are_not_taken(served, photos):
    """What follows a head with Upgrade is never another request."""
    upgrade = (b"Connection: Upgrade", b"Upgrade: h2c")
    inner = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
    lines = b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(upgrade) + b"\r\n\r\n"
    require_problems(answers_to(served, lines), 200)
    require_problems(answers_to(served, lines + inner), 200)
    with connect(served) as connection:
        connection.sendall(lines)
        time.sleep(0.05)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(inner)
        require_problems(rest_of(connection), 200)
    found = answers_to(served, sized(photos[0].read_bytes(), *upgrade, close=False))
    ((_, _, body),) = require_problems(found, 400)
    assert b"Upgrade" in body


def test_continue_is_said_to_who_waits_for_it(served, photos):
    data = photos[0].read_bytes()
    with connect(served) as connection:
        connection.sendall(post(b"Content-Length: %d" % len(data), b"Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(data)
        require_problems(rest_of(connection), 200)
    too_large = post(b"Content-Length: %d" % (BODY + 1), b"Expect: 100-continue")
    require_problems(answers_to(served, too_large), 413)


# --------------------------------------------------------------------------- connections


def test_more_connections_than_may_be(served):
    """Those beyond are told so; what is open goes on, and whoever leaves makes room."""
    before = time.monotonic()
    open_ones = [connect(served) for _ in range(CONNECTIONS)]
    found = answers_to(served, LAST)
    problems = require_problems(found, 503) if time.monotonic() - before < SLOW else []
    assert all(headers["retry-after"] for _, headers, _ in problems)
    for connection in open_ones:
        connection.close()

    def answered():
        return b"200 OK" in answers_to(served, LAST)

    served.wait(answered, "room")


# --------------------------------------------------------------------------- bodies


JSON = b"Content-Type: application/json"
V2 = b"/v2/models/small/infer"
MANY = b"[" * 100_000


@pytest.mark.parametrize("path", [b"/predict", V2, b"/v2/repository/models/small/load"])
@pytest.mark.parametrize(
    "body",
    [
        MANY, MANY + b"]" * 100_000, b'{"a":' * 50_000, b'{"image": ' + MANY,
        b'{"topk": ' + b"9" * 200_000 + b"}", b'{"topk": 1e999999}', b'{"threshold": -0.0e-99999}',
        b'{"image": "aaaa", "image": 5, "image": []}', b'{"inputs": {}, "inputs": []}',
        b'"' + b"\\ud800" * 10_000 + b'"', b'{"\\ud800": 1}', b'{"model": "\\u0000"}',
        b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"null", b"1", b'"x"', b"[1,2", b"{" * 1000,
        b"\0" * 1000,
        b'{"images": [' + b'"aaaa",' * 30_000 + b'"aaaa"]}',
        b'{"parameters": ' + b'{"a":' * 400 + b"1" + b"}" * 401,
        b'{"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [2147483647, 3, 32, 32], '
        b'"data": [1]}]}',
        b'{"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": '
        b'{"binary_data_size": 99999999999999999999}}]}',
        b'{"inputs": [{"name": "images", "datatype": "BYTES", "shape": ['
        + b"1," * 50_000 + b"1]}]}",
    ],
)  # fmt: skip
def test_json_bombs(served, path, body):
    start = time.monotonic()
    ((status, _, _),) = split(answers_to(served, sized(body, JSON, path=path)))
    assert 400 <= status < 500
    assert time.monotonic() - start < PATIENCE


def form(*parts, boundary=b"XX", end=b"--XX--\r\n"):
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end
    return sized(body, b"Content-Type: multipart/form-data; boundary=" + boundary)


def part(body=b"x", head=b'Content-Disposition: form-data; name="image"; filename="a"'):
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (form(*[part()] * 3000), [413]),
        (form(*[part(head=b'Content-Disposition: form-data; name="topk"')] * 3000), [413]),
        (form(), [422, 400]),
        (form(part(), end=b""), [400]),
        (form(part(), end=b"--XX"), [400]),
        (form(part(b"\r\n--X" * 50_000), end=b""), [400]),
        (form(b"no headers"), [400]),
        (form(b"X" * 250_000), [400]),
        (form(b"X: y\r\n" * 40_000), [400]),
        (form(part(head=b"X:" + b" " * 250_000)), [400]),
        (form(part(head=b"X: y")), [422]),
        (form(part(head=b"Content-Disposition: form-data")), [422]),
        (form(part(head=b'Content-Disposition: form-data; name="' + b"n" * 3000 + b'"')), [422]),
        (form(part(head=b'Content-Disposition: form-data; name="\xff\0"')), [400, 422]),
        (form(part(head=b"Content-Disposition: " + b";" * 3000)), [422]),
        (form(part(head=b"Content-Disposition: form-data; name*=utf-8''%00; a*0=b")), [422]),
        (form(part(), boundary=b"--" * 35), [400]),
        (sized(b"--XX", b"Content-Type: multipart/form-data"), [400]),
        (sized(b"--XX", b"Content-Type: multipart/form-data; boundary="), [400]),
        (sized(b"x" * BODY, b'Content-Type: multipart/form-data; boundary="X"'), [400]),
        (sized(b"\r" * BODY, b"Content-Type: multipart/form-data; boundary=X"), [400]),
        (sized(b"\r\n" * 100_000, b"Content-Type: multipart/form-data; boundary=X"), [400]),
        (sized(b"x", b"Content-Type: " + b"multipart/form-data; " * 300), [400, 415, 422]),
        (sized(b"x", b"Content-Type: \xff\xfe"), [422]),
        (sized(gzip.compress(b"x"), b"Content-Encoding: gzip"), [415]),
        (sized(b"x", b"Content-Encoding: br, gzip"), [415]),
    ],
)
def test_forms_and_packed_bodies(served, request_, statuses):
    start = time.monotonic()
    ((status, headers, body),) = split(answers_to(served, request_))
    assert status in statuses, body
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["detail"].isprintable()
    assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("count", [150, pytest.param(20_000, marks=pytest.mark.slow)])
def test_noise(served, photos, count):
    """Requests with bytes changed, left out and doubled: answered or closed, whatever they are."""
    chance = random.Random(count)
    body = photos[0].read_bytes()[:600]
    whole = [
        sized(body, b"Content-Type: image/png", close=False),
        form(part(body), part(b"1", b'Content-Disposition: form-data; name="topk"')),
        sized(b'{"inputs":[{"name":"images","datatype":"BYTES","shape":[1],"data":["aaaa"]}]}',
              JSON, path=V2, close=False),
        post(b"Transfer-Encoding: chunked", close=False) + b"5\r\nhello\r\n0\r\n\r\n",
        GET * 3,
    ]  # fmt: skip
    for _ in range(count):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                del data[place : place + chance.randint(1, 20)]
            elif kind == 2:
                data[place:place] = data[place : place + chance.randint(1, 20)]
            else:
                data[place:place] = chance.choice([b"\r\n", b"\0", b": ", b" ", b"\xff", b"0"])
            if not data:
                break
        with connect(served) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = rest_of(connection)
        assert b" 500 " not in found.partition(b"\r\n")[0]

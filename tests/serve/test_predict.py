"""`POST /predict` and what stands around it, at a service in a process of its own."""

import base64
import io
import json
import resource
import shutil
import socket
import subprocess
import threading
import zlib
from contextlib import ExitStack
from dataclasses import replace
from struct import pack

import httpx
import pytest
import small_network
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

import ppcls
from ppcls.config.load import from_plain
from ppcls.export import Form
from ppcls.recipe import Recipe


@pytest.fixture(scope="module")
def predictor(exported):
    with ppcls.Predictor(exported, engine="onnxruntime") as predictor:
        yield predictor


def require_same(answer, prediction):
    assert answer["classes"] == list(prediction.classes)
    assert answer["labels"] == list(prediction.labels)
    assert answer["scores"] == pytest.approx(prediction.scores, abs=1e-6)


def require_problem(answer, status, kind, *words):
    """It is a problem document, whose one line has the words; returns the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["type"] == ("about:blank" if kind == "http" else f"/docs/problems#{kind}")
    assert found["title"]
    assert found["error"] == found["detail"]
    assert found["detail"].isprintable()
    for word in words:
        assert word in found["detail"]
    return found


def b64(path):
    return base64.b64encode(path.read_bytes()).decode()


# --------------------------------------------------------------------------- ways to give images


def test_every_way_gives_what_the_predictor_gives(client, photos, predictor):
    data = photos[0].read_bytes()
    text = b64(photos[0])
    form = {"files": {"image": ("a b.png", data)}}
    ways = [
        form,
        {"files": {"anything": ("é.png", data)}},
        {"files": {"image": (None, data)}},
        {"content": data},
        {"content": data, "headers": {"Content-Type": "image/png"}},
        {"content": data, "headers": {"Content-Type": "application/octet-stream"}},
        {"content": iter([data[:100], data[100:]])},  # chunked
        {"json": {"image": text}},
        {"json": {"images": [text]}},
        {"json": {"image": f"data:image/png;base64,{text}"}},
        {"json": {"image": text, "images": None, "model": None, "topk": None, "url": None}},
    ]
    (want,) = predictor.predict(photos[0])
    for way in ways:
        answer = client.post("/predict", **way)
        assert answer.status_code == 200, (way, answer.text)
        (found,) = answer.json()["predictions"]
        require_same(found, want)
    assert client.post("/predict", **form).json()["predictions"][0]["name"] == "a b.png"


def test_several_images_at_once(client, photos, predictor):
    want = predictor.predict(list(map(str, photos)))
    with_names = [("image", (path.name, path.read_bytes())) for path in photos]
    for way in ({"files": with_names}, {"json": {"images": list(map(b64, photos))}}):
        found = client.post("/predict", **way).json()["predictions"]
        assert len(found) == len(photos)
        for one, prediction in zip(found, want, strict=True):
            require_same(one, prediction)
    answer = client.post("/predict", files=with_names).json()
    assert [one["name"] for one in answer["predictions"]] == [path.name for path in photos]
    mixed = client.post("/predict", json={"image": b64(photos[1]), "images": [b64(photos[0])]})
    require_same(mixed.json()["predictions"][0], want[1])
    require_same(mixed.json()["predictions"][1], want[0])


def test_an_answer_says_what_gave_it(client, photos, exported, predictor):
    headers = {"X-Request-ID": "of mine"}
    answer = client.post("/predict", content=photos[0].read_bytes(), headers=headers)
    found = answer.json()
    assert found["model"] == "small"
    assert found["version"] == "1"
    assert found["digest"] == predictor.folder.digest()
    assert found["request_id"] == "of mine" == answer.headers["x-request-id"]
    times = found["milliseconds"]
    assert set(times) == {"queue", "decode", "engine", "total"}
    assert all(value >= 0 for value in times.values())
    assert times["total"] >= times["engine"] > 0
    for bad in ("", "x" * 101, "a\xadb"):
        other = client.get("/v2", headers={"X-Request-ID": bad.encode("latin-1")})
        assert other.headers["x-request-id"] not in ("", bad)


def test_topk_and_threshold(client, photos, predictor):
    data = photos[0].read_bytes()
    both = predictor.predict(photos[0])[0].scores
    middle = sum(both) / 2

    def labels(**way):
        (found,) = client.post("/predict", **way).json()["predictions"]
        assert len(found["classes"]) == len(found["labels"]) == len(found["scores"])
        return len(found["labels"])

    for given, count in (
        ({"topk": 1}, 1),
        ({"topk": 2}, 2),
        ({"topk": 99}, 2),
        ({"threshold": middle}, 1),
        ({"threshold": 1}, 0),
        ({"threshold": 0}, 2),
        ({"topk": 1, "threshold": 0}, 1),
    ):
        assert labels(content=data, params=given) == count
        assert labels(json={"image": b64(photos[0]), **given}) == count
        assert labels(files={"image": data}, data=given) == count
    # What stands in the body counts before the query.
    assert labels(json={"image": b64(photos[0]), "topk": 2}, params={"topk": 1}) == 2


def test_a_broken_image_among_good_ones(client, photos, predictor):
    good = photos[0].read_bytes()
    parts = [("image", ("0.png", good)), ("image", ("no.png", b"none")), ("image", good[:400])]
    answer = client.post("/predict", files=parts)
    assert answer.status_code == 200
    first, text, cut = answer.json()["predictions"]
    require_same(first, *predictor.predict(photos[0]))
    assert set(text) == {"name", "error"}
    assert "images[1]" in text["error"]
    assert "images[2]" in cut["error"]
    found = require_problem(client.post("/predict", files=parts[1:]), 422, "image", "images[0]")
    assert len(found["errors"]) == 2
    require_problem(client.post("/predict", content=b"none"), 422, "image", "the image given")


# --------------------------------------------------------------------------- mistakes


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("way", "status", "kind", "words"),
    [
        ({"content": b""}, 422, "request", ["no image", "curl"]),
        ({"content": b"a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
         415, "request", ["multipart/form-data", "curl -F"]),
        ({"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, "request", ["gzip"]),
        ({"content": b"{", "headers": JSON}, 400, "request", ["no JSON"]),
        ({"content": b"\xff", "headers": JSON}, 400, "request", ["no JSON"]),
        ({"content": b'{"topk": NaN}', "headers": JSON}, 400, "request", ["NaN"]),
        ({"json": []}, 422, "request", ["should be"]),
        ({"json": {}}, 422, "request", ["no image"]),
        ({"json": {"imag": "x"}}, 422, "request", ["imag", "did you mean 'image'"]),
        ({"json": {"image": 5}}, 422, "request", ["image should be base64"]),
        ({"json": {"images": "aaaa"}}, 422, "request", ["images should be a list"]),
        ({"json": {"images": ["aaaa", "%%"]}}, 422, "request", ["images[1] is no base64"]),
        ({"json": {"images": ["aaaa", "data:image/png;base64,"]}}, 422, "request", ["is empty"]),
        ({"json": {"image": "aaaa", "topk": 0}}, 422, "request", ["topk", "from 1"]),
        ({"json": {"image": "aaaa", "topk": True}}, 422, "request", ["topk"]),
        ({"json": {"image": "aaaa", "topk": "1.5"}}, 422, "request", ["topk ('1.5')"]),
        ({"json": {"image": "aaaa", "threshold": 2}}, 422, "request", ["threshold", "0 to 1"]),
        ({"json": {"image": "aaaa", "threshold": "nan"}}, 422, "request", ["threshold"]),
        ({"json": {"image": "aaaa", "explain": "x"}}, 422, "request", ["explain ('x') should"]),
        ({"json": {"image": "aaaa", "explain": 1}}, 422, "request", ["explain"]),
        ({"json": {"image": "aaaa", "explain": True}}, 422, "request", ["small gives no maps"]),
        ({"json": {"image": "aaaa", "model": 7}}, 422, "request", ["model"]),
        ({"json": {"image": "aaaa", "model": "smal"}}, 404, "model", ["did you mean 'small'"]),
        ({"json": {"image": "aaaa", "model": "\ud800\x1b["}}, 404, "model", []),
        ({"json": {"url": "http://localhost/"}}, 403, "forbidden", ["--urls"]),
        ({"files": {"image": b"x"}, "data": {"size": "3"}}, 422, "request", ["size", "known are"]),
        ({"files": {"image": b"x"}, "data": {"topk": "many"}}, 422, "request", ["topk"]),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
         400, "request", ["no boundary"]),
        ({"files": [("image", b"x")] * 65}, 413, "large", ["64"]),
        ({"json": {"images": ["aaaa"] * 65}}, 413, "large", ["65 images", "64"]),
        ({"content": b"x" * 2_000_001}, 413, "large", ["2,000,000 bytes"]),
        ({"content": iter([b"x" * 1_000_000] * 3)}, 413, "large", ["2,000,000 bytes"]),
    ],
)  # fmt: skip
def test_mistakes_are_problems(client, way, status, kind, words):
    if "json" in way:  # httpx would refuse some of these itself
        way = {"content": json.dumps(way["json"]), "headers": JSON}
    require_problem(client.post("/predict", **way), status, kind, *words)


def test_other_paths_and_methods_are_problems(client):
    require_problem(client.get("/predic"), 404, "http", "GET /predic", "/docs")
    require_problem(client.post("/v2/models/other/infer", content="{}"), 404, "model", "other")
    found = client.get("/predict")
    require_problem(found, 405, "http", "GET /predict")
    assert found.headers["allow"] == "POST"
    assert client.head("/v2/health/ready").status_code == 200
    assert client.head("/v2/health/ready").content == b""


def test_a_bomb_is_refused_before_it_is_decoded(client, photos):
    def chunk(kind, data):
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    def bomb(side):
        head = chunk(b"IHDR", pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        packed = zlib.compress(bytes(1_000_000), 9)
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")

    words = ("10,000 x 10,000 pixels", "1,000,000", "smaller")
    require_problem(client.post("/predict", content=bomb(10_000)), 422, "image", *words)
    require_problem(client.post("/predict", content=bomb(100_000)), 422, "image", "too large")
    large = io.BytesIO()
    Image.new("RGB", (1001, 1000)).save(large, "PNG")
    require_problem(client.post("/predict", content=large.getvalue()), 422, "image", "1,001")
    assert client.post("/predict", content=photos[0].read_bytes()).status_code == 200


def test_problems_are_explained(client):
    page = client.get("/docs/problems").text
    for kind in ("image", "request", "busy", "late"):
        assert f"id='{kind}'" in page
    assert client.get("/docs").status_code == 200
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    assert "http://" not in client.get("/docs").text.replace("http://www.w3.org", "")
    assert "https://" not in client.get("/docs").text


# --------------------------------------------------------------------------- queue and time


@pytest.fixture(scope="module")
def slow(serve, exported, tmp_path_factory):
    """Its engine takes the seconds that its file `seconds` has; three images may wait."""
    seconds = tmp_path_factory.mktemp("slow") / "seconds"
    found = serve(
        exported, "--use", "slow_engine", "--engine", "slow_engine.SlowEngine",
        "--queue", "3", "--timeout", "2", "--max-batch", "1", "--max-delay", "0",
        PPCLS_TEST_SECONDS=str(seconds),
    )  # fmt: skip
    found.seconds = seconds
    yield found
    seconds.unlink(missing_ok=True)


def test_a_full_queue_and_late_answers(slow, photos):
    data = photos[0].read_bytes()
    slow.seconds.write_text("3.5")
    answers = []

    def ask():
        with slow.client() as client:
            answers.append(client.post("/predict", content=data))

    waiting = [threading.Thread(target=ask) for _ in range(3)]
    for thread in waiting:
        thread.start()
    with slow.client() as client:
        queue = 'ppcls_queue_images{model="small"} 3.0'
        slow.wait(lambda: queue in client.get("/metrics").text, "full queue")
        full = client.post("/predict", content=data)
        require_problem(full, 503, "busy", "3 images wait", "ask again")
        assert int(full.headers["retry-after"]) >= 1
        assert client.get("/v2/health/live").status_code == 200
        for thread in waiting:
            thread.join()
        assert len(answers) == 3
        for answer in answers:
            require_problem(answer, 504, "late", "within 2 s")
        slow.seconds.unlink()
        metrics = client.get("/metrics").text
        assert 'ppcls_refused_total{why="queue"}' in metrics
        # What is late is not waited for; the engine ends what it had begun, and goes on.
        slow.wait(lambda: client.post("/predict", content=data).status_code == 200, "answer")


def test_who_hangs_up_costs_nothing_more(slow, photos):
    slow.seconds.write_text("0.5")
    data = photos[0].read_bytes()
    with slow.client() as client:
        with slow.client() as other, pytest.raises(httpx.ReadTimeout):
            other.post("/predict", content=data, timeout=0.1, headers={"X-Request-ID": "gone"})
        (line,) = slow.lines("gone")
        assert line["status"] == 499
        assert "ppcls_hung_up_total 1.0" in client.get("/metrics").text
        slow.seconds.unlink()
        assert client.post("/predict", content=data).status_code == 200


# --------------------------------------------------------------------------- open connections


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_open_connections(service, client, photos, count):
    """Most of them silent, some in the middle of a head; the service answers beside them."""
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(f"the system lets this user open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        asked = []
        for number in range(count):
            one = stack.enter_context(socket.create_connection((service.host, service.port)))
            if number % 10 == 0:
                one.sendall(get[:20])
            if number % 10 == 1:
                one.sendall(get)
                asked.append(one)
        for _ in range(5):
            answer = client.post("/predict", content=photos[0].read_bytes())
            assert answer.status_code == 200
        for one in asked:
            assert b"200 OK" in one.recv(10_000)
    assert "Traceback" not in service.said
    assert "error" not in service.said.lower()


# --------------------------------------------------------------------------- models


SEVERAL_LABELS = {
    "model": {"name": "EfficientNetLite0", "num_classes": 2},
    "preprocess": {"resize": 36, "crop": small_network.SIDE},
    "task": {"kind": "multilabel"},
    "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 0.1}},
}


@pytest.fixture(scope="module")
def several(serve, exported, small, export_as, tmp_path_factory):
    """Two models, one of which gives several labels, and a record of all that they predict."""
    folder = tmp_path_factory.mktemp("several")
    recipe = from_plain(Recipe, SEVERAL_LABELS, "a test", [])
    multi = export_as(replace(small, recipe=recipe), folder, Form(("onnx",))).rename(
        folder / "multi"
    )
    found = serve(
        f"one={exported}", multi, "--engine", "onnxruntime",
        "--record", folder / "kept", "--share", "1", "--urls",
    )  # fmt: skip
    found.kept = folder / "kept"
    found.multi = multi
    return found


def test_models_by_their_names(several, photos):
    data = photos[0].read_bytes()
    with several.client() as client:
        require_problem(client.post("/predict", content=data), 422, "model", "one, multi")
        for name in ("one", "multi"):
            for way in (
                {"content": data, "params": {"model": name}},
                {"json": {"image": b64(photos[0]), "model": name}},
                {"files": {"image": data}, "data": {"model": name}},
            ):
                assert client.post("/predict", **way).json()["model"] == name
        models = client.get("/models").json()["models"]
        assert [model["name"] for model in models] == ["one", "multi"]
        assert [model["task"] for model in models] == ["classify", "multilabel"]
        assert all(model["ready"] for model in models)
        assert models[0]["classes"] == ["ant", "bee"]


def test_several_labels(several, photos):
    with ppcls.Predictor(several.multi, engine="onnxruntime") as predictor, several.client() as c:
        (want,) = predictor.predict(photos[0])
        scores = dict(zip(want.labels, want.scores, strict=True))

        def ask(**given):
            params = {"model": "multi", **given}
            answer = c.post("/predict", content=photos[0].read_bytes(), params=params)
            return answer.json()["predictions"][0]

        require_same(ask(), want)
        assert len(ask(threshold=0)["labels"]) == 2
        assert ask(threshold=1)["labels"] == []
        found = ask(threshold=0)
        for label, score in scores.items():
            assert found["scores"][found["labels"].index(label)] == pytest.approx(score, abs=1e-6)


def test_what_is_recorded(several, photos):
    data = photos[3].read_bytes()
    answer = None
    with several.client() as client:
        files = [("image", ("mine.png", data)), ("image", b"broken")]
        answer = client.post("/predict", files=files, params={"model": "one"}).json()

    def rows():
        text = (several.kept / "answers.jsonl").read_text()
        found = [json.loads(line) for line in text.splitlines()]
        return [row for row in found if row["request_id"] == answer["request_id"]]

    (row,) = several.wait(rows, "line of the record")
    assert (several.kept / row["image"]).read_bytes() == data
    assert row["image"].endswith(".png")
    assert row["name"] == "mine.png"
    assert row["model"] == "one"
    assert row["digest"] == answer["digest"]
    assert row["labels"] == answer["predictions"][0]["labels"]


def test_addresses_of_private_networks_are_refused(several):
    url = f"{several.address}/v2"
    with several.client() as client:
        for way in (
            {"json": {"url": url, "model": "one"}},
            {"files": {"urls": (None, url)}, "params": {"model": "one"}},
        ):
            found = client.post("/predict", **way)
            require_problem(found, 422, "image", "private network", url)


# --------------------------------------------------------------------------- keys, CORS, TLS

ADMIN, USER = "an-admin's-key-0123", "a-user's-key-456789"


@pytest.fixture(scope="module")
def keyed(serve, exported, tmp_path_factory):
    """Asks for keys, and lets one other origin's pages ask."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"# of a test\n{ADMIN} ann admin\n\n{USER}\n")
    options = ("--keys", keys, "--cors", "https://a.example")
    found = serve(exported, "--engine", "onnxruntime", *options)
    found.keys = keys
    return found


def test_keys(keyed, photos):
    data = photos[0].read_bytes()
    with keyed.client() as client:
        for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"X-API-Key": "other"}, {"Authorization": f"Basic {USER}"},
                        {"Authorization": "Bearer"}, {"X-API-Key": USER[:-1]},
                        {"X-API-Key": b"\xff\xfe"}):  # fmt: skip
            answer = client.post("/predict", content=data, headers=headers)
            require_problem(answer, 401, "key", "Bearer KEY")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/metrics", "/models", "/v2", "/v2/models/small", "/nothing"):
            assert client.get(path).status_code == 401
        for headers in ({"X-API-Key": USER}, {"Authorization": f"Bearer {ADMIN}"},
                        {"authorization": f"bearer {USER}"}):  # fmt: skip
            answer = client.post("/predict", content=data, headers=headers)
            assert answer.status_code == 200
        answer = client.get("/v2", headers={"X-API-Key": ADMIN})
        (line,) = keyed.lines(answer.headers["x-request-id"])
        assert line["key"] == "ann"
        assert ADMIN not in keyed.accesses.read_text()


def test_only_admins_load(keyed, client):
    path = "/v2/repository/models/small/load"
    require_problem(client.post(path), 403, "forbidden", "--keys")
    with keyed.client() as other:
        require_problem(other.post(path, headers={"X-API-Key": USER}), 403, "forbidden")
        admin = {"X-API-Key": ADMIN}
        found = other.post(path, headers=admin, json={"parameters": {"folder": "/nowhere"}})
        require_problem(found, 409, "reload", "/nowhere")
        for body in ("[]", '{"parameters": 3}', '{"parameters": {"folder": 3}}',
                     '{"parameters": {"config": "x"}}',
                     '{"parameters": {"folder": "a\\u0000"}}'):  # fmt: skip
            found = other.post(path, headers=admin, content=body)
            require_problem(found, 400, "request")
        assert other.post(path, headers=admin).json()["versions"] == ["3"]


def test_keys_are_read_again(keyed):
    new = "a-new-key-0123456789"
    before = keyed.keys.read_text()
    with keyed.client() as client:

        def status(key):
            return client.get("/v2", headers={"X-API-Key": key}).status_code

        assert status(new) == 401
        keyed.keys.write_text(before + f"{new} new\n")
        keyed.wait(lambda: status(new) == 200, "new key")
        keyed.keys.write_text("short\n")
        keyed.wait(lambda: status(new) and "fewer than 16" in keyed.said, "note")
        assert status(new) == 200  # those before stay
        keyed.keys.write_text(before)
        keyed.wait(lambda: status(new) == 401, "end of the key")
        assert status(USER) == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("# only\n", "holds no keys"),
        ("short", ":1: the key has fewer than 16"),
        (f"{USER} a b\n", ":1: should be KEY [NAME] [admin]"),
        (f"\nclé-{USER}\n", ":2: the key has other characters than ASCII"),
        (None, "cannot be read"),
    ],
)
def test_files_of_keys_that_are_none(run, exported, tmp_path, text, words):
    keys = tmp_path / "keys.txt"
    if text is not None:
        keys.write_text(text, encoding="utf-8")
    code, _, err = run("serve", exported, "--keys", keys)
    assert code == 2
    assert f"error: --keys {keys}" in err
    assert words in err


def test_keys_are_compared_whole(monkeypatch, tmp_path):
    """All of them, whichever fits, by a comparison whose time tells nothing."""
    from ppcls.serve import keys

    (tmp_path / "keys").write_text("".join(f"{i}{USER}\n" for i in range(5)))
    calls = []
    compare = keys.hmac.compare_digest

    def counted(a, b):
        calls.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", counted)
    found = keys.Keys(tmp_path / "keys").find({b"x-api-key": f"0{USER}".encode()})
    assert found.name == "line 1"
    assert calls == [(32, 32)] * 5


def test_cors(keyed, client):
    origin = {"Origin": "https://a.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    allowed = "access-control-allow-origin"
    with keyed.client() as other:
        found = other.options("/predict", headers=origin | asks)
        assert found.status_code == 200
        assert found.headers[allowed] == "https://a.example"
        assert "x-api-key" in found.headers["access-control-allow-headers"].lower()
        evil = {"Origin": "https://b.example"}
        assert allowed not in other.options("/predict", headers=evil | asks).headers
        # A page is to read what is wrong, too.
        refused = other.get("/v2", headers=origin)
        require_problem(refused, 401, "key")
        assert refused.headers[allowed] == "https://a.example"
        answer = other.get("/v2", headers=origin | {"X-API-Key": USER})
        assert answer.headers[allowed] == "https://a.example"
        assert allowed not in other.get("/v2", headers=evil | {"X-API-Key": USER}).headers
    assert client.options("/predict", headers=origin | asks).status_code == 405
    assert allowed not in client.get("/v2", headers=origin).headers


def certificate(folder):
    """Of localhost, self-made: (certificate, key)."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls_and_the_log_on_standard_output(serve, exported, photos, tmp_path):
    import ssl

    cert, key = certificate(tmp_path)
    options = ("--tls-cert", cert, "--tls-key", key, "--access-log", "-")
    found = serve(exported, "--engine", "onnxruntime", *options)
    assert found.address.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(cert))
    with found.client(verify=trusted) as client:
        headers = {"X-Request-ID": "over-tls"}
        answer = client.post("/predict", content=photos[0].read_bytes(), headers=headers)
        assert answer.status_code == 200
        lines = found.wait(
            lambda: [line for line in found.said.splitlines() if "over-tls" in line], "line"
        )
        assert json.loads(lines[0])["path"] == "/predict"
    with (
        found.client(verify=True) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY"),
    ):
        client.get("/v2")
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.HTTPError):
        client.get(found.address.replace("https", "http"))


def test_tls_files_that_are_none(run, exported, tmp_path):
    (tmp_path / "no.pem").write_text("no")
    for options, words in (
        (("--tls-cert", tmp_path / "no.pem"), "needed together"),
        (("--tls-cert", tmp_path / "no.pem", "--tls-key", tmp_path / "no.pem"), "cannot be used"),
        (("--tls-cert", tmp_path / "x", "--tls-key", tmp_path / "x"), "cannot be used"),
    ):
        code, _, err = run("serve", exported, *options)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


# --------------------------------------------------------------------------- logs and metrics


def test_access_log(service, client, photos):
    data = photos[0].read_bytes()
    headers = {"X-Request-ID": "log-1"}
    files = [("image", ("secret-name.png", data)), ("image", data)]
    answer = client.post("/predict?topk=1", files=files, headers=headers)
    (line,) = service.lines("log-1")
    assert line["method"] == "POST"
    assert line["path"] == "/predict"
    assert line["status"] == 200
    assert line["client"] == "127.0.0.1"
    assert line["key"] is None
    assert line["bytes"] == len(answer.content)
    assert line["ms"] > 0
    assert line["images"] == 2
    assert line["model"] == "small"
    assert 1 <= line["batch"] <= 2
    assert line["time"].endswith("Z")
    client.get("/%0a%1b[31m" + "x" * 1000, headers={"X-Request-ID": "log-2"})
    (line,) = service.lines("log-2")
    assert line["status"] == 404
    assert len(line["path"]) == 500
    text = service.accesses.read_text()
    assert "\x1b" not in text
    assert "secret-name" not in text
    assert b64(photos[0])[:40] not in text


def test_metrics(service, client, photos):
    data = photos[0].read_bytes()

    def read():
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def value(found, name, **labels):
        return found.get((name, tuple(sorted(labels.items()))), 0)

    before = read()
    client.post("/predict", files=[("image", data), ("image", data), ("image", b"no")])
    client.post("/predict", content=b"")
    client.get("/nothing")
    after = read()

    def grown(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    requests = "ppcls_requests_total"
    assert grown(requests, method="POST", route="/predict", status="200") == 1
    assert grown(requests, method="POST", route="/predict", status="422") == 1
    assert grown(requests, method="other", route="other", status="404") == 1
    assert grown("ppcls_request_seconds_count", route="/predict") == 2
    assert grown("ppcls_images_total", model="small", outcome="predicted") == 2
    assert grown("ppcls_images_total", model="small", outcome="broken") == 1
    for part in ("queue", "decode", "engine"):
        assert grown(f"ppcls_{part}_seconds_count", model="small") == 1
    assert value(after, "ppcls_model_ready", model="small") == 1
    assert value(after, "ppcls_queue_images", model="small") == 0
    assert value(after, "ppcls_worker_memory_bytes", model="small") > 1e6
    # A model that is not calibrated has nothing to tell of drift.
    assert not [sample for sample in after if sample[0].startswith("ppcls_drift") and sample[1]]
    assert client.get("/models").json()["models"][0]["drift"] is None
    assert value(after, "ppcls_engine_images_per_second", model="small") > 0
    (info,) = [labels for (name, labels) in after if name == "ppcls_model_info"]
    assert dict(info)["version"] == "1"


# --------------------------------------------------------------------------- an own fault


def test_an_error_of_ours_is_a_problem(exported, tmp_path, monkeypatch, capsys):
    """In this process: the log has a line, the traceback a file, the client a problem."""
    import asyncio

    from ppcls.serve.app import make_app
    from ppcls.serve.logs import finish_saying
    from ppcls.serve.service import Service
    from ppcls.serve.settings import ServeSettings

    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    service = Service(ServeSettings(((None, exported),), access_log=None))

    def broken(*_):
        raise KeyError("of a test")

    monkeypatch.setattr(service, "model", broken)

    async def ask():
        transport = httpx.ASGITransport(make_app(service), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post("/predict", content=b"x")

    found = require_problem(asyncio.run(ask()), 500, "engine", "its log says where")
    assert "of a test" not in json.dumps(found)
    assert finish_saying()  # another thread says it
    said = capsys.readouterr().out
    assert "error: POST /predict: 'of a test'" in said
    assert "Traceback" not in said
    (kept,) = (tmp_path / "home" / "errors").iterdir()
    assert "KeyError" in kept.read_text()

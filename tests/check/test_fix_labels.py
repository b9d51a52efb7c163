"""`ppcls fix-labels`: what its server writes, and whom it answers."""

import http.client
import json
import threading
from pathlib import Path

import pytest
from PIL import Image

from ppcls.check.fix_labels import Decisions, Server
from ppcls.data.datasets import open_samples
from ppcls.data.fixes import read_fixes
from ppcls.data.make_shards import make_shards
from ppcls.utils.errors import UserError

HEAD = "path,label,suggested,confidence,why,decision,new_label\n"
ROWS = "".join(f"photos/train/ant/{i}.png,ant,bee,0.{9 - i}00,wrong label,,\n" for i in range(3))


@pytest.fixture
def asked(workdir):
    """Ask a server of three images: `status, body = asked("GET", "/list")`; `asked.server`."""
    Path("fixes.csv").write_text("\ufeff" + HEAD + ROWS, encoding="utf-8")
    with Server(Decisions(Path("fixes.csv")), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(method, path, body=None, **headers):
            connection = http.client.HTTPConnection(*server.server_address, timeout=60)
            given = {"X-Token": server.token, "Content-Type": "application/json"}
            given |= {name.replace("_", "-"): value for name, value in headers.items()}
            given = {name: value for name, value in given.items() if value is not None}
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, given)
            answer = connection.getresponse()
            data = answer.read()
            json_answer = answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(data) if json_answer else data

        ask.server = server
        ask.thread = thread
        yield ask
        server.shutdown()
        thread.join()


def test_the_list_and_its_images(asked):
    status, found = asked("GET", "/list")
    assert status == 200
    assert found["classes"] == ["ant", "bee"]
    assert found["rows"][1] == {
        "path": "photos/train/ant/1.png",
        "label": "ant",
        "suggested": "bee",
        "confidence": "0.800",
        "why": "wrong label",
        "decision": "",
        "new_label": "",
    }
    status, data = asked("GET", "/image/2?side=24")
    Path("shown.jpg").write_bytes(data)
    assert (status, max(Image.open("shown.jpg").size)) == (200, 24)
    assert b"<title>Labels to check" in asked("GET", "/", X_Token=None)[1]


def test_decisions_are_written_at_once(asked):
    before = [path.read_bytes() for path in sorted(Path("photos").rglob("*.png"))]
    assert (
        asked("POST", "/decide", {"number": 0, "decision": "change", "new_label": " bee "})[0]
        == 200
    )
    assert asked("POST", "/decide", {"number": 1, "decision": "drop"})[0] == 200
    assert asked("POST", "/decide", {"number": 2, "decision": "keep", "new_label": "x"})[0] == 200
    text = Path("fixes.csv").read_text(encoding="utf-8")
    assert text.startswith("\ufeff" + HEAD)
    assert text.splitlines()[1:] == [
        "photos/train/ant/0.png,ant,bee,0.900,wrong label,change,bee",
        "photos/train/ant/1.png,ant,bee,0.800,wrong label,drop,",
        "photos/train/ant/2.png,ant,bee,0.700,wrong label,keep,",
    ]
    assert [fix.decision for fix in read_fixes("fixes.csv").by_path.values()] == ["change", "drop"]
    assert asked("POST", "/decide", {"number": 1, "decision": ""})[0] == 200  # undone
    assert len(read_fixes("fixes.csv").by_path) == 1
    assert before == [path.read_bytes() for path in sorted(Path("photos").rglob("*.png"))]
    assert not list(Path().glob(".ppcls*"))


def test_a_list_that_another_program_has_changed_is_not_written_over(asked):
    Path("fixes.csv").write_text(HEAD + ROWS.replace("wrong label,,", "wrong label,drop,"))
    status, found = asked("POST", "/decide", {"number": 0, "decision": "keep"})
    assert status == 409
    assert "changed by another program" in found["error"]
    assert len(read_fixes("fixes.csv").by_path) == 3


def test_only_its_own_page_is_answered(asked):
    port = asked.server.server_address[1]
    body = {"number": 0, "decision": "drop"}
    assert asked.server.server_address[0] == "127.0.0.1"
    assert asked("GET", "/list", X_Token=None)[0] == 403
    assert asked("GET", "/list", X_Token="x" * 22)[0] == 403
    assert asked("GET", f"/list?token={asked.server.token}", X_Token=None)[0] == 200
    assert asked("GET", "/list", Host=f"evil.example:{port}")[0] == 403
    assert asked("GET", "/list", Host=f"localhost:{port}")[0] == 200
    assert asked("POST", "/decide", body, Origin="http://evil.example")[0] == 403
    assert asked("POST", "/decide", body, Origin="null")[0] == 403
    # A page of elsewhere cannot send our header without asking first, which is refused.
    query = f"/decide?token={asked.server.token}"
    assert asked("POST", query, body, X_Token=None)[0] == 403
    assert asked("OPTIONS", "/decide")[0] == 501
    assert read_fixes("fixes.csv").by_path == {}
    assert asked("POST", "/decide", body, Origin=f"http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/decide", {"number": 3, "decision": "drop"}, 404),
        ("/decide", {"number": -1, "decision": "drop"}, 404),
        ("/decide", {"number": True, "decision": "drop"}, 404),
        ("/decide", {"number": 0, "decision": "burn"}, 400),
        ("/decide", {"number": 0, "decision": "change", "new_label": " "}, 400),
        ("/decide", {"number": 0, "decision": "change", "new_label": 3}, 400),
        ("/decide", [1], 400),
        ("/elsewhere", {}, 404),
        ("/decide", {"number": 0, "decision": "change", "new_label": "x" * 70_000}, 413),
    ],
)
def test_wrong_requests_change_nothing(asked, path, body, status):
    assert asked("POST", path, body)[0] == status
    for image in ("/image/9", "/image/x", "/image/../../etc/passwd", "/photos/train/ant/0.png"):
        assert asked("GET", image)[0] == 404
    assert Path("fixes.csv").read_text(encoding="utf-8-sig") == HEAD + ROWS


def test_an_image_that_is_gone_is_said(asked):
    Path("photos/train/ant/0.png").unlink()
    status, found = asked("GET", "/image/0")
    assert status == 409
    assert "no such file" in found["error"]


def test_the_page_ends_the_server(asked):
    assert asked("POST", "/end", {})[0] == 200
    asked.thread.join(60)
    assert not asked.thread.is_alive()


def test_semicolons_and_further_columns_stay(workdir):
    text = "image;decision;who\nphotos/train/ant/0.png;;Ann\n"
    Path("fixes.csv").write_text(text)
    decisions = Decisions(Path("fixes.csv"))
    decisions.decide(0, "change", "bee")
    written = Path("fixes.csv").read_text(encoding="utf-8-sig")
    assert written == "image;decision;who;new_label\nphotos/train/ant/0.png;change;Ann;bee\n"
    assert decisions.summary() == "fixes.csv: 1 decision (1 change), 0 open"


def test_images_in_shards_are_found_in_the_data(workdir):
    make_shards("photos/train", workdir / "shards", 20_000)
    samples = open_samples("shards/train-000000.tar")
    Path("fixes.csv").write_text(f"{HEAD}{samples.paths[1]},ant,bee,0.9,,,\n")
    decisions = Decisions(Path("fixes.csv"), [samples])
    assert decisions.images[0].read() == samples.paths[1].read()


def test_mistakes_are_a_line(workdir, run):
    assert run("fix-labels", "none.csv")[2] == "error: none.csv: No such file or directory\n"
    Path("fixes.csv").write_text(HEAD + "a.png,ant,bee,,,perhaps,\n")
    assert "fixes.csv:2: decision 'perhaps' is unknown" in run("fix-labels", "fixes.csv")[2]
    Path("fixes.csv").write_text(HEAD + ROWS)
    code, _, err = run("fix-labels", "fixes.csv", "--port", "70000")
    assert (code, err) == (2, "error: --port 70000: ports go up to 65535\n")
    decisions = Decisions(Path("fixes.csv"))
    with (
        Server(decisions, 0) as server,
        pytest.raises(UserError, match=r"--port \d+: .*; name another"),
    ):
        Server(decisions, server.server_address[1])

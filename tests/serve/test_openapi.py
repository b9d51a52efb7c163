"""What the OpenAPI says of the service is true: schemathesis asks all that it says can be asked."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")
USER, ADMIN = "a-user's-key-456789", "an-admin's-key-0123"

pytestmark = pytest.mark.skipif(not find_spec("schemathesis"), reason="needs schemathesis")


def require_nothing_found(served, folder, *options):
    """schemathesis finds nothing; how many cases it tried."""
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--no-color", "--config-file", CONFIG, "run", f"{served.address}/openapi.json"]
    command += ["--checks", "all", "--seed", "1", "--request-timeout", "120", *options]
    command = list(map(str, command))
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"([\d,]+) generated, ([\d,]+) passed", done.stdout)
    assert count, done.stdout
    assert "error:" not in served.said
    with served.client() as client:
        assert client.get("/v2/health/ready").status_code == 200
    return int(count[1].replace(",", ""))


def test_nothing_is_found(service, tmp_path):
    """The versions' paths, which do as those without do, are left to the long form."""
    options = ("--phases", "examples,coverage", "--exclude-path-regex", "/versions/")
    assert require_nothing_found(service, tmp_path, *options) > 300


@pytest.mark.slow
@pytest.mark.parametrize(("key", "examples"), [(None, 300), (USER, 100), (ADMIN, 3)])
def test_nothing_is_found_in_the_long_form(serve, exported, tmp_path, key, examples):
    """Without keys, as a user and as an admin, each of whose loads takes some seconds."""
    (tmp_path / "keys").write_text(f"{USER}\n{ADMIN} ann admin\n")
    options = ("--keys", tmp_path / "keys") if key else ()
    served = serve(exported, "--engine", "onnxruntime", *options)
    # As a bearer's, which the tool takes away and spoils. It leaves an X-API-Key where it is, whose
    # holder comes in whatever Authorization has: a proxy's own, mostly.
    own = ("-H", f"Authorization: Bearer {key}") if key else ()
    assert require_nothing_found(served, tmp_path, "--max-examples", examples, *own) > 500


def test_the_examples_are_answered(client):
    """What /docs offers to try works as it is."""
    paths = client.get("/openapi.json").json()["paths"]
    tried = 0
    for path, operations in paths.items():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {})
            example = body.get("application/json", {}).get("example")
            if example:
                url = path.format(model="small", version="1")
                answer = client.post(url, json=example)
                assert answer.status_code == 200, answer.text
                tried += 1
    assert tried == 3


def test_problems_are_all_described(client):
    """Each operation says which problems it may answer with; what keys are asked for, too."""
    schema = client.get("/openapi.json").json()
    assert "securitySchemes" not in schema["components"]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status != "200" and "problem" in answer["description"].lower():
                    assert "application/problem+json" in answer["content"], (path, status)

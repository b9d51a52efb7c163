"""A web server of one's own, and an empty cache."""

import numpy as np
import pytest
from web_server import running

SIZE = 300_000


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A running server with a file of random bytes; the cache is tmp_path/home."""
    for name in ("PPCLS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    server = running()
    server.body = np.random.default_rng(0).bytes(SIZE)
    yield server
    server.wake.set()
    server.shutdown()
    server.server_close()

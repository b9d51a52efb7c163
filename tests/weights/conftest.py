"""A web server of one's own, and an empty cache."""

from functools import partial

import numpy as np
import pytest
from web_server import running

from ppcls.weights import download

SIZE = 300_000


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A running server with a file of random bytes; the cache is tmp_path/home.

    Where nothing else is asked for, downloads are tried again at once.
    """
    own = partial(download.Patience, pauses=(0, 0, 0))
    monkeypatch.setattr(download, "Patience", own)
    for name in ("PPCLS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    server = running()
    server.body = np.random.default_rng(0).bytes(SIZE)
    yield server
    server.wake.set()
    server.shutdown()
    server.server_close()

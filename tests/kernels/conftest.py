"""The kernels run, as they do for everybody but the other tests."""

import pytest

from ppcls.kernels import start


@pytest.fixture(autouse=True)
def running(monkeypatch):
    monkeypatch.delenv(start.SWITCH, raising=False)
    start.can_run.cache_clear()
    yield
    start.can_run.cache_clear()

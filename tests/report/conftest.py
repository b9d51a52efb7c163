"""The small evaluation, and the report on it in the folder `report`."""

from pathlib import Path

import evaluated
import pytest

from ppcls.train.evaluate import score


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return evaluated.network()


@pytest.fixture
def scores(network):
    return score(network, Path("report"))

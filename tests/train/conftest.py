"""Runs as those of other folders' tests, in a fifth of the time: of a light network, and without
the picture of their curves. What teachers answer would hardly depend on the image: their tests are
in tests/teachers.
"""

import pytest
from small_run import furnish, said

from ppcls.train import curves

NETWORK = "MobileNetV3_small_x0_35"
PICTURED = ("test_curves", "test_odd_records")  # files that try the picture


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, NETWORK)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    furnish(folder, NETWORK)
    return folder, said(folder, "train", "-c", "recipe.yaml")


@pytest.fixture(autouse=True)
def blank(request, monkeypatch):
    """A file in the place of the picture."""
    if request.path.stem not in PICTURED:
        monkeypatch.setattr(curves, "draw", lambda records, picture, of: picture.touch())

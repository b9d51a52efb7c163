"""Engines timed by turns."""

import numpy as np
import pytest

from ppcls.inference import auto
from ppcls.inference.engines.base import Engine, Opened, Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported


@pytest.mark.parametrize("source", ["exported", "pixels_in"])
def test_the_example_is_what_the_network_takes(source, request):
    found = open_exported(request.getfixturevalue(source))
    images = auto.example(found, 2)
    assert open_engine(found, Settings("onednn")).run(images).shape == (2, 2)


def test_runs_of_a_turn_are_timed_and_those_before_are_not(tmp_path):
    clock = iter(range(100))  # a run takes a second
    seen = []
    engine = Engine(tmp_path, Settings("onednn"), Opened(seen.append, (None,) * 4, "float32"))
    auto.settle(engine, np.zeros((1, 3, 8, 8), np.float32), clock.__next__, seconds=2)
    assert len(seen) == 3
    assert auto.timed(engine, np.zeros((1, 3, 8, 8), np.float32), 2, clock.__next__) == [1, 1]
    assert len(seen) == 5

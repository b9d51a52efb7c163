"""The rule lives in ppcls, which verifies networks with it; tests take it from here."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from paddle import nn

from ppcls.weights.load import fill, image

__all__ = ["blank", "fill", "image"]


@contextmanager
def blank() -> Iterator[None]:
    """Networks that are built now have zeros for random weights, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.initializer.Normal, "forward", nn.initializer.Constant(0.0).forward)
        yield

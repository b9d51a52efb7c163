"""`export` for tests of what comes after it: paddle2onnx converts in this very process.

In one of its own, as ppcls has it, it imports Paddle first, which takes most of the time.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ppcls.export import export as export_as_ever
from ppcls.inference import formats, to_onnx


def export(*arguments, **options):
    """`ppcls.export.export`, of a network that can be converted."""
    with converting_here():
        return export_as_ever(*arguments, **options)


@contextmanager
def converting_here() -> Iterator[None]:
    """While entered, what becomes ONNX does so in this process, which an odd network would end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "subprocess", SimpleNamespace(run=convert))
        yield


def convert(command, **_):
    to_onnx.main(*command[-3:])  # what stands behind the program's name
    return subprocess.CompletedProcess(command, 0, b"", b"")

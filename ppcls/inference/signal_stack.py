"""The stack that signal handlers run on, kept from OpenVINO's replacement of it.

On CPUs with AMX, OpenVINO gives the thread that loads it a signal stack of its own, too small for
Python's handlers: a Ctrl-C would end in a segmentation fault.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """The C library's stack_t."""

    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def kept() -> Iterator[None]:
    """The thread's signal stack is afterwards what it was before."""
    if not sys.platform.startswith("linux"):
        yield
        return
    library, before = ctypes.CDLL(None), SignalStack()
    known = library.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            library.sigaltstack(ctypes.byref(before), None)

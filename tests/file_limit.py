"""Files that may not grow, as where the disk is full."""

import resource
from contextlib import contextmanager


@contextmanager
def limited_files(size: int):
    """No file of this process can have more than `size` bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

"""Whether the kernels can be had here, and their start."""

import atexit
import ctypes
import os
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ppcls.utils import environment
from ppcls.utils.log import say

SWITCH = "PPCLS_KERNELS"  # 0: Paddle's own instead


@cache
def can_run() -> bool:
    """Whether networks are to be computed by the kernels, and can be."""
    if os.environ.get(SWITCH) == "0" or not are_here():
        return False
    try:
        loops()
    except Exception as error:  # as numba's of a numpy that is too new for it
        say(f"numba cannot be used, without which training on a CPU is slower: {error}")
        return False
    return True


def are_here() -> bool:
    """Whether numba is installed, and Paddle has brought oneDNN."""
    from ppcls.kernels import onednn

    return find_spec("numba") is not None and onednn.library() is not None


def missing() -> str:
    """What to tell of kernels that could run here; "" where nothing is missing."""
    if os.environ.get(SWITCH) == "0" or find_spec("numba") is not None:
        return ""
    return (
        "numba is not installed, without which training on a CPU is slower, some networks several "
        "times: pip install 'ppcls[cpu]'"
    )


@cache
def loops() -> ModuleType:
    """The compiled loops of networks."""
    set_up_numba()
    from ppcls.kernels import loops

    return loops


@cache
def updates() -> ModuleType:
    """The compiled loops of optimizers."""
    set_up_numba()
    from ppcls.kernels import updates

    return updates


@cache
def set_up_numba() -> None:
    """Let loops run in the threads that Paddle's own computations have.

    Two pools of threads would each keep the cores busy while waiting for the other: a loop then
    takes milliseconds instead of microseconds. numba's OpenMP finds the functions of Intel's, which
    Paddle brings, where that is loaded for all to see.
    """
    import paddle

    library = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    openmp = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    import numba

    config: Any = numba.config
    config.THREADING_LAYER = "omp"
    if not config.CACHE_DIR:
        folder = cache_folder()
        config.CACHE_DIR = str(folder)
        if not any(folder.rglob("*.nbc")):
            say("kernels are compiled for this CPU, once: about 20 seconds")
    numba.set_num_threads(min(environment.threads(), config.NUMBA_NUM_THREADS))
    # That starts numba's threads, for which it sets OpenMP's number, Paddle's too, to all cores.
    openmp.omp_set_num_threads(environment.threads())


def cache_folder() -> Path:
    """Where what was compiled is kept; a temporary folder where ppcls's own cannot be written."""
    folder = environment.home() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # as much as a loop takes: a quota may be spent
        return folder
    except OSError:
        pass
    made = tempfile.mkdtemp(prefix="ppcls-kernels-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)

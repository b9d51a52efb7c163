"""What must stand in the environment before Paddle is first imported.

`import paddle` sets one thread unless OMP_NUM_THREADS is set, and then warns of it. On x86 its
matrix products are MKL's, which MKL_NUM_THREADS tells apart, without a warning and as fast. That
MKL takes a slow path on AMD processors unless MKL_DEBUG_CPU_TYPE=5 asks for the AVX2 one. What the
user has set stays.
"""

import ctypes
import logging
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ppcls.utils.text import visible, whole_number

X86 = platform.machine().lower() in ("x86_64", "amd64")
SAFE_PATH = "PYTHONSAFEPATH"  # of Python 3.11 and later
# The variables that set the number of threads, the one that counts first.
THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS") if X86 else ("OMP_NUM_THREADS",)
MOST_THREADS = 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's mallopt
threads_given = True  # whether the user has set their number; False once `prepare` had to
ROOT = Path("/")  # that /proc and /sys are in


def prepare(root: Path = ROOT) -> None:
    """Set thread count and MKL's code path where the user has not; call before `import paddle`."""
    global threads_given
    drop_odd_threads()
    if not any(name in os.environ for name in THREADS):
        threads_given = False
        os.environ[THREADS[0]] = str(core_count(root))
    cpuinfo = read("proc/cpuinfo", root)
    if "AuthenticAMD" in cpuinfo and " avx2 " in cpuinfo:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors alone from Paddle's core
    # Of no use to anyone who trains: a compiler cache is missing, batch norm tracks its statistics.
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track")
    # VisualDL makes every library's log go to the screen.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def drop_odd_threads() -> None:
    """Take numbers of threads that are none out of the environment, and say so."""
    for name in THREADS:
        text = os.environ.get(name)
        if text is None or thread_number(text):
            continue
        del os.environ[name]
        if text.strip() and sys.stderr:
            note = f"note: {name}={visible(text, 40)} is no number from 1 to {MOST_THREADS:,}"
            with suppress(OSError, ValueError):  # a closed stderr is no reason to stop
                print(f"{note}: as if it were not set", file=sys.stderr)


def thread_number(text: str) -> int | None:
    """What a variable of THREADS sets; of OpenMP's `4,2` the first level."""
    number = whole_number(text.partition(",")[0].strip())
    return number if number and number <= MOST_THREADS else None


def home() -> Path:
    """ppcls's folder for what it downloads and makes: $PPCLS_HOME or ~/.cache/ppcls."""
    return Path(os.path.expanduser(os.environ.get("PPCLS_HOME") or "~/.cache/ppcls"))


def program(module: str) -> list[str]:
    """The command that runs a module of this very package, as `python -m` would.

    That looks into the working folder first, where any file may have the name of a module: a
    `random.py`, or a checkout of PaddleClas with its `ppcls`. This looks there only where
    PYTHONPATH says so.
    """
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path[:] = [{root!r}, *filter(None, sys.path)]; import runpy; "
    code += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", code]


def forget_working_folder() -> None:
    """After `python -m ppcls`, import nothing more from there unless this package lies there.

    An entry of PYTHONPATH for the same folder stays.
    """
    if getattr(sys.flags, "safe_path", False) or not sys.path:
        return
    try:
        here = os.getcwd()
    except OSError:  # the folder is gone
        return
    root = str(Path(__file__).resolve().parents[2])
    if sys.path[0] in ("", here) and os.path.realpath(here) != root:
        del sys.path[0]


@contextmanager
def without_working_folder() -> Iterator[None]:
    """While entered, Python processes that are started import nothing from the working folder.

    They would before anything of ours runs in them. Python 3.10 cannot be told.
    """
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


def tune_malloc(block: int, kept: int, arenas: int = 0) -> None:
    """Have glibc take memory from the system and give it back as a program needs it.

    Less of either size costs time, for pages that are given back come again as page faults; more
    costs memory. Other C libraries go on as they are, and what the user has set stays.

    Args:
        block: bytes from which on a block is taken and given back by itself, at most 32 MB.
        kept: bytes that are kept free for what comes next.
        arenas: heaps for threads; 0: as many as glibc takes.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, block)
        mallopt(M_TRIM_THRESHOLD, kept)
        if arenas:
            mallopt(M_ARENA_MAX, arenas)


def own_version() -> str:
    """The version of ppcls, for modules that do not import its door: prediction needs little."""
    return sys.modules["ppcls"].__version__


def threads() -> int:
    """The number of CPU threads in force."""
    set_to = (thread_number(os.environ.get(name, "")) for name in THREADS)
    return next(filter(None, set_to), 1)


def core_count(root: Path = ROOT) -> int:
    """Physical cores this process may use: its CPU set without hyperthreads, within its quota."""
    allowed: Iterable[int] = range(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        allowed = os.sched_getaffinity(0)
    siblings = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = len({read(siblings.format(cpu), root) or cpu for cpu in allowed})
    quota, _, period = read("sys/fs/cgroup/cpu.max", root).partition(" ")
    allowance = whole_number(quota)
    per = whole_number(period.strip())
    if allowance is not None and per:
        cores = min(cores, max(1, allowance // per))
    return cores


def most_at_once() -> int:
    """Threads or processes beyond which a number is a slip of the finger on this machine."""
    return max(64, 16 * core_count())


def free_memory(root: Path = ROOT) -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    meminfo = read("proc/meminfo", root)
    found = re.search(r"^MemAvailable: *([0-9]+) kB", meminfo, re.MULTILINE)
    return 1024 * int(found[1]) if found else math.inf


def read(path: str, root: Path = ROOT) -> str:
    """The text of a file below `root`, or "" where this system has no such file."""
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

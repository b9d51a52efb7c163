"""The machine: what it is, what is installed, its peak, and the memory held."""

import ctypes
import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

from ppcls import __version__, environment
from ppcls.errors import UserError
from ppcls.inference.choose import PACKAGES, installed_version, processor

try:
    import psutil
except ImportError:
    raise UserError("the benchmark needs psutil; pip install 'ppcls[deploy]'") from None

LOOK = 0.5
LIBRARIES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def describe(device: str) -> dict[str, str | int]:
    about: dict[str, str | int] = {
        "processor": processor(),
        "cores": environment.core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return about | ({"gpu": gpu_name()} if device == "gpu" else {})


def gpu_name() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--device gpu: nvidia-smi does not tell which one ({error})") from None


def versions() -> dict[str, str]:
    """Of what the figures depend on, as far as it is installed."""
    found = {name: installed_version(name) for name in ("numpy", "paddle2onnx", *PACKAGES)}
    own = {"ppcls": __version__, "python": platform.python_version()}
    return own | {name: version for name, version in found.items() if version}


def peak(threads: int) -> float:
    """GFLOP/s of numpy's float32 matrix product with so many threads, measured now."""
    program = [sys.executable, str(Path(__file__).with_name("peak.py"))]
    variables = {**dict.fromkeys(LIBRARIES, str(threads)), environment.SAFE_PATH: "1"}
    done = subprocess.run(
        program, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def busy() -> float:
    """Percent of all cores that others use, while this process waits for `LOOK` seconds."""
    return psutil.cpu_percent(interval=LOOK)


def resident() -> int:
    """Bytes of memory this process holds, after what it freed went back to the system."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim:
            trim(0)
    return psutil.Process().memory_info().rss

import os
import subprocess
import sys

import pytest

from ppcls.kernels import start

pytestmark = pytest.mark.skipif(not start.are_here(), reason="needs numba and oneDNN")

COUNT = """
import ctypes
from pathlib import Path
import ppcls, paddle
from ppcls.kernels import start
start.loops(), start.updates()
import numba
openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so"))
print(openmp.omp_get_max_threads(), numba.get_num_threads())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_one_thread_stays_one_where_that_is_asked_for():
    """numba sets OpenMP's number, which Paddle's own computations take, to all cores."""
    variables = {k: v for k, v in os.environ.items() if k != "MKL_NUM_THREADS"}
    variables["OMP_NUM_THREADS"] = "1"
    found = subprocess.run(
        [sys.executable, "-c", COUNT], env=variables, capture_output=True, text=True, check=True
    )
    assert found.stdout.split()[-2:] == ["1", "1"]

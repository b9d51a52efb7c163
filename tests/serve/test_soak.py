"""The short form of `benchmarks/serve_soak.py`: its whole is run by hand before a release."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_nothing_is_lost_wrong_or_stuck(tmp_path):
    """While workers are killed and versions reloaded; its memory needs a longer run."""
    command = [sys.executable, ROOT / "benchmarks/serve_soak.py", "--requests", "600"]
    command += ["--kills", "3", "--reloads", "3", "--memory", "-1"]
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PPCLS_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 requests in" in done.stdout

"""benchmarks/pointing_game.py: maps point at what they name, and change with what was learnt."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "pointing_game.py"


@pytest.mark.slow
def test_nine_in_ten_maps_point_at_their_digit_and_random_weights_change_them():
    command = [sys.executable, SCRIPT, "--steps", "300", "--images", "150"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        name: float(value)
        for name, value in re.findall(r"rank correlation,? (.*): (\S+)", done.stdout)
    }
    assert len(found) == 6
    assert max(map(abs, found.values())) < 0.7

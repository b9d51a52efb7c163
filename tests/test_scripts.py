"""Every script says what it does when asked, and does nothing then."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for place in ("tools", "deploy", "benchmarks")
    for path in (ROOT / place).glob("*.py")
)


def execute(folder, *words):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_help_is_all_that_help_does(tmp_path, script):
    done = execute(tmp_path, ROOT / script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--epochs", "3"], ["train"]])
def test_the_quick_start_takes_no_arguments(tmp_path, words):
    done = execute(tmp_path, ROOT / "tools/quick_start.py", *words)
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
    assert "train.py" not in done.stdout

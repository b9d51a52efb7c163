"""Every script says what it does when asked, and does nothing then."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    sorted(path.relative_to(ROOT) for path in (ROOT / place).glob("*.py"))
    for place in ("benchmarks", "tools", "deploy")
]
BENCHMARKS, DOORS = SCRIPTS[0], SCRIPTS[1] + SCRIPTS[2]
# Forks for each script it is asked for: what most benchmarks import takes seconds.
IMPORTED = """
import gc, json, os, runpy, sys
import ppcls, paddle, scipy.stats, sklearn.datasets
import ppcls.export, ppcls.train.setup
gc.freeze()
for line in sys.stdin:
    words, folder, said = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(os.open(f"{said}.{number}", os.O_CREAT | os.O_WRONLY), number)
        sys.argv = words
        sys.path[0] = os.path.dirname(words[0])
        code = 0
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def execute(folder, *words):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """As `execute`, in a process that has imported what takes long."""
    said = tmp_path_factory.mktemp("said") / "of"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", IMPORTED], **pipes) as process:

        def execute(folder, *words):
            print(json.dumps([[*map(str, words)], str(folder), str(said)]), file=process.stdin)
            process.stdin.flush()
            code = int(process.stdout.readline())
            files = [said.with_suffix(f".{number}") for number in (1, 2)]
            done = subprocess.CompletedProcess(words, code, *(f.read_text() for f in files))
            for file in files:
                file.unlink()
            return done

        yield execute
        process.stdin.close()


def judge(done, folder):
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("script", DOORS, ids=str)
def test_help_is_all_that_help_does(tmp_path, script):
    judge(execute(tmp_path, ROOT / script, "--help"), tmp_path)


@pytest.mark.parametrize("script", BENCHMARKS, ids=str)
def test_help_is_all_that_help_of_a_benchmark_does(tmp_path, imported, script):
    judge(imported(tmp_path, ROOT / script, "--help"), tmp_path)


@pytest.mark.parametrize("words", [["--epochs", "3"], ["train"]])
def test_the_quick_start_takes_no_arguments(tmp_path, words):
    done = execute(tmp_path, ROOT / "tools/quick_start.py", *words)
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
    assert "train.py" not in done.stdout

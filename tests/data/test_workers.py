"""Worker processes: large arrays in shared memory, which is used again and never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppcls.data import workers
from ppcls.data.workers import WorkerGone, Workers

FULL = "__import__('numpy').full({}, {}, 'uint8')"
LINUX = pytest.mark.skipif(not workers.can_share(), reason="without memory to share")


@pytest.fixture
def two():
    pool = Workers(2, eval)
    yield pool
    pool.close()


def named():
    """Memory that would outlive its processes."""
    folder = Path("/dev/shm")
    found = folder.iterdir() if folder.is_dir() else ()
    return {path.name for path in found if path.name.startswith(("psm_", "ppcls"))}


def results(pool, shapes):
    """Of arrays full of their own number, a few asked for ahead."""
    pending = []
    for number, shape in enumerate(shapes):
        pending.append((number, pool.submit(FULL.format(shape, number % 250))))
        if len(pending) > 4:
            first, call = pending.pop(0)
            yield first, pool.result(call)
    for number, call in pending:
        yield number, pool.result(call)


@LINUX
def test_memory_is_used_again_once_nobody_has_its_array(two):
    before = named()
    for number, array in results(two, [(300, 400)] * 60):
        assert array.shape == (300, 400)
        assert (array == number % 250).all()
    assert two.blocks <= 10
    assert not named() - before


@LINUX
def test_what_is_held_stays_as_it_is(two):
    """Also after larger ones have come, and the workers have ended."""
    shapes = [(100, 300 + 40 * (number // 5)) for number in range(30)]
    held = dict(results(two, shapes))
    parts = {number: array[:1].reshape(-1)[7:9] for number, array in held.items()}
    assert two.blocks >= 20
    two.close()
    for number, array in held.items():
        assert array.shape == shapes[number]
        assert (array == number).all()
    del held, array
    assert all((part == number).all() for number, part in parts.items())
    parts[3][0] = 9  # as any array it can be written to


@LINUX
def test_without_such_memory_copies_are_sent(two, monkeypatch, capsys):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number, array in results(two, [(300, 400)] * 20):
        assert (array == number).all()
    assert two.blocks == 0
    assert capsys.readouterr().out.count("they send copies") == 1


def test_errors_are_the_callers_with_where_they_were_raised(two):
    with pytest.raises(ZeroDivisionError) as error:
        two.result(two.submit("1 / 0"))
    assert "Traceback" in str(error.value.__cause__)
    with pytest.raises(TypeError, match="what a data worker found cannot be sent: cannot pickle"):
        two.result(two.submit("__import__('threading').Lock()"))
    assert two.result(two.submit("3")) == 3


def test_what_nobody_asks_for_is_dropped(two):
    calls = [two.submit(FULL.format((300, 400), number)) for number in range(8)]
    assert (two.result(calls[7]) == 7).all()  # for which those before it had to be read
    for call in calls[:7]:
        two.forget(call)
    for number, array in results(two, [(300, 400)] * 8):
        assert (array == number).all()
    assert not two.results
    assert not two.forgotten


def test_a_worker_that_ends_is_noticed(two):
    call = two.submit(f"__import__('os').kill(__import__('os').getpid(), {int(signal.SIGTERM)})")
    assert two.result(call) is None  # signals are the main process's
    call = two.submit("__import__('os')._exit(0)")
    with pytest.raises(WorkerGone):
        two.result(call)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["kill", "exit", "error"])
def test_workers_end_with_their_process(tmp_path, ending):
    """Whatever ends it; and nothing is left behind where shared memory has names."""
    rest = {"kill": "time.sleep(60)", "exit": "", "error": "1 / 0"}[ending]
    script = (
        "import time\nfrom ppcls.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    pool = Workers(2, eval)\n"
        "    calls = [pool.submit('bytes(100000)') for _ in range(9)]\n"
        "    found = [pool.result(call) for call in calls]\n"
        "    calls = [pool.submit('__import__(\"time\").sleep(60)') for _ in range(2)]\n"
        "    print(*(process.pid for process in pool.processes), flush=True)\n"
        f"    {rest}\n"
    )
    (tmp_path / "own.py").write_text(script)
    before = named()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "own.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if ending == "kill":
        process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not named() - before

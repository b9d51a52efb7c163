"""What importing ppcls does, and does not, to a process. Each case is a process of its own."""

import os
import subprocess
import sys

import pytest

from ppcls.utils import environment


def python(code, **variables):
    ours = (*environment.THREADS, "MKL_DEBUG_CPU_TYPE")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import ppcls",
        "import ppcls.recipe",
        "import ppcls.data.loader",
        "import ppcls.inference.predictor",
        "import ppcls.cli; ppcls.cli.main(['models', '*vd*'])",
    ],
)
def test_paddle_is_imported_late(code):
    assert python(f"{code}; import sys; print('paddle' in sys.modules)").endswith("False")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, str(environment.core_count())),
        ({"OMP_NUM_THREADS": "7"}, "7"),
        ({"MKL_NUM_THREADS": "5"}, "5"),
    ],
)
def test_threads_are_set_unless_the_user_did(variables, expected):
    code = "import ppcls.utils.environment as e, os; print(e.threads(), *map(os.getenv, e.THREADS))"
    threads, *values = python(code, **variables).split()
    assert threads == expected
    assert [value for value in values if value != "None"] == [expected], "one is set, once"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, str(max(1, environment.core_count() // 2))), ({"OMP_NUM_THREADS": "7"}, "7")],
)
def test_processes_share_the_cores_unless_the_user_set_threads(variables, expected):
    shown = "import ppcls.utils.environment as e; print(e.threads())"
    code = "import sys; from ppcls.train.launch import launch; "
    code += f"launch([sys.executable, '-c', {shown!r}], 2)"
    assert python(code, **variables) == expected


def test_paddle_is_imported_without_a_word():
    code = "import ppcls, paddle; print(paddle.to_tensor(1.0).item())"
    assert python(code) == "1.0"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("vendor_id: AuthenticAMD\nflags: sse avx2 fma\n", "5"),
        ("vendor_id: AuthenticAMD\nflags: sse avx fma\n", None),
        ("vendor_id: GenuineIntel\nflags: sse avx2 fma\n", None),
    ],
)
def test_mkl_is_told_on_amd_with_avx2_alone(monkeypatch, tmp_path, cpuinfo, expected):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    environment.prepare(tmp_path)
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    environment.prepare(tmp_path)
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "4"


def test_a_quota_and_hyperthreads_lower_the_core_count(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for i in range(8):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{i}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{i % 4},{i % 4 + 4}\n")
    assert environment.core_count(tmp_path) == 4
    quota = tmp_path / "sys/fs/cgroup/cpu.max"
    quota.parent.mkdir(parents=True)
    quota.write_text("150000 100000\n")
    assert environment.core_count(tmp_path) == 1
    quota.write_text("max 100000\n")
    assert environment.core_count(tmp_path) == 4


def test_memory_that_is_free(tmp_path):
    assert environment.free_memory(tmp_path) == float("inf")
    text = "MemTotal:       24000000 kB\nMemFree: 100 kB\nMemAvailable:   12000000 kB\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(text)
    assert environment.free_memory(tmp_path) == 12000000 * 1024

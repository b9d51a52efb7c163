"""The file that says whether a run gets on, and the end of one that does not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppcls.cli import main

STALLING = """
import sys, time
from ppcls.train.heartbeat import Heartbeat
from pathlib import Path
with Heartbeat(Path(sys.argv[1]), 9, lambda: "nothing is lost") as heart:
    for step in range(1, 4):
        time.sleep(0.2)
        heart.beat(step)
    time.sleep(600)
"""


def test_a_run_leaves_its_last_step(finished):
    said = json.loads((finished[0] / "runs/small/heartbeat").read_text())
    assert (said["step"], said["total_steps"], said["doing"]) == (6, 6, "ended")
    assert 0 < time.time() - said["time"] < 3600
    assert not list((finished[0] / "runs/small").glob(".ppcls-*"))


def test_a_run_that_does_not_get_on_ends_with_its_reason(tmp_path):
    env = os.environ | {"PPCLS_STALL_SECONDS": "0.5"}
    command = [sys.executable, "-c", STALLING, str(tmp_path)]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    assert done.returncode == 75
    assert "(PPCLS_STALL_SECONDS=0.5), while training after step 3 of 9: nothing is" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(Path(tmp_path, "heartbeat").read_text())["pid"]


def test_words_that_cannot_be_had_do_not_keep_it(tmp_path):
    """They are of the run's folder, and that may be what does not answer."""
    away = "from ppcls.train import heartbeat\nheartbeat.LAST_WORDS = 0.2\n"
    script = away + STALLING.replace('lambda: "nothing is lost"', "lambda: time.sleep(600)")
    env = os.environ | {"PPCLS_STALL_SECONDS": "0.5"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, check=False, env=env, timeout=120).returncode == 75


def test_time_in_which_it_was_stopped_does_not_count(tmp_path):
    script = STALLING.replace("time.sleep(600)", "print('there', flush=True); time.sleep(1)")
    env = os.environ | {"PPCLS_STALL_SECONDS": "3"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0


def test_a_time_that_is_none_is_a_mistake(workdir, monkeypatch, capsys):
    monkeypatch.setenv("PPCLS_STALL_SECONDS", "soon")
    assert main(["train", "-c", "recipe.yaml"]) == 2
    assert "PPCLS_STALL_SECONDS='soon': should be a number of seconds" in capsys.readouterr().err


@pytest.mark.slow
def test_training_that_stalls_can_go_on(workdir):
    """Stopped in its second epoch by a callback that never returns."""
    (workdir / "stalling.py").write_text(
        "import time\nfrom ppcls import Callback\n\n\nclass Stalls(Callback):\n"
        "    def record(self, event, step, values):\n"
        "        if step == 5 and event == 'train':\n            time.sleep(600)\n"
    )
    train = "import ppcls, stalling; ppcls.train('recipe.yaml', callbacks=[stalling.Stalls()])"
    env = os.environ | {"PPCLS_STALL_SECONDS": "20"}
    command = [sys.executable, "-c", train]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    assert "while training after step" in done.stderr
    assert "latest.safetensors stays: the same command with --resume goes on" in done.stderr
    assert main(["train", "-c", "recipe.yaml", "--resume"]) == 0

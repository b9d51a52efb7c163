"""What stands in the place of an export or a report is replaced when it is of the same network."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppcls.inference import manifest

EXPORT = ("export", "-c", "recipe.yaml", "--output", "exported/small")
EVAL = ("eval", "-c", "recipe.yaml", "--report", "report")
# Ends itself at the renaming, removing or linking with the given number, once it exports.
KILLED = """
import os, signal, sys
from ppcls.cli import main

left = int(sys.argv[1])

def watch(event, given):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"):
        if "exported" in str(given[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
sys.exit(main(sys.argv[2:]))
"""


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def refused(run, command, *words):
    code, _, err = run(*command)
    assert code == 2
    assert len(err.splitlines()) == 1
    for word in (*words, "--overwrite"):
        assert word in err


@pytest.mark.slow
def test_an_export_of_other_weights_is_refused(exported, workdir, run):
    Path("exported/small/notes.txt").write_text("mine")
    before = contents("exported/small")
    shutil.copy("runs/small/latest.safetensors", "other.safetensors")
    other = (*EXPORT, "--weights", "other.safetensors")
    words = ("already holds an export of EfficientNetLite0", "runs/small/best.safetensors")
    refused(run, other, *words)
    assert contents("exported/small") == before
    code, out, _ = run(*EXPORT)  # once more, of the same
    assert code == 0
    assert "replaced the export of EfficientNetLite0" in out
    code, out, _ = run(*other, "--overwrite")
    assert code == 0
    assert manifest.read(Path("exported/small")).about["source"] == "other.safetensors"
    assert Path("exported/small/notes.txt").read_text() == "mine"
    assert [path.name for path in Path("exported").iterdir()] == ["small"]


def test_an_export_of_another_project_is_refused(exported, workdir, run):
    file = Path("exported/small/inference.yml")
    file.write_text(file.read_text().partition("ppcls:")[0])
    before = contents("exported/small")
    refused(run, EXPORT, "already holds an export of")
    file.write_text("{")
    refused(run, EXPORT, "already holds an export of another network")
    file.write_bytes(before["inference.yml"])
    assert contents("exported/small") == before


@pytest.mark.slow
def test_int8_does_not_replace_a_float_network(exported, workdir, run):
    shutil.copytree("exported/small", "exported/kept")
    before = contents("exported/kept")
    command = ("quantize", "--model-dir", "exported/small", "--calibrate", "photos/train")
    refused(run, (*command, "--output", "exported/kept"), "in fp32", "best.safetensors")
    assert contents("exported/kept") == before
    given = ("--budget", "1", "--images", "4", "--output", "exported/kept", "--overwrite")
    assert run(*command, *given)[0] == 0
    assert manifest.read(Path("exported/kept")).precision == "int8"
    assert run(*command, *given[:-1])[0] == 0  # once more, of the same
    refused(run, (*EXPORT[:-1], "exported/kept"), "in int8")


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_the_old_or_the_new(exported, workdir):
    old = contents("exported/small")
    ends = []
    for number in range(1, 20):
        command = [sys.executable, "-c", KILLED, str(number), *EXPORT, "--logits"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = contents("exported/small")
        if found != old:
            assert manifest.read(Path("exported/small")).output == "logits"
            assert found.keys() == old.keys()
        ends.append(done.returncode)
        if not done.returncode:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(ends) > 2
    assert ends[-1] == 0
    assert [path.name for path in Path("exported").iterdir()] == ["small"]


def test_a_report_on_something_else_is_refused(trained, workdir, run):
    assert run(*EVAL)[0] == 0
    before = contents("report")
    shutil.copy("runs/small/latest.safetensors", "other.safetensors")
    other = (*EVAL, "--weights", "other.safetensors")
    refused(run, other, "already holds a report on", "runs/small/best.safetensors")
    refused(run, (*EVAL, "-o", "data.eval=photos/train"), "photos/eval")
    assert contents("report") == before
    assert run(*EVAL)[0] == 0  # once more, on the same
    assert run(*other, "--overwrite")[0] == 0
    assert b"other.safetensors" in contents("report")["report.json"]
    Path("mine").mkdir()
    Path("mine/scores.csv").write_text("of my own")
    refused(run, (*EVAL[:-1], "mine"), "mine/scores.csv")
    assert contents("mine") == {"scores.csv": b"of my own"}


def test_a_report_in_a_runs_folder_touches_nothing_there(trained, workdir, run):
    before = contents("runs/small")
    places = {path: path.stat().st_ino for path in Path("runs").rglob("*")}
    code, _, err = run(*EVAL[:-1], "runs/small")
    assert code == 0, err
    assert before.items() <= contents("runs/small").items()
    assert places == {path: path.stat().st_ino for path in places}

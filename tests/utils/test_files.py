"""A folder swapped for another: a kill at any moment leaves the old or the new one whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppcls.utils.files import staged_folder

# Ends itself at the event of the file system with the given number; says "done" without one.
KILLED = """
import os, signal, sys
from pathlib import Path
from ppcls.utils.files import staged_folder

EVENTS = ("os.", "shutil.", "ctypes.dlsym", "open")
left = int(sys.argv[1])

def watch(event, given):
    global left
    if event.startswith(EVENTS):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
with staged_folder(Path("target"), "last", ("last", "part*")) as folder:
    (folder / "part 1").write_text("new")
    (folder / "part 2").write_text("new")
    (folder / "last").write_text("new")
print("done")
"""


def fill(folder, text):
    folder.mkdir()
    for name in ("part 1", "part 3", "last"):
        (folder / name).write_text(text)
    (folder / "notes.txt").write_text("mine")


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_kill_at_any_moment_leaves_one_whole(tmp_path):
    old = {"part 1": "old", "part 3": "old", "last": "old", "notes.txt": "mine"}
    new = {"part 1": "new", "part 2": "new", "last": "new", "notes.txt": "mine"}
    found = []
    for number in range(1, 100):
        place = tmp_path / str(number)
        place.mkdir()
        fill(place / "target", "old")
        command = [sys.executable, "-c", KILLED, str(number)]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert texts(place / "target") in (old, new)
        found.append(texts(place / "target"))
        if done.stdout:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        with staged_folder(place / "target", "last", ("last", "part*")) as folder:
            (folder / "last").write_text("newer")
        assert [path.name for path in place.iterdir()] == ["target"]  # nothing of the killed one
        assert texts(place / "target") == {"last": "newer", "notes.txt": "mine"}
    assert old in found
    assert found[-1] == new
    assert len(found) > 5


@pytest.mark.parametrize("how", ["plain", "link", "here"])
def test_the_place_stays_what_it_was(tmp_path, monkeypatch, how):
    """A link stays one, and whoever works in the folder goes on seeing it."""
    fill(tmp_path / "target", "old")
    place = tmp_path / "target"
    if how == "link":
        place = tmp_path / "link"
        place.symlink_to("target")
    if how == "here":
        monkeypatch.chdir(place)
    place.chmod(0o750)
    with staged_folder(place, "last", ("last", "part*")) as folder:
        (folder / "last").write_text("new")
    assert texts(tmp_path / "target") == {"last": "new", "notes.txt": "mine"}
    assert place.is_symlink() == (how == "link")
    assert place.stat().st_mode & 0o777 == 0o750
    if how == "here":
        assert Path("last").read_text() == "new"


def test_another_process_that_fills_one_is_left_alone(tmp_path):
    with staged_folder(tmp_path / "a", "last") as first:
        with staged_folder(tmp_path / "b", "last") as second:
            (second / "last").write_text("b")
        (first / "last").write_text("a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]

"""What nobody put into words: one line at the door, and the traceback in a file that it names."""

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ppcls
from ppcls.utils.errors import UserError

ROOT = Path(__file__).parents[2]
COMMAND = ("models", "x")
DETAILS = re.compile(r" \(details: (.*)\)\n")


def failing(error):
    def match(*given, **named):
        raise error

    return match


@pytest.fixture
def home(workdir, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    monkeypatch.delenv("PPCLS_TRACEBACK", raising=False)
    return workdir / "home"


CASES = [
    (OSError(28, "No space left on device", "x\x1b.bin"), 2, r"x\x1b.bin: No space left on device"),
    (OSError("odd\nlines"), 2, "a file: odd lines"),
    (MemoryError(), 2, "out of memory (MemoryError); a smaller batch"),
    (RecursionError("maximum"), 2, "too many levels in each other"),
    (OverflowError("int too large"), 2, "a number is too large (int too large)"),
    (UnicodeEncodeError("idna", "a..b", 0, 1, "label empty"), 2, "label empty"),
    (ValueError("embedded null byte"), 2, "has a NUL in it"),
    (ImportError("no\x07 such"), 2, r"missing or broken (no\x07 such)"),
    (RuntimeError("C++\n  stack\nResourceExhaustedError: Out of memory on GPU 0"), 2, "out of mem"),
    (KeyError("surprise\x1b[31m"), 70, "KeyError: 'surprise\\x1b[31m'; a fault of ppcls: please"),
    (AssertionError(), 70, "AssertionError: AssertionError; a fault of ppcls"),
    (ValueError("x" * 5000 + "\n" + "y" * 5000), 70, "ValueError: yyyy"),
]


@pytest.mark.parametrize(("error", "code", "words"), CASES)
def test_one_line_and_a_file(home, run, monkeypatch, error, code, words):
    monkeypatch.setattr(fnmatch, "fnmatchcase", failing(error))
    found, out, err = run(*COMMAND)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert len(err) < 2000
    (file,) = (home / "errors").iterdir()
    assert DETAILS.search(err)[1] == str(file)
    text = file.read_text()
    assert "Traceback" in text
    assert type(error).__name__ in text
    assert "ppcls 0." in text
    assert file.stat().st_mode & 0o077 == 0


def test_few_files_are_kept(home, run, monkeypatch):
    monkeypatch.setattr(fnmatch, "fnmatchcase", failing(KeyError("x" * 3_000_000)))
    for _ in range(25):
        _, _, err = run(*COMMAND)
    kept = sorted((home / "errors").iterdir())
    assert len(kept) == 20
    assert DETAILS.search(err)[1] in map(str, kept)
    assert max(file.stat().st_size for file in kept) < 1 << 21


def test_it_is_shown_where_that_is_asked_for(home, run, monkeypatch):
    monkeypatch.setattr(fnmatch, "fnmatchcase", failing(KeyError("surprise")))
    monkeypatch.setenv("PPCLS_TRACEBACK", "1")
    code, _, err = run(*COMMAND)
    assert code == 70
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("error: KeyError: 'surprise'")
    assert not home.exists()


def test_where_no_file_can_be_written(home, run, monkeypatch, tmp_path):
    monkeypatch.setattr(fnmatch, "fnmatchcase", failing(KeyError("surprise")))
    home.write_text("a file where a folder should be")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    _, _, err = run(*COMMAND)
    (file,) = (tmp_path / "temporary").iterdir()
    assert DETAILS.search(err)[1] == str(file)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    code, _, err = run(*COMMAND)
    assert code == 70
    assert err == "error: KeyError: 'surprise'; a fault of ppcls: please report it\n"


def test_errors_of_the_user_leave_no_file(home, run):
    code, _, err = run("train", "-c", "nothing.yaml")
    assert code == 2
    assert "details" not in err
    assert not home.exists()


def test_public_functions_say_it_with_its_cause(home, workdir):
    deep = "x/" * 3000
    with pytest.raises(UserError, match="File name too long"):
        ppcls.Predictor("y" * 300)
    with pytest.raises(UserError):
        ppcls.Predictor(deep)
    with pytest.raises(UserError):
        ppcls.Predictor("a\0b")
    with pytest.raises(UserError):
        ppcls.create_model("ResNet18", weights="a\0b.pth")
    with pytest.raises(UserError) as caught:
        ppcls.create_model("ResNet18", weights="z" * 300 + ".pdparams")
    assert len(str(caught.value)) < 2000


# --------------------------------------------------------------------------- streams and signals


def shell(script, folder, **variables):
    program = f"{sys.executable} -m ppcls"
    given = {**os.environ, "PYTHONPATH": str(ROOT), "PPCLS": program, **variables}
    command = ["bash", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=given, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "script",
    [
        "$PPCLS train -c nothing.yaml 2> >(exec 0<&-; exit) ; echo $?",
        "$PPCLS train -c nothing.yaml 2>&- ; echo $?",
        "$PPCLS train -c nothing.yaml >&- 2>/dev/null; echo $? >&2",
        "$PPCLS train -c nothing.yaml 2>/dev/full; echo $?",
    ],
)
def test_no_reader_of_errors(tmp_path, script):
    done = shell(script, tmp_path)
    assert (done.stdout + done.stderr).strip() == "2"


def test_no_reader_of_answers(tmp_path):
    done = shell("$PPCLS models | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert done.stdout.splitlines()[-1] == "0"
    assert not done.stderr
    done = shell("$PPCLS models --names >&-; echo $? >&2", tmp_path)
    assert done.stderr == "0\n"


@pytest.mark.parametrize(
    ("stub", "ends", "words"),
    [
        ("raise KeyboardInterrupt", 130, ""),
        ("import nowhere", 1, "error: ppcls cannot be started, a package is missing or broken: No"),
    ],
)
def test_an_end_while_it_is_being_imported(tmp_path, stub, ends, words):
    (tmp_path / "argparse.py").write_text(stub)
    tool, stubs = str(ROOT / "tools/train.py"), str(tmp_path)
    code = f"import runpy, sys; sys.argv = ['train']; sys.path.insert(0, {stubs!r}); "
    code += f"runpy.run_path({tool!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ends
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(words)

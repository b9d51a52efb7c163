"""A full disk is one line, and what was there before is there still."""

import resource
import subprocess
from pathlib import Path

import pytest

from ppcls.train.heartbeat import FILE

TRAIN = ("train", "-c", "recipe.yaml")


@pytest.fixture
def disk(workdir):
    """Mounts a file system of a given size as `disk`."""
    place = workdir / "disk"
    place.mkdir()
    mounted = []

    def mount(size):
        how = f"remount,size={size}" if mounted else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(size)

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_files(monkeypatch):
    """No file can be longer than a size, from now on: the limit itself ends no process here."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def contents(folder):
    """All but the heartbeat, which is the last process's, whatever came of it."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != FILE}


def failed(run, *command):
    code, _, err = run(*command)
    assert code == 2, err
    assert len(err.splitlines()) == 1, err
    assert any(word in err for word in ("No space left", "room", "File too large")), err
    return err


def test_new_data_and_a_new_run(disk, workdir, run):
    disk("300k")
    assert "disk/digits" in failed(run, "data", "digits", "--to", "disk/digits")
    assert "output: disk/run has room for" in failed(run, *TRAIN, "-o", "output=disk/run")
    assert list(Path("disk").iterdir()) == []


@pytest.mark.slow
def test_an_export(disk, exported, workdir, run):
    disk("20m")
    export = ("export", "-c", "recipe.yaml", "--output", "disk/small")
    assert run(*export)[0] == 0
    before = contents("disk")
    assert "disk/small" in failed(run, *export)
    assert contents("disk") == before
    if "paddle2onnx" not in failed(run, *export, "--format", "onnx"):  # where it is installed
        assert contents("disk") == before


def test_a_run_that_would_replace_another(trained, workdir, run, small_files):
    before = contents("runs")
    small_files(1_000_000)
    assert "runs/small/" in failed(run, *TRAIN, "--overwrite")
    assert contents("runs") == before


def test_a_run_that_goes_on(trained, workdir, run, small_files):
    log = Path("runs/small/run.jsonl")
    log.write_text(log.read_text() + "\n" * 20_000)  # longer than the files beside it
    before = contents("runs")
    small_files(log.stat().st_size + 30)
    assert "run.jsonl" in failed(run, *TRAIN, "--resume", "-o", "train.epochs=3")
    kept = {path: data for path, data in before.items() if path.suffix == ".safetensors"}
    assert kept.items() <= contents("runs").items()
    assert log.read_bytes().startswith(before[log])
    small_files(resource.RLIM_INFINITY)
    assert run(*TRAIN, "--resume", "-o", "train.epochs=3")[0] == 0


def test_pictures_and_reports(trained, workdir, run, small_files):
    assert run("show-data", "-c", "recipe.yaml", "--output", "sheet.png")[0] == 0
    report = ("eval", "-c", "recipe.yaml", "--report", "report")
    assert run(*report)[0] == 0
    before = contents(".")
    small_files(4_000)
    again = ("show-data", "-c", "recipe.yaml", "--output", "sheet.png", "--overwrite")
    assert "sheet.png" in failed(run, *again)
    assert "--report report" in failed(run, *report)
    assert contents(".") == before

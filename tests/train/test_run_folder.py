"""A run's folder belongs to one run at a time, and an old run is there until a new one is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from photos import write_photo

from ppcls.train.heartbeat import FILE
from ppcls.utils.log import read_records

TRAIN = ("train", "-c", "recipe.yaml")
LONG = ("-o", "train.epochs=1000", "train.save_every=1000 epochs", "eval.every=1000")


def start(*arguments, **how):
    command = [sys.executable, "-m", "ppcls", *arguments]
    own = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=own, start_new_session=True, **pipes, **how)


def wait_for(process, words):
    """Read what a process says until the words come."""
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(process.stderr.read())


def contents(folder):
    """All but the heartbeat, which is the last process's, whatever came of it."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != FILE}


def test_a_second_run_is_told_who_is_there_and_a_hangup_saves(workdir, run):
    process = start(*TRAIN, *LONG)
    wait_for(process, "writing to runs/small")
    for option in ([], ["--overwrite"], ["--resume"]):
        code, _, err = run(*TRAIN, *option)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert f"output: runs/small: process {process.pid} on " in err
        assert "since 20" in err
        assert "-o output=FOLDER" in err
    wait_for(process, "to train")  # after some steps
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert "saved runs/small/latest.safetensors" in out
    assert not Path("runs/small/.lock").exists()
    assert run(*TRAIN)[0] == 2  # the folder holds a run


def test_what_a_killed_run_leaves_hinders_nobody(trained, workdir, run):
    before = contents("runs/small")
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}  # as nohup
    process = start(*TRAIN, "--overwrite", *LONG, **ignoring)
    wait_for(process, "writing to runs/small")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "to train")  # it goes on
    code, _, err = run("eval", "-c", "recipe.yaml")  # with the old run's weights
    assert code == 0, err
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert Path("runs/small/.lock").exists()
    code, out, _ = run(*TRAIN)
    assert code == 2
    assert "the earlier run is back" in out
    assert contents("runs/small") == before


FAILING = {
    "no images": ("data.train=away",),
    "no weights": ("model.weights=away.safetensors",),
    "too large a batch": ("train.batch_size=1000",),
    "ops that do not fit": ("train.transforms=[{op: horizontal_flip}]",),
    "another network's weights": ("model.weights=other.npz",),
    "no numbers": ("train.schedule={lr: 1e30}", "train.epochs=50"),
}


@pytest.mark.parametrize("case", [*FAILING, "broken image", "no folder of one's own"])
def test_a_new_run_that_fails_leaves_the_old_one(trained, workdir, run, case):
    (workdir / "other.npz").write_bytes(b"none")
    before = contents("runs/small")
    if case == "broken image":
        for path in (workdir / "photos/train").rglob("*.png"):
            path.write_bytes(b"none")
    given = FAILING.get(case, ("train.epochs=1",))
    if case == "no folder of one's own":
        given = ("output=recipe.yaml",)
    code, _, err = run(*TRAIN, "--overwrite", "-o", "train.save_every=100 epochs", *given)
    assert code == 2
    assert len(err.splitlines()) == 1
    left = ("not_finite.txt", "not_finite.npz")  # what the message speaks of
    after = {path: data for path, data in contents("runs/small").items() if path.name not in left}
    assert after == before


def test_a_new_run_that_goes_well_leaves_nothing_of_the_old_one(trained, workdir, run):
    assert run(*TRAIN, "--overwrite", "-o", "train.keep=2", "train.save_every=1 steps")[0] == 0
    Path("runs/small/skipped.txt").write_text("of the old run")
    given = ("train.keep=1", "eval.every=5", "train.epochs=1", "data.eval=null")
    assert run(*TRAIN, "--overwrite", "-o", *given)[0] == 0
    found = sorted(path.name for path in Path("runs/small").iterdir())
    new = [
        "curves.png",
        "heartbeat",
        "latest.safetensors",
        "recipe.yml",
        "run.jsonl",
        "step-00000003.safetensors",
    ]
    assert [name for name in found if name != "vdl"] == new
    assert [r["step"] for r in read_records(Path("runs/small/run.jsonl"))] == [1, 2, 3]


def test_a_failed_first_run_leaves_no_folder(workdir, run):
    assert run(*TRAIN, "-o", "data.train=away", "output=new/run")[0] == 2
    assert not Path("new").exists()


def test_both_flags_at_once_are_refused(trained, workdir, capsys, run):
    with pytest.raises(SystemExit) as end:
        run(*TRAIN, "--resume", "--overwrite")
    assert end.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


SLOW = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
@pytest.mark.parametrize("command", ["train", pytest.param("eval", marks=SLOW)])
def test_signals_while_workers_start(trained, workdir, command, number):
    """Everybody in the group gets it, as from a terminal; nobody stays or complains."""
    command = [command, "-c", "recipe.yaml", "-o", "data.workers=2"]
    process = start(*command, "output=runs/new") if "train" in command else start(*command)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:  # the first is the tracker of their resources
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, err = process.communicate()  # returns when the last of them has closed the pipe
    assert "Traceback" not in err
    ends = {130} if "train" in command or number == signal.SIGINT else {-number}
    assert process.returncode in ends


def test_counts_that_are_a_slip_of_the_finger(trained, workdir, run):
    before = contents("runs/small")
    commands = (
        [*TRAIN, "--overwrite", "-o", "data.workers=100000"],
        ["eval", "-c", "recipe.yaml", "-o", "data.workers=100000"],
        [*TRAIN, "--overwrite", "--processes", "100000"],
    )
    for command in commands:
        code, _, err = run(*command)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "100000" in err
        assert " at most" in err or "the most" in err
    assert contents("runs/small") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=SLOW)])
def test_a_signal_before_the_first_step_brings_the_old_run_back(trained, workdir, number):
    before = contents("runs/small")
    process = start(*TRAIN, "--overwrite", *LONG)
    wait_for(process, "writing to runs/small")
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "FatalError" not in err
    assert contents("runs/small") == before


PLACES = {
    "photos/train": "photos/train",
    "photos/train/ant/run": "photos/train",
    "photos/eval/run": "photos/eval",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("whole", [False, True])
def test_a_run_among_the_photos_is_refused(workdir, run, place, whole):
    """Where its picture would be an image, and its folder a class."""
    before = contents("photos")
    data = ["data.train=photos", "data.eval=null"] if whole else []
    code, _, err = run(*TRAIN, "-o", f"output={place}", *data)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert f"output: {place} lies among the images of data." in err
    assert PLACES[place] in err
    assert contents("photos") == before


# ------------------------------------------------------------------ going on


def resume(run, *given):
    code, out, err = run(*TRAIN, "--resume", "-o", *given)
    return code, out, err


def test_photos_and_folder_that_moved(trained, workdir, run):
    Path("photos").rename("elsewhere")
    Path("runs/small").rename("kept")
    moved = ("data.train=elsewhere/train", "data.eval=elsewhere/eval", "output=kept")
    code, out, err = resume(run, *moved)
    assert code == 0, err
    assert "data.train: photos/train -> elsewhere/train" in out
    write_photo(Path("elsewhere/train/ant/9.png"), 1)
    code, _, err = resume(run, *moved)
    assert code == 2
    assert "data.train: 12 images" in err


def test_weights_that_it_started_from_may_be_gone(trained, workdir, run):
    started = ("model.weights=start.safetensors", "output=runs/tuned")
    Path("runs/small/best.safetensors").rename("start.safetensors")
    assert run(*TRAIN, "-o", "train.epochs=1", *started)[0] == 0
    Path("start.safetensors").unlink()
    assert resume(run, "train.epochs=1", *started)[0] == 0


def test_a_broken_photo_may_be_skipped_from_then_on(workdir, run):
    Path("photos/train/bee/3.png").write_bytes(b"none")
    single = ("train.batch_size=1", "train.log_every=100")
    code, _, err = run(*TRAIN, "-o", *single)
    assert code == 2
    if "saved" in err:
        code, out, err = resume(run, *single, "data.on_error=skip")
        assert code == 0, err
        assert "data.on_error: stop -> skip" in out


def test_more_epochs_go_on_with_the_schedule_of_the_new_length(trained, finished, workdir, run):
    log = Path("runs/longer/run.jsonl")
    assert run(*TRAIN, "-o", "train.epochs=1", "output=runs/longer")[0] == 0
    before = log.read_bytes()
    code, out, err = resume(run, "train.epochs=2", "output=runs/longer")
    assert code == 0, err
    whole, longer = (
        [r["lr"] for r in read_records(path) if r["event"] == "train"]
        for path in (finished[0] / "runs/small/run.jsonl", log)
    )
    assert longer[3:] == whole[3:]  # of a run of two epochs
    assert longer[:3] != whole[:3]
    assert "train.epochs: 1 -> 2" in out
    assert f"from step 3 with the schedule of 2 epochs, now at learning rate {whole[3]:.3g}" in out
    assert log.read_bytes().startswith(before)
    assert "epochs: 2" in Path("runs/longer/recipe.yml").read_text()
    files = contents("runs/longer")
    code, _, err = resume(run, "train.epochs=1", "output=runs/longer")
    assert code == 2
    assert "train.epochs: the run has done 2 of 2 epochs" in err
    assert contents("runs/longer") == files


@pytest.mark.parametrize(
    ("given", "advised"),
    [
        (["model.name=ResNet34_vd"], ["output=runs/new"]),
        (
            ["train.clip_norm=1"],
            ["model.weights=runs/small/latest.safetensors", "output=runs/new"],
        ),
    ],
)
def test_what_is_advised_where_a_run_cannot_go_on_works(trained, workdir, run, given, advised):
    code, _, err = resume(run, *given)
    assert code == 2
    words = err.partition("with -o ")[2].split()
    assert words == [word.replace("runs/new", "FOLDER") for word in advised]
    code, _, err = run(*TRAIN, "-o", "train.epochs=1", *given, *advised)
    assert code == 0, err


def test_the_advice_for_other_classes_works(trained, workdir, run):
    write_photo(Path("photos/train/wasp/1.png"), 1)
    given = ("model.num_classes=3",)
    code, _, err = resume(run, *given)
    assert code == 2
    words = err.partition("with -o ")[2].replace("FOLDER", "runs/new").split()
    assert "model.new_head=true" in words
    assert run(*TRAIN, "-o", "train.epochs=1", *given, *words)[0] == 0
